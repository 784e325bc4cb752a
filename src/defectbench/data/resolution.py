"""What becomes of pictures and defects when a model squashes pictures to its square input.

A defect counts by the box around the largest connected part of its mask: what is narrower than two pixels in
a model's input may leave no trace there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from defectbench.data.manifest import Manifest
from defectbench.stores.base import Store
from defectbench.stores.layout import widths_key
from defectbench.util.documents import STRICT, read_document, typed, write_document

SIDES = (224, 256, 512)
"""Sides of inputs, in pixels, for which a check says how many defects would be too narrow."""

NARROW = 2.0
"""Pixels of a model's input below which a defect is told."""

WIDE = 4.0
"""Ratio of a picture's sides from which on it is told."""

_SMALLEST_SIDE = 64
"""Side of the smallest input that is thought of: what is wide enough there is kept nowhere."""

_PIXELS = 1 << 24
"""Pixels of a mask's part that are looked at one by one; larger parts are looked at in blocks."""


@dataclass(frozen=True, slots=True)
class DefectWidths:
    """How narrow a category's defects are.

    Attributes:
        shares: of each defect, the shorter side of its box over the picture's side along it; sorted.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    shares: tuple[float, ...]

    def narrow(self, side: int) -> int:
        """Return how many defects are narrower than :data:`NARROW` in an input of ``side`` pixels."""
        return sum(share * side < NARROW for share in self.shares)

    @property
    def enough(self) -> int:
        """The side of the smallest input in which all are wide enough."""
        return math.ceil(NARROW / self.shares[0])

    def warning(self, side: int) -> str:
        """Say what becomes of them in an input of ``side`` pixels; empty where all are wide enough."""
        number = self.narrow(side)
        if not number:
            return ""
        return (
            f"{number} of {len(self.shares)} defects are narrower than {NARROW:g} px in an input of {side} "
            f"px (the narrowest {self.shares[0] * side:.1f} px; from {self.enough} px on none is): choose a "
            "larger image_size, or cut the pictures into parts"
        )

    def to_json(self) -> bytes:
        """Return the text kept beside the data's manifest."""
        return write_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> DefectWidths:
        """Read what :meth:`to_json` wrote; DataError where it is something else, or of another schema."""
        return typed(cls, read_document(data, "widths.json"), "widths.json")


def keep(manifest: Manifest, widths: DefectWidths, store: Store) -> None:
    """Keep the widths for planning, where any defect is narrow in the smallest input."""
    place = widths_key(manifest.dataset, manifest.category, manifest.digest)
    text = widths.to_json()
    if widths.narrow(_SMALLEST_SIDE):
        blob = store.find(place)
        if blob is None or blob.data != text:
            store.put(place, text)


def width_share(mask: NDArray[np.bool_]) -> float | None:
    """Return the shorter side of the box around the mask's largest part, as a share of the picture's side.

    Parts are connected by sides or corners. None for an empty mask.
    """
    from scipy.ndimage import find_objects, label

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    step = max(1, math.ceil(math.sqrt(part.size / _PIXELS)))
    part = _in_blocks(part, step)
    labels, _ = label(part, np.ones((3, 3)))
    largest = int(np.bincount(labels.ravel())[1:].argmax())
    box = find_objects(labels)[largest]
    sides = [(side.stop - side.start) * step for side in box]
    return float(min(side / whole for side, whole in zip(sides, mask.shape, strict=True)))


def _in_blocks(mask: NDArray[np.bool_], step: int) -> NDArray[np.bool_]:
    """Return whether any pixel of each block of ``step`` x ``step`` is set."""
    if step == 1:
        return mask
    down = np.logical_or.reduceat(mask, np.arange(0, mask.shape[0], step), axis=0)
    return np.asarray(np.logical_or.reduceat(down, np.arange(0, mask.shape[1], step), axis=1))


def check_notes(category: str, sizes: Sequence[tuple[int, int]], shares: Sequence[float]) -> Iterator[str]:
    """Yield what `data check` says of a category's pictures, (width, height), and of its defects."""
    yield from (f"{category}: {text}" for text in _wide(sizes))
    widths = DefectWidths(tuple(sorted(shares)))
    found = {side: widths.narrow(side) for side in SIDES}
    if any(found.values()):
        listed = ", ".join(f"{number} at {side} px" for side, number in found.items())
        yield (
            f"{category}: of {len(shares)} defects these are narrower than {NARROW:g} px in a model's input: "
            f"{listed}; from {widths.enough} px on none is"
        )


def _wide(sizes: Sequence[tuple[int, int]]) -> Iterator[str]:
    """Yield a note about pictures that are much longer than wide, or wider than long."""
    found = [(max(size) / min(size), size) for size in sizes if max(size) >= WIDE * min(size)]
    if found:
        ratio, (width, height) = max(found)
        yield (
            f"{len(found)} of {len(sizes)} pictures have sides of {WIDE:g} to 1 or more, such as {width} x "
            f"{height}: squashed to a square, one side shrinks {ratio:.1f} times as much as the other; cut "
            "them into parts"
        )


def plan_notes(manifest: Manifest, sides: Mapping[int, Sequence[str]], store: Store) -> Iterator[str]:
    """Yield what planning says of a category.

    Args:
        sides: of the models' inputs, with the models' names.
    """
    sizes = [(image.width, image.height) for image in manifest.images]
    yield from (f"{manifest.category}: {text}" for text in _wide(sizes))
    blob = store.find(widths_key(manifest.dataset, manifest.category, manifest.digest))
    widths = None if blob is None else DefectWidths.from_json(blob.data)
    for side, names in sorted(sides.items()) if widths else ():
        if text := widths.warning(side) if widths else "":
            yield f"{manifest.category}: {', '.join(names)}: {text}"
