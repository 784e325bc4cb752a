"""Near-duplicates: two files of one exposure, saved again, resized, cut, moved, turned, mirrored or re-lit.

Each picture's keypoints vote for the pictures that have the same (:mod:`.neighbours`); the few pairs with
votes are registered (:mod:`.registration`) and compared block by block (:mod:`.agreement`). Different parts
photographed alike share their structure, but not their noise; they are no duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.agreement import (
    Agreement,
    Bands,
    Structure,
    agreement,
    noise_agreement,
    noise_level,
    structure,
)
from defectbench.data.keypoints import Keypoints, Plane, find_keypoints
from defectbench.data.layouts.grouping import connected
from defectbench.data.neighbours import candidate_pairs
from defectbench.data.parallel import in_threads
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.registration import (
    IDENTITY,
    LARGEST_TILT,
    Affine,
    contrast,
    inside,
    matched,
    refined,
    share_inside,
    warped,
)

SIDE = 192
"""Side in pixels of a square as large as a kept picture; a smaller picture is kept as it is."""

_KEYPOINT_SIDE = 128
_WINDOW = 512
"""Side in pixels of the part that two pictures are compared in at their full resolution."""

DETAIL, _DETAIL_FULL, _DETAIL_SAME = 0.6, 0.4, 0.97
"""Least agreement of a duplicate's detail; at full resolution, where its noise is lost; where nothing else is
asked of a picture that lies in place."""

_DETAIL_BEYOND = 0.62
"""Least agreement of a duplicate's detail beyond what others of its kind share."""

_NOISE, _NOISE_STRAIGHT, _NOISE_EXACT, _NOISE_FULL = 0.4, 0.2, 0.06, 0.25
"""Least agreement of the noise of kept pictures; of those that lie straight; in place; at full resolution."""

_SHARE = 0.14
"""Share of the keypoints that must lie alike in both pictures."""

_OVERLAP, _STRICT_OVERLAP = 0.7, 0.9
_ENLARGED = 1.2
"""Scale from which on the target's raster is too coarse for the noise of the other picture."""

_LOST, _LOST_FULL = 1.4, 2.0
"""Ratio of two noise levels from which on the noise of one counts as lost, by JPEG or by resizing: where the
kept pictures were shrunk, and at full resolution."""

_LARGEST_GAIN = 1.8
"""Ratio of contrasts beyond which another light, not a program, made the difference."""

_ROUNDING = 0.1
"""Deviation in grey levels up to which a picture has no noise: it was drawn, or smoothed."""

_NEARLY, _SLACK = 1.5, 0.01
"""Pixels by which a picture may seem off its place, and what its detail may lose if it is laid there."""

_STRAIGHT, _SHEARED = np.deg2rad(0.15), 0.0025
_TURNED_SHEARED, _TURNED_SQUASHED = 0.001, 0.001
_LARGEST_TURN = np.deg2rad(5)
_PEERS, _FEWEST_PEERS, _OF_A_KIND = 11, 3, 0.35

Load = Callable[[int], NDArray[np.uint8]]
"""Returns a picture, (H, W, 3), by its place in the list."""


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


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures by their places in the list, and how well their detail agrees (0 to 1)."""

    first: int
    second: int
    score: float


def frame(picture: NDArray[np.uint8]) -> PictureFrame:
    """Return what the search keeps of a (H, W, 3) picture."""
    grey = _grey(picture)
    size = float(np.sqrt(grey.width * grey.height))
    kept = _sized(grey, min(1.0, SIDE / size))
    raster = np.asarray(kept, np.float32)
    scale = _KEYPOINT_SIDE / np.sqrt(kept.width * kept.height)
    keypoints = find_keypoints(np.asarray(_sized(kept, scale), np.float32))
    return PictureFrame(
        raster.astype(np.float16), keypoints, 1 / scale, max(1.0, size / SIDE), noise_level(raster)
    )


def _grey(picture: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(picture).convert("L").convert("F")


def _sized(image: Image.Image, scale: float) -> Image.Image:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def near_duplicates(
    frames: Sequence[PictureFrame], load: Load, progress: ProgressCallback = no_progress
) -> list[Pair]:
    """Return pairs that show the same exposure, best first; the cost grows nearly linearly.

    Copies of one exposure are connected by pairs; not each two of many are there.

    Args:
        frames: as :func:`frame` gives them.
        load: reads a picture again, for the few pairs that only the full resolution decides.
    """
    from threadpoolctl import threadpool_limits

    search = _CopySearch(frames, load)
    with threadpool_limits(1):
        candidates = candidate_pairs([item.keypoints.descriptors for item in frames], progress)
    found = []
    for done, score in enumerate(in_threads(lambda pair: search.score(*pair), candidates)):
        progress("comparing copies", done + 1, len(candidates))
        if score is not None:
            found.append(Pair(*candidates[done], score))
    return sorted(found, key=lambda pair: (-pair.score, pair.first, pair.second))


def duplicate_groups(number: int, pairs: Iterable[Pair]) -> tuple[tuple[int, ...], ...]:
    """Return the connected groups of two or more among ``number`` pictures, each sorted, by their first."""
    parts = connected(number, ((pair.first, pair.second) for pair in pairs))
    return tuple(tuple(part) for part in parts if len(part) > 1)


class _CopySearch:
    """The comparison of candidates, with what was computed of a picture kept for its next pair."""

    def __init__(self, frames: Sequence[PictureFrame], load: Load) -> None:
        self.frames, self.load = frames, load
        self.grey = lru_cache(maxsize=128)(lambda index: frames[index].grey.astype(np.float32))
        self.contrast = lru_cache(maxsize=128)(lambda index: contrast(self.grey(index)))
        self.bands = lru_cache(maxsize=64)(lambda index: Bands(self.grey(index)))
        self.structure = lru_cache(maxsize=256)(self._structure)

    def score(self, first: int, second: int) -> float | None:
        """Return how well the detail of two pictures agrees if they are of one exposure; else None."""
        affine = self._start(first, second)
        if affine is None or affine.tilt > LARGEST_TILT + 1:  # refining moves it by less than a degree
            return None
        if affine.scale < 1:  # the coarser picture is the target: it has no detail that the other lacks
            first, second, affine = second, first, affine.inverse
        enlarged = affine.scale
        other, affine = _shrunk(self.grey(second), affine)
        there = self.contrast(second) if other is self.grey(second) else contrast(other)
        if _View(self.grey(first), other, affine).overlap < _OVERLAP - 0.05:
            return None
        affine = refined(self.contrast(first), there, affine)
        view = _View(self.grey(first), other, affine, enlarged)
        if not affine.plausible or view.overlap < _OVERLAP:
            return None
        return self._judged(first, second, view)

    def _judged(self, first: int, second: int, view: _View) -> float | None:
        own, other = self.bands(first), Bands(view.window)
        if view.in_place is None and not view.is_strict and _lacks_noise(own, other, view):
            return None
        found = agreement(own, other, view.seen)
        ideal = view.in_place
        if ideal is not None:
            exact = agreement(own, Bands(ideal.window), ideal.seen)
            if exact.detail >= found.detail - _SLACK:
                view, found, other = ideal, exact, Bands(ideal.window)
        is_exact = view is ideal
        is_same = is_exact and found.detail >= _DETAIL_SAME
        shrunk = max(self.frames[first].shrunk, self.frames[second].shrunk) > 1
        lost = _LOST if shrunk else _LOST_FULL
        if not _is_copy(found, view, is_exact, lost):
            return None
        shared = self.structure(first, second)
        if shared is not None:
            found = agreement(Bands(own.picture, shared), Bands(other.picture, shared), view.seen)
            if found.detail < _DETAIL_BEYOND or not _is_copy(found, view, is_exact, lost):
                return None
        sure = is_exact and (is_same or found.noise >= _NOISE_STRAIGHT)
        if shrunk and not sure and not self._is_confirmed(first, second, view, is_exact):
            return None
        return found.detail

    def _is_confirmed(self, first: int, second: int, kept: _View, is_exact: bool) -> bool:
        """Whether the noise agrees at full resolution too, where it is not lost."""
        one, two = (np.asarray(_grey(self.load(index)), np.float32) for index in (first, second))
        here, there = one.shape[0] / kept.target.shape[0], two.shape[0] / kept.other.shape[0]
        target, other, affine = _cut_out(one, two, kept.affine.rescaled(here, there))
        other, affine = _shrunk(other, affine)
        view = _View(target, other, refined(contrast(target), contrast(other), affine), kept.enlarged)
        found = agreement(Bands(target), Bands(view.window), view.seen)
        if found.noise >= (_NOISE_EXACT if is_exact else _NOISE_FULL):
            return True
        if found.detail < _DETAIL_FULL or not (is_exact or view.is_strict):
            return False
        return view.is_lost(found.gain, _LOST_FULL) or min(view.noises) < _ROUNDING

    def _start(self, first: int, second: int) -> Affine | None:
        """Return how the first picture lies in the second by their keypoints, None where too few agree."""
        one, two = self.frames[first], self.frames[second]
        affine, number = matched(one.keypoints, two.keypoints)
        if affine is None or number < _SHARE * min(len(one.keypoints), len(two.keypoints)):
            return None
        return affine.rescaled(one.unit, two.unit)

    def _structure(self, index: int, partner: int) -> Structure | None:
        """Return what others than these two share with the first; None where too few are of its kind."""
        windows = []
        for peer in _peers(len(self.frames), index, partner):
            affine = self._start(index, peer)
            if affine is None and self.grey(index).shape != self.grey(peer).shape:
                continue
            affine = refined(self.contrast(index), self.contrast(peer), affine or IDENTITY)
            view = _View(self.grey(index), self.grey(peer), affine)
            if not affine.plausible or view.overlap < _STRICT_OVERLAP:
                continue
            if agreement(self.bands(index), Bands(view.window), view.seen).detail >= _OF_A_KIND:
                windows.append(view.window)
        return structure(windows) if len(windows) >= _FEWEST_PEERS else None


def _peers(number: int, index: int, partner: int) -> Iterator[int]:
    """Yield a few pictures other than these two, evenly spaced."""
    others = [other for other in range(number) if other not in (index, partner)]
    yield from others[:: max(1, len(others) // _PEERS)][:_PEERS]


@dataclass(frozen=True)
class _View:
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
    def in_place(self) -> _View | None:
        """The other picture laid on the target as a whole, turned or mirrored or not, if it nearly does."""
        height, width = np.array(self.target.shape) - 1.0
        corners = np.array([[0, 0], [0, width], [height, 0], [height, width]])
        upright = np.where(np.abs(self.affine.linear) > 0.5, np.sign(self.affine.linear), 0.0)
        turned = corners @ upright.T
        ideal = Affine(upright, -turned.min(axis=0))
        moved = turned + ideal.shift - (corners @ self.affine.linear.T + self.affine.shift)
        if abs(np.linalg.det(upright)) != 1 or np.abs(moved).max() > _NEARLY:
            return None
        return _View(self.target, self.other, ideal)

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
        return bool((straight or rotated) and self.overlap >= _STRICT_OVERLAP)


def _lacks_noise(own: Bands, other: Bands, view: _View) -> bool:
    """Whether the noise, which is cheap to compare, says that a map of any kind shows no copy."""
    return view.enlarged >= _ENLARGED or noise_agreement(own, other, view.seen) < _NOISE


def _is_copy(found: Agreement, view: _View, is_exact: bool, ratio: float) -> bool:
    """Whether detail and noise agree; where the noise of one is lost, its place must be a program's."""
    if found.detail < DETAIL:
        return False
    lost = view.is_lost(found.gain, ratio)
    if is_exact:
        return lost or found.noise >= _NOISE_EXACT or min(view.noises) < _ROUNDING
    if found.noise >= _NOISE and view.enlarged < _ENLARGED:
        return True
    return view.is_strict and (found.noise >= _NOISE_STRAIGHT or lost)


def _shrunk(other: Plane, affine: Affine) -> tuple[Plane, Affine]:
    """Return the other picture without the pixels that the target's raster is too coarse for."""
    if affine.scale < _ENLARGED:
        return other, affine
    small = np.asarray(_sized(Image.fromarray(other), 1 / affine.scale), np.float32)
    return small, affine.rescaled(1.0, small.shape[0] / other.shape[0])


def _cut_out(target: Plane, other: Plane, affine: Affine) -> tuple[Plane, Plane, Affine]:
    """Return the middle of what both pictures show, and the map between these parts."""
    seen = np.argwhere(inside(affine, target.shape, other.shape, 2.0)[::8, ::8]) * 8
    middle = seen.mean(axis=0)
    low = np.clip(middle - _WINDOW / 2, 0, None).astype(np.int64)
    high = np.minimum(low + _WINDOW, target.shape)
    corners = np.array([[r, c] for r in (low[0], high[0]) for c in (low[1], high[1])], np.float64)
    there = corners @ affine.linear.T + affine.shift
    start = np.clip(np.floor(there.min(axis=0)) - 8, 0, None).astype(np.int64)
    end = np.minimum(np.ceil(there.max(axis=0)) + 8, other.shape).astype(np.int64)
    inner = Affine(affine.linear, affine.linear @ low + affine.shift - start)
    return (
        np.ascontiguousarray(target[low[0] : high[0], low[1] : high[1]]),
        np.ascontiguousarray(other[start[0] : end[0], start[1] : end[1]]),
        inner,
    )
