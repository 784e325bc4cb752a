"""Near-duplicates: two files of one exposure, saved again, resized, cut, moved, turned, mirrored or re-lit.

Each picture's keypoints vote for the pictures that have the same (:mod:`.neighbours`); the few pairs with
votes are registered (:mod:`.registration`) and compared block by block (:mod:`.agreement`). Different parts
photographed alike share their structure, but not their noise; they are no duplicates.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from defectbench.data.agreement import (
    Agreement,
    Bands,
    Structure,
    agreement,
    noise_agreement,
    structure,
)
from defectbench.data.frames import Frames, PictureFrame, grey_of
from defectbench.data.keypoints import Plane
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
    refined,
)
from defectbench.data.residuals import SamePrint, same_prints
from defectbench.data.views import ENLARGED, OVERLAP, SLACK, View, of_a_kind, shrunk

_WINDOW = 512
"""Side in pixels of the part that two pictures are compared in at their full resolution."""

DETAIL, _DETAIL_FULL, _DETAIL_SAME = 0.6, 0.4, 0.97
"""Least agreement of a duplicate's detail; at full resolution, where its noise is lost; where nothing else is
asked of a picture that lies in place."""

_DETAIL_BEYOND = 0.62
"""Least agreement of a duplicate's detail beyond what others of its kind share."""

_NOISE, _NOISE_STRAIGHT, _NOISE_EXACT, _NOISE_FULL = 0.4, 0.2, 0.06, 0.25
"""Least agreement of the noise of kept pictures; of those that lie straight; in place; at full resolution."""

_LOST, _LOST_FULL = 1.4, 2.0
"""Ratio of two noise levels from which on the noise of one counts as lost, by JPEG or by resizing: where the
kept pictures were shrunk, and at full resolution."""

_ROUNDING = 0.1
"""Deviation in grey levels up to which a picture has no noise: it was drawn, or smoothed."""

_PEERS, _OF_PEERS = 11, 0.5
"""Pictures that may say what a pair shares with its kind; the share that must be of the kind, else what
they share says nothing: they may be copies themselves."""

_FEW = 32
"""Pictures of one print up to which votes, which there say little, are followed as well."""

Load = Callable[[int], NDArray[np.uint8]]
"""Returns a picture, (H, W, 3), by its place in the list."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures by their places in the list, and how well their detail agrees (0 to 1)."""

    first: int
    second: int
    score: float


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

    kept = Frames(frames)
    with threadpool_limits(1):
        voted = candidate_pairs([item.keypoints.descriptors for item in frames], progress)
    prints = same_prints(kept, progress)
    candidates = _united(voted, prints)
    search = _CopySearch(kept, load, prints)
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


def _united(voted: Iterable[tuple[int, int]], prints: Iterable[SamePrint]) -> list[tuple[int, int]]:
    """Return the candidates by votes, but among many pictures of one print those by their noise."""
    print_of = {member: each for each in prints for member in each.members if len(each.members) > _FEW}
    found = {pair for each in prints for pair in each.pairs}
    for one, two in voted:
        own = print_of.get(one)
        if own is None or own is not print_of.get(two):
            found.add((one, two))
    return sorted(found)


class _CopySearch:
    """The comparison of candidates.

    Args:
        frames: the kept pictures.
        load: as for :func:`near_duplicates`.
        prints: pictures of one print.
    """

    def __init__(self, frames: Frames, load: Load, prints: Iterable[SamePrint]) -> None:
        self.frames, self.load = frames, load
        self.structure = lru_cache(maxsize=256)(self._structure)
        self.window = lru_cache(maxsize=256)(self._window)
        self.sure = {pair for each in prints for pair in each.sure}
        self.nearest = {member: near for each in prints for member, near in each.nearest.items()}

    def score(self, first: int, second: int) -> float | None:
        """Return how well the detail of two pictures agrees if they are of one exposure; else None."""
        affine = self.frames.start(first, second)
        if affine is None or affine.tilt > LARGEST_TILT + 1:  # refining moves it by less than a degree
            return None
        if affine.scale < 1:  # the coarser picture is the target: it has no detail that the other lacks
            first, second, affine = second, first, affine.inverse
        enlarged = affine.scale
        other, affine = shrunk(self.frames.grey(second), affine)
        there = self.frames.contrast(second) if other is self.frames.grey(second) else contrast(other)
        if View(self.frames.grey(first), other, affine).overlap < OVERLAP - 0.05:
            return None
        affine = refined(self.frames.contrast(first), there, affine)
        view = View(self.frames.grey(first), other, affine, enlarged)
        if not affine.plausible or view.overlap < OVERLAP:
            return None
        return self._judged(first, second, view)

    def _judged(self, first: int, second: int, view: View) -> float | None:
        own, other = self.frames.bands(first), Bands(view.window)
        if view.in_place is None and not view.is_strict and _lacks_noise(own, other, view):
            return None
        found = agreement(own, other, view.seen)
        ideal = view.in_place
        if ideal is not None:
            exact = agreement(own, Bands(ideal.window), ideal.seen)
            if exact.detail >= found.detail - SLACK:
                view, found, other = ideal, exact, Bands(ideal.window)
        is_exact = view is ideal
        is_same = is_exact and found.detail >= _DETAIL_SAME
        was_shrunk = max(self.frames[first].shrunk, self.frames[second].shrunk) > 1
        lost = _LOST if was_shrunk else _LOST_FULL
        if not _is_copy(found, view, is_exact, lost):
            return None
        sure = (min(first, second), max(first, second)) in self.sure
        shared = None if sure else self.structure(first, second)
        if shared is not None:
            found = agreement(Bands(own.picture, shared), Bands(other.picture, shared), view.seen)
            if found.detail < _DETAIL_BEYOND or not _is_copy(found, view, is_exact, lost):
                return None
        plain = is_exact and (is_same or found.noise >= _NOISE_STRAIGHT)
        if was_shrunk and not plain and not self._is_confirmed(first, second, view, is_exact):
            return None
        return found.detail

    def _is_confirmed(self, first: int, second: int, kept: View, is_exact: bool) -> bool:
        """Whether the noise agrees at full resolution too, where it is not lost."""
        one, two = (np.asarray(grey_of(self.load(index)), np.float32) for index in (first, second))
        here, there = one.shape[0] / kept.target.shape[0], two.shape[0] / kept.other.shape[0]
        target, other, affine = _cut_out(one, two, kept.affine.rescaled(here, there))
        other, affine = shrunk(other, affine)
        view = View(target, other, refined(contrast(target), contrast(other), affine), kept.enlarged)
        found = agreement(Bands(target), Bands(view.window), view.seen)
        if found.noise >= (_NOISE_EXACT if is_exact else _NOISE_FULL):
            return True
        if found.detail < _DETAIL_FULL or not (is_exact or view.is_strict):
            return False
        return view.is_lost(found.gain, _LOST_FULL) or min(view.noises) < _ROUNDING

    def _structure(self, index: int, partner: int) -> Structure | None:
        """Return what others than these two share with the first; None where too few are of its kind."""
        near = {*self.nearest.get(index, ()), *self.nearest.get(partner, ())} - {index, partner}
        peers = _peers(len(self.frames), {index, partner})
        windows: dict[int, Plane] = {}
        others = 0
        for peer in [*peers, *sorted(near.difference(peers))]:
            window = self.window(index, peer)
            if window is not None:
                windows[peer] = window
            elif not near:
                others += 1
                if others > (1 - _OF_PEERS) * len(peers):
                    return None
        return structure([windows[peer] for peer in sorted(windows)]) if windows else None

    def _window(self, index: int, peer: int) -> Plane | None:
        """Return a picture as it lies on another, None where they are not of a kind."""
        start = self.frames.start(index, peer)
        if start is None and self.frames.grey(index).shape != self.frames.grey(peer).shape:
            return None
        view = of_a_kind(self.frames, index, peer, start or IDENTITY)
        return None if view is None else view.window


def _peers(number: int, without: Collection[int]) -> list[int]:
    """Return a few pictures, evenly spaced."""
    others = [other for other in range(number) if other not in without]
    step = max(1.0, len(others) / _PEERS)
    return [others[int(place * step)] for place in range(min(_PEERS, len(others)))]


def _lacks_noise(own: Bands, other: Bands, view: View) -> bool:
    """Whether the noise, which is cheap to compare, says that a map of any kind shows no copy."""
    return view.enlarged >= ENLARGED or noise_agreement(own, other, view.seen) < _NOISE


def _is_copy(found: Agreement, view: View, is_exact: bool, ratio: float) -> bool:
    """Whether detail and noise agree; where the noise of one is lost, its place must be a program's."""
    if found.detail < DETAIL:
        return False
    lost = view.is_lost(found.gain, ratio)
    if is_exact:
        return lost or found.noise >= _NOISE_EXACT or min(view.noises) < _ROUNDING
    if found.noise >= _NOISE and view.enlarged < ENLARGED:
        return True
    return view.is_strict and (found.noise >= _NOISE_STRAIGHT or lost)


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
