"""Where heat maps fall, by the defect's type and by its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.catalog import Family
from defectbench.tables.collect import EXPLANATION_COLUMNS, Fold
from defectbench.tables.conditions import fitted_by, mean
from defectbench.tables.tables import Tables

SIZES = ("small", "middle", "large")


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """One model's figures on some of a category's defects.

    Attributes:
        by: ``type`` or ``size``; ``group`` is the defect type, or one of :data:`SIZES`.
        smallest, largest: share of the picture that the group's defects cover; NaN where no mask was read.
        defects: distinct tested defects with a mask.
        pixel_auroc, pixel_ap, pointing, iou: means over these. AUPRO belongs to a whole fit.
    """

    category: str
    label: str
    family: Family
    by: str
    group: str
    smallest: float
    largest: float
    defects: int
    pixel_auroc: float
    pixel_ap: float
    pointing: float
    iou: float
    cells: tuple[str, ...]


Areas = Callable[[str], Mapping[str, float]]
"""Category -> image id -> share of the picture that is defect."""


def breakdowns(tables: Tables, areas: Areas) -> tuple[BreakdownRow, ...]:
    """Return the figures by type and by size, for every category and model that has them."""
    return tuple(
        line
        for category in tables.collected.record.categories
        for line in _of_category(tables, category, areas(category))
    )


def sizes(areas: Mapping[str, float]) -> dict[str, str]:
    """Return each image's size among its category's: thirds by area, equal areas in the same third.

    >>> sizes({"a": 0.01, "b": 0.02, "c": 0.3})
    {'a': 'small', 'b': 'middle', 'c': 'large'}
    """
    if not areas:
        return {}
    cuts = np.quantile(list(areas.values()), [1 / 3, 2 / 3])
    return {name: SIZES[int(np.searchsorted(cuts, area))] for name, area in areas.items()}


def _of_category(tables: Tables, category: str, areas: Mapping[str, float]) -> Iterator[BreakdownRow]:
    """Yield a category's lines: for each model its types, then its sizes."""
    size_of = sizes(areas)
    for label in tables.labels:
        folds = tables.folds_of(category, label)
        names, types = (_column(folds, name) for name in ("image_id", "defect_type"))
        if not len(names):
            continue
        # pixel_ap is there exactly where a mask was read.
        known = ~np.isnan(_column(folds, "pixel_ap"))
        size = np.array([size_of.get(str(name), "") for name in names])
        area = np.array([areas.get(str(name), np.nan) for name in names])
        groups = [("type", str(each), types == each) for each in np.unique(types[known])]
        groups += [("size", each, size == each) for each in SIZES]
        for by, group, chosen in groups:
            if (chosen & known).any():
                yield _line(tables, folds, by, group, chosen & known, area)


def _column(folds: list[Fold], name: str) -> NDArray[np.generic]:
    """Return a column of the tested images, fold after fold."""
    return np.concatenate([getattr(fold.test, name) for fold in folds]) if folds else np.array([])


def _line(
    tables: Tables,
    folds: list[Fold],
    by: str,
    group: str,
    chosen: NDArray[np.bool_],
    area: NDArray[np.float64],
) -> BreakdownRow:
    """Return the means over the chosen rows."""
    label = folds[0].reading.label
    covered = area[chosen][~np.isnan(area[chosen])]
    return BreakdownRow(
        category=folds[0].category,
        label=label,
        family=tables.collected.model(label).family,
        by=by,
        group=group,
        smallest=float(covered.min()) if covered.size else np.nan,
        largest=float(covered.max()) if covered.size else np.nan,
        defects=len(set(_column(folds, "image_id")[chosen].tolist())),
        cells=fitted_by(folds),
        **{
            name: mean(_column(folds, column)[chosen].tolist())
            for name, column in EXPLANATION_COLUMNS.items()
        },
    )
