"""Images that belong together (one part, lot, module, camera, day) stay together in every cut and draw.

A group is never split between what a fit learns from, tunes on and is tested on: frames of one part look
alike, and a model would be tested on what it has learnt. Where no image has a group, each image is one by
itself, and every cut is what it would be without groups, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from defectbench.data.manifest import GOOD, Image, Manifest
from defectbench.errors import DataError

Unit = tuple[Image, ...]
"""A group's images among those that are cut; an image without a group alone."""


def units_of(images: Sequence[Image]) -> list[Unit]:
    """Return the images by group, in the order of each group's first image."""
    found: dict[str, list[Image]] = {}
    for image in images:
        found.setdefault(image.unit, []).append(image)
    return [tuple(unit) for unit in found.values()]


def shuffled(images: Sequence[Image], rng: np.random.Generator) -> list[str]:
    """Return the images' ids in random order; a group's images follow one another."""
    units = units_of(images)
    return [image.id for place in rng.permutation(len(units)) for image in units[place]]


def cut(manifest: Manifest, names: Sequence[str], *shares: float) -> list[tuple[str, ...]]:
    """Cut names at cumulative shares, every place rounded down as ``int()`` does; each part sorted.

    A place inside a group goes to the group's nearer end; the earlier one where both are as near.

    Args:
        names: as :func:`shuffled` gives them.
    """
    places = [0, *(boundary(manifest, names, int(share * len(names))) for share in shares), len(names)]
    return [tuple(sorted(names[start:end])) for start, end in pairwise(places)]


def boundary(manifest: Manifest, names: Sequence[str], place: int) -> int:
    """Return the place between two groups that is nearest to ``place``; the earlier of two."""
    between = [
        index
        for index in range(len(names) + 1)
        if index in (0, len(names)) or unit_of(manifest, names[index - 1]) != unit_of(manifest, names[index])
    ]
    return min(between, key=lambda index: (abs(index - place), index))


def unit_of(manifest: Manifest, name: str) -> str:
    """Return what an image is cut with: its group, else its own id."""
    return manifest.by_id[name].unit


def apart(manifest: Manifest, names: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return those of the names, in order, that share no group with any of the others."""
    taken = {unit_of(manifest, name) for name in others}
    return [name for name in names if unit_of(manifest, name) not in taken]


def whole_groups(manifest: Manifest, names: Sequence[str], where: Callable[[int], bool]) -> set[str]:
    """Return those of the names whose group's first one stands at a place of which ``where`` is true."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        first.setdefault(unit_of(manifest, name), place)
    return {name for name in names if where(first[unit_of(manifest, name)])}


def deal_groups(units: Sequence[Unit], parts: int, category: str) -> list[list[str]]:
    """Put whole groups into parts so that each defect type, and the goods, are spread as evenly as can be.

    A group goes where most of its images of the rarest kind are lacking; the largest groups go first.

    Args:
        units: in random order.
        category: for the message.

    Raises:
        DataError: the groups are too few or too unequal: a part would have no good or no defect.
    """
    totals = _counts([image for unit in units for image in unit])
    rarity = sorted(totals, key=lambda kind: (totals[kind], kind))
    filled: list[dict[str, int]] = [dict.fromkeys(totals, 0) for _ in range(parts)]
    found: list[list[str]] = [[] for _ in range(parts)]
    rarest = {unit: next(kind for kind in rarity if kind in _counts(unit)) for unit in units}
    for unit in sorted(units, key=lambda unit: (rarity.index(rarest[unit]), -len(unit))):
        part = min(range(parts), key=lambda k: (filled[k][rarest[unit]], sum(filled[k].values()), k))
        found[part] += [image.id for image in unit]
        for kind, number in _counts(unit).items():
            filled[part][kind] += number
    _check_parts(filled, category)
    return found


def _counts(images: Sequence[Image]) -> dict[str, int]:
    """Return defect type, or good, -> how many images."""
    found: dict[str, int] = {}
    for image in images:
        found[image.defect_type] = found.get(image.defect_type, 0) + 1
    return found


def _check_parts(filled: Sequence[dict[str, int]], category: str) -> None:
    for label, lacking in (
        ("good", [k for k, counts in enumerate(filled) if not counts.get(GOOD)]),
        ("defective", [k for k, counts in enumerate(filled) if sum(counts.values()) == counts.get(GOOD, 0)]),
    ):
        if lacking:
            raise DataError(
                f"{category}: groups stay whole, and {len(lacking)} of {len(filled)} folds would have no "
                f"{label} image: give more groups, smaller ones, or fewer folds"
            )
