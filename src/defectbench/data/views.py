"""A picture seen on the raster of another, and whether a program can have laid it there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.agreement import Bands, agreement, noise_level
from defectbench.data.frames import Frames, sized
from defectbench.data.keypoints import Plane
from defectbench.data.registration import Affine, inside, refined, share_inside, warped

OVERLAP, STRICT_OVERLAP = 0.7, 0.9
ENLARGED = 1.2
"""Scale from which on the target's raster is too coarse for the noise of the other picture."""

_LARGEST_GAIN = 1.8
"""Ratio of contrasts beyond which another light, not a program, made the difference."""

OF_A_KIND = 0.35
"""Agreement of the detail from which on two pictures bear the same print."""

_NEARLY, SLACK = 1.5, 0.01
"""Pixels by which a picture may seem off its place, and what its detail may lose if it is laid there."""

_STRAIGHT, _SHEARED = np.deg2rad(0.15), 0.0025
_TURNED_SHEARED, _TURNED_SQUASHED = 0.001, 0.001
_LARGEST_TURN = np.deg2rad(5)


@dataclass(frozen=True)
class View:
    """A picture seen on the raster of another, the target, by an affine map from it."""

    target: Plane
    other: Plane
    affine: Affine
    enlarged: float = 1.0
    """Pixels of the other picture to one of the target, before it was shrunk to the target's raster."""

    @cached_property
    def window(self) -> Plane:
        """The other picture on the target's raster."""
        return warped(self.other, self.affine, self.target.shape)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """The target's pixels that the other shows, but for its edge."""
        return inside(self.affine, self.target.shape, self.other.shape, 2.0)

    @cached_property
    def overlap(self) -> float:
        """The share of the smaller picture that lies in the other."""
        there = share_inside(self.affine, self.target.shape, self.other.shape)
        return max(there, share_inside(self.affine.inverse, self.other.shape, self.target.shape))

    @cached_property
    def noises(self) -> tuple[float, float]:
        """Deviation of the finest band of each, before anything was resampled."""
        return noise_level(self.target), noise_level(self.other)

    def is_lost(self, gain: float, ratio: float) -> bool:
        """Whether one has so much less noise than the other, when the other is brought to its contrast."""
        if not 1 / _LARGEST_GAIN < gain < _LARGEST_GAIN:
            return False
        one, two = (max(level, 1e-6) for level in self.noises)
        return not 1 / ratio < two / max(gain, 1e-6) / one < ratio

    @cached_property
    def in_place(self) -> View | None:
        """The other picture laid on the target as a whole, turned or mirrored or not, if it nearly does."""
        height, width = np.array(self.target.shape) - 1.0
        corners = np.array([[0, 0], [0, width], [height, 0], [height, width]])
        upright = np.where(np.abs(self.affine.linear) > 0.5, np.sign(self.affine.linear), 0.0)
        turned = corners @ upright.T
        ideal = Affine(upright, -turned.min(axis=0))
        moved = turned + ideal.shift - (corners @ self.affine.linear.T + self.affine.shift)
        if abs(np.linalg.det(upright)) != 1 or np.abs(moved).max() > _NEARLY:
            return None
        return View(self.target, self.other, ideal)

    @cached_property
    def is_strict(self) -> bool:
        """Whether the map is one that a program makes: a cut or a stretch, or a small turn without any."""
        linear = self.affine.linear
        if abs(linear[0, 1]) > abs(linear[0, 0]):
            linear = linear[:, ::-1]
        linear = linear * np.sign(np.diag(linear))[:, None]
        rows, columns = np.hypot(*linear[0]), np.hypot(*linear[1])
        sheared = abs(linear[0] @ linear[1]) / (rows * columns)
        turned, squashed = abs(np.arctan2(linear[0, 1], linear[0, 0])), abs(rows / columns - 1)
        straight = turned < _STRAIGHT and sheared < _SHEARED
        rotated = turned < _LARGEST_TURN and sheared < _TURNED_SHEARED and squashed < _TURNED_SQUASHED
        return bool((straight or rotated) and self.overlap >= STRICT_OVERLAP)


def of_a_kind(frames: Frames, target: int, other: int, start: Affine) -> View | None:
    """Return a picture as it lies on another, None where they do not bear the same print.

    Args:
        start: exact to about two pixels.
    """
    affine = refined(frames.contrast(target), frames.contrast(other), start)
    view = View(frames.grey(target), frames.grey(other), affine)
    if not affine.plausible or view.overlap < OVERLAP:
        return None
    alike = agreement(frames.bands(target), Bands(view.window), view.seen).detail
    return view if alike >= OF_A_KIND else None


def shrunk(other: Plane, affine: Affine) -> tuple[Plane, Affine]:
    """Return the other picture without the pixels that the target's raster is too coarse for."""
    if affine.scale < ENLARGED:
        return other, affine
    small = np.asarray(sized(Image.fromarray(other), 1 / affine.scale), np.float32)
    return small, affine.rescaled(1.0, small.shape[0] / other.shape[0])
