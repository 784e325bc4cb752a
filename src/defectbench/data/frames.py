"""What the duplicate search keeps of a picture, and where one kept picture lies in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.agreement import Bands, noise_level
from defectbench.data.keypoints import Keypoints, find_keypoints
from defectbench.data.registration import Affine, contrast, matched

SIDE = 192
"""Side in pixels of a square as large as a kept picture; a smaller picture is kept as it is."""

_KEYPOINT_SIDE = 128

_SHARE = 0.14
"""Share of the keypoints that must lie alike in both pictures."""


@dataclass(frozen=True, slots=True)
class PictureFrame:
    """What is kept of a picture.

    Attributes:
        grey: (h, w) float16 lightness, 0 to 255, in the picture's own proportions.
        keypoints: found in the picture at ``unit`` pixels of ``grey`` to one of theirs.
        unit: see there.
        shrunk: pixels of the picture to one of ``grey``.
        noise: deviation of its finest band, in grey levels.
    """

    grey: NDArray[np.float16]
    keypoints: Keypoints
    unit: float
    shrunk: float
    noise: float


def frame(picture: NDArray[np.uint8]) -> PictureFrame:
    """Return what the search keeps of a (H, W, 3) picture."""
    grey = grey_of(picture)
    size = float(np.sqrt(grey.width * grey.height))
    kept = sized(grey, min(1.0, SIDE / size))
    raster = np.asarray(kept, np.float32)
    scale = _KEYPOINT_SIDE / np.sqrt(kept.width * kept.height)
    keypoints = find_keypoints(np.asarray(sized(kept, scale), np.float32))
    return PictureFrame(
        raster.astype(np.float16), keypoints, 1 / scale, max(1.0, size / SIDE), noise_level(raster)
    )


def grey_of(picture: NDArray[np.uint8]) -> Image.Image:
    """Return the lightness of a (H, W, 3) picture, 0 to 255, as an image of floats."""
    return Image.fromarray(picture).convert("L").convert("F")


def sized(image: Image.Image, scale: float) -> Image.Image:
    """Return the image with ``scale`` pixels to each of its own, at least one."""
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


class Frames:
    """Kept pictures, with what was computed of the last ones."""

    def __init__(self, frames: Sequence[PictureFrame]) -> None:
        self._frames = frames
        self.grey = lru_cache(maxsize=128)(lambda index: frames[index].grey.astype(np.float32))
        self.contrast = lru_cache(maxsize=128)(lambda index: contrast(self.grey(index)))
        self.bands = lru_cache(maxsize=64)(lambda index: Bands(self.grey(index)))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> PictureFrame:
        return self._frames[index]

    def start(self, first: int, second: int) -> Affine | None:
        """Return how the first picture lies in the second by their keypoints, None where too few agree."""
        one, two = self[first], self[second]
        affine, number = matched(one.keypoints, two.keypoints)
        if affine is None or number < _SHARE * min(len(one.keypoints), len(two.keypoints)):
            return None
        return affine.rescaled(one.unit, two.unit)
