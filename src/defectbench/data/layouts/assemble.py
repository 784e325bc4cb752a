"""From what a layout finds to a reading: masks told and paired, goods cut, every file accounted for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from defectbench.data.layouts.base import (
    Account,
    DatasetReading,
    Draft,
    FileEntry,
    Mask,
    Source,
    Unused,
    mask_file,
)
from defectbench.data.layouts.cutting import LEAST_SHARE, MOST_SHARE, cut_goods
from defectbench.data.layouts.grouping import Grouping, grouped
from defectbench.data.layouts.labels import fold, mask_stems, picture_stems
from defectbench.data.layouts.masks import looks_like_mask, told_masks
from defectbench.data.layouts.outlines import outlined
from defectbench.data.layouts.pairing import MaskCandidate, paired
from defectbench.data.layouts.walk import NO_PICTURE, SEEN, Tree, shown
from defectbench.data.manifest import GOOD, UNCERTAIN
from defectbench.errors import UsageError
from defectbench.util.image_io import is_picture

_LONGEST_JOINT = 16

BORROWED = "read through a link to them"


@dataclass(slots=True)
class _Found:
    """What becomes of the files, category by category."""

    sources: list[Source]
    spare: list[Path] = field(default_factory=list)
    masks: set[Path] = field(default_factory=set)
    unused: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a user says of a data set beside where it lies.

    Attributes:
        grouping: which pictures belong together; None leaves it to the layout.
        test_goods: share of the goods of one set that is tested, 0.05 to 0.9; None for a fifth.

    Raises:
        UsageError: ``test_goods`` is out of range.
    """

    grouping: Grouping | None = None
    test_goods: float | None = None

    def __post_init__(self) -> None:
        if self.test_goods is not None and not LEAST_SHARE <= self.test_goods <= MOST_SHARE:
            raise UsageError(
                f"--test-goods {self.test_goods:g}: give a share from {LEAST_SHARE} to {MOST_SHARE}"
            )


NO_WISHES = Wishes()


def assemble(tree: Tree, layout: str, draft: Draft, wishes: Wishes) -> DatasetReading:
    """Return the reading of a layout's draft.

    Raises:
        UsageError: a share of the goods is to be tested, but the layout says which are.
    """
    if wishes.test_goods is not None and not draft.cut_goods:
        raise UsageError(f"--test-goods: {tree.root} says itself which goods are tested (layout {layout})")
    found = _Found([], unused=dict(draft.unused))
    found.sources += _by_rule(draft.settled, wishes, tree.root)
    entries = _once(tree, _adopted(tree, draft.entries, found), found)
    by_category: dict[str, list[FileEntry]] = defaultdict(list)
    for entry in entries:
        by_category[entry.category].append(entry)
    outlines = outlined(tree, entries)
    found.problems += outlines.problems
    found.unused.update(outlines.read)
    for category, own in sorted(by_category.items()):
        _add(tree.root, category, own, draft, outlines.candidates.get(category, []), wishes, found)
    _tell_unmatched(found, wishes, tree.root)
    sources = sorted(found.sources, key=lambda source: (source.category, source.path))
    sure = tuple(source for source in sources if not source.uncertain)
    found.masks |= {mask_file(mask) for source in sources for mask in source.masks} | set(found.spare)
    return DatasetReading(
        tree.root,
        layout,
        sure,
        tuple(source for source in sources if source.uncertain),
        tuple(found.spare),
        tuple(map(shown, (*tree.problems, *draft.problems, *found.problems))),
        tuple(map(shown, (*tree.notes, *draft.notes, *found.notes))),
        _account(tree, layout, {source.file for source in sources}, found),
        draft.cut_goods,
        wishes.test_goods,
    )


def _once(tree: Tree, entries: Iterable[FileEntry], found: _Found) -> list[FileEntry]:
    """Return the entries with every real file once: at its own place if it means something there."""
    chosen: dict[Path, FileEntry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.file in tree.aliases, str(entry.file))):
        real = tree.aliases.get(entry.file, entry.file)
        kept = chosen.setdefault(real, entry)
        if kept is entry:
            continue
        if (kept.part or kept.mask) or not (entry.part or entry.mask):
            found.unused[entry.file] = SEEN
        else:
            found.unused[kept.file] = BORROWED
            chosen[real] = entry
    return list(chosen.values())


def _adopted(tree: Tree, entries: Sequence[FileEntry], found: _Found) -> Iterator[FileEntry]:
    """Yield the entries, and pictures beside the categories that may be masks of one.

    A folder of masks beside the categories names the category on the way, ``masks/plate/bad/003.png``; where
    there is one category alone, it need not.
    """
    yield from entries
    known = {entry.file for entry in entries} | found.unused.keys() | {s.file for s in found.sources}
    known |= {mask_file(mask) for source in found.sources for mask in source.masks}
    stems: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        stems[fold(entry.category)].add(fold(entry.file.stem))
    names = {fold(entry.category): entry.category for entry in entries}
    for path in tree.pictures:
        where = tree.parts(path)[:-1]
        if path in known or not where:
            continue
        named = [names[fold(name)] for name in where if fold(name) in names]
        owner = named[-1] if named else next(iter(names.values()), "") if len(names) == 1 else ""
        if owner:
            below = tuple(name for name in where if fold(name) != fold(owner))
            yield FileEntry(path, owner, below)


def _by_rule(sources: Sequence[Source], wishes: Wishes, root: Path) -> list[Source]:
    """Return sources with the groups that the user asks for, category by category."""
    if wishes.grouping is None:
        return list(sources)
    by_category: dict[str, list[Source]] = defaultdict(list)
    for source in sources:
        by_category[source.category].append(source)
    rule = wishes.grouping
    return [source for own in by_category.values() for source in grouped(own, rule, root)]


def _tell_unmatched(found: _Found, wishes: Wishes, root: Path) -> None:
    """Note pictures in which the user's pattern finds no group; if it finds none at all, it is a problem."""
    rule = wishes.grouping
    if rule is None or rule.pattern is None or not found.sources:
        return
    paths = sorted(source.file.relative_to(root).as_posix() for source in found.sources)
    missed = [path for path in paths if rule.name_of(path) is None]
    if len(missed) == len(paths):
        found.problems.append(
            f"--group {rule.pattern.pattern!r} finds a group in none of {len(paths)} pictures; it is "
            f"searched in their paths below SRC, as in {shown(paths[0])}"
        )
    elif missed:
        found.notes.append(
            f"--group {rule.pattern.pattern!r} finds no group in {len(missed)} of {len(paths)} pictures, "
            f"which belong to none; the first is {shown(missed[0])}"
        )


def _add(
    root: Path,
    category: str,
    entries: Sequence[FileEntry],
    draft: Draft,
    outlines: Sequence[MaskCandidate],
    wishes: Wishes,
    found: _Found,
) -> None:
    """Tell masks from pictures in one category, pair them, and add its sources to ``found``."""
    given = {mask for masks in draft.masks.values() for mask in masks}
    told = told_masks([entry for entry in entries if entry.file not in given])
    pictures = [entry for entry in entries if entry.part and entry.file not in told | given]
    own = [MaskCandidate(e.file, e.where, e.file.stem) for e in entries if e.file in told]
    pairs = paired([entry for entry in pictures if entry.file not in draft.masks], [*own, *outlines])
    found.spare += pairs.spare
    found.problems += pairs.problems
    found.masks |= told
    masks: dict[Path, tuple[Mask, ...]] = {**pairs.masks, **draft.masks}
    found.notes += [*_moved(category, pictures), *_remarks(category, entries, pictures, masks, told)]
    sources = _by_rule(list(_named(category, pictures, masks, draft.uncertain)), wishes, root)
    found.sources += cut_goods(sources, wishes.test_goods) if draft.cut_goods else sources


def _moved(category: str, pictures: Sequence[FileEntry]) -> Iterator[str]:
    """Yield notes on pictures that go to another part than their folder's name says."""
    counts = Counter((entry.moved_from, entry.kind == GOOD) for entry in pictures if entry.moved_from)
    for (folder, good), number in sorted(counts.items()):
        what = "goods" if good else "defects"
        why = "train, as those of train do" if good else "go to the labelled part: training is on goods alone"
        yield f"{category}: {number} {what} of {folder} {why}"


def _remarks(
    category: str,
    entries: Sequence[FileEntry],
    pictures: Sequence[FileEntry],
    masks: Mapping[Path, tuple[Mask, ...]],
    told: Collection[Path],
) -> Iterator[str]:
    """Yield notes on what was taken for a mask, and on what was not."""
    several = sum(len(own) > 1 for own in masks.values())
    if several:
        yield f"{category}: {several} pictures have several masks, which are united"
    places = Counter("/".join(e.where) or "." for e in entries if e.file in told and not e.mask)
    for place, number in sorted(places.items()):
        yield f"{category}: {number} files of {place}/ are taken as masks: two values, and pictures' stems"
    stems = {stem for entry in pictures for stem in picture_stems(entry.file.stem)}
    alike = [
        entry.file.name
        for entry in pictures
        if any(stem in stems for stem in mask_stems(entry.file.stem)[1:])
    ]
    if alike:
        yield (
            f"{category}: {len(alike)} pictures are named as masks of others are, but have more values than "
            f"masks, so they count as pictures; the first is {alike[0]}"
        )


def _named(
    category: str,
    entries: Sequence[FileEntry],
    masks: Mapping[Path, tuple[Mask, ...]],
    uncertain: Iterable[Path],
) -> Iterator[Source]:
    """Yield the sources under flat names: ``day1/a.png`` becomes ``day1_a.png``.

    Where a file of another folder has that name, the deeper one gets a longer joint, ``day1__a.png``, or its
    folder's name, ``ok_back_a.png``. Two files of one folder keep their names, and the check refuses them.
    """
    taken: dict[tuple[str, ...], tuple[str, ...]] = {}
    for entry in sorted(entries, key=lambda entry: (len(entry.name), entry.where, entry.file.name)):
        doubtful = entry.file in uncertain
        own = replace(entry, part=UNCERTAIN, kind=UNCERTAIN) if doubtful else entry
        part, name = own.part or "test", _free_name(own, taken)
        taken[_id(own, name)] = _origin(own)
        yield Source(
            category,
            f"{part}/{name}" if doubtful else f"{part}/{own.kind}/{name}",
            part,
            own.kind,
            own.file,
            () if doubtful else masks.get(own.file, ()),
            own.group,
            doubtful,
        )


def _free_name(entry: FileEntry, taken: Mapping[tuple[str, ...], tuple[str, ...]]) -> str:
    """Return the entry's flat name, such that no file of another folder has its id."""
    plain = "_".join(entry.name)
    longer = entry.name if len(entry.name) > 1 else (*entry.where[-1:], *entry.name)
    tried = chain([plain], (("_" * width).join(longer) for width in range(1, _LONGEST_JOINT)))
    own = _origin(entry)
    free = (name for name in tried if taken.get(_id(entry, name), own) == own)
    return next(free, plain)


def _origin(entry: FileEntry) -> tuple[str, ...]:
    """Return the folder and the stem that a file has on disk."""
    return *entry.where, fold(entry.file.stem)


def _id(entry: FileEntry, name: str) -> tuple[str, ...]:
    """Return what only one picture may have."""
    return entry.part or "", fold(entry.kind), fold(Path(name).stem)


# --- what became of every file


def _account(tree: Tree, layout: str, pictures: set[Path], found: _Found) -> Account:
    """Return what became of every file below the root; a file that two links give counts once."""
    reasons: dict[str, list[Path]] = defaultdict(list)
    used = {"picture": set(pictures), "mask": found.masks - pictures}
    read = {tree.aliases[path] for path in (pictures | found.masks) & tree.borrowed}
    counts: Counter[str] = Counter()
    for path in tree.files:
        kind = next((kind for kind, paths in used.items() if path in paths), None)
        if kind:
            counts[kind] += 1
        elif path not in tree.borrowed and path not in read:
            default = f"outside the layout {layout}" if is_picture(path) else NO_PICTURE
            reasons[found.unused.get(path, default)].append(path)
    for path, why in tree.unused.items():
        reasons[found.unused.get(path, why)].append(path)
    unused = tuple(Unused(why, tuple(sorted(files))) for why, files in sorted(reasons.items()))
    return Account(counts["picture"], counts["mask"], unused)


def stray_masks(reading: DatasetReading) -> Iterator[Path]:
    """Yield pictures outside the layout that share a stem with one in it and look like its mask."""
    stems = {fold(source.file.stem) for source in reading.sources}
    for entry in reading.account.unused:
        if entry.why.startswith("outside the layout"):
            folders: dict[Path, list[Path]] = defaultdict(list)
            for file in entry.files:
                if fold(file.stem) in stems:
                    folders[file.parent].append(file)
            for files in folders.values():
                if looks_like_mask(files[0], named=False):
                    yield from files
