"""Crossovers of simulated learning curves, whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np
import pytest
from numpy.typing import NDArray

from defectbench.errors import DataError
from defectbench.metrics.comparison import FoldScores
from defectbench.metrics.crossover import NEVER, CrossoverPoint, crossover

NUMBERS = (1, 2, 4, 8, 16)
MARGIN = 0.01


def separation(auroc: float) -> float:
    """How far two normal distributions of SD 1 lie apart for an AUROC."""
    return math.sqrt(2) * NormalDist().inv_cdf(auroc)


def curve(
    aurocs: Mapping[int, float], detector: float, seed: int = 0, images: int = 40, draws: int = 10
) -> list[CrossoverPoint]:
    """A learning curve of four folds: AUROC of the classifier at each number, and of the detector.

    Models agree in part on how hard an image is, draws differ in quality, and every fold's and draw's scores
    lie on a scale of their own.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], images // 2)
    found: dict[int, list[FoldScores]] = {n: [] for n in aurocs}
    for _ in range(4):
        ease, luck = rng.normal(size=images), rng.normal(0, 0.1, draws)
        b = scored(rng, ease, separation(detector) * labels)
        for n, auroc in aurocs.items():
            a = [scored(rng, ease, (separation(auroc) + luck[draw]) * labels) for draw in range(draws)]
            found[n].append(FoldScores.of(labels, np.stack(a), b))
    return [CrossoverPoint(n, tuple(each)) for n, each in found.items()]


def scored(
    rng: np.random.Generator, ease: NDArray[np.float64], shift: NDArray[np.float64]
) -> NDArray[np.float64]:
    own = math.sqrt(0.5) * (ease + rng.normal(size=ease.size)) + shift
    return np.asarray(rng.normal() + math.exp(rng.normal()) * own)


def test_a_planted_crossover_lies_in_its_interval() -> None:
    """The classifier passes the detector's 0.85 between 2 and 4: the planted crossover is 4."""
    truth = dict(zip(NUMBERS, (0.65, 0.75, 0.88, 0.92, 0.95), strict=True))
    covered = 0
    for seed in range(40):
        found = crossover(curve(truth, 0.85, seed), margin=MARGIN, seed=0, resamples=499)
        covered += found.low <= 4 <= found.high
        assert found.n >= found.low
    # At 95 % each, fewer than 34 of 40 would come less than once in a hundred times.
    assert covered >= 34


def test_the_crossover_asks_for_the_bound_at_every_larger_number() -> None:
    truth = dict(zip(NUMBERS, (0.6, 0.95, 0.6, 0.95, 0.97), strict=True))
    found = crossover(curve(truth, 0.8, images=120), margin=MARGIN, seed=0)
    assert found.n == 8, "good at 2, bad again at 4"
    for level in found.levels:
        assert level.bound < level.difference == pytest.approx(level.classifier.value - level.detector.value)
        assert level.classifier.low < level.classifier.value < level.classifier.high
        assert level.classifier.value == pytest.approx(truth[level.n], abs=0.06)
    assert [level.bound > -MARGIN for level in found.levels] == [False, True, False, True, True]


def test_the_ends_are_censored() -> None:
    always = crossover(curve(dict.fromkeys((1, 2, 28), 0.97), 0.7, images=120), margin=MARGIN, seed=0)
    assert (always.text, always.interval) == ("<= 1", "<= 1")
    never = crossover(curve(dict.fromkeys((1, 2, 28), 0.6), 0.9, images=120), margin=MARGIN, seed=0)
    assert (never.n, never.text, never.interval) == (NEVER, "> 28", "> 28")
    unsure = crossover(curve({1: 0.6, 2: 0.7, 28: 0.84}, 0.85), margin=MARGIN, seed=0)
    assert (unsure.text, unsure.interval) == ("> 28", "28 to > 28")


def test_no_scale_of_a_fold_or_draw_matters() -> None:
    points = curve({1: 0.7, 4: 0.9}, 0.8)
    moved = [
        CrossoverPoint(
            point.n,
            tuple(
                FoldScores(f.labels, np.arcsinh(f.a) * (1 + k) + k, f.b) for k, f in enumerate(point.folds)
            ),
        )
        for point in points
    ]
    one, two = (crossover(each, margin=MARGIN, seed=3, resamples=199) for each in (points, moved))
    assert one == two


def test_points_may_have_different_numbers_of_draws() -> None:
    points = curve({1: 0.6, 4: 0.95}, 0.8, images=120)
    single = tuple(FoldScores(fold.labels, fold.a[:1], fold.b) for fold in points[1].folds)
    found = crossover([CrossoverPoint(28, single), *points], margin=MARGIN, seed=0)
    assert [level.n for level in found.levels] == [1, 4, 28]
    assert found.n == 4


def test_seeds_of_a_draw_are_averaged_and_draws_resampled() -> None:
    """Equal seeds change nothing; as many draws more would make the curve surer than it is."""
    points = curve({1: 0.7, 4: 0.9}, 0.8)
    twice = [
        CrossoverPoint(
            point.n, tuple(FoldScores(f.labels, f.a.repeat(2, axis=0), f.b) for f in point.folds), seeds=2
        )
        for point in points
    ]
    one, two = (crossover(each, margin=MARGIN, seed=3, resamples=199) for each in (points, twice))
    for a, b in zip(one.levels, two.levels, strict=True):
        assert b.classifier.low == pytest.approx(a.classifier.low)
        assert b.bound == pytest.approx(a.bound)
    with pytest.raises(DataError, match="n=1 has lines of scores that are not 3 for each draw"):
        crossover([CrossoverPoint(1, points[0].folds, seeds=3)], margin=MARGIN, seed=0)


def test_what_is_no_curve_is_refused() -> None:
    points = curve({1: 0.7, 2: 0.8}, 0.8)
    with pytest.raises(DataError, match=r"distinct numbers of labelled defects, got \[\]"):
        crossover([], margin=MARGIN, seed=0)
    with pytest.raises(DataError, match=r"got \[1, 1\]"):
        crossover([points[0], points[0]], margin=MARGIN, seed=0)
    with pytest.raises(DataError, match="n=2 is tested on other images, or against another detector"):
        crossover([points[0], curve({2: 0.8}, 0.8, seed=1)[0]], margin=MARGIN, seed=0)
    good = FoldScores.of([0, 0], [1, 2], [1, 2])
    with pytest.raises(DataError, match="a fold with tested images of both classes"):
        crossover([CrossoverPoint(1, (good,))], margin=MARGIN, seed=0)


def test_groups_are_drawn_whole_on_the_curve_too() -> None:
    """Each part photographed five times, the same picture each time, makes no curve surer."""
    rng = np.random.default_rng(11)
    labels = np.repeat([1, 0], 12)
    scores = [rng.normal(size=labels.size) + shift * labels for shift in (1.0, 1.5)]

    def width(copies: int, grouped: bool) -> float:
        units = [str(k) for k in np.repeat(np.arange(labels.size), copies)] if grouped else None
        many = [np.repeat(values, copies) for values in (labels, *scores)]
        fold = FoldScores.of(many[0], many[1], many[2], units)
        [level] = crossover([CrossoverPoint(1, (fold,))], margin=0.01, seed=0).levels
        return level.classifier.high - level.classifier.low

    assert width(5, grouped=True) == pytest.approx(width(1, grouped=False), rel=0.1)
    assert width(5, grouped=False) < 0.6 * width(1, grouped=False)
