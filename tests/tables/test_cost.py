"""What models cost, the Pareto front, expected costs, false-alarm intervals and sample sizes in tables."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from defectbench.data.shortcut import Shortcut
from defectbench.metrics import sample_size
from defectbench.metrics.image import share_interval
from defectbench.stores.choose import open_store
from defectbench.stores.layout import cell_key, shortcut_key
from defectbench.tables import cost
from defectbench.tables.collect import collect
from defectbench.tables.rows import CostRow
from defectbench.tables.tables import Tables
from fakes import made_up_sweep, rewrite

NAN = math.nan
PRICES = {"false_alarm": 2.0, "missed_defect": 100.0}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    store = open_store(str(tmp_path_factory.mktemp("cost") / "store"))
    made_up_sweep(
        store,
        contenders=["mobilenetv3-small", "padim"],
        seeds=(0, 1),
        skill={"padim": 2.5, "mobilenetv3-small": 1.0},
        defect_rate=0.01,
        prices=PRICES,
    )
    return Tables(collect(store, "madeup"))


def line(label: str, **figures: float) -> CostRow:
    given = dict.fromkeys(
        (
            "total_fit_seconds",
            "inference_seconds_per_image",
            "images_per_second",
            "flops",
            "peak_memory_bytes",
        ),
        1.0,
    )
    known = {"fit_seconds": 1.0, "parameters": 1.0, **given, **figures}
    return CostRow(label=label, family="detector", cells=1, labelled=(0, 0), devices=("cpu",), **known)


def efficient(costs: list[CostRow], means: dict[str, float], name: str) -> set[str]:
    rows = cost.tradeoffs(costs, (), means)
    assert len(rows) == len(costs) * len(cost.COSTS)
    return {row.label for row in rows if row.cost == name and row.efficient}


def test_front_holds_what_nothing_beats() -> None:
    costs = [line("cheap", fit_seconds=1), line("dear", fit_seconds=9), line("worse", fit_seconds=2)]
    means = {"cheap": 0.8, "dear": 0.9, "worse": 0.7}
    assert efficient(costs, means, "fit_seconds") == {"cheap", "dear"}
    assert efficient(costs, means, "parameters") == {"dear"}, "as cheap as the others, and better"
    assert efficient(costs, dict.fromkeys(means, 0.8), "fit_seconds") == {"cheap"}
    assert efficient(costs[:2], {"cheap": 0.9, "dear": 0.9}, "parameters") == {"cheap", "dear"}


def test_front_leaves_out_what_is_not_known() -> None:
    costs = [line("whole"), line("partial"), line("unmeasured", peak_memory_bytes=NAN)]
    means = {"whole": 0.8, "partial": NAN, "unmeasured": 0.9}
    assert efficient(costs, means, "peak_memory_bytes") == {"whole"}
    assert efficient(costs, means, "parameters") == {"unmeasured"}


def test_labelled_images_are_those_of_the_splits(tables: Tables) -> None:
    labelled = {row.label: row.labelled for row in tables.costs}
    assert labelled["padim"] == labelled["filterbank-knn"] == (0, 0)
    learnt, tuned = tables.categories[0].learnt, tables.categories[0].tuned
    assert labelled["mobilenetv3-small"] == (learnt[0] + tuned[0], learnt[1] + tuned[1])
    amounts = {row.label: row.amount for row in tables.tradeoffs if row.cost == "labelled_images"}
    assert amounts["mobilenetv3-small"] == labelled["mobilenetv3-small"][1]
    front = {row.label for row in tables.tradeoffs if row.cost == "labelled_images" and row.efficient}
    assert front == {"padim"}


def _update_cost(cost: dict[str, float], result: dict[str, Any]) -> None:
    result["cost"].update(cost)


def test_costs_are_those_of_detections_cells(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    protocols = {"detection": {"folds": 3}, "scarcity": {"defects": [1, 2], "draws": 10}}
    record = made_up_sweep(
        store, categories=("grass",), models=["filterbank-logreg", "filterbank-knn"], protocols=protocols
    )
    splits = [placed.split.protocol for placed in record.splits]
    own = {r.cell for r in record.readings if r.label == "filterbank-logreg"}
    detection = {r.cell for r in record.readings if r.cell in own and splits[r.split] == "detection"}
    for cell in own:
        cost = {"fit_seconds": 100.0 if cell in detection else 1.0}
        rewrite(store, cell_key(cell, "result.json"), partial(_update_cost, cost))
    found = {row.label: row for row in Tables(collect(store, "madeup")).costs}["filterbank-logreg"]
    assert len(own) > len(detection) == 3
    assert found.fit_seconds == 100.0
    assert (found.cells, found.total_fit_seconds) == (len(own), 300.0 + len(own) - 3)


def test_expected_cost_is_that_of_a_thousand_parts(tables: Tables) -> None:
    assert len(tables.choices) == 2 * (4 + 2)
    for choice in tables.choices:
        missed = 1000 * 0.01 * (1 - choice.recall) * PRICES["missed_defect"]
        alarms = 1000 * 0.99 * choice.observed * PRICES["false_alarm"]
        assert choice.expected_cost == pytest.approx(missed + alarms), choice
    grass = [choice for choice in tables.choices if choice.category == "grass"]
    assert [c.expected_cost for c in grass] == sorted(c.expected_cost for c in grass)
    assert [c.cheapest for c in grass] == [c.expected_cost == grass[0].expected_cost for c in grass]
    none = {c.choice: c.expected_cost for c in grass if c.family is None}
    assert none == pytest.approx({"reject everything": 1980.0, "ship everything": 1000.0})


def test_expected_cost_waits_for_prices_and_takes_the_threshold_there_is(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    holdout = {"detection": {"scheme": "holdout"}}
    made_up_sweep(store, categories=("grass",), protocols=holdout, defect_rate=0.1, prices=PRICES)
    found = Tables(collect(store, "madeup"))
    assert {c.choice for c in found.choices} == {"tuned", "reject everything", "ship everything"}
    found.prices = None
    del found.choices
    assert found.choices == ()


@pytest.mark.parametrize(("hits", "of"), [(0, 12), (3, 40), (12, 12), (1, 1)])
def test_share_interval_is_the_exact_one(hits: int, of: int) -> None:
    exact = binomtest(hits, of).proportion_ci(method="exact")
    assert share_interval(hits, of) == pytest.approx((exact.low, exact.high))


def test_share_interval_of_nothing_is_undefined() -> None:
    assert all(math.isnan(bound) for bound in share_interval(0, 0))


def test_false_alarms_that_came_have_an_interval(tables: Tables) -> None:
    row = next(
        r for r in tables.thresholds if (r.rule, r.label, r.category) == ("calibrated", "padim", "grass")
    )
    counts = [
        r.counts.fp
        for r in tables.collected.rows()
        if (r.label, r.category) == ("padim", "grass") and r.counts
    ]
    assert (row.observed_low, row.observed_high) == share_interval(min(counts), 12)
    assert row.observed_low <= row.promised
    assert math.isnan(next(r for r in tables.thresholds if r.rule == "oracle").observed_low)


def test_sample_sizes_are_those_of_the_compared_folds(tables: Tables) -> None:
    assert [need.category for need in tables.sample_sizes] == ["grass", "brick"]
    for need, paired_seeds in zip(tables.sample_sizes, tables._paired_by_category, strict=True):
        defects, goods = sample_size.needed(paired_seeds.folds, 0.01)
        assert (need.need_defects, need.need_goods) == (math.ceil(defects), math.ceil(goods))
        assert (need.defects, need.goods, need.margin, need.power) == (12, 12, 0.01, 0.8)
        assert not need.enough
    assert replace(tables.sample_sizes[0], need_defects=5.0).enough


def test_sample_size_of_another_endpoint_falls_with_the_margin(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    made_up_sweep(
        store, categories=("grass",), models=["mobilenetv3-small", "padim"], endpoint="image_ap", margin=0.1
    )
    (need,) = Tables(collect(store, "madeup")).sample_sizes
    tables = Tables(collect(store, "madeup"))
    tables.margin = 0.2
    assert tables.sample_sizes[0].need_goods == pytest.approx(need.need_goods / 4, abs=1)


def test_a_shortcut_that_the_import_found_is_shown(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    record = made_up_sweep(store, models=["filterbank-knn"], categories=("grass", "brick", "gravel"))
    seen = {"grass": Shortcut(0.93, 0.85, 0.97, 25, 12), "brick": Shortcut(0.55, 0.4, 0.7, 25, 12)}
    for category, shortcut in seen.items():
        store.put(shortcut_key("parts", category, record.digests[category]), shortcut.to_json())
    store.put(shortcut_key("parts", "gravel", record.digests["gravel"]), b"damaged")
    grass, brick, gravel = Tables(collect(store, "madeup")).shifts
    assert (grass.auroc, grass.suspicious, grass.warning) == (0.93, True, seen["grass"].warning)
    assert (brick.low, brick.high, brick.suspicious, brick.warning) == (0.4, 0.7, False, "")
    assert math.isnan(gravel.auroc)
    assert not gravel.suspicious
