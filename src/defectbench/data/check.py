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

from defectbench.data import Step, silent
from defectbench.data.duplicates import frame, near_duplicates
from defectbench.data.intensity import AUTO, choose
from defectbench.data.layouts import Reading, Source
from defectbench.data.resolution import check_notes, width_share
from defectbench.data.shortcut import Looks, Shortcut, discriminate, looks
from defectbench.data.unpacked import sha256_of
from defectbench.errors import DataError
from defectbench.manifest import GOOD
from defectbench.pictures import FULL, Intensity, Values, overview, read_mask_values, read_picture, traits


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
        intensity: the scale of grey of more than 8 bits.
        widths: category -> of each defect with a mask, its width as a share of the picture's.
    """

    reading: Reading
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    counts: tuple[Counts, ...]
    facts: Mapping[Path, Fact]
    shortcuts: Mapping[str, Shortcut]
    intensity: Intensity = FULL
    widths: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def check(reading: Reading, progress: Step = silent, intensity: str = AUTO) -> Report:
    """Open every picture and mask and return all problems and notes.

    Args:
        intensity: ``auto`` or ``window:LOW,HIGH``: the scale of grey of more than 8 bits.

    Raises:
        UsageError: ``intensity`` is neither.
    """
    scale = choose([source.file for source in reading.sources], intensity, progress)
    problems, notes = [*reading.problems, *scale.problems], [*reading.notes, *scale.notes]
    facts: dict[Path, Fact] = {}
    shortcuts: dict[str, Shortcut] = {}
    widths: dict[str, tuple[float, ...]] = {}
    done = 0
    for category in reading.categories:
        sources = [source for source in reading.sources if source.category == category]
        frames: dict[Path, NDArray[np.float32]] = {}
        seen: dict[str, list[Looks]] = {"train": [], "test": []}
        shares: list[float] = []
        for source in sources:
            problems += _read(source, facts, frames, seen, shares, scale.intensity)
            done += 1
            progress(f"checking {category}", done, len(reading.sources))
        problems += [*_names(sources), *_twins(sources), *_missing_parts(category, sources)]
        mask_problems, mask_notes = _masks(category, sources)
        same_problems, same_notes = _identical(sources, facts)
        problems += [*mask_problems, *same_problems, *_near(sources, facts, frames)]
        notes += mask_notes + same_notes + [*_uncommon(category, sources, facts)]
        widths[category] = tuple(sorted(shares))
        sizes = [(facts[s.file].width, facts[s.file].height) for s in sources if s.file in facts]
        notes += check_notes(category, sizes, shares)
        told = discriminate(seen["train"], seen["test"])
        if told is not None:
            shortcuts[category] = told
            notes += [f"{category}: {told.warning}"] if told.suspicious else []
    counts = tuple(_counts(reading, category) for category in reading.categories)
    problems += [f"{mask}: a mask without a picture" for mask in reading.spare_masks]
    notes += _published(reading, counts)
    return Report(reading, tuple(problems), tuple(notes), counts, facts, shortcuts, scale.intensity, widths)


def _read(
    source: Source,
    facts: dict[Path, Fact],
    frames: dict[Path, NDArray[np.float32]],
    seen: dict[str, list[Looks]],
    shares: list[float],
    intensity: Intensity,
) -> Iterator[str]:
    """Decode the picture into ``facts``, ``frames`` and, a good one, ``seen``; yield the problems of it.

    The width of a defect goes into ``shares``.
    """
    try:
        digest = sha256_of(source.file)
        picture = read_picture(source.file, intensity=intensity)
    except DataError as error:
        yield from error.problems
    except OSError as error:
        yield f"{source.file}: cannot be read ({error.strerror})"
    else:
        height, width = picture.shape[:2]
        pixels = hashlib.sha256(f"{width} {height} ".encode())
        pixels.update(picture.data)
        facts[source.file] = Fact(digest, pixels.hexdigest(), width, height, traits(source.file, intensity))
        picture = overview(picture)
        frames[source.file] = frame(picture)
        if source.defect_type == GOOD:
            seen[source.part].append(looks(picture))
        if source.mask:
            yield from _mask_faults(source, source.mask, (height, width), shares)


def _mask_faults(source: Source, mask: Path, size: tuple[int, int], shares: list[float]) -> Iterator[str]:
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
    elif (share := width_share(values != 0)) is not None:
        shares.append(share)


def _is_binary(values: Values) -> bool:
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


def _counts(reading: Reading, category: str) -> Counts:
    own = [source for source in reading.sources if source.category == category]
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
