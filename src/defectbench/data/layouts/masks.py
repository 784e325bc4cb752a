"""Masks told from pictures: by names first, by pixels where names leave it open.

A mask is a picture of two values that shares its stem with a picture, as it stands (in another folder) or
less a word for masks (``003_mask``, ``mask_003``). Pixels are looked at only where a stem or a folder's name
suggests a mask, and in one picture of each folder that shares stems with another.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectbench.data.layouts.base import FileEntry
from defectbench.data.layouts.labels import (
    fold,
    mask_stems,
    picture_stems,
    says_mask,
)
from defectbench.errors import DataError
from defectbench.util.image_io import read_mask_values

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


def told_masks(entries: Sequence[FileEntry]) -> frozenset[Path]:
    """Return those files of one category that are masks."""
    found = {entry.file for entry in entries if entry.mask}
    open_ = [entry for entry in entries if not entry.mask]
    found |= _named_masks(open_)
    found |= _twin_masks([entry for entry in open_ if entry.file not in found])
    found |= _folder_masks([entry for entry in open_ if entry.file not in found])
    return frozenset(found)


def _named_masks(entries: Sequence[FileEntry]) -> set[Path]:
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


def _twin_masks(entries: Sequence[FileEntry]) -> set[Path]:
    """Return the masks among files of one folder and stem, ``003.jpg`` and ``003.png``."""
    twins: dict[tuple[tuple[str, ...], str], list[Path]] = defaultdict(list)
    for entry in entries:
        twins[entry.where, fold(entry.file.stem)].append(entry.file)
    found: set[Path] = set()
    for files in twins.values():
        masks = {file for file in files if looks_like_mask(file, named=False)} if len(files) > 1 else set()
        found |= masks if len(masks) < len(files) else set()
    return found


def _folder_masks(entries: Sequence[FileEntry]) -> set[Path]:
    """Return the masks in folders of any name which share stems with pictures of others."""
    pictures: dict[str, list[FileEntry]] = defaultdict(list)
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
