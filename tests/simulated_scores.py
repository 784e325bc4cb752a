"""Made-up scores with planted AUROCs, and what the statistics say of them, trial by trial."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
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
        goods: images without a defect, where they are not as many as those with one.
        luck: standard deviation of one fit's AUROC over fits of the same data. Model a has a fit for each
            fold and seed, as a classifier has; model b one a seed that serves all folds, as a detector has.
        group: frames of one part; they share four fifths of what an image gives.
        skewed: model b's scores are skewed to the right, at the same AUROC.
        levels: scores take no more than so many values in a fold; 0 for any. Both models' AUROC is then
            another than planted, and the same.
    """

    a: float
    b: float
    each: int = 60
    folds: int = 4
    seeds: int = 3
    shared: float = 0.4
    spread: float = 1.0
    goods: int = 0
    luck: float = 0.0
    group: int = 1
    skewed: bool = False
    levels: int = 0

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def name(self) -> str:
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        more = [
            text
            for wanted, text in (
                (self.luck, f"luck {self.luck:g}"),
                (self.group > 1, f"groups of {self.group}"),
                (self.skewed, "one skewed"),
                (self.levels, f"{self.levels} levels"),
            )
            if wanted
        ]
        sizes = f"{self.goods or self.each} + {self.each}"
        return ", ".join([f"{self.a:g} against {self.b:g}", sizes, seeds, *more])


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
    parts = (
        np.array_split(np.arange(number), truth.folds) for number in (truth.each, truth.goods or truth.each)
    )
    planted = [_shift(auroc, truth, model) for model, auroc in enumerate((truth.a, truth.b))]
    lucky = truth.luck / _slope(truth.b)
    shared_fits = planted[1] + lucky * rng.normal(size=truth.seeds)
    for defects, goods in zip(*parts, strict=True):
        labels = np.repeat([1, 0], (len(defects), len(goods)))
        units = np.arange(labels.size) // truth.group if truth.group > 1 else np.arange(labels.size)
        units = units + labels.size * labels  # a part is good or bad
        image = _grouped(units, truth, rng)
        models = []
        for model, auroc in enumerate((truth.a, truth.b)):
            own = _grouped(units, truth, rng)
            noise = rng.normal(size=(truth.seeds, labels.size))
            fits = planted[0] + truth.luck / _slope(auroc) * rng.normal(size=truth.seeds)
            fits = shared_fits if model else fits
            scores = math.sqrt(truth.shared) * (image + own) + math.sqrt(1 - 2 * truth.shared) * noise
            if truth.skewed and model:
                scores = _skew(scores)
            scores = scores + fits[:, None] * labels
            if truth.levels:
                edges = np.quantile(scores, np.linspace(0, 1, truth.levels + 1)[1:-1])
                scores = np.digitize(scores, edges).astype(float)
            offset, scale = truth.spread * rng.normal(), math.exp(0.5 * truth.spread * rng.normal())
            models.append(offset + scale * scores)
        named = [str(unit) for unit in units] if truth.group > 1 else None
        found.append(FoldScores.of(labels, models[0], models[1], named))
    return found


def _grouped(units: np.ndarray, truth: Truth, rng: np.random.Generator) -> np.ndarray:
    """Standard normal, four fifths of the variance shared by the images of a unit."""
    alone = rng.normal(size=units.size)
    if truth.group == 1:
        return alone
    _, place = np.unique(units, return_inverse=True)
    shared = rng.normal(size=place.max() + 1)[place]
    return np.asarray(math.sqrt(0.8) * shared + math.sqrt(0.2) * alone, np.float64)


def _slope(auroc: float) -> float:
    """Return by how much the AUROC rises with the distance of the classes, there."""
    return NormalDist().pdf(NormalDist().inv_cdf(auroc)) / math.sqrt(2)


def _skew(scores: np.ndarray) -> np.ndarray:
    """Bend standard normal scores to the right: a shifted lognormal of deviation 1."""
    bent = (np.exp(0.6 * scores) - math.exp(0.18)) / math.sqrt(math.exp(0.72) - math.exp(0.36))
    return np.asarray(bent, np.float64)


@cache
def _shift(auroc: float, truth: Truth, model: int) -> float:
    """Return the distance of the classes at which a fit has ``auroc`` on average."""
    luck = truth.luck / _slope(auroc)
    if truth.skewed and model:
        z = np.random.default_rng(5).normal(size=(2, 400_000))
        lower, upper = _skew(z[0]), _skew(z[1]) + luck * np.random.default_rng(6).normal(size=400_000)
        return float(np.quantile(lower - upper, auroc))
    return NormalDist().inv_cdf(auroc) * math.sqrt(2 + luck**2)


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
        comparison.compare(simulate(truth, _rng(truth, trial, seed)), seed=trial, resamples=resamples).p
        for trial in range(number)
    ]
    return float(np.mean(np.array(p) <= 0.05))


def _rng(truth: Truth, trial: int, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, trial, round(1e4 * truth.a), round(1e4 * truth.b), truth.each])
