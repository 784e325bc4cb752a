"""All figures of the page, drawn once: the page shows them, and they lie beside it as files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import cached_property

from defectbench.report import plots
from defectbench.report.canvas import Drawing
from defectbench.report.rows import Score
from defectbench.report.tables import Tables


class Drawings:
    """The figures of a sweep, each made when first asked for; iterating gives all, in the page's order."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __iter__(self) -> Iterator[Drawing]:
        yield from self.differences
        for group in (self.scores, self.roc, self.precision_recall):
            yield from group.values()

    @cached_property
    def differences(self) -> tuple[Drawing, ...]:
        """The paired differences, or nothing where none can be told."""
        rows = self._tables.comparisons
        return (plots.differences(rows, self._tables.margin),) if rows else ()

    @cached_property
    def scores(self) -> Mapping[str, Drawing]:
        """Category -> the endpoint of its models."""
        found: dict[str, list[Score]] = {}
        for score in self._tables.scores:
            found.setdefault(score.category, []).append(score)
        seen = [value for score in self._tables.scores for value in (score.value, score.low)]
        lowest = min([0.5, *(value for value in seen if not math.isnan(value))])
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
