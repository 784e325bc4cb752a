"""Unseen defects in the original study's own form: all other types tested, without any good.

Without goods there is no false alarm to count, so the only figure is the recall at the tuned threshold, and
calling everything abnormal has a recall of 1. The validation goods above that threshold stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from defectbench.catalog import Family
from defectbench.metrics.image import share_interval
from defectbench.protocols.unseen import STUDY, Unseen
from defectbench.tables.collect import Collected, Fold


@dataclass(frozen=True, slots=True)
class UnseenStudy:
    """The defects of one type that a fit found which had learnt another type.

    Attributes:
        type: the type learnt, the largest.
        tested: the type tested.
        defects, found: tested images, and those above the tuned threshold.
        recall, low, high: the share found, with its exact 95 % interval; NaN without a threshold.
        tuning_goods, tuning_alarms: validation goods, and those above the threshold that was chosen on them.
    """

    category: str
    label: str
    family: Family
    seed: int
    type: str
    tested: str
    defects: int
    found: int
    recall: float
    low: float
    high: float
    tuning_goods: int
    tuning_alarms: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnseenScore:
    """The score of one tested image.

    Attributes:
        abnormal: whether it lies above the tuned threshold.
    """

    category: str
    label: str
    family: Family
    seed: int
    image_id: str
    defect_type: str
    score: float
    threshold: float
    abnormal: bool
    cell: str


def study_recalls(collected: Collected) -> tuple[UnseenStudy, ...]:
    """Return the recall on each type never learnt, a line for each category, model, seed and type."""
    return tuple(line for fold in _folds(collected) for line in _recalls(collected, fold))


def study_scores(collected: Collected) -> tuple[UnseenScore, ...]:
    """Return the scores of all tested images, from high to low within each fit."""
    return tuple(line for fold in _folds(collected) for line in _scores(collected, fold))


def _folds(collected: Collected) -> list[Fold]:
    folds = collected.folds(protocol=Unseen.name)
    return [fold for fold in folds if fold.split.setting["mode"] == STUDY]


def _recalls(collected: Collected, fold: Fold) -> Iterator[UnseenStudy]:
    reading, goods = fold.reading, fold.tune.score[fold.tune.label == 0]
    for tested in sorted(set(fold.test.defect_type.tolist())):
        scores = fold.test.score[fold.test.defect_type == tested]
        found, number = int((scores > fold.tuned).sum()), len(scores)
        low, high = share_interval(found, number)
        known = not math.isnan(fold.tuned)
        yield UnseenStudy(
            category=fold.category,
            label=reading.label,
            family=collected.contestant(reading.label).family,
            seed=reading.seed,
            type=str(fold.split.setting["type"]),
            tested=tested,
            defects=number,
            found=found,
            recall=found / number if known else math.nan,
            low=low if known else math.nan,
            high=high if known else math.nan,
            tuning_goods=len(goods),
            tuning_alarms=int((goods > fold.tuned).sum()),
            cells=(reading.cell,),
        )


def _scores(collected: Collected, fold: Fold) -> Iterator[UnseenScore]:
    reading, rows = fold.reading, fold.test
    for place in (-rows.score).argsort(kind="stable"):
        yield UnseenScore(
            category=fold.category,
            label=reading.label,
            family=collected.contestant(reading.label).family,
            seed=reading.seed,
            image_id=str(rows.image_id[place]),
            defect_type=str(rows.defect_type[place]),
            score=float(rows.score[place]),
            threshold=fold.tuned,
            abnormal=bool(rows.score[place] > fold.tuned),
            cell=reading.cell,
        )
