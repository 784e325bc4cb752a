"""Augmentation, the same for goods and defects: what differs between the classes must be the defect alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHIFT = 16
"""A picture moves by up to its side over this."""

_GAIN = 0.1
_OFFSET = 0.05


def augmented(
    picture: NDArray[np.uint8], rng: np.random.Generator, *, rotate_and_flip: bool
) -> NDArray[np.float32]:
    """Return the picture, (size, size, 3) float32 in [0, 1], shifted and re-lit a little.

    Shifted by up to a sixteenth of its side, the border mirrored; contrast up to 10 % and brightness up to
    5 % up or down.

    Args:
        rotate_and_flip: also rotate it by a random multiple of 90 degrees, and mirror every second one.
    """
    side = picture.shape[0]
    reach = max(1, side // _SHIFT)
    down, right = rng.integers(0, 2 * reach + 1, size=2)
    quarters, mirror = int(rng.integers(4)), bool(rng.integers(2))
    gain, offset = 1 + rng.uniform(-_GAIN, _GAIN), rng.uniform(-_OFFSET, _OFFSET)
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="reflect")
    moved = padded[down : down + side, right : right + side]
    if rotate_and_flip:
        moved = np.rot90(moved, quarters)
        moved = moved[:, ::-1] if mirror else moved
    values = moved.astype(np.float32) / np.float32(255.0)
    middle = values.mean()
    lit = (values - middle) * np.float32(gain) + middle + np.float32(offset)
    return np.ascontiguousarray(np.clip(lit, 0.0, 1.0, dtype=np.float32))
