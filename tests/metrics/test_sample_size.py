"""Sample sizes: variance by its parts, and power where it is promised. About 10 s."""

from __future__ import annotations

import math

import numpy as np
import pytest

from defectbench.metrics import comparison, sample_size
from defectbench.metrics.comparison import FoldScores
from simulated_scores import Truth, rejections, simulate


def made(truth: Truth, trials: int) -> list[list[FoldScores]]:
    return [simulate(truth, np.random.default_rng([31, trial])) for trial in range(trials)]


def difference(folds: list[FoldScores]) -> float:
    compared = [
        comparison.fold_average([float(f.pairs(s).mean()) / len(s) for f, s in side], weights(folds))
        for side in ([(f, f.a) for f in folds], [(f, f.b) for f in folds])
    ]
    return compared[0] - compared[1]


def weights(folds: list[FoldScores]) -> list[int]:
    return [fold.weight for fold in folds]


def test_variance_is_that_of_repeated_samples() -> None:
    truth = Truth(0.92, 0.87, each=40)
    folds = made(truth, 600)
    told = np.mean([found.variance() for each in folds if (found := sample_size.spread(each)) is not None])
    assert told == pytest.approx(np.var([difference(each) for each in folds]), rel=0.15)


def test_variance_at_another_size_is_foretold() -> None:
    few, many = Truth(0.92, 0.87, each=20), Truth(0.92, 0.87, each=80)
    told = np.mean(
        [found.variance(4.0) for each in made(few, 400) if (found := sample_size.spread(each)) is not None]
    )
    assert told == pytest.approx(np.var([difference(each) for each in made(many, 400)]), rel=0.2)


def test_the_needed_number_of_images_gives_the_promised_power() -> None:
    now = Truth(0.92, 0.86, seeds=1)  # the fits as they are: their luck is no matter of images
    needs = [sample_size.needed(each, now.difference) for each in made(now, 60)]
    assert all(defects == pytest.approx(goods) for defects, goods in needs)
    each = round(float(np.mean([defects for defects, _ in needs])))
    power = rejections(Truth(now.a, now.b, each=each, seeds=1), 300, 399, seed=32)
    assert power == pytest.approx(0.8, abs=0.07)  # three standard errors of 300 trials
    half = rejections(Truth(now.a, now.b, each=each // 2, seeds=1), 300, 399, seed=33)
    assert half < 0.65


def test_the_needed_number_keeps_the_ratio_and_falls_with_the_difference() -> None:
    rng = np.random.default_rng(34)
    labels = np.repeat([1, 0], (10, 30))
    folds = [
        FoldScores.of(labels, rng.normal(size=40) + 1.5 * labels, rng.normal(size=40) + 1.5 * labels)
        for _ in range(3)
    ]
    defects, goods = sample_size.needed(folds, 0.01)
    assert goods == pytest.approx(3 * defects)
    assert sample_size.needed(folds, 0.02)[0] < defects / 2


def test_nothing_can_be_told_of_like_models_or_single_images() -> None:
    like = FoldScores.of([0, 0, 1, 1], [1, 2, 3, 4], [1, 2, 3, 4])
    single = FoldScores.of([0, 0, 1], [1, 2, 3], [3, 2, 1])
    for folds in ([like], [single], []):
        assert all(math.isnan(value) for value in sample_size.needed(folds, 0.01))
