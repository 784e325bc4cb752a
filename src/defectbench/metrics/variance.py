"""How far an estimate would move with other images and other fits: two variances, added up.

Images: what each image contributes, summed within groups, because frames of one part are no independent
evidence. Fits: a fit repeated with another seed is another model, and its luck does not shrink with more
images. The seeds' figures show it, less what the images alone would make them differ by. A variance from
three seeds is rough, so the interval is Student's with Satterthwaite's degrees of freedom (1946, Biometrics
Bulletin 2): a bootstrap over three seeds would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_SEEDS = 3
"""Seeds from which on an interval holds for the family; with fewer it holds for these fits only."""


@dataclass(frozen=True, slots=True)
class Variance:
    """The variance of an estimate that is a mean over seeds.

    Attributes:
        images: its part by the choice of images, with the fits as they are.
        fits: its part by the luck of the fits; 0 where there is one seed, which cannot show it.
        between: the variance over the seeds' figures over their number: ``fits`` before the images' share is
            taken off.
        units: independent images, or groups of them.
        seeds: how many.
    """

    images: float
    fits: float
    between: float
    units: int
    seeds: int

    @property
    def total(self) -> float:
        """Of the estimate."""
        return self.images + self.fits

    @property
    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom."""
        parts = self.images**2 / max(self.units - 2, 1)
        if self.fits > 0:
            parts += self.between**2 / (self.seeds - 1)
        return self.total**2 / parts if parts > 0 else 1.0

    def reach(self, level: float) -> float:
        """Return the half width of the interval at confidence ``level``."""
        return self.quantile(level) * math.sqrt(self.total)

    def widening(self, level: float) -> float:
        """Return by how much an interval that knows of images alone is to be widened; 1 or more."""
        if self.images <= 0 or self.fits <= 0:
            return 1.0
        normal = NormalDist().inv_cdf((1 + level) / 2)
        return max(1.0, self.reach(level) / (normal * math.sqrt(self.images)))

    def p(self, difference: float) -> float:
        """Return the two-sided p of "there is no difference".

        Where nothing varies, all images say the same: then as if each unit's sign were tossed.
        """
        if self.total <= 0:
            return 1.0 if difference == 0 else 2.0 ** (1 - self.units)
        from scipy import stats

        return float(2 * stats.t.sf(abs(difference) / math.sqrt(self.total), self.freedom))

    def quantile(self, level: float) -> float:
        """Return Student's quantile for an interval at confidence ``level``."""
        from scipy import stats

        return float(stats.t.ppf((1 + level) / 2, self.freedom))


def variance_of(
    seeds: Sequence[float], contributions: Iterable[tuple[Floats, NDArray[np.int64]]]
) -> Variance:
    """Return the variance of the mean of the seeds' figures.

    Args:
        seeds: each seed's figure.
        contributions: of each fold (seeds, images) how far each image moves each seed's figure, and (images,)
            the unit that it belongs to, numbered from 0.
    """
    number, images, noise, units = len(seeds), 0.0, 0.0, 0
    for moved, unit in contributions:
        summed = np.stack([np.bincount(unit, weights=row) for row in moved])
        size = summed.shape[1]
        units += size
        # As a variance's n - 1: the contributions add up to nought.
        corrected = size / max(size - 1, 1)
        images += corrected * float((summed.mean(0) ** 2).sum())
        if number > 1:
            noise += corrected * float(((summed - summed.mean(0)) ** 2).sum()) / (number - 1)
    between = float(np.var(seeds, ddof=1)) if number > 1 else 0.0
    return Variance(images, max(0.0, between - noise) / number, between / number, units, number)


def share_of_groups(
    calls: NDArray[np.bool_], units: NDArray[np.int64], level: float = 0.95
) -> tuple[float, float, float]:
    """Return a share and its interval, where images come in groups and are called by several fits.

    The interval of as many independent images as would vary as much (Korn & Graubard 1998, Survey Methodology
    24); of as many as there are groups, where nothing varies.

    Args:
        calls: (seeds, images).
        units: (images,) the group of each, numbered from 0; its place where it is one by itself.
    """
    from scipy.special import betaincinv

    if not calls.size:
        return math.nan, math.nan, math.nan
    share, images = float(calls.mean()), calls.shape[1]
    seeds = calls.mean(axis=1)
    found = variance_of(list(map(float, seeds)), [((calls - seeds[:, None]) / images, units)])
    number = float(found.units)
    if found.total > 0:
        shrunk = (NormalDist().inv_cdf((1 + level) / 2) / found.quantile(level)) ** 2
        number = min(share * (1 - share) / found.total * shrunk, float(calls.size))
    hits, tail = share * number, (1 - level) / 2
    # Exact where nothing varies; else Jeffreys', which is not as wide (Brown, Cai & DasGupta 2001).
    extra = 0.5 if 0 < share < 1 else 1.0
    low = float(betaincinv(hits + 1 - extra, number - hits + extra, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + extra, number - hits + 1 - extra, 1 - tail)) if share < 1 else 1.0
    return share, low, high


def variance_of_draws(seeds: Sequence[float], drawn: Floats, units: int) -> Variance:
    """Return the same for a figure of which only draws of the images are known.

    What the images alone make the seeds differ by stays in: the variance is a little too large.
    """
    between = float(np.var(seeds, ddof=1)) / len(seeds) if len(seeds) > 1 else 0.0
    return Variance(float(np.var(drawn)), between, between, units, len(seeds))
