"""Keypoints of a grey picture and what surrounds them, described so that turns and mirrors do not matter.

A keypoint is an extremum of a difference of Gaussians (Lowe, "Distinctive image features from scale-invariant
keypoints", 2004) that stands out from its neighbourhood: noise and grain on a smooth part give keypoints as a
print does. Its surroundings are sampled on rings; the Fourier coefficients along each ring turn with the
picture by a phase alone, so each keypoint is described in its own direction and handedness.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

_FINEST, _PER_OCTAVE, _BEYOND = 1.3, 4, 3
SIGMAS = tuple(float(_FINEST * 2 ** (step / _PER_OCTAVE)) for step in range(6))
"""Scales of the keypoints, in pixels: their span covers a copy that is cut to 75 % and enlarged again."""

PER_SCALE = 28
_RADII = np.array([1.5, 3.0, 4.5, 6.0], np.float32)
_ANGLES, _HARMONICS = 16, 5
_EDGE = 4.0
"""Ratio of the two curvatures from which on an extremum lies on an edge."""

_CELL, _AROUND = 4, 7
"""Side in pixels of a cell; cells on a side of the neighbourhood that a keypoint must stand out from."""

_NOTHING = 0.02
"""Grey levels below which a response is rounding."""

_LEAST = np.float32(1e-12)
"""Mean square of a response, in grey levels, below which there is none."""

SIZE = len(_RADII) * 2 * _HARMONICS + len(_RADII)


@dataclass(frozen=True, slots=True)
class Keypoints:
    """Keypoints of one picture.

    Attributes:
        places: (n, 2) float32, row and column in pixels.
        scales: (n,) float32, sigma in pixels.
        angles: (n,) float32, the direction of each, in radians from the row axis to the column axis.
        mirrored: (n,) bool, whether the description is that of the mirrored surroundings.
        descriptors: (n, 44) float32 of length 1; their product is the correlation of the surroundings.
    """

    places: Plane
    scales: Plane
    angles: Plane
    mirrored: NDArray[np.bool_]
    descriptors: Plane

    def __len__(self) -> int:
        return len(self.scales)


@lru_cache(maxsize=64)
def _gaussians(height: int, width: int) -> Plane:
    """Return the transfer functions of Gaussians of all scales and a few beyond, (n, h, w / 2 + 1)."""
    rows = np.fft.fftfreq(height)[:, None]
    columns = np.fft.rfftfreq(width)[None, :]
    square = 2 * np.pi**2 * (rows**2 + columns**2)
    every = [_FINEST * 2 ** (step / _PER_OCTAVE) for step in range(len(SIGMAS) + _BEYOND)]
    return np.stack([np.exp(-square * sigma**2) for sigma in every]).astype(np.float32)


def find_keypoints(grey: Plane) -> Keypoints:
    """Return the keypoints of a (h, w) float32 picture, 28 of each scale at most."""
    from scipy import fft

    height, width = grey.shape
    spectra = fft.rfft2(grey) * _gaussians(height, width)
    smooth = np.asarray(fft.irfft2(spectra, s=grey.shape, overwrite_x=True))
    steps, places = _extrema(smooth[: len(SIGMAS)] - smooth[_BEYOND:])
    return _described(smooth, steps, places)


@lru_cache(maxsize=64)
def _inner(height: int, width: int) -> NDArray[np.bool_]:
    """Return which places have their surroundings in the picture, for each scale, (n, h, w)."""
    found = np.zeros((len(SIGMAS), height, width), np.bool_)
    for step, sigma in enumerate(SIGMAS):
        margin = round(_RADII[-1] * sigma) + 2
        if min(height, width) > 2 * margin + 2:
            found[step, margin : height - margin, margin : width - margin] = True
    return found


def _extrema(response: Plane) -> tuple[NDArray[np.int64], Plane]:
    """Return the scale, (m,), and the place below a pixel, (m, 2), of the extrema that stand out most.

    Args:
        response: at each scale, (n, h, w).
    """
    high = _best_of_four(response, np.greater_equal) & (response > _NOTHING)
    low = _best_of_four(response, np.less_equal) & (response < -_NOTHING)
    found = np.flatnonzero((high | low) & _inner(*response.shape[1:]))
    steps, rows, columns = np.unravel_index(found, response.shape)
    corners = [response[steps, rows + down, columns + right] for down in (-1, 1) for right in (-1, 1)]
    here, is_high = response[steps, rows, columns], high[steps, rows, columns]
    best = np.where(is_high, here >= reduce(np.maximum, corners), here <= reduce(np.minimum, corners))
    steps, rows, columns = steps[best], rows[best], columns[best]
    blob = _is_blob(response, steps, rows, columns)
    steps, rows, columns = steps[blob], rows[blob], columns[blob]
    around = _around(response)[steps, rows // _CELL, columns // _CELL]
    best = _first_of_each(steps, np.abs(response[steps, rows, columns]) / around)
    steps, rows, columns = steps[best], rows[best], columns[best]
    here = response[steps, rows, columns]
    down = _vertex(response[steps, rows - 1, columns], here, response[steps, rows + 1, columns])
    right = _vertex(response[steps, rows, columns - 1], here, response[steps, rows, columns + 1])
    return steps, np.asarray(np.stack([rows + down, columns + right], axis=1), np.float32)


def _first_of_each(steps: NDArray[np.int64], salience: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the indices of the 28 most salient of each scale, best first."""
    order = np.lexsort((-salience, steps))
    starts = np.searchsorted(steps[order], np.arange(len(SIGMAS)))
    return order[np.arange(len(order)) - starts[steps[order]] < PER_SCALE]


def _best_of_four(plane: Plane, better: np.ufunc) -> NDArray[np.bool_]:
    """Whether each pixel of (n, h, w) is at least as good as those beside, above and below it.

    Pixels at an edge are compared with the other edge's, which :func:`_inner` makes good.
    """
    width, flat = plane.shape[2], plane.ravel()
    found = np.zeros(len(flat), np.bool_)
    inner, centre = found[width:-width], flat[width:-width]
    for step in (-width, -1, 1, width):
        other = flat[width + step : len(flat) - width + step]
        if step == -width:
            better(centre, other, out=inner)
        else:
            inner &= better(centre, other)
    return found.reshape(plane.shape)


def _is_blob(
    response: Plane, steps: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether the response bends both ways alike: along an edge, places are chance (Lowe 2004, 4.1)."""

    def at(down: int, right: int) -> Plane:
        return np.asarray(response[steps, rows + down, columns + right])

    here = 2 * at(0, 0)
    down, right = at(-1, 0) + at(1, 0) - here, at(0, -1) + at(0, 1) - here
    cross = (at(-1, -1) + at(1, 1) - at(-1, 1) - at(1, -1)) / 4
    return np.asarray((down + right) ** 2 * _EDGE < (down * right - cross**2) * (_EDGE + 1) ** 2)


def _around(response: Plane) -> Plane:
    """Return the root mean square of the response about each cell of 4 x 4 pixels, (n, h / 4, w / 4)."""
    from scipy.ndimage import uniform_filter

    height, width = response.shape[1:]
    square = response * response
    if height % _CELL or width % _CELL:
        square = np.pad(square, ((0, 0), (0, -height % _CELL), (0, -width % _CELL)), mode="edge")
    rows = reduce(np.add, [square[:, start::_CELL] for start in range(_CELL)])
    cells = reduce(np.add, [rows[:, :, start::_CELL] for start in range(_CELL)]) / _CELL**2
    # Its running sum may end a little below zero, and nothing may be divided by zero.
    return np.asarray(np.sqrt(np.maximum(uniform_filter(cells, (1, _AROUND, _AROUND)), _LEAST)))


def _vertex(before: Plane, here: Plane, after: Plane) -> Plane:
    """Return where the parabola through three values has its extremum, -0.5 to 0.5."""
    bend = 2 * here - before - after
    return np.asarray(np.clip((after - before) / (2 * np.where(bend == 0, 1, bend)), -0.5, 0.5))


@lru_cache(maxsize=1)
def _ring() -> tuple[Plane, Plane]:
    angle = np.arange(_ANGLES, dtype=np.float32) * np.float32(2 * np.pi / _ANGLES)
    return np.cos(angle), np.sin(angle)


def _described(smooth: Plane, steps: NDArray[np.int64], places: Plane) -> Keypoints:
    """Return the keypoints at these places of the pictures, (n, h, w), that were smoothed at their scale."""
    down, right = _ring()
    scales = np.array(SIGMAS, np.float32)[steps]
    radii = _RADII * scales[:, None]
    height, width = smooth.shape[1:]
    rows = (places[:, 0] + np.float32(height) * steps)[:, None, None] + radii[:, :, None] * down
    columns = places[:, 1, None, None] + radii[:, :, None] * right
    around = sample(smooth.reshape(-1, width), rows.astype(np.float32), columns)
    rings = np.fft.rfft(around, axis=2)[:, :, : _HARMONICS + 1] / _ANGLES
    rings = rings * np.sqrt(_RADII / _RADII.sum())[:, None]
    turn = np.angle(rings[:, 1:, 1].sum(axis=1))  # f(a) = cos(a - t) has the coefficient exp(-i t) / 2
    orders = np.arange(_HARMONICS + 1)
    rings = rings * np.exp(-1j * turn[:, None] * orders)[:, None, :]
    mirrored = (rings[:, 1:, 2].imag.sum(axis=1) + rings[:, 1:, 3].imag.sum(axis=1)) < 0
    rings = np.where(mirrored[:, None, None], rings.conj(), rings)
    level = rings[:, :, 0].real
    mean = (level * np.sqrt(_RADII / _RADII.sum())).sum(axis=1, keepdims=True)
    level = level - mean * np.sqrt(_RADII / _RADII.sum())
    waves = rings[:, :, 1:].reshape(len(places), len(_RADII) * _HARMONICS) * np.sqrt(2)
    descriptors = np.concatenate([level, waves.real, waves.imag], axis=1)
    descriptors /= np.maximum(np.linalg.norm(descriptors, axis=1, keepdims=True), 1e-6)
    return Keypoints(
        places,
        scales,
        -turn.astype(np.float32),
        mirrored,
        descriptors.astype(np.float32),
    )


def sample(plane: Plane, rows: Plane, columns: Plane) -> Plane:
    """Return the plane between its pixels, bilinear; the places lie inside it."""
    row, column = rows.astype(np.int32), columns.astype(np.int32)
    down, right = rows - row, columns - column
    width = plane.shape[1]
    flat, at = plane.ravel(), row * width + column
    upper = flat[at] * (1 - right) + flat[at + 1] * right
    lower = flat[at + width] * (1 - right) + flat[at + width + 1] * right
    return np.asarray(upper * (1 - down) + lower * down)
