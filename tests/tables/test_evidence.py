"""What stands beside the figures: published ones, matched pairs, explanation by type and size of defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defectbench.catalog import Family
from defectbench.data.check import published_counts
from defectbench.metrics.comparison import holm
from defectbench.records.sweep_record import SweepModel
from defectbench.report.evidence import Evidence
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.tables.breakdown import SIZES, BreakdownRow, breakdowns, sizes
from defectbench.tables.collect import collect
from defectbench.tables.matched import matched_pairs
from defectbench.tables.published import published
from defectbench.tables.tables import Tables
from fakes import made_up_sweep

MODELS = ["filterbank-logreg", "mobilenetv3-small", "padim", "patchcore"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(str(tmp_path_factory.mktemp("evidence") / "store"))
    made_up_sweep(
        store,
        dataset="mvtec",
        categories=("grid", "brick"),
        models=MODELS,
        skill={"patchcore": 3.0, "mobilenetv3-small": 1.0},
        goods=20,
        defects=20,
    )
    return store


@pytest.fixture(scope="module")
def tables(store: Store) -> Tables:
    return Tables(collect(store, "madeup"))


@pytest.fixture(scope="module")
def parts(store: Store, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> list[BreakdownRow]:
    evidence = Evidence(tables.collected, store, tmp_path_factory.mktemp("cache"))
    return list(breakdowns(tables, evidence.areas))


def test_published_figures_stand_beside_ours(tables: Tables) -> None:
    lines = published(tables)
    assert {line.category for line in lines} == {"grid"}, "brick is no category of MVTec AD"
    ours = {score.label: score for score in tables.scores if score.category == "grid"}
    padim = next(line for line in lines if line.catalog == "padim")
    assert (padim.value, padim.source) == (0.942, "anomalib README")
    assert padim.ours == pytest.approx(ours["padim"].value)
    assert padim.cells == ours["padim"].cells
    assert not padim.same
    assert len([line for line in lines if line.label == "patchcore"]) == 2  # two sources
    assert {line.label for line in lines} == {"", "padim", "patchcore"}
    assert all(np.isnan(line.ours) for line in lines if not line.label)


def test_published_figures_are_those_of_the_study(tables: Tables) -> None:
    study = {line.catalog: line for line in published(tables) if line.figure == "f1_oracle"}
    assert {name: line.value for name, line in study.items()} == {"glass": 0.8788, "tinyvit-21m-512": 0.7317}


def test_published_figures_know_mvtec_by_its_counts(tmp_path: Path) -> None:
    goods, test_goods, defects = published_counts()["toothbrush"]
    assert (goods, test_goods, defects) == (60, 12, 30)
    store = open_store(str(tmp_path))
    made_up_sweep(
        store,
        categories=("grid",),
        models=["padim"],
        contenders=None,
        training_goods=264,
        goods=21,
        defects=57,
    )
    assert all(line.same for line in published(Tables(collect(store, "madeup"))))


def test_matched_pairs_share_backbone_and_weights() -> None:
    def one(model: str, family: Family, weights: str) -> SweepModel:
        return SweepModel(model, model, family, weights, 224, {})

    theirs = [one("patchcore", "detector", "pretrained"), one("padim", "detector", "pretrained")]
    pair = (("wide-resnet50", "patchcore"),)
    assert matched_pairs([*theirs, one("wide-resnet50", "classifier", "pretrained")]) == pair
    assert matched_pairs([*theirs, one("wide-resnet50", "classifier", "none")]) == ()


def test_matched_pairs_are_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ("mobilenetv3-small", "patchcore")
    monkeypatch.setattr("defectbench.tables.tables.matched_pairs", lambda models: (pair,))
    tables = Tables(collect(store, "madeup"))
    assert [row.category for row in tables.matched] == ["grid", "brick"]
    values = {(score.label, score.category): score.value for score in tables.scores}
    for row in tables.matched:
        assert (row.classifier, row.detector) == pair
        difference = values["mobilenetv3-small", row.category] - values["patchcore", row.category]
        assert row.difference == pytest.approx(difference)
        assert row.corrected >= row.p
    assert tables.comparisons[0].classifier == "filterbank-logreg"
    both = [*tables.comparisons, *tables.matched]
    assert [row.corrected for row in both] == list(holm([row.p for row in both]))
    assert len(both) == len(tables.compared) == 4


def test_contenders_that_are_a_matched_pair_count_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    contenders = collect(store, "madeup").record.contenders
    monkeypatch.setattr("defectbench.tables.tables.matched_pairs", lambda models: (contenders,))
    tables = Tables(collect(store, "madeup"))
    assert tables.matched == tables.comparisons == tables.compared


def test_breakdowns_average_the_predictions(tables: Tables, parts: list[BreakdownRow]) -> None:
    for line in parts:
        if line.by == "type":
            rows = [fold.test for fold in tables.folds_of(line.category, line.label)]
            values = np.concatenate([row.pixel_ap[row.defect_type == line.group] for row in rows])
            assert line.defects == len(values)
            assert line.pixel_ap == pytest.approx(values.mean())


def test_breakdowns_by_size_cover_every_defect(tables: Tables, parts: list[BreakdownRow]) -> None:
    for by in ("type", "size"):
        of = [line for line in parts if (line.label, line.category, line.by) == ("padim", "grid", by)]
        assert sum(line.defects for line in of) == 20
    assert {line.group for line in parts if line.by == "size"} <= set(SIZES)
    assert all(0 < line.smallest <= line.largest < 0.2 for line in parts)


def test_sizes_are_thirds() -> None:
    found = sizes({str(number): number / 100 for number in range(9)})
    assert list(found.values()) == [size for size in SIZES for _ in range(3)]
    assert sizes({}) == {}
