"""Calls by each rule of setting a threshold, and whether a promised false-alarm rate was kept."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from operator import add

import numpy as np

from defectbench.catalog import Family
from defectbench.metrics.image import ConfusionCounts, share_interval
from defectbench.tables.collect import FigureRow, Fold
from defectbench.tables.conditions import cells_of, mean
from defectbench.tables.rows import ThresholdRow

CALLS = ("recall", "precision", "accuracy", "balanced_accuracy", "f1")
"""Figures of a threshold, in the order of the table's columns."""

_UNLIKELY = 0.001
_Place = tuple[str, str]


class ThresholdTable:
    """Makes the lines of the thresholds' table.

    Args:
        rows, folds: of detection, by (category, label).
        families: label -> family, in the sweep's order.
    """

    def __init__(
        self,
        rows: Mapping[_Place, list[FigureRow]],
        folds: Mapping[_Place, list[Fold]],
        families: Mapping[str, Family],
        defect_rate: float | None,
        prices: Mapping[str, float] | None,
    ) -> None:
        self._rows, self._folds, self._labels, self._families = rows, folds, tuple(families), families
        self._defect_rate, self._price = defect_rate, prices

    def lines(self, categories: Sequence[str]) -> tuple[ThresholdRow, ...]:
        """Return the calls by each rule, in the order in which they may be trusted, within each category."""
        found: list[ThresholdRow] = []
        for category in categories:
            places = [(category, label) for label in self._labels]
            lines = [rows for place in places if (rows := self._rows.get(place))]
            for rule in (self._calibrated, self._tuned, _oracle):
                found += [line for rows in lines if (line := rule(rows)) is not None]
            found += self._everything(category)
        return tuple(found)

    def _calibrated(self, rows: Sequence[FigureRow]) -> ThresholdRow | None:
        counted = [row for row in rows if not math.isnan(row.promised)]
        if not counted:
            return None
        first = self._folds[rows[0].category, rows[0].label][0]  # all folds share the calibration goods
        counts = [row.counts for row in counted if row.counts]
        promised, number = first.calibrated.false_alarm_rate, len(first.calibration)
        middle = _middle(counts)
        return self._calls(
            counted,
            "calibrated",
            counts,
            promised=promised,
            resolution=1 / (number + 1),
            chance=chance_of(middle.fp, middle.fp + middle.tn, number, promised),
        )

    def _tuned(self, rows: Sequence[FigureRow]) -> ThresholdRow | None:
        counts = [row.tuned for row in rows if row.tuned is not None]
        return self._calls(rows, "tuned", counts) if counts else None

    def _everything(self, category: str) -> Iterator[ThresholdRow]:
        """Calling every image abnormal needs no model; where families are tested apart, a line for each."""
        tested: dict[tuple[str, ...], list[Fold]] = {}
        for label in self._labels:
            for fold in self._folds.get((category, label), ()):
                tested.setdefault(fold.split.families, []).append(fold)
        for folds in tested.values():
            first = folds[0].reading
            own = [f for f in folds if (f.reading.seed, f.reading.label) == (first.seed, first.label)]
            labels = np.concatenate([fold.test.label for fold in own])
            counts = ConfusionCounts(tp=int(labels.sum()), fp=int((labels == 0).sum()), tn=0, fn=0)
            figures = {"observed": counts.false_alarm_rate} | self._prices(counts) | counts.figures()
            family = self._families[first.label] if len(tested) > 1 else None
            composed = (counts.fp, counts.tp, counts.f1)
            yield _threshold(category, "", family, "everything abnormal", (), figures, composed)

    def _calls(
        self, rows: Sequence[FigureRow], rule: str, counts: Sequence[ConfusionCounts], **promise: float
    ) -> ThresholdRow:
        pooled = reduce(add, counts)
        middle = _middle(counts)
        low, high = share_interval(middle.fp, middle.fp + middle.tn)
        observed = {"observed": pooled.false_alarm_rate, "observed_low": low, "observed_high": high}
        figures = promise | observed | self._prices(pooled) | pooled.figures()
        return _of_model(rows, rule, figures)

    def _prices(self, counts: ConfusionCounts) -> dict[str, float]:
        """Return what the sweep's defect rate and prices make of the counts."""
        if self._defect_rate is None:
            return {}
        figures = {"precision_at_rate": counts.precision_at(self._defect_rate)}
        if self._price is not None:
            figures["cost"] = counts.cost_at(self._defect_rate, **self._price)
        return figures


def _oracle(rows: Sequence[FigureRow]) -> ThresholdRow:
    """Only its F1, as in result.json: an average over folds, each with the threshold that suits it."""
    return _of_model(rows, "oracle", {"f1": mean(row.figures["f1_oracle"] for row in rows)})


def _of_model(rows: Sequence[FigureRow], rule: str, figures: Mapping[str, float]) -> ThresholdRow:
    first = rows[0]
    composed = (first.goods, first.defects, first.all_abnormal)
    return _threshold(first.category, first.label, first.family, rule, cells_of(rows), figures, composed)


def _threshold(
    category: str,
    label: str,
    family: Family | None,
    rule: str,
    cells: tuple[str, ...],
    figures: Mapping[str, float],
    composed: tuple[int, int, float],
) -> ThresholdRow:
    """Return a line; ``composed``: goods and defects tested, and the F1 of calling all of them abnormal."""
    names = (
        "promised",
        "resolution",
        "observed",
        "observed_low",
        "observed_high",
        *CALLS,
        "precision_at_rate",
        "cost",
    )
    values = {name: figures.get(name, math.nan) for name in names}
    broken = bool(figures.get("chance", 1.0) < _UNLIKELY)
    goods, defects, chance = composed
    return ThresholdRow(
        category,
        label,
        family,
        rule,
        broken=broken,
        goods=goods,
        defects=defects,
        all_abnormal=chance,
        cells=cells,
        **values,
    )


def _middle(counts: Sequence[ConfusionCounts]) -> ConfusionCounts:
    """Return the counts of the seed in the middle: the seeds' images are the same, so it stands for all."""
    return sorted(counts, key=lambda each: each.fp)[(len(counts) - 1) // 2]


def chance_of(alarms: int, goods: int, calibration: int, promised: float) -> float:
    """Return how likely at least so many false alarms are, if tested and calibration goods are alike.

    The threshold is a calibration score, so the rate that it gives is itself random: Beta(k, n + 1 - k) for
    the k-th largest of n, promised k/(n+1). The alarms among the tested goods are then beta-binomial (Vovk
    2012, arXiv:1209.2673).

    >>> round(chance_of(1, 1, 19, 0.05), 12), round(chance_of(2, 2, 9, 0.1), 4)
    (0.05, 0.0182)
    """
    above = round(promised * (calibration + 1))
    a, b = above, calibration + 1 - above
    logs = [
        _log_choose(goods, x) + _log_beta(x + a, goods - x + b) - _log_beta(a, b)
        for x in range(alarms, goods + 1)
    ]
    return float(sum(math.exp(log) for log in logs))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _log_beta(a: int, b: int) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
