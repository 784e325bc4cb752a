"""The images that a model ranks worst, fold by fold: scores of two folds are never compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from defectbench.catalog import Family
from defectbench.records.predictions import PredictionRow
from defectbench.tables.collect import Fold
from defectbench.tables.rows import RIGHT, MistakeRow

WORST = 3
"""Images of each kind."""


@dataclass(frozen=True, slots=True)
class _RankedMistake:
    """A mistake and the image's rank in its fold, 0 right to 1 wrong; reads only the scores' order."""

    mistake: MistakeRow
    rank: float

    @property
    def order(self) -> tuple[float, float, str]:
        """Sorts the worst first; the id decides between equals, so that a report never changes by chance."""
        mistake = self.mistake
        return -mistake.outranked / max(mistake.of, 1), -self.rank, mistake.image_id


def worst(folds: Sequence[Fold], family: Family) -> tuple[MistakeRow, ...]:
    """Return the goods that scored highest, then the defects that scored lowest, :data:`WORST` of each."""
    ranked = sorted((item for fold in folds for item in _rank(fold, family)), key=lambda item: item.order)
    return tuple(
        mistake
        for good in (True, False)
        for mistake in [item.mistake for item in ranked if item.mistake.good == good][:WORST]
    )


def _rank(fold: Fold, family: Family) -> Iterator[_RankedMistake]:
    """Yield every tested image with its rank."""
    scores = fold.test.score
    for row in fold.test.rows():
        below = float(np.mean(scores < row.score) + np.mean(scores == row.score) / 2)
        yield _RankedMistake(_mistake(fold, row, family), 1 - below if row.label else below)


def _mistake(fold: Fold, row: PredictionRow, family: Family) -> MistakeRow:
    """Return an image as a row, whether it is one of the worst or not."""
    others = fold.test.score[fold.test.label != row.label]
    outranked = others > row.score if row.label else others < row.score
    good, abnormal = not row.label, row.score > fold.threshold
    return MistakeRow(
        category=fold.category,
        label=fold.reading.label,
        family=family,
        good=good,
        kind=RIGHT if good != abnormal else "false alarm" if good else "miss",
        image_id=row.image_id,
        defect_type=row.defect_type,
        score=row.score,
        threshold=fold.threshold,
        abnormal=abnormal,
        outranked=int(outranked.sum()),
        of=int(others.size),
        fold=fold.split.fold,
        seed=fold.reading.seed,
        cell=fold.reading.cell,
    )
