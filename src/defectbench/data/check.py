"""All that is wrong with a data set, at once, before anything is imported."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path

from defectbench.data.copies import Copies, find_pairs, judge_copies
from defectbench.data.frames import PictureFrame
from defectbench.data.groups import Groups, unite
from defectbench.data.intensity import AUTO, choose
from defectbench.data.layouts.base import DatasetReading, Source
from defectbench.data.layouts.cutting import cut_goods
from defectbench.data.layouts.labels import fold
from defectbench.data.layouts.walk import shown
from defectbench.data.limits import check_names, check_sizes, mixed_groups
from defectbench.data.manifest import GOOD, Part
from defectbench.data.mask_checks import Flat, Marked, check_inversion, check_missing, check_parts
from defectbench.data.names import is_name
from defectbench.data.opened import Fact, Opened, open_source
from defectbench.data.orientation import MVTEC_AD
from defectbench.data.parallel import in_threads
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.resolution import check_notes
from defectbench.data.shortcut import Looks, Shortcut, discriminate
from defectbench.util.image_io import FULL, Intensity


@dataclass(frozen=True, slots=True)
class CategoryCounts:
    """How many pictures a category has.

    Attributes:
        defects: of the test part, by type.
        masks: of those.
        train_defects: that classifiers learn and nobody tests, because goods of their groups train.
    """

    category: str
    train_good: int
    test_good: int
    defects: Mapping[str, int]
    masks: int
    uncertain: int = 0
    train_defects: int = 0


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
        groups: picture file -> name of its group, in its category; those in a group alone.
        left_out: training pictures that are not imported, because the test part has others of their group.
        accepted_duplicates: pairs under two labels that are kept because the user says so.
        intensity: the scale of grey of more than 8 bits.
        widths: category -> of each defect with a mask, its width as a share of the picture's; sorted.
    """

    reading: DatasetReading
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    counts: tuple[CategoryCounts, ...]
    facts: Mapping[Path, Fact]
    shortcuts: Mapping[str, Shortcut]
    groups: Mapping[Path, str] = field(default_factory=dict)
    left_out: frozenset[Path] = frozenset()
    accepted_duplicates: tuple[tuple[Path, Path], ...] = ()
    intensity: Intensity = FULL
    widths: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def check(
    reading: DatasetReading,
    progress: ProgressCallback = no_progress,
    intensity: str = AUTO,
    *,
    accept_duplicates: bool = False,
) -> CheckReport:
    """Open every picture and mask and return all problems and notes.

    Args:
        intensity: ``auto`` or ``window:LOW,HIGH``: the scale of grey of more than 8 bits.
        accept_duplicates: copies of one picture under two labels are a note and no problem.

    Raises:
        UsageError: ``intensity`` is neither.
    """
    scale = choose([source.file for source in (*reading.sources, *reading.uncertain)], intensity, progress)
    problems, notes = [*reading.problems, *scale.problems], [*reading.notes, *scale.notes]
    problems += check_names(reading.categories, (*reading.sources, *reading.uncertain))
    if not is_name(reading.root.name):
        notes.append(f"the folder's name {reading.root.name!r} cannot name a data set: import it with --name")
    open_one = partial(open_source, intensity=scale.intensity)
    found: dict[str, _Category] = {}
    done, number = 0, len(reading.sources) + len(reading.uncertain)
    for category in reading.categories:
        own = found[category] = _Category(
            category,
            tuple(source for source in reading.sources if source.category == category),
            tuple(source for source in reading.uncertain if source.category == category),
        )
        for source, opened in zip(own.all, in_threads(open_one, own.all), strict=True):
            own.add(source, opened)
            done += 1
            progress("checking pictures", done, number)
        own.conclude(reading, progress, scale.intensity, accept_duplicates)
        problems += own.problems
        notes += own.notes
    cut = sorted((s for own in found.values() for s in own.sources), key=lambda s: (s.category, s.path))
    reading = replace(reading, sources=tuple(cut))
    left_out = frozenset(file for own in found.values() for file in own.groups.left_out)
    counts = tuple(_counts(reading, category, left_out) for category in reading.categories)
    problems += [f"{mask}: a mask without a picture" for mask in reading.spare_masks]
    notes += _published(reading, counts)
    return CheckReport(
        reading,
        tuple(map(shown, problems)),
        tuple(map(shown, notes)),
        counts,
        {file: fact for own in found.values() for file, fact in own.facts.items()},
        {category: own.shortcut for category, own in found.items() if own.shortcut is not None},
        {file: name for own in found.values() for file, name in own.groups.names.items()},
        left_out,
        tuple(pair for own in found.values() for pair in own.copies.accepted),
        scale.intensity,
        {category: own.widths for category, own in found.items()},
    )


@dataclass(slots=True)
class _Category:
    """What a check gathers of one category, picture by picture, and what follows of it."""

    name: str
    sources: tuple[Source, ...]
    uncertain: tuple[Source, ...] = ()
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[Path, Fact] = field(default_factory=dict)
    frames: dict[Path, PictureFrame] = field(default_factory=dict)
    looks: dict[Path, Looks] = field(default_factory=dict)
    marked: dict[Path, Marked] = field(default_factory=dict)
    flat: dict[Source, Flat] = field(default_factory=dict)
    copies: Copies = field(default_factory=Copies)
    groups: Groups = field(default_factory=Groups)
    shortcut: Shortcut | None = None

    @property
    def all(self) -> tuple[Source, ...]:
        """Its pictures, uncertain ones last."""
        return (*self.sources, *self.uncertain)

    def add(self, source: Source, opened: Opened) -> None:
        """Put what was taken from a picture into the collections."""
        self.problems += opened.problems
        if opened.fact is None or opened.frame is None:
            return
        self.facts[source.file], self.frames[source.file] = opened.fact, opened.frame
        if opened.looks is not None:
            self.looks[source.file] = opened.looks
        if opened.flat is not None:
            self.flat[source] = opened.flat
        if opened.marked is not None:
            self.marked[source.file] = opened.marked

    def _read(self) -> list[Source]:
        return [source for source in self.all if source.file in self.frames]

    def _cut_again(self, share: float | None) -> None:
        """Cut goods of one set into training and test part so that groups of copies stay whole too."""
        names = self.groups.names
        whole = [replace(source, group=names.get(source.file)) for source in self.sources]
        groups = {source.file: source.group for source in self.sources}
        self.sources = tuple(replace(s, group=groups[s.file]) for s in cut_goods(whole, share))

    def conclude(
        self,
        reading: DatasetReading,
        progress: ProgressCallback,
        intensity: Intensity,
        accept_duplicates: bool,
    ) -> None:
        """Compare the pictures with one another, once all are there."""
        pixels = {file: fact.pixels for file, fact in self.facts.items()}
        pairs = find_pairs(self._read(), pixels, self.frames, progress, intensity)
        self.copies = judge_copies(self._read(), pairs, accept=accept_duplicates)
        self.groups = unite(self.all, self.copies)
        if reading.cut_goods and self.groups.left_out:
            self._cut_again(reading.test_goods)
            self.copies = judge_copies(self._read(), pairs, accept=accept_duplicates)
            self.groups = unite(self.all, self.copies)
        self.problems += [*_names(self.all), *_twins(self.all)]
        for problems, notes in (
            check_sizes(self.name, self._kept(), self.groups.names),
            ((), mixed_groups(self.name, self._kept(), self.groups.names)),
            check_missing(self.name, self.sources, reading.root),
            check_inversion(self.name, self.sources, self.marked),
            check_parts(self.name, self.flat, len(self.frames)),
            (self.copies.problems, self.copies.notes),
            ((), self.groups.notes),
        ):
            self.problems += problems
            self.notes += notes
        self.notes += _uncommon(self.name, self.all, self.facts)
        sizes = [(fact.width, fact.height) for fact in self.facts.values()]
        self.notes += check_notes(self.name, sizes, self.widths)
        self.shortcut = discriminate(*(self._looks(part) for part in ("train", "test")))
        if self.shortcut is not None and self.shortcut.suspicious:
            self.notes.append(f"{self.name}: {self.shortcut.warning}")

    @property
    def widths(self) -> tuple[float, ...]:
        """Of each defect with a mask, its width as a share of the picture's; sorted."""
        return tuple(sorted(marked.width for marked in self.marked.values()))

    def _looks(self, part: Part) -> list[Looks]:
        """Return the looks of a part's goods."""
        own = (source.file for source in self.sources if source.part == part and source.label == "good")
        return [self.looks[file] for file in own if file in self.looks]

    def _kept(self) -> list[Source]:
        """Return the pictures that are not left out; all, where none to train on were kept."""
        kept = [source for source in self.sources if source.file not in self.groups.left_out]
        return kept if any(source.part == "train" for source in kept) else list(self.sources)


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


def _uncommon(category: str, sources: Sequence[Source], facts: Mapping[Path, Fact]) -> Iterator[str]:
    found: dict[str, list[Path]] = defaultdict(list)
    for source in sources:
        for text in facts[source.file].traits if source.file in facts else ():
            found[text].append(source.file)
    for text, paths in found.items():
        yield f"{category}: {len(paths)} pictures are {text}; the first is {paths[0]}"


def _counts(reading: DatasetReading, category: str, left_out: Collection[Path]) -> CategoryCounts:
    own = [s for s in reading.sources if s.category == category and s.file not in left_out]
    bad = [source for source in own if source.part == "test" and source.label == "bad"]
    return CategoryCounts(
        category,
        train_good=sum(source.part == "train" and source.label == "good" for source in own),
        train_defects=sum(source.part == "train" and source.label == "bad" for source in own),
        test_good=sum(source.part == "test" and source.defect_type == GOOD for source in own),
        defects=dict(sorted(Counter(source.defect_type for source in bad).items())),
        masks=sum(bool(source.masks) for source in bad),
        uncertain=sum(source.category == category for source in reading.uncertain),
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
