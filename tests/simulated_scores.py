"""Made-up scores with planted AUROCs, and what the statistics say of them, trial by trial."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from defectbench.metrics import comparison
from defectbench.metrics.comparison import FoldScores

MARGIN = 0.01


@dataclass(frozen=True)
class Truth:
    """Two models as they are simulated: binormal scores, an image's difficulty shared by all.

    Attributes:
        a, b: the planted AUROC of each, in every fold.
        each: images of each class, over all folds.
        seeds: fits of each model.
        shared: share of the variance that an image gives all models; as much again it gives all seeds of one.
        spread: how far folds' scores lie apart and differ in scale, in standard deviations.
    """

    a: float
    b: float
    each: int = 60
    folds: int = 4
    seeds: int = 3
    shared: float = 0.4
    spread: float = 1.0

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def name(self) -> str:
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        return f"{self.a:g} against {self.b:g}, {self.each} + {self.each}, {seeds}"


@dataclass
class Found:
    """How often, of all trials.

    Attributes:
        covered, covered_single: the 95 % interval of the difference, and of model a's AUROC, held the truth.
        verdicts: verdict -> how often.
        rejected: p was 0.05 or less: false where nothing differs, else the test's power.
        warned: the comparison itself warned that the interval is too narrow.
    """

    trials: int = 0
    covered: int = 0
    covered_single: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    warned: int = 0

    def add(self, truth: Truth, compared: comparison.Comparison) -> None:
        verdict = compared.verdict(compared.p, margin=MARGIN)
        self.trials += 1
        self.covered += _inside(compared.difference, truth.difference)
        self.covered_single += _inside(compared.a, truth.a)
        self.verdicts[verdict] += 1
        self.rejected += compared.p <= 0.05
        self.warned += bool(compared.warning)

    def false(self, truth: Truth) -> int:
        """Return how often a verdict named a model that is not the better one."""
        better = "classifier" if truth.difference > 0 else "detector" if truth.difference < 0 else ""
        return sum(self.verdicts[name] for name in {"classifier", "detector"} - {better})


def _inside(interval: comparison.Interval, value: float) -> bool:
    return interval.low - 1e-12 <= value <= interval.high + 1e-12


def simulate(truth: Truth, rng: np.random.Generator) -> list[FoldScores]:
    """Return folds of scores of both models; every fold's on a scale of its own."""
    found = []
    sizes = [len(part) for part in np.array_split(np.arange(truth.each), truth.folds)]
    for size in sizes:
        labels = np.repeat([1, 0], size)
        image = rng.normal(size=labels.size)
        models = []
        for auroc in (truth.a, truth.b):
            own = rng.normal(size=labels.size)
            noise = rng.normal(size=(truth.seeds, labels.size))
            shift = NormalDist().inv_cdf(auroc) * math.sqrt(2) * labels
            scores = math.sqrt(truth.shared) * (image + own) + math.sqrt(1 - 2 * truth.shared) * noise + shift
            offset, scale = truth.spread * rng.normal(), math.exp(0.5 * truth.spread * rng.normal())
            models.append(offset + scale * scores)
        found.append(FoldScores.of(labels, *models))
    return found


def trials(truth: Truth, number: int, resamples: int, seed: int = 0) -> Found:
    """Return what ``number`` trials gave."""
    found = Found()
    for trial in range(number):
        folds = simulate(truth, _rng(truth, trial, seed))
        found.add(truth, comparison.compare(folds, seed=trial, resamples=resamples))
    return found


def rejections(truth: Truth, number: int, resamples: int, seed: int = 0) -> float:
    """Return the share of trials in which the paired test alone gives 0.05 or less; the same trials."""
    p = [
        comparison.permutation_test(
            simulate(truth, _rng(truth, trial, seed)), seed=trial, resamples=resamples
        )
        for trial in range(number)
    ]
    return float(np.mean(np.array(p) <= 0.05))


def _rng(truth: Truth, trial: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, trial, round(1e4 * truth.a), round(1e4 * truth.b), truth.each])
