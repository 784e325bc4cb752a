"""Averages, intervals, the paired test and verdicts; simulations with fixed seeds. About 10 s."""

from __future__ import annotations

import math
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
from defectbench.metrics.variance import Variance
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
        out.append(FoldScores.of(labels, models[0], models[1]))
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


def test_the_test_is_student_s_with_the_spread_of_images_and_fits() -> None:
    """One fold, no ties, one seed: DeLong's variance of a difference, by hand."""
    rng = np.random.default_rng(3)
    (fold,) = simulated(rng, 0.85, 0.75, folds=1, each=20, seeds=1)
    found = comparison.compare([fold], seed=0, resamples=99)
    gaps = fold.gaps()
    by_defect, by_good = gaps.mean(1), gaps.mean(0)
    # DeLong, DeLong & Clarke-Pearson 1988, with one correction for all images in place of one a class.
    variance = (by_defect.var() / 20 + by_good.var() / 20) * 40 / 39
    assert found.variance.total == pytest.approx(variance, rel=1e-12)
    t = abs(found.difference.value) / math.sqrt(variance)
    assert found.p == pytest.approx(2 * reference.t.sf(t, 38), rel=1e-9)
    assert found.difference.high - found.difference.value == pytest.approx(
        reference.t.ppf(0.975, 38) * math.sqrt(variance), rel=1e-9
    )


def test_the_luck_of_fits_widens_intervals_and_more_images_do_not_take_it_away() -> None:
    rng = np.random.default_rng(4)
    labels = np.repeat([1, 0], 400)
    noise = rng.normal(size=labels.size)
    lucky = np.stack([noise + shift * labels for shift in (0.8, 1.6, 2.4)])
    steady = np.stack([noise + rng.normal(size=labels.size) + 1.6 * labels for _ in range(3)])
    found = comparison.compare([FoldScores.of(labels, lucky, steady)], seed=0, resamples=199)
    still = comparison.compare([FoldScores.of(labels, lucky[1:2], steady[:1])], seed=0, resamples=199)
    assert found.variance.fits > 10 * found.variance.images
    assert found.variance.freedom == pytest.approx(2, abs=0.3)
    assert still.variance.fits == 0
    assert found.a.high - found.a.low > 4 * (still.a.high - still.a.low)


def test_with_fewer_than_three_seeds_nothing_is_decided_between_families() -> None:
    rng = np.random.default_rng(5)
    (fold,) = simulated(rng, 0.99, 0.6, folds=1, each=60, seeds=3)
    verdicts = {}
    for seeds in (1, 2, 3):
        some = FoldScores.of(fold.labels, fold.a[:seeds], fold.b[:seeds])
        found = comparison.compare([some], seed=0, resamples=99)
        verdicts[seeds] = (found.of_families, found.verdict(found.p, margin=0.01), found.p < 0.05)
    assert verdicts[1] == (False, "undecided", True)
    assert verdicts[2][:2] == (False, "undecided")
    assert verdicts[3] == (True, "classifier", True)


def test_groups_count_as_one_piece_of_evidence() -> None:
    """Each part photographed three times, the same picture each time, says no more than photographed once."""
    rng = np.random.default_rng(6)
    (once,) = simulated(rng, 0.85, 0.8, folds=1, each=20, seeds=1)
    thrice = [np.repeat(values, 3, axis=-1) for values in (once.labels, once.a, once.b)]
    units = [str(k) for k in np.repeat(np.arange(40), 3)]
    alone, grouped, blind = (
        comparison.compare([fold], seed=0, resamples=4999)
        for fold in (
            once,
            FoldScores.of(thrice[0], thrice[1], thrice[2], units),
            FoldScores.of(thrice[0], thrice[1], thrice[2]),
        )
    )
    assert grouped.variance.total == pytest.approx(alone.variance.total, rel=1e-9)
    assert grouped.p == pytest.approx(alone.p, rel=1e-9)
    assert grouped.images == alone.images == 20
    assert grouped.a.high - grouped.a.low == pytest.approx(alone.a.high - alone.a.low, rel=0.1)
    assert blind.p < grouped.p


def test_a_group_is_drawn_whole() -> None:
    labels = np.array([1, 1, 1, 0, 0, 0, 1, 0])
    units = ["a", "a", "b", "c", "c", "d", "e", "e"]
    fold = FoldScores.of(labels, labels + 0.0, labels + 0.0, units)
    rows, columns = next(comparison._draws([fold], 200, 0))
    assert (rows[:, 0] == rows[:, 1]).all()
    assert (columns[:, 0] == columns[:, 1]).all()
    assert (rows[:, 3] == columns[:, 3]).all()  # a defect and a good of one group
    assert set(rows[:, 3]) == {1}  # the only group that holds both


def test_units_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="1 units for 2 labels"):
        FoldScores.of([0, 1], [1, 2], [1, 2], ["a"])


def test_a_true_difference_is_found() -> None:
    rng = np.random.default_rng(9)
    p = [comparison.compare(simulated(rng, 0.95, 0.80), seed=i, resamples=99).p for i in range(60)]
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
    steady = Variance(1.0, 0.0, 0.0, 2, 1)
    # Balanced: no skewness, so no acceleration.
    draws = comparison.Resamples(0.6, 0.6, evenly, evenly, balanced, balanced, steady, steady)
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
    for name in ("a", "b", "drawn_a", "drawn_b", "influence_a", "influence_b"):
        np.testing.assert_allclose(getattr(slow, name), getattr(fast, name), atol=1e-12, err_msg=name)


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
