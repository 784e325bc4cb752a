"""The protocols beyond detection as plain tables: a line for each model and condition."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np

from defectbench.tables.collect import FigureRow, Fold
from defectbench.tables.rows import ConditionRow


def conditions(rows: Iterable[FigureRow], endpoint: str, but: str) -> tuple[ConditionRow, ...]:
    """Return the lines of all protocols but one, in the sweep's order; a line's seeds are averaged."""
    lines: dict[tuple[str, ...], list[FigureRow]] = defaultdict(list)
    for row in rows:
        if row.protocol != but:
            lines[row.protocol, row.category, row.condition, row.label].append(row)
    return tuple(_line(seeds, endpoint) for seeds in lines.values())


def _line(rows: Sequence[FigureRow], endpoint: str) -> ConditionRow:
    first = rows[0]
    values = tuple(row.figures[endpoint] for row in rows)
    counted = [row.counts for row in rows if row.counts is not None]
    counts = reduce(add, counted) if counted else None
    calls = counts.figures() if counts else {}
    return ConditionRow(
        protocol=first.protocol,
        category=first.category,
        label=first.label,
        family=first.family,
        condition=first.condition,
        value=mean(values),
        spread=mean(row.spread.get(endpoint, math.nan) for row in rows),
        draws=max(row.draws for row in rows),
        seeds=values,
        recall=calls.get("recall", math.nan),
        observed=counts.false_alarm_rate if counts else math.nan,
        precision=calls.get("precision", math.nan),
        accuracy=calls.get("accuracy", math.nan),
        f1=calls.get("f1", math.nan),
        f1_oracle=mean(row.figures["f1_oracle"] for row in rows),
        goods=first.goods,
        defects=first.defects,
        all_abnormal=mean(row.all_abnormal for row in rows),
        folds=sum(row.folds for row in rows),
        expected=sum(row.expected for row in rows),
        cells=cells_of(rows),
    )


class Traced(Protocol):
    """A line of a table that says which cells it was read from."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Their keys."""
        ...


def cells_of(lines: Iterable[Traced]) -> tuple[str, ...]:
    """Return the distinct keys of the cells that lines were read from, in order."""
    return tuple(dict.fromkeys(key for line in lines for key in line.cells))


def fitted_by(folds: Iterable[Fold]) -> tuple[str, ...]:
    """Return the distinct keys of the cells that scored the folds, in order."""
    return tuple(dict.fromkeys(fold.reading.cell for fold in folds))


def mean(values: Iterable[float]) -> float:
    """Return the mean of what is defined; NaN where nothing is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
