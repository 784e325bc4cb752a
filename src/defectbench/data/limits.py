"""What later commands demand of a data set: names that they can use, and pictures enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from defectbench.data.layouts.base import Source
from defectbench.data.layouts.labels import fold
from defectbench.data.manifest import GOOD
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


def check_sizes(category: str, sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """Return problems where the detection protocol refuses the category, notes where its default does."""
    train = sum(source.part == "train" for source in sources)
    goods = sum(source.part == "test" and source.defect_type == GOOD for source in sources)
    bads = sum(source.defect_type != GOOD for source in sources)
    counts = (
        ("to train on", "good", train, LEAST_TRAIN),
        ("in the test part", "good", goods, LEAST_FOLDS),
        ("in the test part", "defective", bads, LEAST_FOLDS),
    )
    problems = [
        f"{category}: {_pictures(number, kind)} {where}"
        + (f"; the detection protocol needs at least {least}" if number else "")
        for where, kind, number, least in counts
        if number < least
    ]
    notes = [
        f"{category}: {_pictures(number, kind)} {where}: detection's {USUAL_FOLDS} folds need "
        f"{USUAL_FOLDS}; set folds: {LEAST_FOLDS}"
        for where, kind, number, least in counts
        if least == LEAST_FOLDS <= number < USUAL_FOLDS
    ]
    return problems, notes


def _pictures(number: int, kind: str) -> str:
    return f"{number or 'no'} {kind} picture{'s' if number > 1 else ''}"
