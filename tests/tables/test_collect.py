from __future__ import annotations

import hashlib
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from defectbench.errors import MissingInputError
from defectbench.metrics.image import best_f1_threshold, image_auroc, quantile_threshold
from defectbench.records.predictions import Predictions
from defectbench.records.sweep_record import Record, read_record
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.stores.layout import cell_key
from defectbench.tables.collect import Collected, collect, write_views
from defectbench.util.documents import read_document, write_document
from fakes import made_up_sweep


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    store = open_store(str(tmp_path_factory.mktemp("whole")))
    made_up_sweep(store, seeds=(0, 1))
    return collect(store, "madeup")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def change(collected: Collected, key: str, how: Callable[[np.ndarray], np.ndarray]) -> Collected:
    """Change one cell's scores."""
    rows = collected.predictions[key]
    changed = Predictions(**{**vars_of(rows), "score": how(rows.score)})
    return replace(collected, predictions={**collected.predictions, key: changed})


def vars_of(rows: Predictions) -> dict[str, Any]:
    names = ("cell", "image_id", "label", "defect_type", "role", "score")
    return {name: getattr(rows, name) for name in (*names, "pixel_auroc", "pixel_ap", "pointing_hit", "iou")}


def test_collect_reads_every_store_alike(store: Store) -> None:
    record = made_up_sweep(store, categories=("grass",), models=("filterbank-logreg", "filterbank-knn"))
    collected = collect(store, "madeup")
    assert collected.record == record
    assert list(collected.results) == list(record.cells)
    assert not collected.missing
    assert [(row.label, row.folds, row.complete) for row in collected.rows()] == [
        ("filterbank-logreg", 3, True),
        ("filterbank-knn", 3, True),
    ]


def test_record_survives_the_store(whole: Collected) -> None:
    assert Record.from_json(whole.record.to_json()) == whole.record


def test_rows_average_inside_folds_by_pairs(whole: Collected) -> None:
    for row in whole.rows():
        folds = whole.folds(label=row.label, category=row.category, seed=row.seed)
        pairs = [int(f.test.label.sum()) * int((1 - f.test.label).sum()) for f in folds]
        aurocs = [image_auroc(f.test.label, f.test.score) for f in folds]
        assert row.figures["image_auroc"] == pytest.approx(np.average(aurocs, weights=pairs), abs=1e-12)


def test_rows_test_every_labelled_image_once(whole: Collected) -> None:
    for row in whole.rows():
        folds = whole.folds(label=row.label, category=row.category, seed=row.seed)
        tested = [name for fold in folds for name in fold.test.image_id.tolist()]
        assert len(tested) == len(set(tested)) == 24
        assert row.counts is not None
        assert row.counts.tp + row.counts.fn == row.counts.fp + row.counts.tn == 12


def test_rows_do_not_move_when_one_fold_is_rescaled(whole: Collected) -> None:
    key = next(key for key, result in whole.results.items() if result.family == "classifier")
    for how in (lambda s: s + 1e3, lambda s: 1e-3 * s, lambda s: np.exp(s / 10)):
        before, after = whole.rows(), change(whole, key, how).rows()
        for old, new in zip(before, after, strict=True):
            assert new.counts == old.counts
            assert new.tuned == old.tuned
            np.testing.assert_equal(dict(new.figures), dict(old.figures))


def test_thresholds_read_no_tested_label(whole: Collected) -> None:
    key = whole.record.readings[0].cell
    rows = whole.predictions[key]
    fold = whole.folds()[0]
    flipped = np.where(np.isin(rows.image_id, fold.test.image_id), 1 - rows.label, rows.label)
    changed = Predictions(**{**vars_of(rows), "label": flipped})
    other = replace(whole, predictions={**whole.predictions, key: changed}).folds()[0]
    assert (other.test.label != fold.test.label).all()
    assert other.calibrated == fold.calibrated
    assert other.tuned == fold.tuned


def test_fold_thresholds_are_those_of_the_metrics(whole: Collected) -> None:
    for fold in whole.folds():
        assert fold.calibrated == quantile_threshold(fold.calibration.score, 0.05)
        assert fold.tuned == best_f1_threshold(fold.tune.label, fold.tune.score)
        assert fold.threshold == fold.calibrated.threshold
        assert set(fold.calibration.role.tolist()) == {"calibration"}
        assert fold.calibration.label.sum() == 0


def test_rows_average_explanations_over_defects(whole: Collected) -> None:
    row = whole.rows()[0]
    folds = whole.folds(label=row.label, category=row.category, seed=row.seed)
    hits = [hit for f in folds for hit in f.test.pointing_hit[f.test.label == 1].tolist()]
    assert len(hits) == 12
    assert row.figures["pointing"] == pytest.approx(np.mean(hits))


def test_rows_without_masks_have_no_explanation(local: Store) -> None:
    made_up_sweep(local, categories=("grass",), masks=False)
    for row in collect(local, "madeup").rows():
        assert math.isnan(row.figures["pixel_auroc"])
        assert math.isnan(row.figures["aupro"])
        assert not math.isnan(row.figures["image_auroc"])


def test_holdout_falls_back_to_the_tuned_threshold(local: Store) -> None:
    made_up_sweep(local, protocols={"detection": {"scheme": "holdout"}})
    collected = collect(local, "madeup")
    assert {row.condition for row in collected.rows()} == {"holdout"}
    for fold in collected.folds():
        assert math.isnan(fold.calibrated.threshold)
        assert fold.threshold == fold.tuned


def test_unfinished_and_failed_cells_are_told_apart(local: Store) -> None:
    record = made_up_sweep(local, unfinished=2, failed=1)
    collected, keys = collect(local, "madeup"), list(record.cells)
    assert collected.missing == tuple(keys[-3:])
    assert list(collected.failures) == [keys[-3]]
    assert collected.failures[keys[-3]].attempt == 1
    assert not collected.damaged
    assert [row.label for row in collected.rows() if row.category == "brick"] == [
        "filterbank-logreg",
        "mobilenetv3-small",
    ]


def test_a_line_with_missing_folds_says_so(local: Store) -> None:
    made_up_sweep(local, categories=("grass",), models=("filterbank-knn", "filterbank-logreg"), unfinished=1)
    found = {row.label: (row.folds, row.expected, row.complete) for row in collect(local, "madeup").rows()}
    assert found == {"filterbank-knn": (3, 3, True), "filterbank-logreg": (2, 3, False)}


@pytest.mark.parametrize("damage", ["predictions", "result", "gone"])
def test_a_damaged_cell_spoils_no_other(local: Store, damage: str) -> None:
    record = made_up_sweep(local, categories=("grass",))
    first, *others = record.cells
    if damage == "result":
        local.put(cell_key(first, "result.json"), b"{}")
    elif damage == "gone":
        local.delete(cell_key(first, "1/predictions.parquet"))
    else:
        local.put(cell_key(first, "1/predictions.parquet"), b"PAR1 not what was written")
    collected = collect(local, "madeup")
    assert list(collected.damaged) == [first]
    assert collected.missing == (first,)
    assert list(collected.results) == others


@pytest.mark.parametrize("wrong", ["data", "cell", "scores", "images"])
def test_a_cell_that_is_not_the_sweep_s_spoils_no_other(local: Store, wrong: str) -> None:
    record = made_up_sweep(local, categories=("grass",))
    first, *others = record.cells
    blob = local.get(cell_key(first, "result.json"))
    document = read_document(blob.data, "result.json")
    place = next(name for name in document["files"] if name.endswith("predictions.parquet"))
    rows = Predictions.from_parquet(local.get(cell_key(first, place)).data).rows()
    cell, says = first, {"data": "fitted on other data, 0000", "cell": "those of cell other"}.get(wrong, "")
    if wrong == "data":
        document["data_digest"] = "0" * 64
    elif wrong == "cell":
        cell = "other"
    elif wrong == "scores":
        rows, says = (*rows[1:], replace(rows[0], score=math.nan)), f"1 of {len(rows)} scores are NaN"
    else:
        held_out = next(row for row in rows if row.role == "held_out")
        rows, says = (
            tuple(row for row in rows if row is not held_out),
            f"no score for 1 images.*{held_out.image_id}",
        )
    data = Predictions.of(cell, rows).to_parquet()
    document["files"][place] = hashlib.sha256(data).hexdigest()
    local.put(cell_key(first, place), data)
    local.put(cell_key(first, "result.json"), write_document(document))
    collected = collect(local, "madeup")
    assert re.search(f"{says}.*; remove cells/{first} from the store", collected.damaged[first])
    assert collected.missing == (first,)
    assert list(collected.results) == others
    assert {row.label for row in collected.rows() if row.complete} == {
        one.label for one in record.models if one.label != label_of(record, first)
    }


def label_of(record: Record, cell: str) -> str:
    return next(reading.label for reading in record.readings if reading.cell == cell)


def test_folds_refuses_an_unknown_question(whole: Collected) -> None:
    with pytest.raises(TypeError, match="colour"):
        whole.folds(colour="red")


def test_read_record_names_the_nearest_sweep(local: Store) -> None:
    with pytest.raises(MissingInputError, match="it has none yet"):
        read_record(local, "demo")
    made_up_sweep(local, name="demo", categories=("grass",))
    with pytest.raises(MissingInputError, match="did you mean 'demo'"):
        read_record(local, "dmeo")


def test_views_list_every_reading(local: Store, whole: Collected) -> None:
    write_views(local, whole)
    views = pq.read_table(io.BytesIO(local.get("sweeps/madeup/views.parquet").data)).to_pydict()
    assert list(views) == ["cell", "protocol", "condition", "fold", "image_id", "role", "threshold"]
    folds = whole.folds()
    assert len(views["cell"]) == sum(len(fold.test) + len(fold.tune) for fold in folds)
    assert set(views["role"]) == {"test", "tune"}
    assert set(views["cell"]) == set(whole.results)
    assert views["threshold"][0] == folds[0].threshold


FURTHER = {
    "detection": {"folds": 3},
    "unseen": {},
    "scarcity": {"defects": [2, 4], "draws": 3},
    "contamination": {"shares": [0, 0.1]},
}


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    store = open_store(str(tmp_path_factory.mktemp("further")))
    models = ("filterbank-logreg", "filterbank-knn")
    made_up_sweep(store, categories=("grass",), models=models, goods=18, defects=18, protocols=FURTHER)
    return collect(store, "madeup")


def test_rows_have_a_line_for_each_condition(further: Collected) -> None:
    found = {(row.protocol, row.condition, row.family) for row in further.rows()}
    both, kinds = ("classifier", "detector"), ("crack", "scratch", "stain")
    lessons = [
        f"{mode}/{kind}/{tested}"
        for mode in ("one", "all_but_one")
        for kind in kinds
        for tested in ("seen", "unseen")
    ]
    expected = {("detection", "crossfit", family) for family in both}
    expected |= {("unseen", condition, family) for condition in lessons for family in both}
    expected |= {("unseen", f"{condition}/control", "classifier") for condition in lessons}
    expected |= {("scarcity", condition, "classifier") for condition in ("n=2", "n=4", "all")}
    expected |= {("scarcity", "all", "detector")}
    expected |= {
        ("contamination", condition, family) for condition in ("share=0", "share=0.1") for family in both
    }
    assert found == expected
    assert all(row.complete for row in further.rows())


def test_rows_give_mean_and_spread_over_draws(further: Collected) -> None:
    (row,) = [row for row in further.rows() if row.condition == "n=4"]
    folds = further.folds(condition="n=4")
    assert (row.folds, row.expected, row.draws) == (9, 9, 3)
    by_draw = []
    for draw in range(3):
        own = [fold for fold in folds if fold.split.draw == draw]
        pairs = [int(f.test.label.sum()) * int((1 - f.test.label).sum()) for f in own]
        by_draw.append(np.average([image_auroc(f.test.label, f.test.score) for f in own], weights=pairs))
    assert len(set(by_draw)) == 3
    assert row.figures["image_auroc"] == pytest.approx(np.mean(by_draw))
    assert row.spread["image_auroc"] == pytest.approx(np.std(by_draw, ddof=1))
    assert row.counts is not None
    assert row.counts.tp + row.counts.fn == 3 * 18
    assert row.tuned is None, "below 8 there is nothing to tune by"
    assert {other.draws for other in further.rows() if other.condition == "all"} == {0}
    assert all(not other.spread for other in further.rows() if not other.draws)


def test_the_ends_of_a_scale_have_the_figures_of_detection(further: Collected) -> None:
    rows = {(row.label, row.condition): row for row in further.rows()}
    for label in ("filterbank-logreg", "filterbank-knn"):
        for end in ("all", "share=0"):
            assert rows[label, end].figures == rows[label, "crossfit"].figures
            assert rows[label, end].cells == rows[label, "crossfit"].cells


def test_seen_and_unseen_are_tested_apart(further: Collected) -> None:
    for fold in further.folds(protocol="unseen"):
        kinds = set(fold.test.defect_type[fold.test.label == 1].tolist())
        inside = fold.split.setting["type"] in kinds
        assert inside == ((fold.split.setting["mode"] == "one") == (fold.split.setting["tested"] == "seen"))
        assert len(fold.calibration) == 5


def test_contaminated_thresholds_come_from_contaminated_calibration(further: Collected) -> None:
    folds = further.folds(condition="share=0.1", label="filterbank-knn")
    assert [int(fold.calibration.label.sum()) for fold in folds] == [1, 1, 1]
    for fold in folds:
        assert fold.calibrated == quantile_threshold(fold.calibration.score, 0.05)


def test_views_tell_draws_apart(tmp_path: Path, further: Collected) -> None:
    store = open_store(str(tmp_path / "views"))
    write_views(store, further)
    views = pq.read_table(io.BytesIO(store.get("sweeps/madeup/views.parquet").data)).to_pydict()
    assert {"n=4/draw0", "n=4/draw1", "n=4/draw2", "all"} <= set(views["condition"])
    tested = [
        place
        for place, name in enumerate(views["condition"])
        if name == "n=4/draw1" and views["role"][place] == "test"
    ]
    assert len(tested) == 36
