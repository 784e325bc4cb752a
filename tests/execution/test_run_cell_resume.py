"""One cell over several attempts: it ends as in one, whatever came between them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from defectbench.catalog import registry
from defectbench.errors import BugError, ConfigurationError, DeadlineError, StoppedError
from defectbench.execution import fit_and_score, run_cell
from defectbench.execution.events import Event
from defectbench.execution.lease import Lease, take_lease
from defectbench.records.lease import read_lease
from defectbench.records.result import Result, find_failure, find_verified_result, read_file
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.util.shutdown import Stop
from fakes import put_category
from resumable_classifier import NAME, planted

FILES = ("predictions.parquet", "history.parquet", "heatmaps.npz")


class StopAfter(Stop):
    """Set once it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@pytest.fixture(autouse=True)
def stepper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.by_name(), NAME, planted()[NAME])


def prepared(store: Store, deadline: str = "1h") -> str:
    """Put a category and a sweep's specs into the store; return a cell's key."""
    put_category(store, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    document = {
        "name": "small",
        "data": {"dataset": "parts"},
        "models": [NAME],
        "seeds": [0],
        "weights": "none",
        "image_size": 64,
        "threads": 1,
        "resources": {"deadline": deadline},
        "protocols": {"detection": {"folds": 3}},
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("small.yaml", {})), store)
    plans.write_plan(plan, store, list(plan.cells))
    return next(iter(plan.cells))


def attempt(
    store: Store, key: str, tmp_path: Path, stop: Stop | None = None, every: float = 1e9, **hears: object
) -> Result:
    """Take the cell and run it."""

    def say(event: Event) -> None:
        """Nobody listens."""

    place = run_cell.WorkerContext(store, tmp_path / "cache", "cpu", stop or Stop(), say, every)
    before = read_lease(store, key)
    lease = take_lease(store, key, "me")
    assert isinstance(lease, Lease)
    return run_cell.run_cell(run_cell.read_cell(store, key), place, lease, before)


@pytest.fixture
def whole(tmp_path: Path) -> tuple[Store, Result]:
    """A store in which the cell ran undisturbed."""
    store = DirectoryStore(tmp_path / "whole")
    return store, attempt(store, prepared(store), tmp_path)


def assert_same(store: Store, result: Result, whole: tuple[Store, Result]) -> None:
    """The files are equal, byte for byte, and so is every figure but the costs."""
    for name in FILES:
        assert read_file(store, result, name) == read_file(*whole, name)
    assert result.metrics == whole[1].metrics
    assert result.calibration_threshold == whole[1].calibration_threshold
    assert find_verified_result(store, result.cell) is not None


def checkpoints(store: Store) -> list[str]:
    return [key for key in store.keys("cells/") if "checkpoint" in key]


@pytest.mark.parametrize(("looks", "fitted"), [(10, False), (30, False), (45, True)])
def test_a_stopped_cell_goes_on(
    looks: int, fitted: bool, store: Store, tmp_path: Path, whole: tuple[Store, Result]
) -> None:
    key = prepared(store)
    with pytest.raises(StoppedError):
        attempt(store, key, tmp_path, StopAfter(looks))
    pointer = json.loads(store.get(f"cells/{key}/checkpoint.json").data)
    assert pointer["fit"]["fitted"] == fitted
    assert fitted or 0 < pointer["fit"]["steps"] < 40
    assert find_failure(store, key) is None
    assert read_lease(store, key).released  # type: ignore[union-attr]
    with pytest.raises(StoppedError):
        attempt(store, key, tmp_path, StopAfter(4))
    result = attempt(store, key, tmp_path)
    assert_same(store, result, whole)
    assert result.cost["attempts"] == (1 if fitted else 3)
    assert not checkpoints(store)


def test_a_cell_that_was_stopped_before_its_fit_leaves_no_checkpoint(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    key = prepared(store)
    stop = Stop()
    stop.set()
    with pytest.raises(StoppedError):
        attempt(store, key, tmp_path, stop)
    assert not checkpoints(store)
    assert read_lease(store, key).released  # type: ignore[union-attr]


def test_checkpoints_by_time_move_no_bit_and_are_removed(
    tmp_path: Path, whole: tuple[Store, Result], caplog: pytest.LogCaptureFixture
) -> None:
    store = DirectoryStore(tmp_path / "store")
    key = prepared(store)
    result = attempt(store, key, tmp_path, every=0.0)
    assert "checkpoint at 3 of 4" in store.get(f"cells/{key}/1/log.txt").data.decode()
    assert_same(store, result, whole)
    assert result.cost["attempts"] == 1
    assert not checkpoints(store)
    assert not list((tmp_path / "cache" / "checkpoints").iterdir())


def test_a_damaged_blob_costs_time_only(tmp_path: Path, whole: tuple[Store, Result]) -> None:
    store = DirectoryStore(tmp_path / "store")
    key = prepared(store)
    with pytest.raises(StoppedError):
        attempt(store, key, tmp_path, StopAfter(25))
    [blob] = [name for name in checkpoints(store) if "/checkpoints/" in name]
    store.put(blob, store.get(blob).data[:-9])
    result = attempt(store, key, tmp_path)
    assert_same(store, result, whole)
    assert "damaged" in store.get(f"cells/{key}/2/log.txt").data.decode()
    assert result.cost["attempts"] == 1


@pytest.mark.parametrize(("error", "left"), [(BugError("ours"), False), (ConfigurationError("theirs"), True)])
def test_a_retry_does_not_begin_with_what_may_have_failed(
    error: Exception, left: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(tmp_path / "store")
    key = prepared(store)
    with pytest.raises(StoppedError):
        attempt(store, key, tmp_path, StopAfter(25))

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(fit_and_score, "_score", fail)
    with pytest.raises(type(error)):
        attempt(store, key, tmp_path)
    assert find_failure(store, key) is not None
    assert bool(checkpoints(store)) == left


def test_the_deadline_holds_over_stopped_attempts_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEP_SECONDS", "0.1")
    store = DirectoryStore(tmp_path / "store")
    key = prepared(store, "2s")
    with pytest.raises(StoppedError):
        attempt(store, key, tmp_path, StopAfter(14))
    spent = read_lease(store, key).progress["spent"]  # type: ignore[union-attr]
    assert spent > 1.0
    with pytest.raises(DeadlineError, match="its deadline is 2 s"):
        attempt(store, key, tmp_path)
    failure = find_failure(store, key)
    assert failure is not None
    assert int(failure.code) == 124
    # Whoever allows it more time goes on from there.
    assert checkpoints(store)
