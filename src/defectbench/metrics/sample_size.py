"""How many images would decide: the sample size at which the paired test finds a given difference.

The difference of two AUROCs is the mean, over pairs of a defect and a good part, of how much more often one
model orders them rightly. Its variance has three parts: defects differ, good parts differ, pairs differ
besides (a two-way layout with random rows and columns; Roe & Metz 1997, Academic Radiology 4). The first two
fall with the number of defects and goods, the third with their product, so that the variance at another
number of images can be estimated from the images at hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from defectbench.metrics.comparison import FoldScores

NAN = math.nan
POWER = 0.8
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Spread:
    """Variance of a difference of AUROCs, by where it comes from.

    Attributes:
        defects, goods: of one defect's, and one good part's, mean over all others.
        pairs: what a pair adds besides.
        sizes: (defects, goods) at hand.
        folds: that they are cut into: a pair is always of one fold.
    """

    defects: float
    goods: float
    pairs: float
    sizes: tuple[int, int]
    folds: int

    def variance(self, times: float = 1.0) -> float:
        """Return the difference's variance with ``times`` as many images of each class in as many folds."""
        defects, goods = (size * times for size in self.sizes)
        return self.defects / defects + self.goods / goods + self.folds * self.pairs / (defects * goods)

    def times(self, variance: float) -> float:
        """Return how many times as many images bring the variance down to ``variance``."""
        defects, goods = self.sizes
        single = self.defects / defects + self.goods / goods
        double = self.folds * self.pairs / (defects * goods)
        # The positive root of variance x t^2 - single x t - double = 0.
        return (single + math.sqrt(single**2 + 4 * variance * double)) / (2 * variance)


def spread(folds: Sequence[FoldScores]) -> Spread | None:
    """Return the parts of the variance of a - b, pooled over folds; None where no fold is large enough.

    A fold needs two images of each class. Parts that come out negative, by chance, count as 0.

    >>> found = spread([FoldScores.of([0, 0, 1, 1], [1, 3, 2, 4], [1, 2, 3, 4])])
    >>> (found.defects, found.goods, round(found.variance(), 4), round(found.times(found.variance()), 6))
    (0.0, 0.0, 0.0625, 1.0)
    """
    usable = [fold for fold in folds if min(fold.defects.size, fold.goods.size) > 1]
    if not usable:
        return None
    parts = np.array([_parts(fold) for fold in usable])
    weights = np.array([fold.weight for fold in usable], dtype=float)
    defects, goods, pairs = (max(0.0, float(part)) for part in weights @ parts / weights.sum())
    sizes = (sum(fold.defects.size for fold in usable), sum(fold.goods.size for fold in usable))
    return Spread(defects, goods, pairs, sizes, len(usable))


def needed(
    folds: Sequence[FoldScores], difference: float, *, power: float = POWER, alpha: float = ALPHA
) -> tuple[float, float]:
    """Return how many (defects, goods) would decide a true difference, at the ratio there is now.

    The two-sided test at ``alpha`` finds it with probability ``power`` when the difference is its standard
    error times z(1 - alpha/2) + z(power). Assumed: more images like these, models as good as these, as many
    folds and seeds. NaN where nothing can be estimated: no fold with two images of each class, or no image on
    which the models differ.
    """
    found = spread(folds)
    if found is None or not found.variance():
        return NAN, NAN
    times = found.times((difference / reach(power, alpha)) ** 2)
    return found.sizes[0] * times, found.sizes[1] * times


def reach(power: float = POWER, alpha: float = ALPHA) -> float:
    """Return how many standard errors a difference is that the two-sided test finds with ``power``.

    >>> round(reach(), 3)
    2.802
    """
    return NormalDist().inv_cdf(1 - alpha / 2) + NormalDist().inv_cdf(power)


def _parts(fold: FoldScores) -> tuple[float, float, float]:
    """Return (defects, goods, pairs) of one fold: expected mean squares of the two-way layout."""
    gaps = fold.gaps()
    rows, columns = gaps.shape
    by_row, by_column = gaps.mean(axis=1), gaps.mean(axis=0)
    rest = gaps - by_row[:, None] - by_column + gaps.mean()
    # Mean squares less what the pairs add to them: Roe & Metz's random-effects estimators.
    pairs = float((rest**2).sum()) / ((rows - 1) * (columns - 1))
    return float(by_row.var(ddof=1)) - pairs / columns, float(by_column.var(ddof=1)) - pairs / rows, pairs
