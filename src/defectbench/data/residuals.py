"""Which pictures may be copies where all parts bear the same sharp print under the same camera.

There the keypoints of a copy look no more like its original's than like any other part's. So the pictures are
registered to one of them, what they share is taken away, and what is left, each exposure's own noise, is
compared between all of them. A random projection keeps a few kilobytes of it (Charikar, Chen and
Farach-Colton, "Finding frequent items in data streams", 2002), so that all pairs cost one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.data.agreement import FLAT, Bands, Blocks, blocks, structure
from defectbench.data.frames import Frames
from defectbench.data.parallel import in_threads
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.registration import IDENTITY, Affine
from defectbench.data.views import View, of_a_kind

_ANCHORS, _SAMPLE, _ENOUGH = 6, 12, 4
"""Pictures that others are laid on, one after the other; pictures that this is tried on first; how many of
these must bear the same print."""

_SETS, _OF_SET, _FEWEST = 4, 16, 3
"""Sets of pictures, each of which says what is shared; pictures of one at most, and at least. What is left of
a picture in a set says nothing of it and its copies: so there are several."""

_TAKEN = 0.8
"""Variance of what one set leaves of a picture, to what others leave; below it the set has a copy of it, that
took its noise away."""

_DIMENSIONS = 1024
_PARTNERS, _LEAST, _OUTSTANDING = 3, 0.15, 4.0
"""Partners of a picture; their least correlation; deviations by which it must stand out from the others'."""

_NEAREST = 8
"""Pictures that say what is left of the print in one of them, beyond what each set says."""

_ALONE, _CLEAN, _EVEN = 0.4, 1.4, 1.15
"""Share of a sure pair's correlation that either may have with one that is no partner; variance of what is
left of the cleaner one, to the lower quartile of all; of the upper quartile, where it is noise alone."""

_CHUNK, _SEED = 1024, 0
_TO_DEVIATIONS = 1.4826
"""Standard deviations of a normal distribution to a median absolute deviation."""


@dataclass(frozen=True, slots=True)
class SamePrint:
    """Pictures that bear the same print.

    Attributes:
        members: their places in the list.
        pairs: of members, by their places in the list: those in which what is left agrees.
        sure: those of the pairs that agree in noise alone, because nothing else is left of one of them and
            neither agrees with others.
        nearest: of each member those in which what is left is most alike.
    """

    members: frozenset[int]
    pairs: frozenset[tuple[int, int]]
    sure: frozenset[tuple[int, int]]
    nearest: Mapping[int, Sequence[int]]


def same_prints(frames: Frames, progress: ProgressCallback = no_progress) -> list[SamePrint]:
    """Return the sets of pictures that bear one sharp print each: most often none.

    The cost is linear in the number of pictures, but for one product of matrices.
    """
    found: list[SamePrint] = []
    left = list(range(len(frames)))
    for attempt in range(_ANCHORS):
        if len(left) < _SETS * _FEWEST:
            break
        anchor = left[len(left) * attempt // _ANCHORS]
        others = [index for index in left if index != anchor]
        sample = others[:: max(1, len(others) // _SAMPLE)][:_SAMPLE]
        if sum(place is not None for place in _places(frames, anchor, sample)) < _ENOUGH:
            continue
        placed = {anchor: IDENTITY}
        for done, place in enumerate(_places(frames, anchor, others)):
            progress("laying pictures of one print on one another", done + 1, len(others))
            if place is not None:
                placed[others[done]] = place
        if len(placed) >= _SETS * _FEWEST:
            found.append(_Print(frames, anchor, placed).compared())
        left = [index for index in left if index not in placed]
    return found


def _places(frames: Frames, anchor: int, others: Sequence[int]) -> Iterator[Affine | None]:
    """Yield how the anchor lies in each of the others, None where they do not bear the same print."""

    def place(index: int) -> Affine | None:
        start = frames.start(anchor, index)
        if start is None:
            return None
        view = of_a_kind(frames, anchor, index, start)
        return None if view is None else view.affine

    return in_threads(place, others)


class _Print:
    """Pictures that bear one print, laid on one of them."""

    def __init__(self, frames: Frames, anchor: int, placed: Mapping[int, Affine]) -> None:
        self.frames, self.target = frames, frames.grey(anchor)
        self.members = sorted(placed)
        self.places = [placed[index] for index in self.members]
        number = len(self.members)
        per_set = min(_OF_SET, number // _SETS)
        drawn = np.linspace(0, number - 1, per_set * _SETS).round().astype(np.int64).reshape(per_set, _SETS)
        self.sets = [frozenset(drawn[:, each].tolist()) for each in range(_SETS)]
        self.shared = [structure([self.view(place).window for place in sorted(each)]) for each in self.sets]
        rng = np.random.default_rng(_SEED)
        self.signs = rng.choice(np.array([-1, 1], np.float32), blocks(self.target).size)

    def view(self, place: int) -> View:
        """Return a member, by its place among the members, as it lies on the target."""
        return View(self.target, self.frames.grey(self.members[place]), self.places[place])

    def compared(self) -> SamePrint:
        """Return the members, and which of them have the same noise."""
        number = len(self.members)
        signatures = np.empty((_SETS, number, _DIMENSIONS), np.float32)
        levels = np.empty(number)
        for place, (signature, level) in enumerate(in_threads(self._left, range(number))):
            signatures[:, place], levels[place] = signature, level
        low, high = np.quantile(levels, [0.25, 0.75])
        clean = (levels <= _CLEAN * low) & (high <= _EVEN * low)
        nearest, alike, least = _nearest(signatures)
        pairs, sure = set(), set()
        for one, column in np.argwhere(alike[:, :_PARTNERS] >= least[:, None]).tolist():
            two = int(nearest[one, column])
            pair = self.members[min(one, two)], self.members[max(one, two)]
            pairs.add(pair)
            alone = max(alike[one, _PARTNERS], alike[two, _PARTNERS]) < _ALONE * alike[one, column]
            if alone and (clean[one] or clean[two]):
                sure.add(pair)
        members = np.array(self.members)
        return SamePrint(
            frozenset(self.members),
            frozenset(pairs),
            frozenset(sure),
            dict(zip(self.members, members[nearest].tolist(), strict=True)),
        )

    def _left(self, place: int) -> tuple[NDArray[np.float32], float]:
        """Return what is left of a member without what each set shares, (sets, 1024), and its least variance.

        The first is of length 1, and 0 for a set that the member or a copy of it is of.
        """
        view = self.view(place)
        window, whole = view.window, np.asarray(blocks(view.seen).all(axis=1))
        found = np.zeros((_SETS, _DIMENSIONS), np.float32)
        levels = np.zeros(_SETS)
        for each, (own, members) in enumerate(zip(self.shared, self.sets, strict=True)):
            if place not in members and whole.any():
                left = Bands(window, own).detail
                found[each] = _projected(left, whole, self.signs)
                levels[each] = np.median(left[whole].var(axis=1))
        told = levels >= _TAKEN * levels.max()
        found[~told] = 0
        return found, float(levels[told].min())


def _projected(left: Blocks, whole: NDArray[np.bool_], signs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the random projection of the blocks that are seen whole, each at the same contrast, (1024,)."""
    left = left - left.mean(axis=1, keepdims=True)
    left = left * (whole[:, None] / np.maximum(left.std(axis=1, keepdims=True), FLAT["detail"]))
    signed = np.zeros(-(-left.size // _DIMENSIONS) * _DIMENSIONS, np.float32)
    signed[: left.size] = left.ravel() * signs
    found = signed.reshape(-1, _DIMENSIONS).sum(axis=0)
    return np.asarray(found / max(float(np.linalg.norm(found)), 1e-6), np.float32)


def _nearest(
    signatures: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return each member's nearest, (members, 8), how they correlate with it, and how one that stands out."""
    number = signatures.shape[1]
    width = min(_NEAREST, number - 1)
    nearest = np.empty((number, width), np.int64)
    kept = np.empty((number, width), np.float32)
    least = np.empty(number, np.float32)
    for start in range(0, number, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, number))
        alike = np.max([each[rows] @ each.T for each in signatures], axis=0)
        alike[np.arange(len(rows)), rows] = -1
        middle = np.median(alike, axis=1)
        spread = _TO_DEVIATIONS * np.median(np.abs(alike - middle[:, None]), axis=1)
        nearest[rows] = np.argsort(-alike, axis=1, kind="stable")[:, :width]
        kept[rows] = np.take_along_axis(alike, nearest[rows], axis=1)
        least[rows] = np.maximum(_LEAST, middle + _OUTSTANDING * spread)
    return nearest, kept, least
