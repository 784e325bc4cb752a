"""How a model fares on defects of a type that it never saw, and how sure a difference on them is.

A *block* is one training set's tested images in one fold. Blocks of several training sets share images: the
same goods,
and in mode ``one`` the same defects. So a resample draws images once for all blocks, within each fold and
type, and every block weighs its images by that draw.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.metrics.comparison import NAN, FoldScores, Interval, fold_average

Floats = NDArray[np.float64]
RESAMPLES = 1999


@dataclass(frozen=True, eq=False)
class UnseenBlock:
    """One training set in one fold.

    Attributes:
        fold: whose images these are.
        images: their ids.
        types: their defect types; within each, images are drawn.
        scores: of two models on these images.
    """

    fold: int
    images: Sequence[str]
    types: Sequence[str]
    scores: FoldScores


def difference(
    blocks: Sequence[UnseenBlock], *, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Return model a's image AUROC less model b's, averaged over blocks with weight positives x negatives.

    The interval is the percentile one, over images; the training sets are those that the category has.

    >>> scores = FoldScores.of([0, 0, 1, 1], [1, 2, 3, 4], [2, 1, 1, 3])
    >>> found = difference([Block(0, "abcd", ["good", "good", "crack", "crack"], scores)], seed=0)
    >>> found.value, found.low >= 0
    (0.375, True)
    """
    told = [block for block in blocks if block.scores.weight]
    if not told:
        return Interval(NAN, NAN, NAN, level)
    weights = [block.scores.weight for block in told]
    values = [float(block.scores.gaps().mean()) for block in told]
    shares = _drawn(told, np.random.default_rng([seed, 2]), resamples)
    drawn = sum(weight * _resampled(block, shares) for block, weight in zip(told, weights, strict=True))
    low, high = np.quantile(drawn / sum(weights), ((1 - level) / 2, (1 + level) / 2))
    return Interval(fold_average(values, weights), float(low), float(high), level)


def _drawn(
    blocks: Sequence[UnseenBlock], rng: np.random.Generator, resamples: int
) -> Mapping[tuple[int, str], Floats]:
    """Return (fold, image) -> how often it is drawn in each resample."""
    strata: dict[tuple[int, str], dict[str, None]] = defaultdict(dict)
    for block in blocks:
        for image, kind in zip(block.images, block.types, strict=True):
            strata[block.fold, kind][image] = None
    found: dict[tuple[int, str], Floats] = {}
    for (fold, _), images in sorted(strata.items()):
        drawn = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), resamples)
        counts = drawn.astype(np.float64)
        found |= {(fold, image): counts[:, place] for place, image in enumerate(images)}
    return found


def _resampled(block: UnseenBlock, drawn: Mapping[tuple[int, str], Floats]) -> Floats:
    counts = np.stack([drawn[block.fold, image] for image in block.images], axis=1)
    rows, columns = counts[:, block.scores.defects], counts[:, block.scores.goods]
    # Each type is drawn to its own size, so both sums are those of the data.
    return np.asarray(((rows @ block.scores.gaps()) * columns).sum(axis=1) / block.scores.weight)
