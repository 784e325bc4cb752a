"""Masks paired with their pictures: by stems and by the folders on the way, never by places in a list."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from defectbench.data.layouts.base import FileEntry, Mask, mask_file
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
from defectbench.data.manifest import GOOD


@dataclass(frozen=True, slots=True)
class MaskCandidate:
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


def paired(pictures: Sequence[FileEntry], candidates: Iterable[MaskCandidate]) -> Pairs:
    """Pair masks of one category with its pictures.

    A mask goes with a picture of its stem. Of several it takes the one whose folders agree best with its own,
    words for masks, for good and bad, and for train and test apart; a bad one rather than a good one. Masks
    in a folder with the picture's stem as its name are all that picture's.
    """
    by_stem: dict[str, list[FileEntry]] = defaultdict(list)
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
    candidate: MaskCandidate, hints: tuple[str, ...], by_stem: Mapping[str, Sequence[FileEntry]]
) -> list[FileEntry]:
    """Return the pictures that a mask fits best: one, several if it cannot be decided, or none."""
    ranked: dict[tuple[int, ...], list[FileEntry]] = defaultdict(list)
    stems = mask_stems(candidate.stem)
    folder = candidate.where[-1] if candidate.where else ""
    for place, stem in enumerate((*stems, fold(folder))):
        for entry in by_stem.get(stem, ()):
            rank = _rank(candidate, hints, entry, place if place < len(stems) else None)
            if rank and not any(entry is other for own in ranked.values() for other in own):
                ranked[rank].append(entry)
    return ranked[max(ranked)] if ranked else []


def _rank(
    candidate: MaskCandidate, here: tuple[str, ...], entry: FileEntry, place: int | None
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


def _same_label(candidate: MaskCandidate, entry: FileEntry) -> int:
    """Return 1 where the mask's folders call its picture what it is called; masks are of bad pictures."""
    good = any(GOOD_WORDS & {*words(name)} and polarity(name) != "bad" for name in candidate.where)
    return int(good == (entry.kind == GOOD))
