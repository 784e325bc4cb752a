from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from defectbench.__main__ import run
from defectbench.records.result import find_result
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import cell_key
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.estimate import ModelHours, estimate_hours
from defectbench.sweeps.locations import SourceLines
from fakes import made_up_sweep, rewrite

KNN = "filterbank-knn"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """One finished detector at 64 px: 20 goods learnt, 5 calibration goods and 24 labelled images scored."""
    found = DirectoryStore(tmp_path / "bench")
    made_up_sweep(found, categories=["grass"], models=[KNN], image_size=64)
    return found


def plan(store: DirectoryStore, **keys: Any) -> plans.Plan:
    document = {
        "name": "next",
        "data": {"dataset": "parts"},
        "models": [KNN],
        "weights": "none",
        "image_size": 64,
        "seeds": [1],
        "protocols": {"detection": {"folds": 3}},
    }
    return plans.make_plan(parse_sweep(document | keys, SourceLines("next.yaml", {})), store)


def hours(store: DirectoryStore, **keys: Any) -> tuple[ModelHours, ...]:
    planned = plan(store, **keys)
    return estimate_hours(planned, list(planned.cells), store)


def measure(store: DirectoryStore, device: str = "cpu", **cost: float) -> None:
    """Say what the finished cell took."""
    (key,) = (name.split("/")[1] for name in store.keys("cells/") if name.endswith("/result.json"))

    def change(result: dict[str, Any]) -> None:
        result["cost"] |= cost
        result["device"] = device

    rewrite(store, cell_key(key, "result.json"), change)
    assert find_result(store, key) is not None


def test_hours_are_those_of_the_same_fit(store: DirectoryStore) -> None:
    measure(store, fit_seconds=3600.0, inference_seconds_per_image=36.0)
    (found,) = hours(store)
    assert found.hours == pytest.approx(1 + 29 * 0.01)
    assert found.basis == "1 cell measured at 64 px on cpu"
    assert hours(store, seeds=[1, 2, 3])[0].hours == pytest.approx(3 * (1 + 29 * 0.01))


def test_another_size_is_scaled_by_area_and_said(store: DirectoryStore) -> None:
    measure(store, "cuda: H100", fit_seconds=3600.0, inference_seconds_per_image=36.0)
    (found,) = hours(store, image_size=128)
    assert found.hours == pytest.approx(4 * (1 + 29 * 0.01))
    assert found.basis == "1 cell measured at 64 px on cuda: H100, scaled by area to 128 px"
    assert (found.image_size, found.device) == (64, "cuda: H100")


def test_what_is_not_measured_is_unknown(store: DirectoryStore) -> None:
    padim, other = hours(store, models=["padim", {"name": KNN, "bank": 500}])
    assert padim.hours is other.hours is None
    assert padim.basis == "unknown: no finished cell of padim in the store"


def test_plan_says_the_hours(
    store: DirectoryStore, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    measure(store, fit_seconds=7200.0, inference_seconds_per_image=0.0)
    (tmp_path / "next.yaml").write_text(
        "{name: next, data: {dataset: parts}, models: [filterbank-knn, padim], weights: none, "
        "image_size: 64, seeds: [1], protocols: {detection: {folds: 3}}}"
    )
    words = ["plan", str(tmp_path / "next.yaml"), "--store", str(tmp_path / "bench"), "--hours"]
    assert run(words) == 0
    err = capfd.readouterr().err
    assert "hours: filterbank-knn: about 2.0 for 1 fit (1 cell measured at 64 px on cpu)" in err
    assert "hours: padim: ? for 1 fit (unknown: no finished cell of padim in the store)" in err
    assert run([*words, "--format", "json"]) == 0
    assert [each["hours"] for each in json.loads(capfd.readouterr().out)["hours"]] == [2.0, None]
    assert run([*words, "--format", "values"]) == 64
