"""Pixel metrics against scikit-learn and a naive AUPRO. About 12 s."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from sklearn import metrics as reference

from defectbench.errors import DataError
from defectbench.metrics import pixel

settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")

Pairs = list[tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""Heat maps and masks."""


@st.composite
def pictures(draw: st.DrawFn) -> Pairs:
    """1 to 4 (map, mask) pairs of one size, the first with a defect; half of the cases are full of ties."""
    seed, levels = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([2, 5, 1 << 20]))
    height, width = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(draw(st.integers(1, 4))):
        mask = rng.random((height, width)) < (0.2 if index % 2 == 0 else 0)
        mask[0, 0] = index == 0
        mask[-1, -1] = False
        heat = rng.integers(0, levels, mask.shape) + draw(st.sampled_from([0, levels // 2])) * mask
        pairs.append((heat.astype(np.float32), mask))
    return pairs


def pooled(pairs: Pairs, limit: float = 0.3) -> dict[str, float]:
    pool = pixel.PixelPool(limit)
    for heat, mask in pairs:
        pool.add(heat, mask)
    return pool.figures()


def naive_aupro(pairs: Pairs, limit: float = 0.3) -> float:
    """The definition, threshold by threshold: mean region overlap over the rate of false pixels."""
    every = np.concatenate([heat.ravel() for heat, _ in pairs])
    clean = np.concatenate([heat[~mask] for heat, mask in pairs])
    regions = []
    for heat, mask in pairs:
        labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [heat[labels == region] for region in range(1, number + 1)]
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted(set(every.tolist()), reverse=True):
        rates.append(float((clean >= threshold).mean()))
        overlaps.append(float(np.mean([(region >= threshold).mean() for region in regions])))
    area = 0.0
    for i in range(1, len(rates)):
        left, right = rates[i - 1], min(rates[i], limit)
        if right <= left:
            continue
        at_right = overlaps[i - 1] + (overlaps[i] - overlaps[i - 1]) * (right - left) / (rates[i] - left)
        area += (right - left) * (overlaps[i - 1] + at_right) / 2
    return area / limit


def order_only(pairs: Pairs) -> Pairs:
    """A strictly increasing change of all maps of a fit: their common ranks, badly scaled."""
    every = np.unique(np.concatenate([heat.ravel() for heat, _ in pairs]))
    scale = np.float32(1.5) ** np.linspace(-60, 60, every.size)
    assert (np.diff(scale.astype(np.float32)) > 0).all()
    return [(scale[np.searchsorted(every, heat)].astype(np.float32), mask) for heat, mask in pairs]


@given(pictures())
def test_pool_equals_scikit_learn(pairs: Pairs) -> None:
    truth = np.concatenate([mask.ravel() for _, mask in pairs])
    scores = np.concatenate([heat.ravel() for heat, _ in pairs])
    figures = pooled(pairs)
    assert figures["pixel_auroc_pooled"] == pytest.approx(reference.roc_auc_score(truth, scores), abs=1e-9)
    assert figures["pixel_ap_pooled"] == pytest.approx(
        reference.average_precision_score(truth, scores), abs=1e-9
    )


@given(pictures(), st.sampled_from([0.01, 0.05, 0.3, 1.0]))
def test_aupro_equals_the_naive_definition(pairs: Pairs, limit: float) -> None:
    assert pooled(pairs, limit)["aupro"] == pytest.approx(naive_aupro(pairs, limit), abs=1e-9)


@given(pictures(), st.integers(0, 2**32 - 1))
def test_pool_does_not_move_under_monotone_change_or_shuffle(pairs: Pairs, seed: int) -> None:
    before = pooled(pairs)
    assert pooled(order_only(pairs)) == before
    order = np.random.default_rng(seed).permutation(len(pairs))
    assert pooled([pairs[i] for i in order]) == pytest.approx(before, abs=1e-12)


@given(pictures())
def test_explanation_equals_scikit_learn_and_a_search(pairs: Pairs) -> None:
    heat, mask = pairs[0]
    threshold = float(np.median(heat))
    figures = pixel.explain(heat, mask, threshold)
    truth, scores = mask.ravel(), heat.ravel()
    assert figures.pixel_auroc == pytest.approx(reference.roc_auc_score(truth, scores), abs=1e-9)
    assert figures.pixel_ap == pytest.approx(reference.average_precision_score(truth, scores), abs=1e-9)
    assert figures.iou == pytest.approx(reference.jaccard_score(truth, scores > threshold), abs=1e-12)
    best = max(reference.jaccard_score(truth, scores >= value) for value in np.unique(scores))
    assert figures.iou_oracle == pytest.approx(best, abs=1e-12)
    assert figures.chance == mask.mean()
    moved = pixel.explain(*order_only(pairs[:1])[0])
    assert (moved.pixel_auroc, moved.pixel_ap, moved.pointing_hit, moved.iou_oracle) == (
        figures.pixel_auroc,
        figures.pixel_ap,
        figures.pointing_hit,
        figures.iou_oracle,
    )


def test_pool_equals_references_over_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    pairs = [(rng.normal(size=(32, 32)).astype(np.float32), rng.random((32, 32)) < 0.3) for _ in range(3)]
    whole = pooled(pairs)
    monkeypatch.setattr(pixel, "_CHUNK", 7)
    assert pooled(pairs) == pytest.approx(whole, abs=1e-12)
    assert whole["aupro"] == pytest.approx(naive_aupro(pairs), abs=1e-9)


def test_pool_gives_the_same_again_and_goes_on_after_figures() -> None:
    rng = np.random.default_rng(4)
    pairs = [(rng.normal(size=(16, 16)).astype(np.float32), rng.random((16, 16)) < 0.3) for _ in range(4)]
    pool = pixel.PixelPool()
    for heat, mask in pairs[:2]:
        pool.add(heat, mask)
    assert pool.figures() == pool.figures() == pooled(pairs[:2])
    for heat, mask in pairs[2:]:
        pool.add(heat, mask)
    assert pool.figures()["aupro"] == pytest.approx(naive_aupro(pairs), abs=1e-9)


def test_pool_keeps_memory_within_what_it_states() -> None:
    rng, size, number = np.random.default_rng(6), 256, 24
    tracemalloc.start()
    pool, on = pixel.PixelPool(), 0
    for _ in range(number):
        mask = np.zeros((size, size), bool)
        mask[:40, :80] = True
        on += int(mask.sum())
        pool.add(rng.random((32, 32)), mask)
    pool.figures()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    off = number * size * size - on
    assert 4 * off < peak < 5 * off + 13 * on + 50e6 * on / (1 << 20) + 3e6


def test_aupro_joins_regions_that_touch_at_a_corner() -> None:
    mask = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0]], bool)
    heat = np.array([[9, 0, 0], [0, -1, 0], [0, 0, 0]], np.float32)
    assert pooled([(heat, mask)])["aupro"] == pytest.approx(0.5)  # one region, half of it found


def test_aupro_weighs_regions_alike_whatever_their_size() -> None:
    mask = np.zeros((8, 8), bool)
    mask[0, 0] = mask[4:, 4:] = True
    heat = np.where(mask, np.float32(-1), np.float32(0))
    heat[0, 0] = 9
    assert pooled([(heat, mask)])["aupro"] == pytest.approx(0.5)


def test_aupro_counts_the_pixels_of_good_images() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = True
    heat = np.zeros((4, 4), np.float32)
    heat[0, 0] = 1
    alone = pooled([(heat, mask)])["aupro"]
    hot_good = (np.full((4, 4), 2, np.float32), np.zeros((4, 4), bool))
    assert alone == 1
    assert pooled([(heat, mask), hot_good])["aupro"] == 0


def test_pixel_figures_of_one_class_are_nan() -> None:
    flat = np.zeros((3, 3), np.float32)
    for mask in (np.zeros((3, 3)), np.ones((3, 3))):
        assert all(math.isnan(value) for value in pooled([(flat, mask != 0)]).values())
        figures = pixel.explain(flat, mask)
        assert math.isnan(figures.pixel_auroc)
        assert math.isnan(figures.iou_oracle)
    assert all(math.isnan(value) for value in pixel.PixelPool().figures().values())
    assert math.isnan(pixel.pointing_hit(flat, np.zeros((3, 3))))


def test_flat_map_scores_as_chance() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:3, :5] = True
    figures = pixel.explain(np.ones((4, 4)), mask)
    assert (figures.pixel_auroc, figures.pixel_ap, figures.pointing_hit) == pytest.approx((0.5, 0.15, 0.15))
    assert figures.iou_oracle == pytest.approx(figures.chance)
    assert math.isnan(figures.iou)


@pytest.mark.parametrize("size", [(7, 5), (3, 3), (16, 9), (1, 1)])
def test_fit_map_equals_scipy(size: tuple[int, int]) -> None:
    heat = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    rows = (np.arange(size[0]) + 0.5) * 6 / size[0] - 0.5
    columns = (np.arange(size[1]) + 0.5) * 5 / size[1] - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    expected = ndimage.map_coordinates(heat.astype(float), grid, order=1, mode="nearest")
    got = pixel.fit_map(heat, size)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_fit_map_keeps_flat_regions_flat_and_the_same_size_untouched() -> None:
    flat = np.full((3, 7), np.float32(0.1))
    assert np.unique(pixel.fit_map(flat, (512, 300))).tolist() == [np.float32(0.1)]
    heat = np.random.default_rng(1).normal(size=(4, 6)).astype(np.float32)
    assert pixel.fit_map(heat, (4, 6)).tobytes() == heat.tobytes()


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.sampled_from([0.5, 0.9, 0.99]), st.booleans())
def test_pixel_quantile_equals_numpys(lengths: list[int], level: float, ties: bool) -> None:
    rng = np.random.default_rng(sum(lengths))
    quantile, parts = pixel.PixelQuantile(level), []
    for length in lengths:
        part = rng.integers(0, 3, (1, length)) if ties else rng.normal(size=(1, length))
        parts.append(part.astype(np.float32))
        quantile.add(parts[-1], (1, length))
    every = np.concatenate(parts, axis=1).ravel()
    assert quantile.value() == np.quantile(every, level, method="inverted_cdf")
    assert (every > quantile.value()).mean() <= 1 - level + 1e-9
    assert quantile.value() == quantile.value()


def test_pixel_quantile_without_maps_is_nan() -> None:
    assert math.isnan(pixel.PixelQuantile().value())


def test_centre_prior_is_symmetric_and_knows_nothing_of_the_map() -> None:
    prior = pixel.centre_prior((5, 8))
    assert (prior == prior[::-1]).all()
    assert (prior == prior[:, ::-1]).all()
    mask = np.zeros((100, 100), bool)
    mask[45:55, 45:55] = True
    figures = pixel.explain_centre(mask)
    assert figures.pointing_hit == 1
    assert 0.6 < figures.iou <= figures.iou_oracle


def test_pixel_metrics_refuse_maps_that_are_not_finite() -> None:
    bad = np.array([[0.0, math.nan], [math.inf, 1.0]])
    with pytest.raises(DataError, match="2 of 4 values are NaN or infinite"):
        pixel.explain(bad, np.ones((2, 2)))
    with pytest.raises(DataError, match="got shape"):
        pixel.fit_map(np.zeros(3), (2, 2))
    with pytest.raises(DataError, match="a mask is"):
        pixel.PixelPool().add(np.zeros((2, 2)), np.zeros((2, 2, 3)))


def test_explanation_functions_agree_with_explain() -> None:
    rng = np.random.default_rng(5)
    heat, mask = rng.normal(size=(8, 8)), rng.random((8, 8)) < 0.3
    figures = pixel.explain(heat, mask, 0.5)
    assert pixel.pixel_auroc(heat, mask) == figures.pixel_auroc
    assert pixel.pixel_ap(heat, mask) == figures.pixel_ap
    assert pixel.pointing_hit(heat, mask) == figures.pointing_hit
    assert pixel.iou(heat, mask, 0.5) == figures.iou
    assert pixel.iou_oracle(heat, mask) == figures.iou_oracle
    assert pixel.chance(mask) == figures.chance
