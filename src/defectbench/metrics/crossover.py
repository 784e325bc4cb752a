"""How many labelled defects a classifier needs to be as good as a detector, and how sure that is.

The crossover is the smallest number n from which on, at every larger n tested, the one-sided 95 % bound of
classifier minus detector exceeds -margin: from there on the classifier is surely not worse by more than that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from defectbench.errors import DataError
from defectbench.metrics.comparison import FoldScores, Interval, drawn_groups, fold_average

Floats = NDArray[np.float64]
RESAMPLES = 1999
NEVER = math.inf
_BOUND = 0.05
"""Share of the resamples that may lie below the one-sided bound."""


@dataclass(frozen=True, eq=False)
class CrossoverPoint:
    """One number of labelled defects.

    Attributes:
        n: how many labelled defects the classifier used, tuning included.
        folds: the tested images of each fold; ``a`` holds the classifier's scores, a line for each seed of
            each draw in turn, ``b`` the detector's, a line for each seed. Images and detector are the same
            at every n.
        seeds: lines of ``a`` that are one draw: seeds are averaged, draws are resampled.
    """

    n: int
    folds: tuple[FoldScores, ...]
    seeds: int = 1


@dataclass(frozen=True, slots=True)
class Level:
    """What one number of labelled defects gives.

    Attributes:
        classifier, detector: image AUROC with its interval, averaged over draws or seeds and over folds.
        difference: classifier minus detector.
        bound: the difference's one-sided 95 % lower bound.
    """

    n: int
    classifier: Interval
    detector: Interval
    difference: float
    bound: float


@dataclass(frozen=True, slots=True)
class Crossover:
    """From how many labelled defects on a classifier suffices.

    Attributes:
        n: the crossover; :data:`NEVER` where the largest number tested is not enough.
        low, high: of the number from which on the difference itself exceeds -margin, over resamples of
            images and draws. ``n``, which asks for the bound, lies in the upper part of that.
        levels: every number tested, rising.
    """

    n: float
    low: float
    high: float
    levels: tuple[Level, ...]

    @property
    def text(self) -> str:
        """The crossover as people read it, censored at the ends: ``4``, ``<= 1``, ``> 28``."""
        return self._censored(self.n)

    @property
    def interval(self) -> str:
        """Its interval: ``2 to 8``, ``<= 1 to 4``, ``> 28``."""
        low, high = self._censored(self.low), self._censored(self.high)
        return low if low == high else f"{low} to {high}"

    def _censored(self, n: float) -> str:
        """Return a number as text: at an end of the numbers tested only a bound is known."""
        tested = [level.n for level in self.levels]
        if n == NEVER:
            return f"> {tested[-1]}"
        return f"<= {tested[0]}" if n == tested[0] else f"{n:g}"


def crossover(
    points: Sequence[CrossoverPoint],
    *,
    margin: float,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Crossover:
    """Return the crossover by image AUROC, with its percentile interval.

    A resample draws images, or groups of them, within each fold and class, jointly for both models and at
    every n, and draws within each fold. Points with equally many draws share theirs, because a draw's
    training defects at n are among those at 2n.

    Raises:
        DataError: no point, a number twice, or points with different images.

    >>> labels = [0, 0, 0, 1, 1, 1]
    >>> poor = FoldScores.of(labels, [[1, 2, 3, 1, 2, 3]], [1, 2, 3, 4, 5, 6])
    >>> good = FoldScores.of(labels, [[1, 2, 3, 7, 8, 9]], [1, 2, 3, 4, 5, 6])
    >>> points = [CrossoverPoint(1, (poor,)), CrossoverPoint(2, (good,))]
    >>> found = crossover(points, margin=0.01, seed=0, resamples=99)
    >>> found.text, found.interval
    ('2', '2')
    """
    ordered = tuple(sorted(points, key=lambda point: point.n))
    _check(ordered)
    numbers = [point.n for point in ordered]
    classifier, detector = _drawn(ordered, seed, resamples)
    levels = tuple(
        _level(point, row, detector, level) for point, row in zip(ordered, classifier, strict=True)
    )
    found = _first(numbers, np.array([[each.bound] for each in levels]) > -margin)
    several = _first(numbers, classifier - detector > -margin)
    low, high = (_quantile(several, share) for share in _tails(level))
    return Crossover(float(found[0]), low, high, levels)


def _tails(level: float) -> tuple[float, float]:
    """Return the two shares of the draws that a two-sided interval of this level cuts at."""
    return (1 - level) / 2, (1 + level) / 2


def _first(numbers: Sequence[int], enough: NDArray[np.bool_]) -> Floats:
    """Return for each column of ``enough`` (numbers, columns) the number from which on all is true."""
    # From the right: true where this number and every larger one are enough.
    onwards = np.logical_and.accumulate(enough[::-1], axis=0)[::-1]
    places = onwards.argmax(axis=0)
    return np.where(onwards.any(axis=0), np.array(numbers, float)[places], NEVER)


def _quantile(values: Floats, share: float) -> float:
    """Return the quantile that is one of the values: between two numbers tested nothing is known."""
    # NEVER is infinite and sorts last, so that interpolating could give a number nobody tested.
    return float(np.sort(values)[min(int(share * len(values)), len(values) - 1)])


def _level(point: CrossoverPoint, classifier: Floats, detector: Floats, level: float) -> Level:
    """Return one number's figures; ``classifier`` and ``detector`` are (resamples,) on the same draws."""
    ours = _interval(point, "a", classifier, level)
    theirs = _interval(point, "b", detector, level)
    bound = float(np.quantile(classifier - detector, _BOUND))
    return Level(point.n, ours, theirs, ours.value - theirs.value, bound)


def _interval(point: CrossoverPoint, model: Literal["a", "b"], drawn: Floats, level: float) -> Interval:
    """Return a model's AUROC on the images as they are, with the percentile interval of its draws."""
    values = [_auroc(fold, fold.a if model == "a" else fold.b) for fold in point.folds]
    low, high = (float(np.quantile(drawn, share)) for share in _tails(level))
    return Interval(fold_average(values, [fold.weight for fold in point.folds]), low, high, level)


def _auroc(fold: FoldScores, scores: Floats) -> float:
    """Return the mean AUROC of some lines of scores; NaN without both classes."""
    return float(fold.pairs(scores).mean()) / len(scores) if fold.weight else math.nan


def _drawn(points: Sequence[CrossoverPoint], seed: int, resamples: int) -> tuple[Floats, Floats]:
    """Return the classifier's figures (points, resamples) and the detector's, on drawn images and draws."""
    rng = np.random.default_rng([seed, 1])
    total = sum(fold.weight for fold in points[0].folds)
    classifier, detector = np.zeros((len(points), resamples)), np.zeros(resamples)
    for place, fold in enumerate(points[0].folds):
        if not fold.weight:
            continue
        share = fold.weight / total
        rows, columns = _image_shares(fold, rng, resamples)
        detector += _resampled(fold, fold.b, len(fold.b), rows, columns)[0] * share
        counts = sorted({len(point.folds[place].a) // point.seeds for point in points})
        shares = {count: _shares(rng, count, resamples) for count in counts}
        for row, point in enumerate(points):
            draws = _resampled(point.folds[place], point.folds[place].a, point.seeds, rows, columns)
            # Points with equally many draws take the same line of shares, see :func:`crossover`.
            classifier[row] += (draws * shares[len(draws)].T).sum(axis=0) * share
    return classifier, detector


def _image_shares(fold: FoldScores, rng: np.random.Generator, resamples: int) -> tuple[Floats, Floats]:
    """Return how much each defect and each good weighs in each resample; groups are drawn whole."""
    if fold.units is None:
        return _shares(rng, fold.defects.size, resamples), _shares(rng, fold.goods.size, resamples)
    times = drawn_groups(fold, fold.units, resamples, rng)
    return _relative(times[:, fold.defects]), _relative(times[:, fold.goods])


def _relative(times: Floats) -> Floats:
    """Return counts as shares that add up to 1 in each line; all alike where none of the images is drawn."""
    total = times.sum(axis=1, keepdims=True)
    shares: Floats = np.where(total > 0, times / np.maximum(total, 1), 1 / times.shape[1])
    return shares


def _shares(rng: np.random.Generator, items: int, resamples: int) -> Floats:
    """Return how much each item weighs in each resample, (resamples, items); a line adds up to 1."""
    return rng.multinomial(items, np.full(items, 1 / items), resamples) / items


def _resampled(fold: FoldScores, scores: Floats, seeds: int, rows: Floats, columns: Floats) -> Floats:
    """Return the AUROC of each draw, its ``seeds`` lines averaged, on each resample: (draws, resamples)."""
    draws = scores.reshape(-1, seeds, scores.shape[1])
    return np.stack([((rows @ (fold.pairs(lines) / seeds)) * columns).sum(axis=1) for lines in draws])


def _check(points: Sequence[CrossoverPoint]) -> None:
    """Refuse what is no curve."""
    numbers = [point.n for point in points]
    if not points or len(set(numbers)) < len(numbers):
        raise DataError(f"a learning curve needs distinct numbers of labelled defects, got {numbers}")
    first = points[0].folds
    if not any(fold.weight for fold in first):
        raise DataError("a learning curve needs a fold with tested images of both classes")
    for point in points:
        if any(len(fold.a) % point.seeds for fold in point.folds):
            raise DataError(f"n={point.n} has lines of scores that are not {point.seeds} for each draw")
        alike = len(point.folds) == len(first) and all(
            np.array_equal(one.labels, other.labels) and np.array_equal(one.b, other.b)
            for one, other in zip(point.folds, first, strict=True)
        )
        if not alike:
            raise DataError(f"n={point.n} is tested on other images, or against another detector")
