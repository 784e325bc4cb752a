"""Image metrics against scikit-learn and against what must not move them. About 6 s."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference

from defectbench.errors import DataError
from defectbench.metrics import image

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

Sample = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Labels and scores."""

DESIGN_NAMES = [
    "image_auroc",
    "image_ap",
    "f1",
    "recall",
    "precision",
    "accuracy",
    "balanced_accuracy",
    "f1_oracle",
    "recall_at_precision_95",
    "recall_at_precision_99",
    "false_alarms_at_recall_99",
    "pixel_auroc",
    "pixel_ap",
    "pointing",
    "iou",
    "iou_oracle",
    "pixel_auroc_pooled",
    "pixel_ap_pooled",
    "aupro",
    "fit_seconds",
    "inference_seconds_per_image",
    "images_per_second",
    "parameters",
    "flops",
    "peak_memory_bytes",
]


@st.composite
def samples(draw: st.DrawFn, both: bool = True) -> Sample:
    """Labels and scores; half of the samples have few distinct scores, hence many ties."""
    number = draw(st.integers(2, 40))
    levels = st.integers(-3, 3).map(float) if draw(st.booleans()) else st.floats(-1e6, 1e6, width=32)
    labels = draw(st.lists(st.integers(0, 1), min_size=number, max_size=number))
    if both:
        labels[:2] = [0, 1]
    return np.array(labels), np.array(draw(st.lists(levels, min_size=number, max_size=number)))


def brute_counts(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> list[tuple[int, int]]:
    """(tp, fp) for every threshold that calls something abnormal, the plain way."""
    pairs = []
    for lowest in sorted(set(scores.tolist()), reverse=True):
        called = scores >= lowest
        pairs.append((int((called & (labels == 1)).sum()), int((called & (labels == 0)).sum())))
    return pairs


def order_only(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """A strictly increasing change of the scores that keeps ties and nothing else."""
    _, ranks = np.unique(scores, return_inverse=True)
    return np.exp(ranks.astype(float) / 4) - 1e3


@given(samples())
def test_metrics_equal_scikit_learn(sample: Sample) -> None:
    labels, scores = sample
    assert image.image_auroc(labels, scores) == pytest.approx(
        reference.roc_auc_score(labels, scores), abs=1e-9
    )
    assert image.image_ap(labels, scores) == pytest.approx(
        reference.average_precision_score(labels, scores), abs=1e-9
    )


@given(samples())
def test_curves_equal_scikit_learn(sample: Sample) -> None:
    labels, scores = sample
    alarms, recall, _ = reference.roc_curve(labels, scores, drop_intermediate=False)
    roc = image.roc_curve(labels, scores)
    np.testing.assert_allclose(roc.false_alarm_rate, alarms, atol=1e-12)
    np.testing.assert_allclose(roc.recall, recall, atol=1e-12)
    precision, recall, _ = reference.precision_recall_curve(labels, scores)
    curve = image.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(curve.precision, precision[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[::-1], atol=1e-12)


@given(samples())
def test_curve_thresholds_give_their_points(sample: Sample) -> None:
    labels, scores = sample
    roc = image.roc_curve(labels, scores)
    for alarms, recall, threshold in zip(roc.false_alarm_rate, roc.recall, roc.threshold, strict=True):
        counts = image.counts_at(labels, scores, threshold)
        assert (counts.false_alarm_rate, counts.recall) == (alarms, recall)


@given(samples())
def test_operating_points_equal_a_search_over_all_thresholds(sample: Sample) -> None:
    labels, scores = sample
    good, bad = int((labels == 0).sum()), int((labels == 1).sum())
    pairs = brute_counts(labels, scores)
    assert image.f1_oracle(labels, scores) == pytest.approx(
        max(2 * t / (t + f + bad) for t, f in pairs), abs=1e-12
    )
    for wanted in (0.5, 0.95, 0.99, 1.0):
        recalls = [t / bad for t, f in pairs if t / (t + f) >= wanted]
        assert image.recall_at_precision(labels, scores, wanted) == max(recalls, default=0.0)
        alarms = [f / good for t, f in pairs if t / bad >= wanted]
        assert image.false_alarms_at_recall(labels, scores, wanted) == min(alarms)


@given(samples())
def test_counts_equal_scikit_learn(sample: Sample) -> None:
    labels, scores = sample
    threshold = float(np.median(scores))
    counts, called = image.counts_at(labels, scores, threshold), scores > threshold
    tn, fp, fn, tp = reference.confusion_matrix(labels, called, labels=[0, 1]).ravel()
    assert counts == image.ConfusionCounts(tp, fp, tn, fn)
    assert counts.accuracy == pytest.approx(reference.accuracy_score(labels, called), abs=1e-12)
    assert counts.balanced_accuracy == pytest.approx(
        reference.balanced_accuracy_score(labels, called), abs=1e-12
    )
    assert counts.f1 == pytest.approx(reference.f1_score(labels, called, zero_division=0), abs=1e-12)
    assert counts.recall == pytest.approx(reference.recall_score(labels, called), abs=1e-12)
    if called.any():
        assert counts.precision == pytest.approx(reference.precision_score(labels, called), abs=1e-12)


@given(samples(), st.integers(0, 2**32 - 1))
def test_metrics_do_not_move_under_monotone_change_or_shuffle(sample: Sample, seed: int) -> None:
    labels, scores = sample
    before = image.threshold_free(labels, scores)
    assert image.threshold_free(labels, order_only(scores)) == before
    order = np.random.default_rng(seed).permutation(labels.size)
    assert image.threshold_free(labels[order], scores[order]) == before
    threshold, moved = (image.best_f1_threshold(labels, s) for s in (scores, order_only(scores)))
    assert image.counts_at(labels, scores, threshold) == image.counts_at(labels, order_only(scores), moved)


@given(samples())
def test_best_f1_threshold_reaches_the_oracle_on_its_own_images(sample: Sample) -> None:
    labels, scores = sample
    threshold = image.best_f1_threshold(labels, scores)
    assert image.counts_at(labels, scores, threshold).f1 == pytest.approx(
        image.f1_oracle(labels, scores), abs=1e-12
    )


def test_best_f1_threshold_lies_half_way_and_survives_adjacent_floats() -> None:
    assert image.best_f1_threshold([0, 0, 1, 1], [0.0, 1.0, 3.0, 4.0]) == 2.0
    low = 1.0
    high = math.nextafter(low, 2)
    assert image.best_f1_threshold([0, 1], [low, high]) == low
    assert image.best_f1_threshold([0, 1], [-1.7e308, 1.7e308]) == 0.0
    assert image.best_f1_threshold([0, 1], [-math.inf, math.inf]) == -math.inf
    assert image.best_f1_threshold([1, 0, 1], [0.0, 1.0, 2.0]) == -math.inf  # everything abnormal is best


def test_quantile_threshold_keeps_the_rate_on_average() -> None:
    rng = np.random.default_rng(0)
    alarms = []
    for _ in range(4000):
        scores = rng.normal(size=40)
        choice = image.quantile_threshold(scores[:39], 0.1)
        assert choice.false_alarm_rate == 0.1
        alarms.append(scores[39] > choice.threshold)
    assert 0.085 < np.mean(alarms) < 0.115


def test_quantile_threshold_says_what_few_goods_can_resolve() -> None:
    assert image.quantile_threshold(np.arange(18.0), 0.05) == image.QuantileThreshold(17.0, 1 / 19)
    assert image.quantile_threshold(np.arange(19.0), 0.05) == image.QuantileThreshold(18.0, 1 / 20)
    assert image.quantile_threshold(np.arange(38.0), 0.05) == image.QuantileThreshold(37.0, 1 / 39)
    assert image.quantile_threshold(np.arange(9.0), 1.0) == image.QuantileThreshold(0.0, 0.9)
    none = image.quantile_threshold([], 0.05)
    assert math.isnan(none.threshold)
    assert math.isnan(none.false_alarm_rate)


def test_quantile_threshold_counts_ties_as_no_alarms() -> None:
    choice = image.quantile_threshold([1.0] * 20, 0.05)
    assert image.counts_at([0] * 20, [1.0] * 20, choice.threshold).fp == 0


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_metrics_of_one_class_are_nan(labels: list[int]) -> None:
    scores = [0.1, 0.2][: len(labels)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(math.isnan(value) for value in image.threshold_free(labels, scores).values())
        assert math.isnan(image.best_f1_threshold(labels, scores))
        roc, curve = image.roc_curve(labels, scores), image.precision_recall_curve(labels, scores)
    assert np.isnan(roc.recall).all() == (1 not in labels)
    assert np.isnan(roc.false_alarm_rate).all() == (0 not in labels)
    assert np.isnan(curve.recall).all() == (1 not in labels)


def test_counts_figures_that_are_undefined_are_nan() -> None:
    nothing_called = image.ConfusionCounts(tp=0, fp=0, tn=5, fn=5)
    assert math.isnan(nothing_called.precision)
    assert nothing_called.f1 == 0
    without_defects = image.ConfusionCounts(tp=0, fp=1, tn=4, fn=0)
    assert math.isnan(without_defects.recall)
    assert math.isnan(without_defects.balanced_accuracy)
    undecided = image.counts_at([0, 1], [0.0, 1.0], math.nan)
    assert all(math.isnan(value) for value in undecided.figures().values())


def test_counts_at_a_defect_rate_follow_bayes() -> None:
    counts = image.ConfusionCounts(tp=45, fp=6, tn=54, fn=5)
    assert counts.precision_at(50 / 110) == pytest.approx(counts.precision, abs=1e-12)
    assert counts.precision_at(0.0) == 0
    assert counts.cost_at(0.5, false_alarm=1, missed_defect=10) == pytest.approx(0.5 * 0.1 * 10 + 0.5 * 0.1)


def test_f1_all_abnormal_equals_counting() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    assert image.f1_all_abnormal(labels) == image.counts_at(labels, np.zeros(5), -math.inf).f1


def test_metrics_refuse_nan_scores_and_say_how_many() -> None:
    with pytest.raises(DataError, match="2 of 3 scores are NaN"):
        image.image_auroc([0, 1, 1], [0.1, math.nan, math.nan])
    with pytest.raises(DataError, match="1 of 2 scores are NaN"):
        image.quantile_threshold([1.0, math.nan], 0.05)


@pytest.mark.parametrize(("labels", "match"), [([0, 1], "one length"), ([0, 1, 2], "labels are 0")])
def test_metrics_refuse_labels_that_do_not_fit(labels: list[int], match: str) -> None:
    with pytest.raises(DataError, match=match):
        image.image_ap(labels, [0.1, 0.2, 0.3])


def test_metrics_list_names_the_designs_figures_once() -> None:
    names = [metric.name for metric in image.METRICS]
    assert sorted(names) == sorted(DESIGN_NAMES)
    lower = {metric.name for metric in image.METRICS if metric.better == "lower"}
    assert {"false_alarms_at_recall_99", "fit_seconds", "flops"} <= lower
    assert "images_per_second" not in lower
    by_kind = {kind: {m.name for m in image.METRICS if m.kind == kind} for kind in ("image", "threshold")}
    assert set(image.threshold_free([0, 1], [0.0, 1.0])) == by_kind["image"]
    assert set(image.ConfusionCounts(1, 1, 1, 1).figures()) == by_kind["threshold"]


@settings(max_examples=20)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_auroc_of_float32_scores_counts_their_ties(positives: int, negatives: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.repeat([1, 0], [positives, negatives])
    scores = rng.integers(0, 5, labels.size).astype(np.float32)
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    naive = ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    assert image.image_auroc(labels, scores) == pytest.approx(naive, abs=1e-12)
