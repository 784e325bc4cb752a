"""Whether two registered pictures agree in their fine detail and in their noise, block by block.

Two parts of one kind may agree in everything that the eye sees. Their noise never does: each exposure has its
own. So two bands are compared: the detail, which a copy keeps however it was saved, and the finest band. That
is noise for the most part, and tells copies from other exposures wherever it outlived the saving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from defectbench.data.keypoints import Plane

_SIDE, _SMALL_SIDE, _SMALL = 16, 8, 128
"""Side in pixels of a block; of one in a picture that is smaller than the third."""

_NEAR, _FAR = 0.7, 1.5
"""Sigmas in pixels that bound the detail."""

FLAT = {"detail": 0.12, "noise": 0.05}
"""Grey levels below which a block says nothing: the rounding of a kept picture."""

_RIDGE = 1e-9
"""What keeps spans that depend on each other apart, to a length of 1."""

_FEWEST = 6
"""Blocks that must say something."""

Value = TypeVar("Value", np.float32, np.bool_)

Blocks = NDArray[np.float32]
"""(n, pixels): a band of a picture, block by block."""


@dataclass(frozen=True, slots=True)
class Structure:
    """What pictures of one kind share: for each block an orthonormal basis, (n, pixels, k), in each band."""

    detail: NDArray[np.float32]
    noise: NDArray[np.float32]


@dataclass(frozen=True)
class Bands:
    """A picture's blocks in both bands, without what is shared; each is computed when it is asked for."""

    picture: Plane
    shared: Structure | None = None

    @cached_property
    def detail(self) -> Blocks:
        """The detail, (n, pixels)."""
        found = blocks(detail(self.picture))
        return found if self.shared is None else _rest(found, self.shared.detail)

    @cached_property
    def noise(self) -> Blocks:
        """The finest band, (n, pixels)."""
        found = blocks(noise(self.picture))
        return found if self.shared is None else _rest(found, self.shared.noise)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well two registered pictures agree.

    Attributes:
        detail: median correlation of the detail; 0 where too few blocks say anything.
        noise: lower quartile of the correlation of the finest band; 0 where too few blocks say anything.
        gain: how much stronger the second picture's detail is.
    """

    detail: float
    noise: float
    gain: float


def detail(picture: Plane) -> Plane:
    """Return the detail, in grey levels."""
    from scipy.ndimage import gaussian_filter

    near = gaussian_filter(picture, _NEAR, truncate=3)
    return np.asarray(near - gaussian_filter(picture, _FAR, truncate=3), np.float32)


def noise(picture: Plane) -> Plane:
    """Return the finest band, in grey levels of white noise: the second difference along rows and columns.

    Immerkaer, "Fast noise variance estimation", 1996.
    """
    found = np.zeros_like(picture)
    down = picture[:-2] - 2 * picture[1:-1] + picture[2:]
    found[1:-1, 1:-1] = (down[:, :-2] - 2 * down[:, 1:-1] + down[:, 2:]) / 6
    return found


def blocks(picture: NDArray[Value]) -> NDArray[Value]:
    """Return the picture's whole blocks, (n, pixels)."""
    side = _SIDE if min(picture.shape) >= _SMALL else _SMALL_SIDE
    rows, columns = (length // side for length in picture.shape)
    cut = picture[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.ascontiguousarray(cut.swapaxes(1, 2).reshape(rows * columns, side * side))


def structure(pictures: Sequence[Plane]) -> Structure:
    """Return the space of registered pictures and of their median's slopes: no parts are aligned exactly."""
    median = np.median(np.stack(pictures), axis=0).astype(np.float32)
    return Structure(_basis(pictures, median, detail), _basis(pictures, median, noise))


def _basis(pictures: Sequence[Plane], median: Plane, band: Callable[[Plane], Plane]) -> NDArray[np.float32]:
    mean = band(median)
    down, right = np.gradient(mean)
    bent, curved = _second_difference(mean, 0), _second_difference(mean, 1)
    slopes = [mean, down, right, np.gradient(down)[0], np.gradient(down)[1], np.gradient(right)[1]]
    slopes += [bent, curved, _second_difference(bent, 1), np.gradient(bent)[0], np.gradient(curved)[1]]
    parts = [*slopes, *(band(picture) for picture in pictures)]
    stacked = np.stack([blocks(np.asarray(part, np.float32)) for part in parts], axis=-1).astype(np.float64)
    return _orthonormal(stacked).astype(np.float32)


def _second_difference(picture: Plane, axis: int) -> Plane:
    found = np.zeros_like(picture)
    inner = np.swapaxes(picture, 0, axis)
    np.swapaxes(found, 0, axis)[1:-1] = inner[:-2] - 2 * inner[1:-1] + inner[2:]
    return found


def _orthonormal(spans: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a basis of what the last axis spans, (n, pixels, k); by Cholesky, which costs a part of QR."""
    lengths = np.linalg.norm(spans, axis=1, keepdims=True)
    spans = spans / np.maximum(lengths, 1e-9)
    across = spans.transpose(0, 2, 1)
    root = np.linalg.cholesky(across @ spans + _RIDGE * np.eye(spans.shape[2]))
    return np.asarray(np.linalg.solve(root, across).transpose(0, 2, 1))


def _rest(found: Blocks, basis: NDArray[np.float32]) -> Blocks:
    return np.asarray(found - np.einsum("bpk,bk->bp", basis, np.einsum("bpk,bp->bk", basis, found)))


def agreement(one: Bands, two: Bands, seen: NDArray[np.bool_]) -> Agreement:
    """Return how well two pictures agree.

    Args:
        one, two: of pictures on one raster.
        seen: the raster's pixels that both pictures show, (h, w).
    """
    whole = _whole(seen)
    likeness, gains = _correlations(one.detail[whole], two.detail[whole], FLAT["detail"])
    return Agreement(
        float(np.median(likeness)) if len(likeness) else 0.0,
        noise_agreement(one, two, seen),
        float(np.median(gains)) if len(gains) else 1.0,
    )


def noise_agreement(one: Bands, two: Bands, seen: NDArray[np.bool_]) -> float:
    """Return the noise's part of :func:`agreement` alone, which costs a third."""
    whole = _whole(seen)
    grain, _ = _correlations(one.noise[whole], two.noise[whole], FLAT["noise"])
    return float(np.quantile(grain, 0.25)) if len(grain) else 0.0


def _whole(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which blocks are seen whole, (n,)."""
    return np.asarray(blocks(seen).all(axis=1))


def _correlations(one: Blocks, two: Blocks, flat: float) -> tuple[Plane, Plane]:
    """Return the correlation and the ratio of deviations of the blocks that say something; else nothing."""
    one, two = one - one.mean(axis=1, keepdims=True), two - two.mean(axis=1, keepdims=True)
    first, second = one.std(axis=1), two.std(axis=1)
    told = np.minimum(first, second) > flat
    if told.sum() < max(_FEWEST, len(told) / 4):
        return np.empty(0, np.float32), np.empty(0, np.float32)
    one, two, first, second = one[told], two[told], first[told], second[told]
    return (one * two).mean(axis=1) / (first * second), second / first


def noise_level(picture: Plane) -> float:
    """Return the median deviation of the finest band over the blocks, in grey levels."""
    found = blocks(noise(picture)[1:-1, 1:-1])
    return float(np.median(found.std(axis=1))) if len(found) else 0.0
