"""Clean pictures for the synthetic data set: pieces of scikit-image's photographs under fresh exposures.

The photographs lie in scikit-image's wheel, nothing is downloaded. Training and test pictures come from
disjoint regions: a texture is cut into two bands of four strips, two of each for either part, crosswise, so
that the perspective and the light of the photograph are the same in both; of the 24 coins every second one.
A pose (place, turn, scale, keystone, mirror) is never used twice, nor one near it: two pictures are never the
same exposure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.manifest import Part

Plane = NDArray[np.float64]
"""(size, size) or (height, width), grey levels of 0 to 255."""

_STRIP, _BAND = 128, 256
_CROP = 92.0
_KEYSTONE = 0.04
_FOUND_ROTATED = 5.0
"""Degrees from which on the duplicate search takes a rotated cut for another picture."""

_TRIES = 200

# Row, column and half axes of each coin in coins.png, by watershed.
_COINS = (
    (44.0, 335.0, 28.0, 30.0), (51.0, 155.5, 23.0, 23.5), (51.5, 216.0, 21.5, 24.0),
    (53.0, 276.0, 19.0, 21.0), (54.5, 44.5, 19.5, 22.5), (56.5, 100.5, 17.5, 19.5),
    (119.5, 270.5, 24.5, 25.5), (124.5, 46.0, 20.5, 21.0), (124.5, 206.0, 19.5, 20.0),
    (125.5, 336.5, 19.5, 19.5), (126.5, 103.0, 18.5, 19.0), (127.5, 153.5, 17.5, 19.5),
    (187.0, 347.5, 31.0, 32.5), (193.5, 213.0, 23.5, 24.0), (194.5, 274.0, 22.5, 23.0),
    (196.0, 102.0, 21.0, 22.0), (198.0, 44.5, 19.0, 18.5), (198.0, 154.5, 19.0, 19.5),
    (260.5, 46.5, 27.5, 28.5), (262.0, 172.5, 26.0, 28.5), (264.0, 301.0, 25.0, 25.0),
    (264.0, 244.5, 24.0, 24.5), (266.0, 114.5, 21.0, 21.5), (268.5, 359.0, 20.5, 23.0),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scene:
    """One of the kinds of pictures.

    Attributes:
        photograph: file name in scikit-image's data folder.
        is_object: a part on a plain background; else a texture that fills the picture.
        tint: factors of red, green and blue.
        turn: largest angle in degrees.
        marks: how far cracks, holes and scratches stand out.
        blots: how far stains and foreign bodies do. Both are set by measurement, so that simple methods land
            between 0.75 and 0.99.
        strips: of a texture's upper band, those that train, and of its lower band those that are tested: such
            that whole-picture looks do not tell the two parts apart.
    """

    photograph: str
    is_object: bool
    tint: tuple[float, float, float]
    turn: float
    marks: float
    blots: float
    strips: tuple[int, int] = (0, 2)


SCENES: Mapping[str, Scene] = MappingProxyType(
    {
        "brick": Scene("brick.png", False, (1.12, 0.95, 0.86), 5.0, 1.0, 0.7),
        "coin": Scene("coins.png", True, (1.04, 0.99, 0.88), 12.0, 2.0, 1.1),
        "grass": Scene("grass.png", False, (0.92, 1.06, 0.78), 12.0, 3.6, 2.0, (0, 1)),
        "gravel": Scene("gravel.png", False, (1.02, 1.0, 0.96), 12.0, 2.5, 0.9),
    }
)

AS_MVTEC: Mapping[str, str] = MappingProxyType(
    {"bottle": "coin", "hazelnut": "gravel", "carpet": "grass", "grid": "brick"}
)
"""MVTec AD's names for our scenes, to try a sweep that was written for MVTec AD."""

MVTEC_TYPES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "bottle": {"broken_large": "crack", "broken_small": "hole", "contamination": "foreign_body"},
        "hazelnut": {"crack": "crack", "cut": "scratch", "hole": "hole", "print": "stain"},
        "carpet": {
            "color": "stain",
            "cut": "scratch",
            "hole": "hole",
            "metal_contamination": "foreign_body",
            "thread": "crack",
        },
        "grid": {
            "bent": "scratch",
            "broken": "hole",
            "glue": "stain",
            "metal_contamination": "foreign_body",
            "thread": "crack",
        },
    }
)
"""Category -> MVTec AD's defect types -> what we render for them."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How one picture is taken.

    Attributes:
        row, column: centre in the photograph; for an object, its shift in the picture.
        coin: which object; 0 for textures, whose strip stands here.
        angle: in radians.
        side: of the cut in pixels of the photograph; for an object, its diameter's share of the picture.
        keystone: perspective along rows and columns.
        mirror: left and right are exchanged.
    """

    row: float
    column: float
    coin: int
    angle: float
    side: float
    keystone: tuple[float, float]
    mirror: bool


def poses(scene: Scene, part: Part, number: int, rng: np.random.Generator) -> list[Pose]:
    """Return ``number`` poses of the part's region, each as unlike the others as 200 draws find."""
    chosen: list[Pose] = []
    for _ in range(number):
        best, widest = None, -1.0
        for _ in range(_TRIES):
            pose = _draw(scene, part, rng)
            gap = min((_gap(pose, other) for other in chosen), default=np.inf)
            if gap > widest:
                best, widest = pose, gap
            if gap >= 1:
                break
        assert best is not None
        chosen.append(best)
    return chosen


def _draw(scene: Scene, part: Part, rng: np.random.Generator) -> Pose:
    offset = 0 if part == "train" else 1
    angle = np.deg2rad(rng.uniform(-scene.turn, scene.turn))
    keystone = (float(rng.uniform(-_KEYSTONE, _KEYSTONE)), float(rng.uniform(-_KEYSTONE, _KEYSTONE)))
    mirror = bool(rng.random() < 0.5) and not scene.is_object
    if scene.is_object:
        row, column = rng.uniform(-0.05, 0.05, 2)
        coin = 2 * int(rng.integers(len(_COINS) // 2)) + offset
        return Pose(row, column, coin, angle, float(rng.uniform(0.68, 0.78)), keystone, mirror)
    side = float(rng.uniform(0.85, 1.08)) * _CROP
    band = int(rng.integers(2))
    own = [place for place in range(4) if (place in scene.strips) == ((offset + band) % 2 == 0)]
    strip = own[int(rng.integers(2))]
    # Half of what the turned and keystoned cut spans, and two pixels for the interpolation.
    half = 0.5 * side * (np.cos(angle) + abs(np.sin(angle))) / (1 - _KEYSTONE) + 2
    row = rng.uniform(band * _BAND + half, (band + 1) * _BAND - half)
    column = strip * _STRIP + rng.uniform(min(half, _STRIP / 2), max(_STRIP - half, _STRIP / 2))
    return Pose(row, column, strip, angle, side, keystone, mirror)


def _gap(one: Pose, other: Pose) -> float:
    """Return how unlike two poses are; from 1 on they are no copies of one picture to the duplicate search.

    It finds copies that are moved, mirrored and rotated by some degrees: those of textures must lie apart.
    """
    if one.coin != other.coin:
        return np.inf
    # The search finds mirrored copies and turns by 90 degrees too: only the angle between is a difference.
    quarter = np.pi / 2
    rotated = abs((one.angle - other.angle + quarter / 2) % quarter - quarter / 2)
    if one.side < 1:  # an object: wherever it lies, it is the same object
        tilted = max(abs(a - b) for a, b in zip(one.keystone, other.keystone, strict=True)) / 0.04
        return float(max(rotated / np.deg2rad(3), tilted))
    moved = np.hypot(one.row - other.row, one.column - other.column) / (0.6 * one.side)
    return float(max(moved, rotated / np.deg2rad(_FOUND_ROTATED)))


@cache
def photograph(name: str) -> Plane:
    """Return one of scikit-image's grey photographs as (height, width) float64, 0 to 255."""
    with files("skimage").joinpath("data", name).open("rb") as file, Image.open(file) as image:
        return np.asarray(image.convert("L")).astype(np.float64)


def unit_grid(size: int) -> tuple[Plane, Plane]:
    """Return row and column of each pixel's centre, from 0 to 1."""
    ticks = (np.arange(size) + 0.5) / size
    rows, columns = np.meshgrid(ticks, ticks, indexing="ij")
    return rows, columns


def render(scene: Scene, pose: Pose, size: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Return the clean scene and where defects may lie: (size, size) grey levels, and bool-like 0 or 1."""
    rows, columns = (2 * grid - 1 for grid in unit_grid(size))  # -1 to 1
    if pose.mirror:
        columns = -columns
    depth = 1 + pose.keystone[0] * rows + pose.keystone[1] * columns
    if scene.is_object:
        return _render_object(scene, pose, rows, columns, depth, rng)
    cos, sin = np.cos(pose.angle) / depth, np.sin(pose.angle) / depth
    where_rows = pose.row + pose.side / 2 * (cos * rows - sin * columns)
    where_columns = pose.column + pose.side / 2 * (sin * rows + cos * columns)
    plane = _sample(photograph(scene.photograph), where_rows, where_columns)
    inner = (np.abs(rows) < 0.8) & (np.abs(columns) < 0.8)
    return plane, inner.astype(np.float64)


def _render_object(
    scene: Scene, pose: Pose, rows: Plane, columns: Plane, depth: Plane, rng: np.random.Generator
) -> tuple[Plane, Plane]:
    """Lay the coin on a plain background with a soft shade and smooth unevenness."""
    row, column, half_row, half_column = _COINS[pose.coin]
    cos, sin = np.cos(pose.angle) / depth / pose.side, np.sin(pose.angle) / depth / pose.side
    r = cos * (rows - 2 * pose.row) - sin * (columns - 2 * pose.column)
    c = sin * (rows - 2 * pose.row) + cos * (columns - 2 * pose.column)
    plane = _sample(photograph(scene.photograph), row + r * half_row, column + c * half_column)
    radius = np.hypot(r, c)
    coin = np.clip((0.97 - radius) / 0.03 + 0.5, 0, 1)
    lit = 62 + 10 * np.cos(pose.angle * 3 + rows) + smooth_noise(rows.shape[0], 0.2, rng) * 3
    ground = lit * (1 - 0.35 * np.exp(-(((radius - 1) / 0.08) ** 2)))
    return coin * plane + (1 - coin) * ground, (radius < 0.82).astype(np.float64)


def _sample(image: Plane, rows: Plane, columns: Plane) -> Plane:
    from scipy.ndimage import map_coordinates

    return np.asarray(map_coordinates(image, [rows, columns], order=3, mode="reflect"), np.float64)


def smooth_noise(size: int, scale: float, rng: np.random.Generator) -> Plane:
    """Return smooth noise of mean 0 and deviation 1 whose bumps span ``scale`` of the picture."""
    from scipy.ndimage import zoom

    coarse = rng.standard_normal((int(np.ceil(1 / scale)) + 3,) * 2)
    fine = np.asarray(zoom(coarse, size / (coarse.shape[0] - 3), order=3), np.float64)[:size, :size]
    return np.asarray((fine - fine.mean()) / fine.std())


def focus(plane: Plane, size: int, rng: np.random.Generator) -> Plane:
    """Return the scene as the lens draws it: a blur that differs a little between exposures."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(plane, rng.uniform(0.3, 0.7) * max(1.0, size / 256)), np.float64)


def expose(scene: Scene, colours: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the picture that a sensor takes: uneven light, gain, gamma, shot and read noise, 8 bits.

    Args:
        colours: (size, size, 3), 0 to 255. Each pixel of the answer depends on the same pixel of it alone.
    """
    size = colours.shape[0]
    rows, columns = unit_grid(size)
    tilt = rng.uniform(-0.05, 0.05, 2)
    light = rng.uniform(0.88, 1.12) * (1 + tilt[0] * (rows - 0.5) + tilt[1] * (columns - 0.5))
    gamma = rng.uniform(0.9, 1.1)
    tint = np.asarray(scene.tint) * rng.uniform(0.985, 1.015, 3)
    signal = 255 * np.clip(colours * light[:, :, None] * tint / 255, 0, 1) ** gamma
    noise = rng.standard_normal((size, size, 3)) * np.sqrt(1.5**2 + 0.03 * signal)
    return np.asarray(np.clip(np.rint(signal + noise), 0, 255), np.uint8)
