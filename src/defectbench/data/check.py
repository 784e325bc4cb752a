"""All that is wrong with a data set, at once, before anything is imported."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.data.duplicates import frame, near_duplicates
from defectbench.data.layouts.base import DatasetReading, Source
from defectbench.data.layouts.labels import fold
from defectbench.data.layouts.walk import shown
from defectbench.data.limits import check_names, check_sizes
from defectbench.data.manifest import GOOD
from defectbench.data.mask_checks import (
    Flat,
    Marked,
    check_inversion,
    check_masks,
    check_missing,
    check_parts,
    looks_flat,
)
from defectbench.data.names import is_name
from defectbench.data.orientation import MVTEC_AD
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.shortcut import Looks, Shortcut, discriminate, looks
from defectbench.errors import DataError
from defectbench.util.image_io import read_picture, traits


@dataclass(frozen=True, slots=True)
class Fact:
    """What a picture's file holds.

    Attributes:
        sha256: of the file.
        pixels: SHA-256 of the decoded pixels and their size: equal for the same picture in two formats.
        width, height: as shown.
        traits: what is uncommon about the file.
    """

    sha256: str
    pixels: str
    width: int
    height: int
    traits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """How many pictures a category has; ``defects`` by type, ``masks`` of abnormal pictures."""

    category: str
    train_good: int
    test_good: int
    defects: Mapping[str, int]
    masks: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        reading: what was checked.
        problems: what forbids an import, one line each, naming its file.
        notes: what a user should know, one line each.
        counts: one for each category.
        facts: picture file -> what it holds, for those that can be read.
        shortcuts: category -> how well looks alone tell train/good from test/good; those that can be told.
    """

    reading: DatasetReading
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    counts: tuple[CategoryCounts, ...]
    facts: Mapping[Path, Fact]
    shortcuts: Mapping[str, Shortcut]


def check(reading: DatasetReading, progress: ProgressCallback = no_progress) -> CheckReport:
    """Open every picture and mask and return all problems and notes."""
    problems, notes = [*reading.problems], [*reading.notes]
    problems += check_names(reading.categories, reading.sources)
    if not is_name(reading.root.name):
        notes.append(f"the folder's name {reading.root.name!r} cannot name a data set: import it with --name")
    facts: dict[Path, Fact] = {}
    shortcuts: dict[str, Shortcut] = {}
    done = 0
    for category in reading.categories:
        sources = [source for source in reading.sources if source.category == category]
        frames: dict[Path, NDArray[np.float32]] = {}
        seen: dict[str, list[Looks]] = {"train": [], "test": []}
        masks = _MaskFacts()
        for source in sources:
            problems += _read(source, facts, frames, seen, masks)
            done += 1
            progress(f"checking {category}", done, len(reading.sources))
        problems += [*_names(sources), *_twins(sources)]
        for found_problems, found_notes in (
            check_sizes(category, sources),
            check_missing(category, sources, reading.root),
            check_inversion(category, sources, masks.marked),
            check_parts(category, masks.flat, len(frames)),
            _identical(sources, facts),
        ):
            problems += found_problems
            notes += found_notes
        problems += _near(sources, facts, frames)
        notes += _uncommon(category, sources, facts)
        told = discriminate(seen["train"], seen["test"])
        if told is not None:
            shortcuts[category] = told
            notes += [f"{category}: {told.warning}"] if told.suspicious else []
    counts = tuple(_counts(reading, category) for category in reading.categories)
    problems += [f"{mask}: a mask without a picture" for mask in reading.spare_masks]
    notes += _published(reading, counts)
    return CheckReport(
        reading, tuple(map(shown, problems)), tuple(map(shown, notes)), counts, facts, shortcuts
    )


@dataclass(slots=True)
class _MaskFacts:
    """How much the masks of a category mark, by picture; and its pictures that look like masks."""

    marked: dict[Path, Marked] = field(default_factory=dict)
    flat: dict[Source, Flat] = field(default_factory=dict)


def _read(
    source: Source,
    facts: dict[Path, Fact],
    frames: dict[Path, NDArray[np.float32]],
    seen: dict[str, list[Looks]],
    masks: _MaskFacts,
) -> Iterator[str]:
    """Decode the picture, note what it holds in the four collections, and yield the problems of it."""
    try:
        data = source.file.read_bytes()
        picture = read_picture(data, str(source.file))
    except DataError as error:
        yield from error.problems
    except OSError as error:
        yield f"{source.file}: cannot be read ({error.strerror})"
    else:
        height, width = picture.shape[:2]
        pixels = hashlib.sha256(f"{width} {height} ".encode() + picture.tobytes()).hexdigest()
        uncommon = traits(data)
        facts[source.file] = Fact(hashlib.sha256(data).hexdigest(), pixels, width, height, uncommon)
        frames[source.file] = frame(picture)
        if source.defect_type == GOOD:
            seen[source.part].append(looks(picture))
        how = looks_flat(picture, deep=any(text.startswith("16-bit") for text in uncommon))
        if how:
            masks.flat[source] = how
        yield from check_masks(source, (height, width), masks.marked)


def _names(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        name = source.path
        if not name.isprintable() or "\\" in name:
            yield f"{str(source.file)!r}: backslash, control or undecodable characters in the name; rename it"


def _twins(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a problem for files that would get one id."""
    by_id: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_id[fold(source.id)].append(source)
    for twins in by_id.values():
        if len(twins) > 1:
            names = sorted({twin.id for twin in twins})
            listed = ", ".join(str(twin.file) for twin in twins)
            alike = " (but for case or letter form)" if len(names) > 1 else ""
            yield (
                f"{twins[0].category}: several files would have the id {names[0]!r}{alike}: {listed}; "
                "rename them"
            )


def _identical(sources: Sequence[Source], facts: Mapping[Path, Fact]) -> tuple[list[str], list[str]]:
    """Return problems and notes about pictures whose pixels are equal.

    Twice in train/good is a note: it weighs a picture double, but none is tested that was learnt.
    """
    groups: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        if source.file in facts:
            groups[facts[source.file].pixels].append(source)
    problems, notes = [], []
    for twins in groups.values():
        category, listed = twins[0].category, ", ".join(str(twin.file) for twin in twins)
        if len({_group(twin) for twin in twins}) > 1:
            problems.append(f"{category}: the same picture in two parts or under two labels: {listed}")
        elif len(twins) > 1 and twins[0].part == "test":
            problems.append(f"{category}: the same picture {len(twins)} times {_in_test(twins)}: {listed}")
        elif len(twins) > 1:
            notes.append(f"{category}: the same picture {len(twins)} times: {listed}")
    return problems, notes


def _near(
    sources: Sequence[Source], facts: Mapping[Path, Fact], frames: Mapping[Path, NDArray[np.float32]]
) -> Iterator[str]:
    """Yield a problem for each pair that shows one exposure, but for those within train/good."""
    read = [source for source in sources if source.file in frames]
    groups = [_group(source) for source in read]
    for pair in near_duplicates([frames[source.file] for source in read], groups, _LABELLED):
        one, two = read[pair.first], read[pair.second]
        where = "in two parts or under two labels" if _group(one) != _group(two) else _in_test((one, two))
        if facts[one.file].pixels != facts[two.file].pixels:
            yield (
                f"{one.file} and {two.file}: nearly the same picture {where} (their detail agrees to "
                f"{pair.score:.2f} of 1): one exposure, saved again, resized, cut or re-lit"
            )


_LABELLED = (("test", True), ("test", False))
"""The groups of which some pictures are learnt or tuned on while others are tested."""


def _group(source: Source) -> tuple[str, bool]:
    return source.part, source.defect_type == GOOD


def _in_test(twins: Sequence[Source]) -> str:
    """Say why one picture may not be in the test part twice, and what to do."""
    kinds = sorted({twin.defect_type for twin in twins})
    named = f", as {' and '.join(kinds)}" if len(kinds) > 1 else ""
    return f"in the test part{named} (learnt or tuned on in one fold, tested in another; keep one)"


def _uncommon(category: str, sources: Sequence[Source], facts: Mapping[Path, Fact]) -> Iterator[str]:
    found: dict[str, list[Path]] = defaultdict(list)
    for source in sources:
        for text in facts[source.file].traits if source.file in facts else ():
            found[text].append(source.file)
    for text, paths in found.items():
        yield f"{category}: {len(paths)} pictures are {text}; the first is {paths[0]}"


def _counts(reading: DatasetReading, category: str) -> CategoryCounts:
    own = [source for source in reading.sources if source.category == category]
    bad = [source for source in own if source.defect_type != GOOD]
    return CategoryCounts(
        category,
        train_good=sum(source.part == "train" for source in own),
        test_good=sum(source.part == "test" and source.defect_type == GOOD for source in own),
        defects=dict(sorted(Counter(source.defect_type for source in bad).items())),
        masks=sum(bool(source.masks) for source in bad),
    )


def published_counts() -> dict[str, tuple[int, int, int]]:
    """Return MVTec AD's published counts: category -> training goods, test goods, test defects."""
    text = files("defectbench.data").joinpath("mvtec_counts.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    columns = ("train_good", "test_good", "test_defective")
    return {
        row["category"]: (int(row[columns[0]]), int(row[columns[1]]), int(row[columns[2]])) for row in rows
    }


_NOT_ROTATED = "; training rotates these parts only with --any-orientation"


def mvtec_categories(report: CheckReport) -> frozenset[str]:
    """Return the categories that are MVTec AD's own: of its layout, names and published counts."""
    published = published_counts()
    return frozenset(
        one.category
        for one in report.counts
        if report.reading.layout == "mvtec" and _triple_of(one) == published.get(one.category)
    )


def _triple_of(counts: CategoryCounts) -> tuple[int, int, int]:
    """Return the numbers that :func:`published_counts` gives."""
    return counts.train_good, counts.test_good, sum(counts.defects.values())


def _published(reading: DatasetReading, counts: Sequence[CategoryCounts]) -> Iterator[str]:
    """Yield a note for each category that bears a name of MVTec AD but has other counts."""
    published = published_counts()
    named = [one for one in counts if reading.layout == "mvtec" and one.category in published]
    for one in named:
        got = _triple_of(one)
        if got != published[one.category]:
            own = _triple(published[one.category])
            rotated = _NOT_ROTATED if one.category in MVTEC_AD else ""
            yield f"{one.category}: {_triple(got)}; MVTec AD's has {own}{rotated}"
    if any(_triple_of(one) == published[one.category] for one in named):
        yield "MVTec AD is licensed CC BY-NC-SA 4.0: not for commercial use"


def _triple(counts: tuple[int, int, int]) -> str:
    return f"{counts[0]} training goods, {counts[1]} test goods, {counts[2]} test defects"
