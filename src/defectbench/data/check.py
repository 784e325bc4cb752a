"""All that is wrong with a data set, at once, before anything is imported."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.data import Step, silent
from defectbench.data.copies import Copies, find_copies
from defectbench.data.duplicates import Frame, frame
from defectbench.data.layouts import Reading, Source
from defectbench.data.parallel import in_threads
from defectbench.data.shortcut import Looks, Shortcut, discriminate, looks
from defectbench.errors import DataError
from defectbench.manifest import GOOD
from defectbench.pictures import read_mask_values, read_picture, traits


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
class Counts:
    """How many pictures a category has; ``defects`` by type, ``masks`` of abnormal pictures."""

    category: str
    train_good: int
    test_good: int
    defects: Mapping[str, int]
    masks: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        reading: what was checked.
        problems: what forbids an import, one line each, naming its file.
        notes: what a user should know, one line each.
        counts: one for each category.
        facts: picture file -> what it holds, for those that can be read.
        shortcuts: category -> how well looks alone tell train/good from test/good; those that can be told.
        groups: picture file -> name of its group of copies, in its category; those in a group alone.
        left_out: training pictures that are not imported, because the test part has a copy.
        accepted_duplicates: pairs under two labels that are kept because the user says so.
    """

    reading: Reading
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    counts: tuple[Counts, ...]
    facts: Mapping[Path, Fact]
    shortcuts: Mapping[str, Shortcut]
    groups: Mapping[Path, str] = field(default_factory=dict)
    left_out: frozenset[Path] = frozenset()
    accepted_duplicates: tuple[tuple[Path, Path], ...] = ()


def check(reading: Reading, progress: Step = silent, *, accept_duplicates: bool = False) -> Report:
    """Open every picture and mask and return all problems and notes.

    Args:
        accept_duplicates: copies of one picture under two labels are a note and no problem.
    """
    problems, notes = [*reading.problems], [*reading.notes]
    facts: dict[Path, Fact] = {}
    shortcuts: dict[str, Shortcut] = {}
    copies: list[Copies] = []
    done = 0
    for category in reading.categories:
        sources = [source for source in reading.sources if source.category == category]
        frames: dict[Path, Frame] = {}
        seen: dict[str, list[Looks]] = {"train": [], "test": []}
        for source, opened in zip(sources, in_threads(_opened, sources), strict=True):
            problems += _read(source, opened, facts, frames, seen)
            done += 1
            progress(f"checking {category}", done, len(reading.sources))
        problems += [*_names(sources), *_twins(sources), *_missing_parts(category, sources)]
        mask_problems, mask_notes = _masks(category, sources)
        pixels = {file: fact.pixels for file, fact in facts.items()}
        found = find_copies(sources, pixels, frames, progress, accept=accept_duplicates)
        copies.append(found)
        problems += [*mask_problems, *found.problems]
        notes += [*mask_notes, *found.notes, *_uncommon(category, sources, facts)]
        told = discriminate(seen["train"], seen["test"])
        if told is not None:
            shortcuts[category] = told
            notes += [f"{category}: {told.warning}"] if told.suspicious else []
    left_out = frozenset(file for found in copies for file in found.left_out)
    counts = tuple(_counts(reading, category, left_out) for category in reading.categories)
    problems += [f"{mask}: a mask without a picture" for mask in reading.spare_masks]
    notes += _published(reading, counts)
    return Report(
        reading,
        tuple(problems),
        tuple(notes),
        counts,
        facts,
        shortcuts,
        {file: name for found in copies for file, name in found.groups.items()},
        left_out,
        tuple(pair for found in copies for pair in found.accepted),
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """What was taken from a picture's file, or the problems that it has."""

    problems: tuple[str, ...] = ()
    fact: Fact | None = None
    frame: Frame | None = None
    looks: Looks | None = None


def _opened(source: Source) -> _Opened:
    """Decode the picture; the work of a thread."""
    try:
        data = source.file.read_bytes()
        picture = read_picture(data, str(source.file))
    except DataError as error:
        return _Opened(tuple(error.problems))
    except OSError as error:
        return _Opened((f"{source.file}: cannot be read ({error.strerror})",))
    height, width = picture.shape[:2]
    pixels = hashlib.sha256(f"{width} {height} ".encode() + picture.tobytes()).hexdigest()
    fact = Fact(hashlib.sha256(data).hexdigest(), pixels, width, height, traits(data))
    return _Opened((), fact, frame(picture), looks(picture) if source.defect_type == GOOD else None)


def _read(
    source: Source,
    opened: _Opened,
    facts: dict[Path, Fact],
    frames: dict[Path, Frame],
    seen: dict[str, list[Looks]],
) -> Iterator[str]:
    """Put what was taken from the picture into the three collections; yield its problems and its mask's."""
    yield from opened.problems
    if opened.fact is None or opened.frame is None:
        return
    facts[source.file], frames[source.file] = opened.fact, opened.frame
    if opened.looks is not None:
        seen[source.part].append(opened.looks)
    if source.mask:
        yield from _mask_faults(source, source.mask, (opened.fact.height, opened.fact.width))


def _mask_faults(source: Source, mask: Path, size: tuple[int, int]) -> Iterator[str]:
    try:
        values = read_mask_values(mask)
    except DataError as error:
        yield from error.problems
        return
    if values.shape != size:
        (height, width), shown = values.shape, f"{size[1]} x {size[0]}"
        hint = ", as the file without its EXIF turn; turn the mask" if values.shape == size[::-1] else ""
        yield f"{mask}: {width} x {height}, but {source.file.name} is shown at {shown}{hint}"
    if source.defect_type == GOOD:
        if values.any():
            yield f"{mask}: marks a defect in a picture that is called good"
    elif not values.any():
        yield f"{mask}: marks nothing, but {source.file.name} is called {source.defect_type}"
    elif not _is_binary(values):
        found = np.unique(values)
        yield f"{mask}: not binary: {len(found)} values from {found[0]} to {found[-1]}; save it as 0 and 255"


def _is_binary(values: NDArray[np.int64]) -> bool:
    """0 and one other value; or 0 and small numbers, each a kind of defect, as VisA has them."""
    found = np.unique(values)
    return len(found) <= 2 or bool(found[-1] < 32)


def _names(sources: Sequence[Source]) -> Iterator[str]:
    for source in sources:
        name = source.path
        if not name.isprintable() or "\\" in name:
            yield f"{str(source.file)!r}: backslash, control or undecodable characters in the name; rename it"


def _twins(sources: Sequence[Source]) -> Iterator[str]:
    """Yield a problem for files that would get one id."""
    by_id: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_id[source.id].append(source)
    for name, twins in by_id.items():
        if len(twins) > 1:
            listed = ", ".join(str(twin.file) for twin in twins)
            yield f"{twins[0].category}: several files would have the id {name!r}: {listed}; rename them"


def _missing_parts(category: str, sources: Sequence[Source]) -> Iterator[str]:
    parts = Counter((source.part, source.defect_type == GOOD) for source in sources)
    if not parts["train", True]:
        yield f"{category}: no good picture to train on"
    if not parts["test", True]:
        yield f"{category}: no good picture in the test part"
    if not parts["test", False]:
        yield f"{category}: no defective picture in the test part"


def _masks(category: str, sources: Sequence[Source]) -> tuple[list[str], list[str]]:
    """Return problems and notes about masks that are not there."""
    bad = [source for source in sources if source.defect_type != GOOD]
    bare = [source for source in bad if source.mask is None]
    if bad and len(bare) == len(bad):
        return [], [f"{category}: no masks, so the explanation cannot be measured"]
    return [f"{s.file}: its mask is missing; looked for {s.mask_path}" for s in bare], []


def _uncommon(category: str, sources: Sequence[Source], facts: Mapping[Path, Fact]) -> Iterator[str]:
    found: dict[str, list[Path]] = defaultdict(list)
    for source in sources:
        for text in facts[source.file].traits if source.file in facts else ():
            found[text].append(source.file)
    for text, paths in found.items():
        yield f"{category}: {len(paths)} pictures are {text}; the first is {paths[0]}"


def _counts(reading: Reading, category: str, left_out: Collection[Path]) -> Counts:
    own = [s for s in reading.sources if s.category == category and s.file not in left_out]
    bad = [source for source in own if source.defect_type != GOOD]
    return Counts(
        category,
        train_good=sum(source.part == "train" for source in own),
        test_good=sum(source.part == "test" and source.defect_type == GOOD for source in own),
        defects=dict(sorted(Counter(source.defect_type for source in bad).items())),
        masks=sum(source.mask is not None for source in bad),
    )


def published_counts() -> dict[str, tuple[int, int, int]]:
    """Return MVTec AD's published counts: category -> training goods, test goods, test defects."""
    text = files("defectbench.data").joinpath("mvtec_counts.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    columns = ("train_good", "test_good", "test_defective")
    return {
        row["category"]: (int(row[columns[0]]), int(row[columns[1]]), int(row[columns[2]])) for row in rows
    }


def _published(reading: Reading, counts: Sequence[Counts]) -> Iterator[str]:
    """Yield a note for each category that bears a name of MVTec AD but has other counts."""
    published = published_counts()
    named = [one for one in counts if reading.layout == "mvtec" and one.category in published]
    for one in named:
        got = (one.train_good, one.test_good, sum(one.defects.values()))
        if got != published[one.category]:
            yield f"{one.category}: {_triple(got)}; MVTec AD's has {_triple(published[one.category])}"
    if any((c.train_good, c.test_good, sum(c.defects.values())) == published[c.category] for c in named):
        yield "MVTec AD is licensed CC BY-NC-SA 4.0: not for commercial use"


def _triple(counts: tuple[int, int, int]) -> str:
    return f"{counts[0]} training goods, {counts[1]} test goods, {counts[2]} test defects"
