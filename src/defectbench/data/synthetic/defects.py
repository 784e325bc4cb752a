"""Defects rendered into clean scenes, each with the exact set of pixels that it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from defectbench.data.synthetic.scenes import Plane, photograph, smooth_noise, unit_grid

_THRESHOLD = 0.12
"""Coverage below which a pixel is left alone: it would not show in the noise."""

_TRIES = 12
Draft = tuple[Plane, NDArray[np.float64]]
"""Coverage (size, size) of 0 to 1, and the colours (size, size, 3) to be laid over."""


def add_defect(
    kind: str, colours: NDArray[np.float64], allowed: Plane, strength: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the scene with one defect, and its mask: no pixel outside the mask is touched.

    Args:
        kind: one of :data:`DEFECTS`.
        colours: (size, size, 3), 0 to 255.
        allowed: (size, size), above 0 where a defect's centre may lie.
        strength: scales contrast; 1 is hard but visible.

    Returns:
        Colours like ``colours``, and (size, size) bool, never empty.
    """
    places = np.argwhere(allowed > 0)
    best: tuple[float, NDArray[np.float64], NDArray[np.bool_]] | None = None
    for _ in range(_TRIES):
        centre = (places[rng.integers(len(places))] + 0.5) / allowed.shape[0]
        power = strength * float(np.exp(rng.uniform(np.log(0.75), np.log(1.35))))
        cover, paint = DEFECTS[kind](colours, centre, power, rng)
        cover = np.where(cover > _THRESHOLD, cover, 0.0)
        changed = colours + cover[:, :, None] * (paint - colours)
        mask = cover > 0
        shown = float(np.abs(changed - colours).mean(axis=2)[mask].mean()) if mask.any() else 0.0
        if best is None or shown > best[0]:
            best = shown, changed, mask
        if shown >= 5 * strength:  # grey levels; else it lies where it does not show: another place
            break
    assert best is not None
    return best[1], best[2]


def _scratch(colours: NDArray[np.float64], centre: Plane, power: float, rng: np.random.Generator) -> Draft:
    """A thin arc, brighter or darker than the surface."""
    length, angle, bend = rng.uniform(0.22, 0.45), rng.uniform(0, np.pi), rng.uniform(-0.25, 0.25)
    t = np.linspace(-0.5, 0.5, 13)
    along, across = np.array([np.sin(angle), np.cos(angle)]), np.array([np.cos(angle), -np.sin(angle)])
    points = centre + length * (t[:, None] * along + bend * (t[:, None] ** 2 - 0.08) * across)
    cover = _stroke(points, rng.uniform(0.008, 0.013) * np.sqrt(power), colours.shape[0])
    return cover * 0.8, colours + _sign(rng, 0.75) * 38 * power * np.array([0.75, 0.95, 1.3])


def _crack(colours: NDArray[np.float64], centre: Plane, power: float, rng: np.random.Generator) -> Draft:
    """A jagged dark line with a branch."""
    size, angle = colours.shape[0], rng.uniform(0, 2 * np.pi)
    trunk = _walk(centre, angle, 9, rng.uniform(0.025, 0.04), rng)
    branch = _walk(trunk[4], angle + _sign(rng, 0.5) * rng.uniform(0.6, 1.1), 5, 0.022, rng)
    width = rng.uniform(0.008, 0.014) * np.sqrt(power)
    cover = np.maximum(_stroke(trunk, width, size), _stroke(branch, 0.7 * width, size))
    earth = 8 * power * np.array([1.0, 0.2, -0.6])
    return cover * 0.85, colours * max(0.15, 1 - 0.42 * power) + earth


def _stain(colours: NDArray[np.float64], centre: Plane, power: float, rng: np.random.Generator) -> Draft:
    """A soft blot that darkens and tints."""
    cover = _blob(centre, rng.uniform(0.07, 0.13), 0.35, colours.shape[0], rng)
    tint = 1 - power * rng.uniform(0.16, 0.26) * np.array([0.4, 1.0, 1.6])
    return cover, colours * np.maximum(tint, 0.1)


def _hole(colours: NDArray[np.float64], centre: Plane, power: float, rng: np.random.Generator) -> Draft:
    """A dark pit whose rim is lit from one side."""
    size, radius = colours.shape[0], rng.uniform(0.026, 0.042) * np.sqrt(power)
    cover = _blob(centre, radius, 0.12, size, rng)
    rows, columns = unit_grid(size)
    slope = np.clip((rows - centre[0] + columns - centre[1]) / (2 * radius), -1, 1)
    level = np.clip(1 - power * (0.45 - 0.3 * slope), 0.05, 1.3)
    return cover, colours * level[:, :, None]


def _foreign_body(
    colours: NDArray[np.float64], centre: Plane, power: float, rng: np.random.Generator
) -> Draft:
    """A small chip with a surface of its own, cut from a photograph of gravel or grass."""
    size, angle = colours.shape[0], rng.uniform(0, np.pi)
    rows, columns = (g - c for g, c in zip(unit_grid(size), centre, strict=True))
    long, short = rng.uniform(0.055, 0.085), rng.uniform(0.022, 0.034)
    r = (np.cos(angle) * rows - np.sin(angle) * columns) / short
    c = (np.sin(angle) * rows + np.cos(angle) * columns) / long
    shape = (np.abs(r) ** 2.5 + np.abs(c) ** 2.5) ** 0.4 * (1 + 0.08 * smooth_noise(size, 0.08, rng))
    cover = np.clip((1 - shape) * short * size + 0.5, 0, 1)
    surface = _patch(str(rng.choice(["gravel.png", "grass.png"])), size, rng)
    paint = (surface[:, :, None] - 118) * 0.8 + 118 + _sign(rng, 0.6) * 22 * power - 14 * r[:, :, None]
    hue = 1 + _sign(rng, 0.5) * min(power, 1.5) * np.array([-0.2, -0.05, 0.2])
    return cover, np.clip(paint * hue, 0, 255)


DEFECTS: Mapping[str, Callable[[NDArray[np.float64], Plane, float, np.random.Generator], Draft]] = (
    MappingProxyType(
        {"crack": _crack, "foreign_body": _foreign_body, "hole": _hole, "scratch": _scratch, "stain": _stain}
    )
)
"""Defect type -> how it is drawn."""


def _sign(rng: np.random.Generator, positive: float) -> float:
    return 1.0 if rng.random() < positive else -1.0


def _stroke(points: Plane, width: float, size: int) -> Plane:
    """Return the coverage of a line through the points, (n, 2); it is 1.3 pixels wide at least."""
    rows, columns = unit_grid(size)
    nearest = np.full((size, size), np.inf)
    for start, end in pairwise(points):
        step = end - start
        t = ((rows - start[0]) * step[0] + (columns - start[1]) * step[1]) / max(float(step @ step), 1e-12)
        t = np.clip(t, 0, 1)
        nearest = np.minimum(
            nearest, np.hypot(rows - start[0] - t * step[0], columns - start[1] - t * step[1])
        )
    return np.asarray(np.clip(max(width * size, 1.3) / 2 - nearest * size + 0.5, 0, 1))


def _walk(start: Plane, angle: float, steps: int, step: float, rng: np.random.Generator) -> Plane:
    """Return a jagged path of ``steps`` steps."""
    angles = angle + rng.normal(0, 0.55, steps)
    lengths = step * rng.uniform(0.6, 1.4, steps)
    moves = np.stack([np.sin(angles), np.cos(angles)], axis=1) * lengths[:, None]
    return np.vstack([start, start + np.cumsum(moves, axis=0)])


def _blob(centre: Plane, radius: float, softness: float, size: int, rng: np.random.Generator) -> Plane:
    """Return the coverage of an uneven disc; ``softness`` is the edge's share of the radius."""
    rows, columns = (g - c for g, c in zip(unit_grid(size), centre, strict=True))
    angle = np.arctan2(rows, columns)
    edge = np.ones_like(angle)
    for wave in (2, 3, 5):
        edge += rng.uniform(0.03, 0.22) / np.sqrt(wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    distance = np.hypot(rows, columns) / (radius * edge)
    width = max(softness, 1.0 / (radius * size))
    return np.asarray(np.clip((1 - distance) / width + 0.5, 0, 1))


def _patch(name: str, size: int, rng: np.random.Generator) -> Plane:
    """Return a piece of a photograph, enlarged to the picture's size."""
    from scipy.ndimage import zoom

    row, column = rng.integers(0, 512 - 96, 2)
    piece = photograph(name)[row : row + 96, column : column + 96]
    return np.asarray(zoom(piece, size / 96, order=1), np.float64)[:size, :size]
