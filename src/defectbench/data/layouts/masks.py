"""Masks told from pictures, and paired with them: by names first, by pixels where names leave it open.

A mask is a picture of two values that shares its stem with a picture, as it stands (in another folder) or
less a word for masks (``003_mask``, ``mask_003``). Pixels are looked at only where a stem or a folder's name
suggests a mask, and in one picture of each folder that shares stems with another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectbench.data.layouts.base import Entry, Mask, mask_file
from defectbench.data.layouts.labels import (
    GOOD_WORDS,
    fold,
    mask_stems,
    picture_stems,
    polarity,
    says_mask,
    split_of,
    words,
)
from defectbench.errors import DataError
from defectbench.manifest import GOOD
from defectbench.pictures import read_mask_values

_FEW_VALUES = 16
"""Values up to which a file that is named as a mask counts as one: VisA numbers its kinds of defect."""

_NEARLY = ((3, 0.9), (40, 0.98))
"""A mask saved as JPEG or with smooth edges: within so many levels of 0 or 255 lies such a share of it."""

_FLAT = 0.75
"""Share of neighbours in a row that are equal in a mask; a camera's noise leaves fewer."""

_DARK = 32
"""A mask that numbers kinds of defect has no value from here on."""

_PROBES = 3
"""Files of a folder that its name calls masks which are opened before the folder is left alone."""


def looks_like_mask(file: Path, named: bool) -> bool:
    """Whether a file's pixels are a mask's.

    Args:
        named: its name or its folder's calls it a mask: then few values will do, whichever they are.
    """
    try:
        values = read_mask_values(file)
    except (DataError, OSError):
        return False
    if is_binary(values[:: max(1, values.shape[0] // 16)]):
        return is_binary(values)
    return named and len(np.unique(values)) <= _FEW_VALUES


def is_binary(values: NDArray[np.integer[Any]]) -> bool:
    """Whether values, (H, W), are a mask's: two, or flat areas of a few small numbers or of 0 and 255.

    The last are of 8 bits, and blurred a little: by a lossy format, or at their edges.
    """
    found = np.unique(values)
    if len(found) <= 2:
        return True
    if values.shape[1] > 1 and float((values[:, 1:] == values[:, :-1]).mean()) < _FLAT:
        return False
    if len(found) <= _FEW_VALUES and found[-1] < _DARK:
        return True
    if not 255 - _NEARLY[-1][0] <= found[-1] <= 255:
        return False
    return all(((values <= far) | (values >= 255 - far)).mean() >= share for far, share in _NEARLY)


def told_masks(entries: Sequence[Entry]) -> frozenset[Path]:
    """Return those files of one category that are masks."""
    found = {entry.file for entry in entries if entry.mask}
    open_ = [entry for entry in entries if not entry.mask]
    found |= _named_masks(open_)
    found |= _twin_masks([entry for entry in open_ if entry.file not in found])
    found |= _folder_masks([entry for entry in open_ if entry.file not in found])
    return frozenset(found)


def _named_masks(entries: Sequence[Entry]) -> set[Path]:
    """Return the files that are called masks by their stem or a folder, and look like some."""
    stems = {stem for entry in entries if entry.part for stem in picture_stems(entry.file.stem)}
    found: set[Path] = set()
    folders: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for entry in entries:
        if any(stem in stems for stem in mask_stems(entry.file.stem)[1:]):
            if looks_like_mask(entry.file, named=True):
                found.add(entry.file)
        elif any(says_mask(name) for name in entry.where):
            folders[entry.where].append(entry.file)
    for files in folders.values():
        if any(looks_like_mask(file, named=True) for file in files[:_PROBES]):
            found |= {file for file in files if looks_like_mask(file, named=True)}
    return found


def _twin_masks(entries: Sequence[Entry]) -> set[Path]:
    """Return the masks among files of one folder and stem, ``003.jpg`` and ``003.png``."""
    twins: dict[tuple[tuple[str, ...], str], list[Path]] = defaultdict(list)
    for entry in entries:
        twins[entry.where, fold(entry.file.stem)].append(entry.file)
    found: set[Path] = set()
    for files in twins.values():
        masks = {file for file in files if looks_like_mask(file, named=False)} if len(files) > 1 else set()
        found |= masks if len(masks) < len(files) else set()
    return found


def _folder_masks(entries: Sequence[Entry]) -> set[Path]:
    """Return the masks in folders of any name which share stems with pictures of others."""
    pictures: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.part:
            pictures[fold(entry.file.stem)].append(entry)
    shared: dict[tuple[str, ...], list[tuple[Path, Path]]] = defaultdict(list)
    for entry in entries:
        others = [other for other in pictures[fold(entry.file.stem)] if other.where != entry.where]
        if others:
            shared[entry.where].append((entry.file, others[0].file))
    found: set[Path] = set()
    for pairs in shared.values():
        (first, other), *_ = pairs
        if looks_like_mask(first, named=False) and not looks_like_mask(other, named=False):
            found |= {file for file, _ in pairs if looks_like_mask(file, named=False)}
    return found


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mask that is looking for its picture.

    Attributes:
        mask: its picture, or its outlines.
        where: folders from the category down to it.
        stem: of its file, or of the picture that its file names.
    """

    mask: Mask
    where: tuple[str, ...]
    stem: str


@dataclass(frozen=True, slots=True)
class Pairs:
    """Masks by picture, masks without one, and what could not be decided."""

    masks: Mapping[Path, tuple[Mask, ...]]
    spare: tuple[Path, ...]
    problems: tuple[str, ...]


def paired(pictures: Sequence[Entry], candidates: Iterable[Candidate]) -> Pairs:
    """Pair masks of one category with its pictures.

    A mask goes with a picture of its stem. Of several it takes the one whose folders agree best with its own,
    words for masks, for good and bad, and for train and test apart; a bad one rather than a good one. Masks
    in a folder with the picture's stem as its name are all that picture's.
    """
    by_stem: dict[str, list[Entry]] = defaultdict(list)
    for entry in pictures:
        for stem in picture_stems(entry.file.stem):
            by_stem[stem].append(entry)
    known = {name for entry in pictures for name in _meaning(entry.where)} | by_stem.keys()
    masks: dict[Path, list[Mask]] = defaultdict(list)
    spare: list[Path] = []
    problems: list[str] = []
    for candidate in candidates:
        best = _best(candidate, _hints(candidate.where, known), by_stem)
        if len(best) == 1:
            masks[best[0].file].append(candidate.mask)
        elif best:
            named = " and ".join(str(entry.file) for entry in best[:3])
            problems.append(
                f"{mask_file(candidate.mask)}: the mask of {named}? Put masks into folders "
                "named as those of their pictures"
            )
        else:
            spare.append(mask_file(candidate.mask))
    return Pairs({file: tuple(own) for file, own in masks.items()}, tuple(spare), tuple(problems))


def _best(
    candidate: Candidate, hints: tuple[str, ...], by_stem: Mapping[str, Sequence[Entry]]
) -> list[Entry]:
    """Return the pictures that a mask fits best: one, several if it cannot be decided, or none."""
    ranked: dict[tuple[int, ...], list[Entry]] = defaultdict(list)
    stems = mask_stems(candidate.stem)
    folder = candidate.where[-1] if candidate.where else ""
    for place, stem in enumerate((*stems, fold(folder))):
        for entry in by_stem.get(stem, ()):
            rank = _rank(candidate, hints, entry, place if place < len(stems) else None)
            if rank and not any(entry is other for own in ranked.values() for other in own):
                ranked[rank].append(entry)
    return ranked[max(ranked)] if ranked else []


def _rank(
    candidate: Candidate, here: tuple[str, ...], entry: Entry, place: int | None
) -> tuple[int, ...] | None:
    """Return how well a mask and a picture agree, more is better; None where they cannot belong together.

    The same folder counts most, or all of the folders' names; then good or bad; then some of the names.

    Args:
        here: the mask's folders that tell pictures apart.
        place: of the stem that they share among the mask's; None where the mask's folder has the stem.
    """
    there, label = _meaning(entry.where), _same_label(candidate, entry)
    if place is None:
        return (1, 1, 5, 0, 0, 0) if here == (*there, fold(entry.file.stem)) else None
    if here == (*there, fold(entry.file.stem)) and place == 0:
        tier = 5
    elif candidate.where == entry.where or here == there:
        tier = 4
    elif here and there and (_ends(here, there) or _ends(there, here)):
        tier = 3
    elif not here or (not there and label):
        tier = 2 if not here else 1
    else:
        return None
    common = {fold(name) for name in candidate.where} & {fold(name) for name in entry.where}
    beside, test = candidate.where == entry.where, entry.part == "test"
    nearest = 2 if beside else int(tier == 5 or (here == there != ()))
    return nearest, label, tier, len(common), -place, int(test)


def _hints(where: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """Return a mask's folders that tell pictures apart; a name of no picture's folder stands for "masks"."""
    strict = any(says_mask(name) for name in where)
    return tuple(name for name in _meaning(where) if strict or name in known)


def _meaning(where: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that say neither mask, nor good or bad, nor train or test."""
    return tuple(
        fold(name)
        for name in where
        if not says_mask(name) and polarity(name) not in ("good", "bad") and not split_of(name)
    )


def _ends(long: tuple[str, ...], short: tuple[str, ...]) -> bool:
    return long[-len(short) :] == short or long[: len(short)] == short


def _same_label(candidate: Candidate, entry: Entry) -> int:
    """Return 1 where the mask's folders call its picture what it is called; masks are of bad pictures."""
    good = any(GOOD_WORDS & {*words(name)} and polarity(name) != "bad" for name in candidate.where)
    return int(good == (entry.kind == GOOD))
