"""All figures of the page, drawn once: the page shows them, and they lie beside it as files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Protocol, TypeVar

from defectbench.protocols.contamination import Contamination
from defectbench.report import cost_plots, experiment_plots, plots
from defectbench.report.canvas import Drawing
from defectbench.tables.cost import COSTS
from defectbench.tables.goods_curve import GoodsRow
from defectbench.tables.learning_curve import LearningRow
from defectbench.tables.rows import ConditionRow
from defectbench.tables.tables import Tables


class Figures:
    """The figures of a sweep, each made when first asked for; iterating gives all, in the page's order."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __iter__(self) -> Iterator[Drawing]:
        yield from self.differences
        for group in (self.scores, self.roc, self.precision_recall):
            yield from group.values()
        for figures in (
            self.seen_unseen,
            self.crossovers,
            self.contaminations,
            self.goods_curves,
            self.pareto,
        ):
            yield from figures

    @cached_property
    def differences(self) -> tuple[Drawing, ...]:
        """The paired differences, or nothing where none can be computed."""
        rows = self._tables.comparisons
        return (plots.differences(rows, self._tables.margin),) if rows else ()

    @cached_property
    def scores(self) -> Mapping[str, Drawing]:
        """Category -> the endpoint of its models."""
        found = _by_category(self._tables.scores)
        lowest = _lowest(value for score in self._tables.scores for value in (score.value, score.low))
        endpoint = self._tables.endpoint
        return {name: plots.scores(name, endpoint, rows, lowest) for name, rows in found.items()}

    @cached_property
    def drawn(self) -> frozenset[str]:
        """Models with curves."""
        return frozenset(curves.label for curves in self._tables.curves)

    @cached_property
    def roc(self) -> Mapping[tuple[str, str], Drawing]:
        """(model, category) -> ROC curves."""
        return {(c.label, c.category): plots.roc(c) for c in self._tables.curves}

    @cached_property
    def precision_recall(self) -> Mapping[tuple[str, str], Drawing]:
        """(model, category) -> precision-recall curves."""
        return {(c.label, c.category): plots.precision_recall(c) for c in self._tables.curves}

    @cached_property
    def seen_unseen(self) -> tuple[Drawing, ...]:
        """Seen against unseen, one for each category."""
        rows = _by_category(self._tables.seen_unseen)
        low = _lowest(v for row in self._tables.seen_unseen for v in (row.seen, row.unseen, row.control))
        return tuple(experiment_plots.seen_against_unseen(name, lines, low) for name, lines in rows.items())

    @cached_property
    def crossovers(self) -> tuple[Drawing, ...]:
        """Learning curves with their crossover: the contender's of each category, then the others'."""
        curves: dict[tuple[str, str], list[LearningRow]] = {}
        for point in self._tables.learning:
            curves.setdefault((point.classifier, point.category), []).append(point)
        low = _lowest(v for point in self._tables.learning for v in (point.low, point.detector_low))
        drawn = [
            experiment_plots.crossover(curves[row.classifier, row.category], row, low)
            for row in self._tables.crossovers
        ]
        contender = (self._tables.collected.record.contenders or ("",))[0]
        return tuple(sorted(drawn, key=lambda drawing: f"+{contender}+" not in drawing.name))

    @cached_property
    def contaminations(self) -> tuple[Drawing, ...]:
        """Quality by share of contamination, one for each category."""
        rows = [line for line in self._tables.conditions if line.protocol == Contamination.name]
        low = _lowest(line.value for line in rows)
        found = []
        for name, lines in _by_category(rows).items():
            models: dict[str, list[ConditionRow]] = {}
            for line in lines:
                models.setdefault(line.label, []).append(line)
            found.append(experiment_plots.contamination(name, models, low))
        return tuple(found)

    @cached_property
    def goods_curves(self) -> tuple[Drawing, ...]:
        """Quality by the goods learnt from, one for each category."""
        low = _lowest(v for point in self._tables.goods_curve for v in (point.low, point.all_value))
        found = []
        for name, points in _by_category(self._tables.goods_curve).items():
            models: dict[str, list[GoodsRow]] = {}
            for point in points:
                models.setdefault(point.label, []).append(point)
            found.append(experiment_plots.goods_curve(name, models, low))
        return tuple(found)

    @cached_property
    def pareto(self) -> tuple[Drawing, ...]:
        """Quality against each cost that is known."""
        rows = self._tables.tradeoffs
        found = (
            cost_plots.pareto([row for row in rows if row.cost == name], self._tables.endpoint)
            for name in COSTS
        )
        return tuple(drawing for drawing in found if drawing is not None)


def _lowest(values: Iterable[float]) -> float:
    """Return where an axis of quality starts: at 0.5, or lower where a value needs it."""
    return min([0.5, *(value for value in values if not math.isnan(value))])


class _CategoryFigures(Protocol):
    @property
    def category(self) -> str: ...


_Row = TypeVar("_Row", bound=_CategoryFigures)


def _by_category(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    """Return the rows by category, in their order."""
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.category, []).append(row)
    return found
