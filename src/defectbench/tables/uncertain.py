"""Images whose label nobody is sure of: where they score beside the goods that were held out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from defectbench.catalog import Family
from defectbench.tables.collect import Collected, Fold


@dataclass(frozen=True, slots=True)
class UncertainRow:
    """Where a model ranks an uncertain image.

    Attributes:
        share: of a fit's held-out goods, how many score lower, 0 to 1; the mean over fits. Near 1 the image
            looks abnormal to the model, near 0.5 like any good one.
        fits: how many the mean is of.
    """

    category: str
    label: str
    family: Family
    image_id: str
    share: float
    fits: int
    cells: tuple[str, ...]


def uncertain_rows(folds: Iterable[Fold], family: Family, collected: Collected) -> tuple[UncertainRow, ...]:
    """Return a line for each uncertain image, the most abnormal first.

    Args:
        folds: of one model and category, over all seeds; those without a held-out good are passed over.
    """
    shares: dict[str, list[float]] = defaultdict(list)
    used: list[Fold] = []
    for fold in folds:
        goods = fold.test.score[fold.test.label == 0]
        rows = collected.predictions[fold.reading.cell]
        doubtful = rows.role == "uncertain"
        if not len(goods) or not doubtful.any():
            continue
        used.append(fold)
        for name, score in zip(rows.image_id[doubtful].tolist(), rows.score[doubtful].tolist(), strict=True):
            shares[name].append(float(np.mean(goods < score)))
    found = [
        UncertainRow(
            category=used[0].category,
            label=used[0].reading.label,
            family=family,
            image_id=name,
            share=float(np.mean(values)),
            fits=len(values),
            cells=tuple(dict.fromkeys(fold.reading.cell for fold in used)),
        )
        for name, values in shares.items()
    ]
    return tuple(sorted(found, key=lambda row: (-row.share, row.image_id)))
