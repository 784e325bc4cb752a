"""A fixed filter bank: what a patch of texture looks like, without weights and without training.

Gabor energies after Daugman 1985 and Jain & Farrokhnia 1991, Laplacians of Gaussians, and local colour.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from defectbench.models.features.versions import made_with

EXTRACTOR = f"filterbank-1/{made_with('numpy', 'scipy')}"
"""Names the features in the cache; its number is raised with every change of those below."""

CELL = 8
"""Side in pixels of one place of the grid."""

_WAVELENGTHS = (4.0, 8.0, 16.0)
_ORIENTATIONS = 4
_SPOTS = (1.0, 2.0, 4.0)
_MARGIN = 32
# Below a grey level (1/255): a flat region must not have a logarithm of noise.
_EPSILON = 1e-3

CHANNELS = 2 * len(_WAVELENGTHS) * _ORIENTATIONS + 2 * len(_SPOTS) + 8
"""Features of one place."""


def grid_side(image_size: int) -> int:
    """Return how many places the grid has on a side.

    >>> grid_side(128), grid_side(130)
    (16, 17)
    """
    return math.ceil(image_size / CELL)


def describe(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the features of each place of each picture.

    Args:
        pictures: (b, size, size, 3) uint8, RGB.

    Returns:
        (b, places, places, CHANNELS) float32: for each Gabor filter the logarithm of its energy's mean and
        maximum over the place; for each Laplacian its largest and smallest response; the mean colour
        (lightness and two opponents), also over a wider surround; lightness' deviation and range.
    """
    return np.stack([_describe_one(picture) for picture in pictures])


def _describe_one(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return one picture's features, (places, places, CHANNELS)."""
    rgb = picture.astype(np.float32) / 255.0
    grey = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    responses = _filtered(grey)
    energies = np.log(np.abs(responses[: len(_WAVELENGTHS) * _ORIENTATIONS]) + _EPSILON)
    spots = responses[len(_WAVELENGTHS) * _ORIENTATIONS :].real
    colours = np.stack([grey, rgb[..., 0] - rgb[..., 1], rgb[..., 2] - (rgb[..., 0] + rgb[..., 1]) / 2])
    energy_cells, spot_cells, colour_cells = _cells(energies), _cells(spots), _cells(colours)
    colour = colour_cells.mean(-1)
    columns = [
        energy_cells.mean(-1),
        energy_cells.max(-1),
        spot_cells.max(-1),
        spot_cells.min(-1),
        colour,
        _surround(colour),
        np.log(colour_cells[:1].std(-1) + _EPSILON),
        np.log(np.ptp(colour_cells[:1], axis=-1) + _EPSILON),
    ]
    return np.moveaxis(np.concatenate(columns), 0, -1).astype(np.float32)


def _filtered(grey: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Return every filter's response, (filters, size, size); the border mirrors the picture."""
    size = grey.shape[0]
    margin = min(_MARGIN, size - 1)
    # The FFT wraps round: the margin keeps one border out of the other.
    side = scipy.fft.next_fast_len(size + 2 * margin)
    padded = np.pad(grey - grey.mean(), ((margin, side - size - margin),) * 2, mode="symmetric")
    spectrum = scipy.fft.fft2(padded)
    responses = scipy.fft.ifft2(spectrum * _transfer(side))
    inner: NDArray[np.complex64] = responses[:, margin : margin + size, margin : margin + size]
    return inner


@lru_cache(maxsize=4)
def _transfer(side: int) -> NDArray[np.float32]:
    """Return the filters' frequency responses, (filters, side, side)."""
    fy, fx = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    filters = []
    for wavelength in _WAVELENGTHS:
        centre = 1.0 / wavelength
        # The bandwidth grows with the frequency: a little over an octave for each filter.
        spread = 2 * (0.35 * centre) ** 2
        for step in range(_ORIENTATIONS):
            angle = math.pi * step / _ORIENTATIONS
            away = (fx - centre * math.cos(angle)) ** 2 + (fy - centre * math.sin(angle)) ** 2
            filters.append(np.exp(-away / spread))
    squared = (2 * math.pi) ** 2 * (fx**2 + fy**2)
    filters += [squared * sigma**2 * np.exp(-squared * sigma**2 / 2) for sigma in _SPOTS]
    return np.stack(filters).astype(np.float32)


def _cells(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cut (n, size, size) into (n, places, places, pixels of a place); the last row and column mirror."""
    count, size, _ = maps.shape
    side = grid_side(size)
    maps = np.pad(maps, ((0, 0), (0, side * CELL - size), (0, side * CELL - size)), mode="symmetric")
    cut = maps.reshape(count, side, CELL, side, CELL).swapaxes(2, 3)
    return cut.reshape(count, side, side, CELL * CELL)


def _surround(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over each place and its eight neighbours, (n, places, places)."""
    wide = np.pad(maps, ((0, 0), (1, 1), (1, 1)), mode="edge")
    side = maps.shape[1]
    shifted = [wide[:, y : y + side, x : x + side] for y in range(3) for x in range(3)]
    mean: NDArray[np.float32] = np.mean(shifted, axis=0)
    return mean
