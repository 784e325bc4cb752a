"""What others published on MVTec AD's categories, beside the sweep's own figures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

from defectbench.data.check import published_counts
from defectbench.metrics.image import ConfusionCounts
from defectbench.tables.conditions import cells_of, mean
from defectbench.tables.tables import Tables


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A published figure and ours, where the sweep has the same model on a category of that name.

    Attributes:
        figure: ``image_auroc``, or ``f1_oracle``: the study's best F1 was read off the test images.
        model, source: as published; ``catalog`` is our name of the model.
        value: published, 0 to 1.
        label: our model; empty where the sweep does not have it, and ``ours`` is then NaN.
        all_abnormal: F1 of calling every published test image abnormal, which an F1 must be held against; NaN
            where the figure is no F1.
        ours_all_abnormal: the same of the images that ours was tested on.
        same: whether the category has as many images as MVTec AD's; else these are other images.
    """

    category: str
    figure: str
    model: str
    catalog: str
    source: str
    value: float
    label: str
    ours: float
    all_abnormal: float
    ours_all_abnormal: float
    same: bool
    cells: tuple[str, ...]


def published(tables: Tables) -> tuple[PublishedRow, ...]:
    """Return what was published on the sweep's categories, a line for each of our models beside it."""
    return tuple(line for category in tables.collected.record.categories for line in _of(tables, category))


def _of(tables: Tables, category: str) -> Iterator[PublishedRow]:
    same = _same(tables, category)
    text = resources.files("defectbench.report").joinpath("published.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(text.splitlines()):
        if row["category"] == category:
            own = [one.label for one in tables.collected.record.contestants if one.model == row["catalog"]]
            for label in own or [""]:
                yield _line(tables, row, label, same)


def _line(tables: Tables, row: dict[str, str], label: str, same: bool) -> PublishedRow:
    of_f1 = row["figure"] == "f1_oracle"
    rows = tables.holdout_rows_of(row["category"], label) if of_f1 else []
    rows = rows or tables.rows_of(row["category"], label)
    goods, defects = (int(row[name] or 0) for name in ("goods", "defects"))
    return PublishedRow(
        category=row["category"],
        figure=row["figure"],
        model=row["model"],
        catalog=row["catalog"],
        source=row["source"],
        value=round(float(row["percent"]) / 100, 6),
        label=label,
        ours=mean(one.figures[row["figure"]] for one in rows),
        all_abnormal=ConfusionCounts(defects, goods, 0, 0).f1 if of_f1 else math.nan,
        ours_all_abnormal=mean(one.all_abnormal for one in rows) if of_f1 else math.nan,
        same=same,
        cells=cells_of(rows),
    )


def _same(tables: Tables, category: str) -> bool:
    """Return whether a split of the category has the published numbers of images."""
    wanted = published_counts().get(category)
    if wanted is None:
        return False
    goods, test_goods, defects = wanted
    # A holdout tests half of the goods, and the last half or quarter of the defects.
    tested = (
        {(test_goods, defects)}
        if tables.paired
        else {(test_goods - test_goods // 2, defects - int(share * defects)) for share in (0.5, 0.75)}
    )
    return any(
        line.goods + line.calibration == goods and (line.test_goods, line.test_defects) in tested
        for line in tables.categories
        if line.category == category
    )
