"""Uncertain images are ranked beside held-out goods and count in no other figure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defectbench.data.archive import load_manifest
from defectbench.records.predictions import PredictionRow, Predictions
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import manifest_key
from defectbench.tables.collect import Collected, collect
from defectbench.tables.tables import Tables
from fakes import made_up_sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    store = DirectoryStore(tmp_path_factory.mktemp("store"))
    made_up_sweep(store, categories=("grass",))
    return store


@pytest.fixture(scope="module")
def sure(store: DirectoryStore) -> Collected:
    return collect(store, "madeup")


def with_uncertain(collected: Collected, scores: dict[str, float]) -> Collected:
    """Return what was collected with uncertain images whose scores stand so far above the cell's median."""
    found = {}
    for key, rows in collected.predictions.items():
        middle = float(np.median(rows.score))
        doubtful = [
            PredictionRow(name, -1, "uncertain", "uncertain", middle + score)
            for name, score in scores.items()
        ]
        found[key] = Predictions.of(key, [*rows.rows(), *doubtful])
    return replace(collected, predictions=found)


def test_uncertain_images_are_ranked_among_held_out_goods(sure: Collected) -> None:
    tables = Tables(with_uncertain(sure, {"uncertain/a": 1e6, "uncertain/b": -1e6, "uncertain/c": 0.0}))
    assert len(tables.uncertain) == 3 * len(tables.labels)
    for label in tables.labels:
        own = {row.image_id: row for row in tables.uncertain if row.label == label}
        assert (own["uncertain/a"].share, own["uncertain/b"].share) == (1.0, 0.0)
        folds = tables.folds_of("grass", label)
        middles = [np.median(sure.predictions[fold.reading.cell].score) for fold in folds]
        expected = [
            np.mean([score < middle for score in fold.test.score[fold.test.label == 0]])
            for fold, middle in zip(folds, middles, strict=True)
        ]
        assert own["uncertain/c"].share == pytest.approx(np.mean(expected))
        assert own["uncertain/c"].fits == len(folds)
        assert set(own["uncertain/c"].cells) == {fold.reading.cell for fold in folds}


def test_uncertain_images_change_no_other_figure(sure: Collected) -> None:
    before, after = Tables(sure), Tables(with_uncertain(sure, {"uncertain/a": 3.0}))
    assert before.uncertain == ()
    assert after.scores == before.scores
    assert repr(after.thresholds) == repr(before.thresholds)
    assert repr(after.explanations) == repr(before.explanations)


@pytest.mark.parametrize("change", ["kept", "none", "other data"])
def test_accepted_duplicates_are_collected(tmp_path: Path, change: str) -> None:
    store = DirectoryStore(tmp_path / "store")
    made_up_sweep(store, categories=("grass",))
    manifest = load_manifest(store, "parts", "grass")
    pair = (manifest.labelled[0].id, manifest.labelled[-1].id)
    images = manifest.images[1:] if change == "other data" else manifest.images
    pairs = () if change == "none" else (pair,)
    changed = replace(manifest, images=images, accepted_duplicates=pairs)
    store.put(manifest_key("parts", "grass"), changed.to_json())
    assert collect(store, "madeup").accepted == ({"grass": (pair,)} if change == "kept" else {})
