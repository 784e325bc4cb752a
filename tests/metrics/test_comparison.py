"""Averages, intervals, the paired test and verdicts; simulations with fixed seeds. About 10 s."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy import stats as reference
from sklearn.metrics import roc_auc_score

from defectbench.errors import DataError, UsageError
from defectbench.metrics import comparison
from defectbench.metrics import image as metrics
from defectbench.metrics.comparison import FoldScores, Interval
from simulated_scores import Truth, simulate, trials

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def simulated(
    rng: np.random.Generator,
    auroc_a: float,
    auroc_b: float,
    *,
    folds: int = 4,
    each: int = 15,
    seeds: int = 1,
    shared: float = 0.5,
) -> list[FoldScores]:
    """Folds of ``each`` + ``each`` images; binormal scores that share half of their variance by image."""
    out = []
    for _ in range(folds):
        labels = np.repeat([1, 0], each)
        image = rng.normal(size=labels.size)
        models = []
        for auroc in (auroc_a, auroc_b):
            noise = rng.normal(size=(seeds, labels.size))
            shift = NormalDist().inv_cdf(auroc) * math.sqrt(2) * labels
            models.append(math.sqrt(shared) * image + math.sqrt(1 - shared) * noise + shift)
        out.append(FoldScores.of(labels, *models))
    return out


@st.composite
def few_folds(draw: st.DrawFn) -> list[FoldScores]:
    """1 to 3 small folds with ties, 1 or 2 seeds of each model."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    folds = []
    for _ in range(draw(st.integers(1, 3))):
        labels = np.append([0, 1], rng.integers(0, 2, draw(st.integers(0, 4))))
        shape = (draw(st.integers(1, 2)), labels.size)
        folds.append(FoldScores.of(labels, rng.integers(0, 6, shape), rng.integers(0, 6, (1, labels.size))))
    return folds


def wins(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> float:
    """Pairs that the defect wins: AUROC x positives x negatives."""
    gaps = scores[labels][:, None] - scores[~labels]
    return float(((gaps > 0) + (gaps == 0) / 2).sum())


def plain_permutation_p(folds: list[FoldScores]) -> float:
    """Swap the ranks image by image, in every way, and count pairs anew; widened fold by fold."""
    ranked = [(f.labels, reference.rankdata(f.a[0]), reference.rankdata(f.b[0])) for f in folds]

    def difference(swaps: Sequence[bool], widened: bool = True) -> float:
        start, total = 0, 0.0
        for labels, a, b in ranked:
            swap = np.array(swaps[start : start + labels.size])
            start += labels.size
            one, two = np.where(swap, b, a), np.where(swap, a, b)
            room = math.sqrt(labels.size / (labels.size - 1)) if widened else 1
            total += room * (wins(labels, one) - wins(labels, two))
        return total

    images = sum(f.labels.size for f in folds)
    observed = abs(difference([False] * images, widened=False))
    return float(
        np.mean([abs(difference(s)) >= observed - 1e-9 for s in product([False, True], repeat=images)])
    )


def test_fold_average_weighs_by_positives_times_negatives() -> None:
    folds = [([0, 0, 1], [1.0, 3.0, 2.0]), ([0, 1, 1, 1], [5.0, 9.0, 8.0, 7.0])]
    values = [metrics.image_auroc(labels, scores) for labels, scores in folds]
    weights = [comparison.fold_weight(labels) for labels, _ in folds]
    assert weights == [2, 3]
    assert comparison.fold_average(values, weights) == pytest.approx((2 * 0.5 + 3 * 1.0) / 5)


def test_fold_average_leaves_empty_folds_out_and_keeps_undefined_ones() -> None:
    assert comparison.fold_average([0.5, math.nan], [2, 0]) == 0.5
    assert math.isnan(comparison.fold_average([0.5, math.nan], [2, 1]))
    assert math.isnan(comparison.fold_average([math.nan], [0]))
    assert math.isnan(comparison.fold_average([], []))


@given(few_folds())
def test_comparison_values_are_fold_averages_of_the_auroc(folds: list[FoldScores]) -> None:
    result = comparison.compare(folds, seed=0, resamples=9)
    weights = [comparison.fold_weight(fold.labels) for fold in folds]
    for name, got in (("a", result.a), ("b", result.b)):
        values = [np.mean([roc_auc_score(fold.labels, row) for row in getattr(fold, name)]) for fold in folds]
        assert got.value == pytest.approx(np.average(values, weights=weights), abs=1e-12)
    assert result.difference.value == pytest.approx(result.a.value - result.b.value, abs=1e-12)


@given(few_folds(), st.integers(0, 2), st.integers(-1000, 1000))
def test_shift_of_one_fold_moves_nothing(folds: list[FoldScores], which: int, shift: float) -> None:
    moved = list(folds)
    fold = moved[which % len(moved)]
    moved[which % len(moved)] = FoldScores.of(fold.labels, fold.a + shift, 7 * fold.b - 3)
    before, after = (comparison.compare(some, seed=1, resamples=99) for some in (folds, moved))
    assert before == after


@given(few_folds())
def test_comparison_is_antisymmetric(folds: list[FoldScores]) -> None:
    turned = [FoldScores.of(fold.labels, fold.b, fold.a) for fold in folds]
    there, back = (comparison.compare(some, seed=2, resamples=99) for some in (folds, turned))
    assert there.p == back.p
    assert there.a == back.b
    assert there.difference.low == pytest.approx(-back.difference.high, abs=1e-12)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2), st.booleans())
def test_permutation_test_equals_swapping_ranks_one_by_one(seed: int, folds: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(folds):
        labels = np.append([0, 1], rng.integers(0, 2, 2))
        scores = rng.integers(0, 4, (2, 1, 4)) if ties else rng.normal(size=(2, 1, 4))
        made.append(FoldScores.of(labels, *scores))
    assert comparison.permutation_test(made, seed=0) == pytest.approx(plain_permutation_p(made), abs=1e-12)


def test_permutation_test_by_chance_agrees_with_the_exact_one() -> None:
    rng = np.random.default_rng(8)
    folds = simulated(rng, 0.8, 0.7, folds=1, each=6)  # 11 images contribute: 2,048 patterns
    exact = comparison.permutation_test(folds, seed=0)
    drawn = comparison.permutation_test(folds, seed=0, resamples=2000)
    assert 0.01 < exact < 0.5
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 2000))
    assert drawn * 2001 == pytest.approx(round(drawn * 2001))  # +1 above and below


def test_permutation_test_repeats_the_shorter_list_of_seeds() -> None:
    rng = np.random.default_rng(7)
    (fold,) = simulated(rng, 0.9, 0.8, folds=1, each=10, seeds=3)
    one = FoldScores.of(fold.labels, fold.a, fold.b[:1])
    three = FoldScores.of(fold.labels, fold.a, np.repeat(fold.b[:1], 3, axis=0))
    assert comparison.permutation_test([one], seed=0) == comparison.permutation_test([three], seed=0)


def test_permutation_test_keeps_its_rate_of_false_verdicts() -> None:
    for auroc, each in ((0.85, 15), (0.97, 15)):
        rng = np.random.default_rng(8)
        p = [
            comparison.permutation_test(simulated(rng, auroc, auroc, each=each), seed=i, resamples=399)
            for i in range(400)
        ]
        false = float(np.mean(np.array(p) <= 0.05))
        assert 0.01 <= false <= 0.08, auroc  # 400 trials: 5 % +- 2.2 at two standard errors


def test_permutation_test_finds_a_true_difference() -> None:
    rng = np.random.default_rng(9)
    p = [comparison.permutation_test(simulated(rng, 0.95, 0.80), seed=i, resamples=399) for i in range(60)]
    assert np.mean(np.array(p) <= 0.05) > 0.8


def tolerance(share: float, number: int) -> float:
    """Three standard errors of a share of ``number`` trials."""
    return 3 * math.sqrt(share * (1 - share) / number)


def test_intervals_cover_planted_differences_as_often_as_they_say() -> None:
    """A short form of benchmarks/truths.py, whose 2,000 trials each stand in docs/statistics.md."""
    planted = [Truth(0.80, 0.80), Truth(0.95, 0.90, seeds=1), Truth(0.95, 0.85)]
    found = [trials(truth, 200, 499) for truth in planted]
    room = tolerance(0.95, 600)
    assert 0.95 - room <= sum(each.covered for each in found) / 600 <= 0.95 + room
    assert 0.95 - room <= sum(each.covered_single for each in found) / 600 <= 0.95 + room
    assert sum(each.false(truth) for each, truth in zip(found, planted, strict=True)) <= 0.05 * 600
    assert found[2].verdicts["classifier"] > 140  # a tenth is found with 60 + 60 images


def test_verdicts_are_rarely_false_near_one() -> None:
    for auroc in (0.98, 0.995):
        found = trials(Truth(auroc, auroc), 200, 499)
        assert found.false(Truth(auroc, auroc)) / 200 <= 0.05 + tolerance(0.05, 200), auroc
    assert found.warned == 200


def test_folds_on_other_scales_change_nothing() -> None:
    """One standard deviation between folds' scores: pooled, the AUROC falls; here not a bit moves."""
    alike, apart = (
        simulate(Truth(0.9, 0.85, spread=spread), np.random.default_rng(20)) for spread in (0.0, 1.0)
    )
    assert comparison.compare(alike, seed=0, resamples=199) == comparison.compare(
        apart, seed=0, resamples=199
    )
    labels = np.concatenate([fold.labels for fold in alike])
    pooled = [
        roc_auc_score(labels, np.concatenate([fold.a[0] for fold in folds])) for folds in (alike, apart)
    ]
    assert pooled[1] < pooled[0] - 0.02


def test_bootstrap_equals_drawing_images_one_by_one() -> None:
    rng = np.random.default_rng(11)
    (fold,) = simulated(rng, 0.9, 0.8, folds=1, each=12)
    draws = comparison.stratified_bootstrap([fold], seed=0, resamples=4000)
    plain = []
    for _ in range(4000):
        rows, columns = rng.choice(fold.defects, 12), rng.choice(fold.goods, 12)
        plain.append(
            roc := metrics.image_auroc(fold.labels[np.r_[rows, columns]], fold.a[0][np.r_[rows, columns]])
        )
        assert 0 <= roc <= 1
    assert draws.drawn_a.mean() == pytest.approx(np.mean(plain), abs=0.005)
    assert draws.drawn_a.std() == pytest.approx(np.std(plain), rel=0.05)
    assert np.quantile(draws.drawn_a, 0.05) == pytest.approx(np.quantile(plain, 0.05), abs=0.01)


def test_bca_equals_scipy_for_one_stratum() -> None:
    rng = np.random.default_rng(12)
    scores = rng.normal(size=40) + np.repeat([1, 0], 20)
    upper, lower = scores[:20], scores[20:]
    fold = FoldScores.of(np.repeat([1, 0], 20), scores, scores)
    got = comparison.stratified_bootstrap([fold], seed=0, resamples=9999).interval_a(0.95)

    def auroc(x: NDArray[np.float64], y: NDArray[np.float64], axis: int) -> Any:
        return np.mean(x[..., :, None] > y[..., None, :], axis=(-1, -2))

    expected = reference.bootstrap(
        (upper, lower), auroc, n_resamples=9999, method="BCa", rng=np.random.default_rng(0), batch=500
    ).confidence_interval
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_bca_corrects_bias_twice_as_the_formula_says() -> None:
    normal, evenly, balanced = NormalDist(), np.linspace(0, 1, 100001), np.array([-1.0, 1.0])
    draws = comparison.Resamples(0.6, 0.6, evenly, evenly, balanced, balanced)  # no skewness: no acceleration
    got, bias = draws.interval_a(0.95), normal.inv_cdf(0.6)
    assert got.low == pytest.approx(normal.cdf(2 * bias - 1.959964), abs=1e-4)
    assert got.high == pytest.approx(normal.cdf(2 * bias + 1.959964), abs=1e-4)


def test_bootstrap_draws_both_models_jointly() -> None:
    rng = np.random.default_rng(13)
    folds = simulated(rng, 0.85, 0.85)
    same = [FoldScores.of(fold.labels, fold.a, fold.a * 2) for fold in folds]
    result = comparison.compare(same, seed=0, resamples=199)
    assert (result.difference.low, result.difference.high, result.p) == (0, 0, 1)
    assert result.a.low < result.a.value < result.a.high


def test_comparison_is_bit_equal_for_a_seed_and_differs_for_another() -> None:
    folds = simulated(np.random.default_rng(14), 0.9, 0.85, seeds=2)
    assert comparison.compare(folds, seed=0, resamples=199) == comparison.compare(
        folds, seed=0, resamples=199
    )
    assert (
        comparison.compare(folds, seed=0, resamples=199).a
        != comparison.compare(folds, seed=1, resamples=199).a
    )


def test_comparison_shows_each_seed() -> None:
    folds = simulated(np.random.default_rng(15), 0.9, 0.85, seeds=3)
    result = comparison.compare(folds, seed=0, resamples=9)
    assert len(result.a_seeds) == 3
    assert np.mean(result.a_seeds) == pytest.approx(result.a.value, abs=1e-12)
    assert len(set(result.a_seeds)) == 3


def test_comparison_leaves_out_folds_of_one_class() -> None:
    folds = simulated(np.random.default_rng(16), 0.9, 0.85, folds=2)
    goods = FoldScores.of([0, 0], [1.0, 2.0], [2.0, 1.0])
    assert comparison.compare([*folds, goods], seed=0, resamples=99) == comparison.compare(
        folds, seed=0, resamples=99
    )
    nothing = comparison.compare([goods], seed=0, resamples=99)
    figures = (nothing.a.value, nothing.b.low, nothing.difference.high, nothing.p)
    assert all(math.isnan(value) for value in figures)
    assert "both classes" in nothing.warning
    assert comparison.verdict(nothing.difference_90, nothing.p) == "undecided"
    assert nothing.verdict(nothing.p, margin=0.01) == "undecided"


def test_comparison_warns_near_perfect_scores_only() -> None:
    rng = np.random.default_rng(17)
    assert comparison.compare(simulated(rng, 0.85, 0.85), seed=0, resamples=99).warning == ""
    perfect = FoldScores.of([0, 0, 0, 1, 1, 1], range(6), range(6))
    result = comparison.compare([perfect], seed=0, resamples=99)
    assert "too narrow" in result.warning
    assert (result.a.low, result.a.high) == (1, 1)


@pytest.mark.parametrize(
    ("labels", "a", "b", "match"),
    [
        ([0, 2], [1, 2], [1, 2], "0 .good. and 1"),
        ([0, 1], [1, 2, 3], [1, 2], "scores a .* must be"),
        ([0, 1], [1, 2], np.zeros((0, 2)), "scores b .* must be"),
        ([0, 1], [1, math.nan], [1, 2], "1 of 2 scores a are NaN"),
    ],
)
def test_fold_scores_refuse_what_does_not_fit(
    labels: list[int], a: ArrayLike, b: ArrayLike, match: str
) -> None:
    with pytest.raises(DataError, match=match):
        FoldScores.of(labels, a, b)


@given(few_folds())
def test_any_endpoint_equals_the_fast_way_where_both_can(folds: list[FoldScores]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparison, "ENDPOINTS", {**comparison.ENDPOINTS, "again": metrics.image_auroc})
        fast = comparison.stratified_bootstrap(folds, seed=3, resamples=9)
        slow = comparison.stratified_bootstrap(folds, seed=3, resamples=9, endpoint="again")
        p = comparison.permutation_test(folds[:1], seed=0, resamples=64, endpoint="again")
    for name in ("a", "b", "drawn_a", "drawn_b", "influence_a", "influence_b"):
        np.testing.assert_allclose(getattr(slow, name), getattr(fast, name), atol=1e-12, err_msg=name)
    assert p == pytest.approx(comparison.permutation_test(folds[:1], seed=0), abs=1e-12)


def test_comparison_by_another_endpoint_averages_it_over_folds() -> None:
    folds = simulated(np.random.default_rng(18), 0.95, 0.7, each=8, seeds=2)
    result = comparison.compare(folds, seed=0, resamples=99, endpoint="image_ap")
    values = [np.mean([metrics.image_ap(fold.labels, row) for row in fold.a]) for fold in folds]
    assert result.a.value == pytest.approx(np.mean(values), abs=1e-12)
    assert result.a.low < result.a.value < result.a.high
    assert result.difference.low > 0
    assert result.p <= 0.05
    shifted = [FoldScores.of(folds[0].labels, folds[0].a + 1e3, folds[0].b * 8), *folds[1:]]
    assert comparison.compare(shifted, seed=0, resamples=99, endpoint="image_ap") == result


def test_endpoint_unknown_is_refused_with_the_nearest() -> None:
    folds = simulated(np.random.default_rng(19), 0.9, 0.9, folds=1)
    with pytest.raises(UsageError, match="did you mean 'image_auroc'"):
        comparison.compare(folds, seed=0, resamples=9, endpoint="image_auc")


def test_endpoints_are_figures_where_higher_is_better() -> None:
    better = {metric.name: metric.better for metric in metrics.METRICS if metric.kind == "image"}
    assert {better[name] for name in comparison.ENDPOINTS} == {"higher"}


def test_holm_equals_a_table_worked_by_hand() -> None:
    # sorted 0.005 x 4, 0.01 x 3, 0.03 x 2 = 0.06, 0.04 x 1 -> raised to 0.06
    assert comparison.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert comparison.holm([0.9, 0.8]) == (1.0, 1.0)
    assert comparison.holm([]) == ()
    one = comparison.holm([0.02, math.nan])
    assert one[0] == 0.02
    assert math.isnan(one[1])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_its_definition(p_values: list[float]) -> None:
    """An adjusted p is the smallest level at which Holm's step-down procedure rejects."""
    adjusted = comparison.holm(p_values)
    for level in (0.01, 0.05, 0.2):
        rejected = [False] * len(p_values)
        for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if p_values[place] * (len(p_values) - rank) > level:
                break
            rejected[place] = True
        assert [value <= level for value in adjusted] == rejected


@pytest.mark.parametrize(
    ("low", "value", "high", "p", "expected"),
    [
        (0.02, 0.05, 0.08, 0.001, "classifier"),
        (-0.08, -0.05, -0.02, 0.001, "detector"),
        (-0.08, -0.05, -0.02, 0.2, "undecided"),
        (-0.005, 0.001, 0.007, 0.6, "equivalent"),
        (0.002, 0.005, 0.008, 0.001, "equivalent"),
        (-0.05, 0.001, 0.05, 0.6, "undecided"),
        (-0.01, 0.0, 0.005, 0.6, "undecided"),
        (math.nan, math.nan, math.nan, math.nan, "undecided"),
    ],
)
def test_verdict_follows_interval_and_test(
    low: float, value: float, high: float, p: float, expected: str
) -> None:
    assert comparison.verdict(Interval(value, low, high, 0.9), p) == expected
