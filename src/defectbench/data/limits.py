"""What later commands demand of a data set: names that they can use, and pictures enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from defectbench.data.layouts.base import Source
from defectbench.data.layouts.labels import fold
from defectbench.data.names import NAME_RULE, is_name
from defectbench.stores.base import LONGEST_KEY, LONGEST_PART

LEAST_TRAIN, LEAST_FOLDS, USUAL_FOLDS = 2, 3, 4
"""Goods that a fit needs, the least folds of detection, and its folds by default."""


def check_names(categories: Sequence[str], sources: Sequence[Source]) -> Iterator[str]:
    """Yield a problem for each name that a sweep, a store or a file system would refuse."""
    for category in categories:
        if not is_name(category):
            yield f"category {category!r}: {NAME_RULE}; rename the folder"
    yield from _alike("categories", categories)
    types: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        types[source.category].add(source.defect_type)
        yield from _long(source)
    for category, kinds in types.items():
        yield from _alike(f"{category}: defect types", kinds)


def _alike(what: str, names: Iterable[str]) -> Iterator[str]:
    """Yield a problem for names that differ in case or in the form of their letters alone."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        groups[fold(name)].append(name)
    for twins in groups.values():
        if len(twins) > 1:
            yield f"{what} {' and '.join(map(repr, twins))} differ in case or letter form alone; rename one"


def _long(source: Source) -> Iterator[str]:
    for path in (source.path, source.mask_path):
        longest = max(len(name.encode(errors="surrogateescape")) for name in path.split("/"))
        if longest > LONGEST_PART or len(path.encode(errors="surrogateescape")) > LONGEST_KEY // 2:
            yield (
                f"{source.file}: its name in the archive, {path[:40]!r}..., is {longest} bytes long; at most "
                f"{LONGEST_PART} between slashes and {LONGEST_KEY // 2} in all; shorten the file's or its "
                "folders' names"
            )
            return


def mixed_groups(category: str, sources: Sequence[Source], groups: Mapping[Path, str]) -> Iterator[str]:
    """Yield a note where defects are learnt and never tested, because goods of their groups train."""
    learnt = [source for source in sources if source.part == "train" and source.label == "bad"]
    if learnt:
        units = {groups[source.file] for source in learnt if source.file in groups}
        yield (
            f"{category}: most goods share a group with a defect, so such groups are cut whole; of the "
            f"{len(units)} that train, {len(learnt)} defects can be learnt and none is tested; --test-goods "
            "SHARE says how many groups are tested"
        )


@dataclass(frozen=True, slots=True)
class _Share:
    """The pictures of a kind, and the groups that they stay together in; a picture without one is its own."""

    where: str
    kind: str
    pictures: int
    units: int
    least: int

    @property
    def said(self) -> str:
        """How many pictures there are, in how many groups, of what kind and where."""
        pictures = (
            f"{self.pictures or 'no'} {self.kind} picture{'s' if self.pictures > 1 else ''} {self.where}"
        )
        if self.units == self.pictures:
            return pictures
        return f"{pictures} in {self.units} group{'s' if self.units > 1 else ''}, which stay whole"


def check_sizes(
    category: str, sources: Sequence[Source], groups: Mapping[Path, str]
) -> tuple[list[str], list[str]]:
    """Return problems where the detection protocol refuses the category, notes where its default does.

    Args:
        groups: picture file -> its group: groups are never cut, so they are counted.
    """
    train = [source for source in sources if source.part == "train" and source.label == "good"]
    goods = [source for source in sources if source.part == "test" and source.label == "good"]
    bads = [source for source in sources if source.part == "test" and source.label == "bad"]
    shares = [
        _Share(where, kind, len(own), len({groups.get(s.file, s.file) for s in own}), least)
        for where, kind, own, least in (
            ("to train on", "good", train, LEAST_TRAIN),
            ("in the test part", "good", goods, LEAST_FOLDS),
            ("in the test part", "defective", bads, LEAST_FOLDS),
        )
    ]
    problems = [
        f"{category}: {share.said}"
        + (f"; the detection protocol needs at least {share.least}" if share.pictures else "")
        + (", in groups of their own" if share.units < share.least <= share.pictures else "")
        for share in shares
        if share.units < share.least
    ]
    notes = [
        f"{category}: {share.said}: detection's {USUAL_FOLDS} folds need {USUAL_FOLDS}; "
        f"set folds: {LEAST_FOLDS}"
        for share in shares
        if share.least == LEAST_FOLDS <= share.units < USUAL_FOLDS
    ]
    return problems, notes
