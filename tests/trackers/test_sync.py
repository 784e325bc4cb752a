"""What a sweep looks like in MLflow: in its sqlite database here, on a real server in trackers/."""

from __future__ import annotations

import math
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")

from defectbench.data.gallery import Gallery
from defectbench.errors import ConfigurationError, MissingInputError, TryAgainError
from defectbench.records.predictions import history_from_parquet
from defectbench.records.result import find_result, read_file, read_predictions
from defectbench.records.sweep_record import Record
from defectbench.stores.directory import DirectoryStore
from defectbench.tables.collect import FigureRow, collect
from defectbench.trackers.choose import open_tracker
from defectbench.trackers.contact_sheet import contact_sheet
from defectbench.trackers.mlflow import MlflowTracker
from defectbench.trackers.sync import SyncSummary, sync_sweep
from fakes import made_up_sweep, rewrite

CLASSIFIER, DETECTOR = "mobilenetv3-small", "filterbank-knn"
SMALL: dict[str, Any] = {"categories": ("grass",), "models": (CLASSIFIER, DETECTOR)}


@pytest.fixture
def store(database: Path) -> DirectoryStore:
    return DirectoryStore(database.parent)


@pytest.fixture
def tracker(database: Path) -> MlflowTracker:
    found = open_tracker(str(database))
    assert isinstance(found, MlflowTracker)
    return found


def runs(tracker: MlflowTracker, query: str = "") -> list[Any]:
    """The active runs as MLflow's own search finds them."""
    client = tracker._client
    experiment = client.get_experiment_by_name("madeup")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], query))


def everything(tracker: MlflowTracker) -> dict[str, Any]:
    """All that MLflow says of every run, each point of each curve included."""
    client = tracker._client
    return {
        run.info.run_id: (
            run.to_dictionary(),
            {
                name: [point.to_dictionary() for point in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
            sorted(file.path for file in client.list_artifacts(run.info.run_id)),
        )
        for run in runs(tracker)
    }


def the_row(store: DirectoryStore, label: str) -> FigureRow:
    return next(row for row in collect(store, "madeup").rows() if row.label == label)


def cells_of(record: Record, label: str) -> list[str]:
    return [reading.cell for reading in record.readings if reading.label == label]


def test_track_nests_the_cells_below_the_parents(store: DirectoryStore, tracker: MlflowTracker) -> None:
    record = made_up_sweep(store, **SMALL)
    assert sync_sweep(store, "madeup", tracker) == SyncSummary(written=6, skipped=0, incomplete=0)
    (parent,) = runs(tracker, f"tags.level = 'parent' and tags.model = '{CLASSIFIER}'")
    nested = runs(tracker, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.data.tags["cell"] for run in nested} == set(cells_of(record, CLASSIFIER))
    assert {run.info.run_name for run in nested} == {f"fold {k}, {CLASSIFIER} grass" for k in range(3)}
    (only,) = runs(tracker, f"tags.level = 'cell' and tags.model = '{DETECTOR}'")
    assert only.info.run_name == f"folds 0, 1, 2, {DETECTOR} grass"
    wanted = {"family": "classifier", "category": "grass", "protocol": "detection", "seed": "0"}
    assert parent.data.tags.items() >= wanted.items()
    assert {run.info.status for run in (*nested, parent, only)} == {"FINISHED"}


def test_track_parents_carry_the_tables_figures(store: DirectoryStore, tracker: MlflowTracker) -> None:
    made_up_sweep(store, **SMALL)
    sync_sweep(store, "madeup", tracker)
    for label in (CLASSIFIER, DETECTOR):
        (parent,) = runs(tracker, f"tags.level = 'parent' and tags.model = '{label}'")
        row = the_row(store, label)
        expected = {name: value for name, value in row.figures.items() if math.isfinite(value)}
        assert {name: parent.data.metrics[name] for name in expected} == expected
        assert row.counts is not None
        assert row.tuned is not None
        assert [parent.data.metrics[name] for name in ("tp", "fp", "tn", "fn")] == [
            row.counts.tp,
            row.counts.fp,
            row.counts.tn,
            row.counts.fn,
        ]
        assert parent.data.metrics["recall_tuned"] == row.tuned.recall
        assert parent.data.metrics["f1_all_abnormal"] == row.all_abnormal


def test_track_cells_carry_figures_curves_and_files(
    store: DirectoryStore, tracker: MlflowTracker, tmp_path: Path
) -> None:
    record = made_up_sweep(store, heat_maps=True, **SMALL)
    sync_sweep(store, "madeup", tracker, cache=tmp_path / "cache")
    key = cells_of(record, CLASSIFIER)[0]
    result = find_result(store, key)
    assert result is not None
    (run,) = runs(tracker, f"tags.cell = '{key}'")
    assert run.data.metrics.items() >= {**result.metrics, **result.cost}.items()
    assert {"epochs": "30", "image_size": "224", "setting.learning_rate": "0.0003"}.items() <= (
        run.data.params.items()
    )
    points = tracker._client.get_metric_history(run.info.run_id, "history/loss")
    history = history_from_parquet(read_file(store, result, "history.parquet"))
    assert [(p.step, p.value) for p in points] == [(p.epoch, p.value) for p in history if p.name == "loss"]
    folder = store.path / "mlflow-artifacts" / "madeup" / run.info.run_id / "artifacts"
    gallery = Gallery.open(store, result.dataset, result.category, result.data_digest, tmp_path / "cache")
    sheet = contact_sheet(read_file(store, result, "heatmaps.npz"), read_predictions(store, result), gallery)
    assert (folder / "heat_maps.png").read_bytes() == sheet
    assert (folder / "predictions.csv").read_text().startswith("image_id,label,defect_type,role,score\n")


def test_track_twice_changes_nothing(store: DirectoryStore, tracker: MlflowTracker) -> None:
    made_up_sweep(store, **SMALL)
    sync_sweep(store, "madeup", tracker)
    before = everything(tracker)
    assert sync_sweep(store, "madeup", tracker) == SyncSummary(written=0, skipped=6, incomplete=0)
    assert everything(tracker) == before


def _cut_off(document: dict[str, Any]) -> None:
    """Forget that the runs were written whole."""
    for run in document["runs"].values():
        run |= {"written": "", "finished": False}


def test_track_a_write_that_was_cut_off_is_repeated_to_the_same(
    store: DirectoryStore, tracker: MlflowTracker
) -> None:
    """The tracker had all of it, the registry does not know: the same times are written again."""
    made_up_sweep(store, **SMALL)
    sync_sweep(store, "madeup", tracker)
    before = everything(tracker)
    for key in list(store.keys("tracking/")):
        rewrite(store, key, _cut_off)
    assert sync_sweep(store, "madeup", tracker).written == 6
    assert everything(tracker) == before


def test_track_a_worker_writes_its_cell_and_the_last_one_the_parents_figures(
    store: DirectoryStore, tracker: MlflowTracker
) -> None:
    record = made_up_sweep(store, unfinished=4, **SMALL)
    done = made_up_sweep(DirectoryStore(store.path.with_name("other")), **SMALL)
    assert done.cells == record.cells
    for place, key in enumerate(cells_of(record, CLASSIFIER)):
        copy_result(DirectoryStore(store.path.with_name("other")), store, key)
        expected = (SyncSummary(2, 0, 1), SyncSummary(1, 1, 1), SyncSummary(2, 0, 0))[place]
        assert sync_sweep(store, "madeup", tracker, [key]) == expected
        (parent,) = runs(tracker, "tags.level = 'parent'")
        assert parent.info.status == ("FINISHED" if place == 2 else "RUNNING")
        assert ("image_auroc" in parent.data.metrics) is (place == 2)
    assert not list(store.keys("sweeps/madeup/"))


def copy_result(source: DirectoryStore, target: DirectoryStore, key: str) -> None:
    """Finish a cell as a worker would: result.json last."""
    for name in sorted(source.keys(f"cells/{key}/"), key=lambda name: name.endswith("result.json")):
        target.put(name, source.get(name).data)


def test_track_failed_cells_are_failed_until_they_are_mended(
    store: DirectoryStore, tracker: MlflowTracker
) -> None:
    record = made_up_sweep(store, failed=1, **SMALL)
    assert sync_sweep(store, "madeup", tracker).incomplete == 1
    failed = list(record.cells)[-1]
    (run,) = runs(tracker, f"tags.cell = '{failed}'")
    assert run.info.status == "FAILED"
    assert "the pictures are wrong" in run.data.tags["mlflow.note.content"]
    store.delete(f"cells/{failed}/failure.json")
    other = DirectoryStore(store.path.with_name("other"))
    made_up_sweep(other, **SMALL)
    copy_result(other, store, failed)
    assert sync_sweep(store, "madeup", tracker).incomplete == 0
    (run,) = runs(tracker, f"tags.cell = '{failed}'")
    assert run.info.status == "FINISHED"
    assert "exit_code" not in run.data.tags


def test_track_writes_the_views_and_prunes_what_the_sweep_lost(
    store: DirectoryStore, tracker: MlflowTracker
) -> None:
    made_up_sweep(store, **SMALL)
    sync_sweep(store, "madeup", tracker)
    assert store.find("sweeps/madeup/views.parquet")
    made_up_sweep(store, categories=("grass",), models=(DETECTOR, "padim"))
    sync_sweep(store, "madeup", tracker)
    assert {run.data.tags["model"] for run in runs(tracker)} == {DETECTOR, "padim"}
    assert not [key for key in store.keys("tracking/") if CLASSIFIER in key]


def test_track_racing_trackers_give_one_run_each(store: DirectoryStore, database: Path) -> None:
    made_up_sweep(store, **SMALL)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            sync_sweep(store, "madeup", open_tracker(str(database)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    tracker = open_tracker(str(database))
    assert isinstance(tracker, MlflowTracker)
    assert len(runs(tracker)) == 6
    assert sync_sweep(store, "madeup", tracker).written == 0


def test_track_a_locked_database_is_try_again(
    store: DirectoryStore, tracker: MlflowTracker, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up_sweep(store, **SMALL)
    monkeypatch.setattr("defectbench.trackers.database._LOCK_PATIENCE", 0.5)
    holder = sqlite3.connect(database)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(TryAgainError, match="locked"):
        sync_sweep(store, "madeup", tracker)
    holder.rollback()
    holder.close()
    assert sync_sweep(store, "madeup", tracker).written == 6


def test_track_a_deleted_experiment_says_what_to_do(store: DirectoryStore, tracker: MlflowTracker) -> None:
    made_up_sweep(store, **SMALL)
    sync_sweep(store, "madeup", tracker)
    tracker._client.delete_experiment(runs(tracker)[0].info.experiment_id)
    with pytest.raises(ConfigurationError, match="mlflow gc"):
        sync_sweep(store, "madeup", tracker)


def test_track_an_unknown_sweep_names_those_there_are(store: DirectoryStore, tracker: MlflowTracker) -> None:
    made_up_sweep(store, **SMALL)
    with pytest.raises(MissingInputError, match="madeup"):
        sync_sweep(store, "madup", tracker)


def test_track_names_conditions_and_draws(store: DirectoryStore, tracker: MlflowTracker) -> None:
    protocols = {"detection": {"scheme": "both", "folds": 3}, "scarcity": {"defects": [2], "draws": 2}}
    made_up_sweep(store, protocols=protocols, **SMALL)
    sync_sweep(store, "madeup", tracker)
    query = f"tags.level = 'parent' and tags.model = '{CLASSIFIER}' and tags.protocol = 'scarcity'"
    (parent,) = runs(tracker, query)
    rows = {
        r.condition: r
        for r in collect(store, "madeup").rows()
        if (r.label, r.protocol) == (CLASSIFIER, "scarcity")
    }
    metrics = parent.data.metrics
    # MLflow's names may hold no "=".
    assert metrics["n_2/image_auroc"] == rows["n=2"].figures["image_auroc"]
    assert metrics["n_2/image_auroc_spread"] == rows["n=2"].spread["image_auroc"]
    assert metrics["all/image_auroc"] == rows["all"].figures["image_auroc"]
    assert "all/image_auroc_spread" not in metrics
    assert parent.data.tags["condition"] == "n=2, all"
    assert parent.data.params["folds"] == "3"
    named = {"model": CLASSIFIER, "family": "classifier", "category": "grass", "protocol": "scarcity"}
    assert named.items() <= parent.data.params.items(), "MLflow's comparison opens on params"
    [data] = [each.dataset for each in parent.inputs.dataset_inputs]
    assert (data.name, data.digest) == ("parts/grass", parent.data.tags["data_digest"][:36])
    nested = runs(tracker, f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    names = {run.info.run_name for run in nested}
    drawn = {
        f"fold {fold} of n=2/draw{draw}, {CLASSIFIER} grass scarcity"
        for fold in range(3)
        for draw in range(2)
    }
    assert names == drawn | {f"fold {fold} of all, {CLASSIFIER} grass scarcity" for fold in range(3)}
    # The holdout beside crossfit is a line of its own.
    (single,) = runs(tracker, query.replace("scarcity", "holdout"))
    (row,) = (r for r in collect(store, "madeup").rows() if (r.label, r.protocol) == (CLASSIFIER, "holdout"))
    assert row.counts == row.tuned
    assert single.data.metrics["f1"] == row.figures["f1"]
