"""How many tested images would decide between the contenders, if they differed by one margin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from defectbench.metrics import comparison, sample_size
from defectbench.tables.paired import PairedSeeds, resamples

_SEED = 0


@dataclass(frozen=True, slots=True)
class SampleSizeRow:
    """The sample size of one category.

    Assumed: more images like these, models as good as these, as many folds and seeds, the same ratio of goods
    to defects, and one category alone (Holm asks for more where there are several).

    Attributes:
        margin: the true difference that would be found.
        power: how likely.
        goods, defects: distinct tested images now.
        need_goods, need_defects: how many of each; NaN where nothing can be told.
    """

    category: str
    classifier: str
    detector: str
    margin: float
    power: float
    goods: int
    defects: int
    need_goods: float
    need_defects: float

    @property
    def enough(self) -> bool:
        """Whether there are as many now."""
        return self.defects >= self.need_defects


def size_up(
    paired_by_category: Sequence[PairedSeeds], contenders: tuple[str, str], endpoint: str, margin: float
) -> tuple[SampleSizeRow, ...]:
    """Return the sample size of each category that can be compared."""
    return tuple(_need(paired_seeds, contenders, endpoint, margin) for paired_seeds in paired_by_category)


def _need(
    paired_seeds: PairedSeeds, contenders: tuple[str, str], endpoint: str, margin: float
) -> SampleSizeRow:
    goods = sum(int(fold.goods.size) for fold in paired_seeds.folds)
    defects = sum(int(fold.defects.size) for fold in paired_seeds.folds)
    if endpoint == comparison.AUROC:
        need_defects, need_goods = sample_size.needed(paired_seeds.folds, margin)
    else:
        times = _times(paired_seeds, endpoint, margin)
        need_defects, need_goods = defects * times, goods * times
    rounded = (_up(need_goods), _up(need_defects))
    return SampleSizeRow(
        paired_seeds.category, *contenders, margin, sample_size.POWER, goods, defects, *rounded
    )


def _times(paired_seeds: PairedSeeds, endpoint: str, margin: float) -> float:
    """Return how many times as many images are needed, the variance falling with their number."""
    draws = comparison.stratified_bootstrap(
        paired_seeds.folds, seed=_SEED, endpoint=endpoint, resamples=resamples(endpoint)
    )
    variance = float((draws.drawn_a - draws.drawn_b).var())
    return variance * (sample_size.reach() / margin) ** 2 or math.nan


def _up(number: float) -> float:
    return math.nan if math.isnan(number) else float(math.ceil(number))
