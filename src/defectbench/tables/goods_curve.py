"""Curves of the ``goods`` protocol: each model's quality against the good pictures that it learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from defectbench.catalog import Family
from defectbench.metrics.crossover import Level
from defectbench.protocols.goods import Goods
from defectbench.tables.collect import Collected, Fold
from defectbench.tables.stages import (
    WHOLE,
    Curve,
    Stage,
    by_fold,
    conditions_of,
    expected_folds,
    folds_of,
    stage_of,
)


@dataclass(frozen=True, slots=True)
class GoodsRow:
    """A point of one model's curve on one category. Figures are image AUROCs.

    Attributes:
        n: goods that were learnt from.
        draws, seeds: that the figure is averaged over.
        low, high: 95 % interval over images and draws.
        all_goods, all_value: how many goods the category has to learn from, and the model's figure with them.
        difference, bound: with n less with all, and its one-sided 95 % lower bound.
        enough: the bound exceeds -margin.
    """

    category: str
    label: str
    family: Family
    n: int
    draws: int
    seeds: int
    value: float
    low: float
    high: float
    all_goods: int
    all_value: float
    difference: float
    bound: float
    enough: bool
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GoodsNeededRow:
    """From how many goods on one model is surely as good as with all of them, within the margin.

    Attributes:
        n: that number; infinite where the largest number tested is not enough.
        low, high: its 95 % interval, over images and draws; infinite likewise.
        text, interval: both for people, censored at the ends.
        all_goods: how many goods the category has to learn from.
        tested: the numbers tested, rising.
        folds, expected: fits of the curve that have results, and how many the sweep has.
        warnings: why to trust bound and interval less, in words.
    """

    category: str
    label: str
    family: Family
    n: float
    low: float
    high: float
    text: str
    interval: str
    margin: float
    all_goods: int
    tested: tuple[int, ...]
    folds: int
    expected: int
    warnings: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every fit has its result."""
        return self.folds == self.expected


@dataclass(frozen=True)
class _Curve(Curve):
    """One model's stages on one category; the reference are its own fits on all goods."""

    all_goods: int

    def points(self) -> Iterator[GoodsRow]:
        """Yield the curve's points."""
        for stage, level in zip(self.stages, self.found.levels, strict=True):
            yield self._point(stage, level)

    def _point(self, stage: Stage, level: Level) -> GoodsRow:
        """Return one point as a row."""
        return GoodsRow(
            category=self.category,
            label=self.label,
            family=self.family,
            n=level.n,
            draws=stage.draws,
            seeds=stage.seeds,
            value=level.classifier.value,
            low=level.classifier.low,
            high=level.classifier.high,
            all_goods=self.all_goods,
            all_value=level.detector.value,
            difference=level.difference,
            bound=level.bound,
            enough=level.bound > -self.margin,
            cells=stage.cells,
        )

    def needed(self) -> GoodsNeededRow:
        """Return how many goods are enough, as a row."""
        return GoodsNeededRow(
            category=self.category,
            label=self.label,
            family=self.family,
            n=self.found.n,
            low=self.found.low,
            high=self.found.high,
            text=self.found.text,
            interval=self.found.interval,
            margin=self.margin,
            all_goods=self.all_goods,
            tested=self.tested,
            folds=self.folds,
            expected=self.expected,
            warnings=self.warnings,
        )


class GoodsTables:
    """The tables of a sweep's ``goods`` protocol: every model against its own fit on all goods."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected
        self._margin = float(collected.record.document["margin"])
        self._folds = folds_of(collected, Goods.name)
        self._expected = expected_folds(collected, Goods.name)

    def points(self) -> tuple[GoodsRow, ...]:
        """Return the points of all curves, each curve's rising."""
        return tuple(point for curve in self._curves for point in curve.points())

    def needed(self) -> tuple[GoodsNeededRow, ...]:
        """Return how many goods are enough, for every curve."""
        return tuple(curve.needed() for curve in self._curves)

    @cached_property
    def _curves(self) -> tuple[_Curve, ...]:
        """All curves that can be drawn, in the sweep's order."""
        found = (self._curve(*name, own) for name, own in self._folds.items())
        return tuple(curve for curve in found if curve is not None)

    def _curve(self, category: str, label: str, own: list[Fold]) -> _Curve | None:
        """Return a model's curve; None where too little has finished."""
        wanted = list(by_fold([fold for fold in own if fold.split.condition == WHOLE]))
        whole = stage_of(own, WHOLE, wanted) if wanted else None
        found = (stage_of(own, name, wanted) for name in conditions_of(own) if name != WHOLE)
        # A point must have the seeds of the fit on all goods, seed by seed.
        stages = tuple(stage for stage in found if whole and stage and stage.seeds == whole.seeds)
        if whole is None or not stages:
            return None
        return _Curve(
            category,
            label,
            self._collected.model(label).family,
            stages,
            whole.folds,
            self._collected.units_of(category),
            self._margin,
            len(own),
            self._expected[category, label],
            whole.n,
        )
