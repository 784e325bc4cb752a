"""How one picture lies in another: an affine map from matched keypoints, refined on the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.keypoints import Keypoints, Plane, sample

_MATCH = 0.75
_NEAR, _SWAY = 3.0, 0.08
"""Pixels, and pixels for each pixel of distance, by which a match may miss the map of another."""

INLIERS, _TRIED = 6, 40
"""Least number of matches that must obey one map; matches that are tried as such."""

_STRETCH = (0.55, 1.8)
_ANISOTROPY = 1.45
LARGEST_TILT = 4.5
"""Degrees up to which a copy may be rotated, besides turns by 90: programs and scanners make no more, while
two photographs of one rough surface meet at any angle."""

_BAND, _AROUND = (0.8, 2.4), 11
"""Sigmas in pixels that bound the detail which is registered; side over which its contrast is evened out."""

_EVERY = 3
_ROUNDS = (4, 4, 4, 4, 1, 1, 1)
"""Of so many of these pixels each round takes one: the first only have to come near."""


@dataclass(frozen=True, slots=True)
class Affine:
    """``linear @ place + shift``: from (row, column) in one picture to those in another."""

    linear: NDArray[np.float64]
    shift: NDArray[np.float64]

    @property
    def inverse(self) -> Affine:
        """The way back."""
        linear = np.asarray(np.linalg.inv(self.linear), np.float64)
        return Affine(linear, -linear @ self.shift)

    @property
    def scale(self) -> float:
        """Pixels of the other picture to a pixel of this."""
        return float(np.sqrt(abs(np.linalg.det(self.linear))))

    def rescaled(self, here: float, there: float) -> Affine:
        """Return the map for rasters of ``here`` and ``there`` pixels to each of the old ones."""
        linear = self.linear * there / here
        half = np.full(2, 0.5)
        return Affine(linear, (self.shift + half - self.linear @ half) * there + linear @ half - half)

    @property
    def plausible(self) -> bool:
        """Whether a copy can lie so: not sheared, stretched one way or rotated beyond what is looked for."""
        values = np.linalg.svd(self.linear, compute_uv=False)
        return bool(values[0] < _ANISOTROPY * values[1] and self.tilt <= LARGEST_TILT)

    @property
    def tilt(self) -> float:
        """Degrees between the map and the nearest turn by 0, 90, 180 or 270 degrees, mirrored or not."""
        linear = self.linear if np.linalg.det(self.linear) > 0 else self.linear @ np.diag([1.0, -1.0])
        # The rotation that is nearest to the map: what is left of it without stretch and shear.
        angle = np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1]))
        return float(abs((angle + 45.0) % 90.0 - 45.0))


IDENTITY = Affine(np.eye(2), np.zeros(2))


def matched(one: Keypoints, two: Keypoints) -> tuple[Affine | None, int]:
    """Return the map from the first picture to the second that most matches obey, and how many do."""
    if min(len(one), len(two)) < INLIERS:
        return None, 0
    alike = one.descriptors @ two.descriptors.T
    best = alike.argmax(axis=1)
    kept = (alike.argmax(axis=0)[best] == np.arange(len(one))) & (alike.max(axis=1) > _MATCH)
    first = np.flatnonzero(kept)
    first = first[np.argsort(-alike[first, best[first]], kind="stable")]
    second = best[first]
    if len(first) < INLIERS:
        return None, 0
    inliers = _consensus(one, two, first, second)
    return _fitted(one.places[first].astype(np.float64), two.places[second].astype(np.float64), inliers)


def _consensus(
    one: Keypoints, two: Keypoints, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which matches obey the map that one of the best matches gives: of those maps the most obeyed."""
    mirror = one.mirrored[first] != two.mirrored[second]
    scale = two.scales[second] / one.scales[first]
    sign = np.where(mirror, -1.0, 1.0)
    turn = two.angles[second] - sign * one.angles[first]
    cos, sin = scale * np.cos(turn), scale * np.sin(turn)
    (down, right), (low, far) = one.places[first].T, two.places[second].T
    tried = np.arange(min(_TRIED, len(first)))[:, None]
    down, right = down - down[tried], right - right[tried]
    missed_down = (cos[tried] * down - (sin * sign)[tried] * right) - (low - low[tried])
    missed_right = (sin[tried] * down + (cos * sign)[tried] * right) - (far - far[tried])
    near = np.hypot(missed_down, missed_right) < _NEAR + _SWAY * np.hypot(down, right)
    near &= (mirror == mirror[tried]) & (np.abs(np.log(scale / scale[tried])) < 0.4)
    return np.asarray(near[near.sum(axis=1).argmax()])


def _fitted(
    here: NDArray[np.float64], there: NDArray[np.float64], inliers: NDArray[np.bool_]
) -> tuple[Affine | None, int]:
    """Return the affine map through the matches that obey it, from three rounds of least squares."""
    found = None
    design = np.column_stack([here, np.ones(len(here))])
    for near in (_NEAR * 1.5, _NEAR, _NEAR * 0.7):
        if inliers.sum() < INLIERS:
            return None, 0
        solved = np.asarray(np.linalg.lstsq(design[inliers], there[inliers], rcond=None)[0], np.float64)
        found = Affine(solved[:2].T.copy(), solved[2].copy())
        inliers = np.hypot(*(design @ solved - there).T) < near
    number = int(inliers.sum())
    if (
        found is None
        or number < INLIERS
        or not found.plausible
        or not _STRETCH[0] < found.scale < _STRETCH[1]
    ):
        return None, 0
    return found, number


def warped(picture: Plane, affine: Affine, shape: tuple[int, int], cubic: bool = True) -> Plane:
    """Return the picture as it lies under a raster of ``shape``; 0 beyond its edge."""
    (a, b), (c, d) = affine.linear  # rows first; Pillow has columns first and counts from pixels' corners
    row, column = affine.shift + 0.5 - affine.linear @ np.array([0.5, 0.5])
    kind = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    image = Image.fromarray(picture).transform(
        (shape[1], shape[0]), Image.Transform.AFFINE, (d, c, column, b, a, row), kind
    )
    return np.asarray(image, np.float32)


def inside(
    affine: Affine, shape: tuple[int, int], other: tuple[int, int], margin: float
) -> NDArray[np.bool_]:
    """Return which pixels of ``shape`` lie in the other picture, ``margin`` pixels from its edge."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    (a, b), (c, d) = affine.linear
    down, right = a * rows + b * columns + affine.shift[0], c * rows + d * columns + affine.shift[1]
    height, width = other
    return np.asarray(
        (down >= margin) & (right >= margin) & (down <= height - 1 - margin) & (right <= width - 1 - margin)
    )


def share_inside(affine: Affine, shape: tuple[int, int], other: tuple[int, int]) -> float:
    """Return the share of a picture of ``shape`` that lies in the other, to a hundredth."""
    rows, columns = np.linspace(0, shape[0] - 1, 33)[:, None], np.linspace(0, shape[1] - 1, 33)
    (a, b), (c, d) = affine.linear
    down, right = a * rows + b * columns + affine.shift[0], c * rows + d * columns + affine.shift[1]
    return float(((down >= -1) & (right >= -1) & (down <= other[0]) & (right <= other[1])).mean())


def contrast(picture: Plane) -> Plane:
    """Return the picture's detail with its contrast evened out, so that neither light nor edges decide."""
    from scipy.ndimage import gaussian_filter, uniform_filter

    near, far = _BAND
    band = gaussian_filter(picture, near, truncate=3) - gaussian_filter(picture, far, truncate=3)
    around = np.maximum(uniform_filter(band * band, _AROUND), 0)
    return np.asarray(band / np.sqrt(around + 0.05**2), np.float32)


def refined(target: Plane, other: Plane, start: Affine) -> Affine:
    """Return the map made exact on every third pixel: inverse compositional Lucas-Kanade.

    Baker and Matthews, "Lucas-Kanade 20 years on", 2004.

    Args:
        target, other: as :func:`contrast` gives them.
        start: exact to about two pixels.
    """
    half = (np.array(target.shape, np.float64) - 1) / 2
    every = slice(1, None, _EVERY)
    down, right = (np.asarray(side)[every, every].ravel() for side in np.gradient(target))
    grid = np.meshgrid(*(np.arange(n)[every] for n in target.shape), indexing="ij")
    places = np.stack([side.ravel() for side in grid]).astype(np.float32)
    wanted = target[every, every].ravel()
    unit = (places - np.float32(half[:, None])) / np.float32(half[:, None])
    weights = (unit[0], unit[1], np.ones_like(wanted))
    steps = np.stack([slope * weight for slope in (down, right) for weight in weights])
    for one_of in _ROUNDS:
        moved = _step(places[:, ::one_of], wanted[::one_of], steps[:, ::one_of], other, start)
        if moved is None:
            break
        start = _composed(start, moved.reshape(2, 3), half)
    return start


def _step(
    places: Plane, wanted: Plane, steps: Plane, other: Plane, start: Affine
) -> NDArray[np.float64] | None:
    """Return one step of least squares, (6,); None where the pictures hardly overlap."""
    linear, shift = start.linear.astype(np.float32), start.shift.astype(np.float32)
    rows, columns = linear @ places + shift[:, None]
    height, width = other.shape
    seen = (rows >= 1) & (columns >= 1) & (rows < height - 2) & (columns < width - 2)
    if seen.sum() < 0.2 * len(seen):
        return None
    there = sample(other, np.where(seen, rows, 1), np.where(seen, columns, 1))
    error, used = (there - wanted) * seen, steps * seen
    normal = (used @ used.T).astype(np.float64)
    normal += 1e-6 * np.trace(normal) * np.eye(6)
    return np.asarray(np.linalg.solve(normal, (used @ error).astype(np.float64)))


def _composed(affine: Affine, step: NDArray[np.float64], half: NDArray[np.float64]) -> Affine:
    """Return the map after the inverse of a small step that is given about the raster's middle."""
    linear = np.eye(2) + step[:, :2] / half
    back = Affine(linear, step[:, 2] - (linear - np.eye(2)) @ half).inverse
    return Affine(affine.linear @ back.linear, affine.linear @ back.shift + affine.shift)
