"""Learning curves of the ``scarcity`` protocol: quality against labelled defects, and the crossover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from defectbench.catalog import Family
from defectbench.metrics.crossover import Level
from defectbench.protocols.scarcity import Scarcity
from defectbench.tables.collect import Collected
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
class LearningRow:
    """A point of one model's learning curve on one category, beside the detector. Figures are image AUROCs.

    Attributes:
        n: labelled defects that were used, tuning included; of ``whole`` the fewest of a fold.
        whole: all that the folds have: the fit of detection.
        draws, seeds: that the figure is averaged over.
        low, high: 95 % interval over images and draws.
        detector_value, detector_low, detector_high: of the detector on the same images; the same at every n.
        difference, bound: classifier minus detector, with its one-sided 95 % lower bound.
        enough: the bound exceeds -margin.
    """

    category: str
    classifier: str
    family: Family
    detector: str
    n: int
    whole: bool
    draws: int
    seeds: int
    value: float
    low: float
    high: float
    detector_value: float
    detector_low: float
    detector_high: float
    difference: float
    bound: float
    enough: bool
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CrossoverRow:
    """From how many labelled defects on one model suffices on one category.

    Attributes:
        n: the crossover; infinite where the largest number tested is not enough.
        low, high: its 95 % interval, over images and draws; infinite likewise.
        text, interval: both for people, censored at the ends.
        tested: the numbers tested, rising.
        folds, expected: fits of the curve that have results, and how many the sweep has.
        warnings: why to trust bound and interval less, in words.
    """

    category: str
    classifier: str
    family: Family
    detector: str
    n: float
    low: float
    high: float
    text: str
    interval: str
    margin: float
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
    """One classifier's stages on one category; the reference is the detector there."""

    detector: str

    def learning(self) -> Iterator[LearningRow]:
        """Yield the curve's points."""
        for stage, level in zip(self.stages, self.found.levels, strict=True):
            yield self._learning(stage, level)

    def _learning(self, stage: Stage, level: Level) -> LearningRow:
        """Return one point as a row."""
        return LearningRow(
            category=self.category,
            classifier=self.label,
            family=self.family,
            detector=self.detector,
            n=level.n,
            whole=stage.condition == WHOLE,
            draws=stage.draws,
            seeds=stage.seeds,
            value=level.classifier.value,
            low=level.classifier.low,
            high=level.classifier.high,
            detector_value=level.detector.value,
            detector_low=level.detector.low,
            detector_high=level.detector.high,
            difference=level.difference,
            bound=level.bound,
            enough=level.bound > -self.margin,
            cells=stage.cells,
        )

    def crossing(self) -> CrossoverRow:
        """Return the curve's crossover as a row."""
        return CrossoverRow(
            category=self.category,
            classifier=self.label,
            family=self.family,
            detector=self.detector,
            n=self.found.n,
            low=self.found.low,
            high=self.found.high,
            text=self.found.text,
            interval=self.found.interval,
            margin=self.margin,
            tested=self.tested,
            folds=self.folds,
            expected=self.expected,
            warnings=self.warnings,
        )


class LearningTables:
    """The tables of a sweep's ``scarcity`` protocol, against the detector that the sweep names."""

    def __init__(self, collected: Collected) -> None:
        self._collected = collected
        record = collected.record
        self._margin = float(record.document["margin"])
        self._detector = record.contenders[1] if record.contenders else ""
        self._folds = folds_of(collected, Scarcity.name)
        self._expected = expected_folds(collected, Scarcity.name)

    def learning(self) -> tuple[LearningRow, ...]:
        """Return the points of all curves, each curve's rising."""
        return tuple(point for curve in self._curves for point in curve.learning())

    def crossovers(self) -> tuple[CrossoverRow, ...]:
        """Return the crossover of every curve."""
        return tuple(curve.crossing() for curve in self._curves)

    @cached_property
    def _curves(self) -> tuple[_Curve, ...]:
        """All curves that can be drawn, in the sweep's order."""
        found = (self._curve(category, label) for category, label in self._folds)
        return tuple(curve for curve in found if curve is not None)

    def _curve(self, category: str, label: str) -> _Curve | None:
        """Return a learner's curve; None for detectors, and where too little has finished."""
        family = self._collected.model(label).family
        theirs = by_fold(self._folds.get((category, self._detector), []))
        if family == "detector" or not theirs:
            return None
        own = self._folds[category, label]
        found = (stage_of(own, name, list(theirs)) for name in conditions_of(own))
        stages = tuple(stage for stage in found if stage is not None)
        if not stages:
            return None
        reference = tuple(tuple(folds) for folds in theirs.values())
        counts = len(own), self._expected[category, label]
        units = self._collected.units_of(category)
        return _Curve(
            category, label, family, stages, reference, units, self._margin, *counts, self._detector
        )
