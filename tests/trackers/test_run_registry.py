"""The registry's promises, against a tracker in memory that can be made to fail at any call."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from defectbench.errors import MissingInputError, TryAgainError
from defectbench.stores.directory import DirectoryStore
from defectbench.trackers.base import TrackedRun, Tracker
from defectbench.trackers.run_registry import RunRegistry


class MemoryTracker(Tracker):
    """Runs in a dictionary. ``before`` and ``after`` hear every call and may raise."""

    place = "memory"

    def __init__(self) -> None:
        self.claims: dict[str, str] = {}
        self.runs: dict[str, TrackedRun] = {}
        self.writes = 0
        self.after_create: Callable[[str], None] = lambda claim: None
        self._numbers = itertools.count()

    def open(self, experiment: str) -> str:
        return f"{experiment}@1"

    def create(self, experiment: str, run: TrackedRun, started: int, claim: str) -> str:
        name = f"run{next(self._numbers)}"
        self.claims[name] = claim
        self.after_create(claim)
        return name

    def find(self, experiment: str, claim: str) -> tuple[str, ...]:
        return tuple(name for name, its in self.claims.items() if its == claim)

    def write(self, run_id: str, run: TrackedRun, started: int) -> None:
        if run_id not in self.claims:
            raise MissingInputError(run_id)
        self.writes += 1
        self.runs[run_id] = run

    def delete(self, run_id: str) -> None:
        self.claims.pop(run_id, None)
        self.runs.pop(run_id, None)


def make_run(status: str = "finished", **changes: object) -> TrackedRun:
    values: dict[str, object] = {
        "name": "a", "status": status, "seconds": 1.0, "tags": {}, "params": {"p": "1"}, "metrics": {"m": 0.5}
    }  # fmt: skip
    return TrackedRun(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def tracker() -> MemoryTracker:
    return MemoryTracker()


@pytest.fixture
def registry(tmp_path: Path, tracker: MemoryTracker) -> RunRegistry:
    return RunRegistry(DirectoryStore(tmp_path), "study", tracker, "study@1", patience=0.5)


def test_ledger_writes_once(registry: RunRegistry, tracker: MemoryTracker) -> None:
    assert [registry.update("a", make_run()) for _ in range(3)] == [True, False, False]
    assert (len(tracker.claims), tracker.writes) == (1, 1)


def test_ledger_racing_writers_create_one_run(registry: RunRegistry, tracker: MemoryTracker) -> None:
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        for name in "abcd":
            registry.update(name, make_run())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tracker.claims) == 4


def test_ledger_adopts_the_run_of_a_creation_without_an_answer(
    registry: RunRegistry, tracker: MemoryTracker
) -> None:
    def lost(claim: str) -> None:
        raise TryAgainError("the answer was lost")

    tracker.after_create = lost
    with pytest.raises(TryAgainError):
        registry.update("a", make_run())
    tracker.after_create = lambda claim: None
    assert registry.update("a", make_run())
    assert list(tracker.claims) == list(tracker.runs) == ["run0"]


class Killed(BaseException):
    """What a killed process does next: nothing."""


class DyingStore(DirectoryStore):
    """The store of a process that is killed after its first put."""

    puts = 0

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        self.puts += 1
        if self.puts > 1:
            raise Killed
        return super().put(key, data, expected=expected)


def test_ledger_takes_over_the_claim_of_a_dead_owner(registry: RunRegistry, tracker: MemoryTracker) -> None:
    dying = RunRegistry(DyingStore(registry.store.url), "study", tracker, "study@1")
    with pytest.raises(Killed):
        dying.update("a", make_run())
    assert list(tracker.claims) == ["run0"]
    assert registry.update("a", make_run())
    assert list(tracker.runs) == ["run0"]


def test_ledger_owner_that_was_taken_over_removes_its_double(
    registry: RunRegistry, tracker: MemoryTracker
) -> None:
    def overtaken(claim: str) -> None:
        """While the first writer has created but not noted, another one takes over and misses it."""
        tracker.after_create = lambda claim: None
        hidden = tracker.claims.pop("run0")
        assert registry.update("a", make_run())
        tracker.claims["run0"] = hidden

    tracker.after_create = overtaken
    assert not registry.update("a", make_run())
    assert list(tracker.claims) == list(tracker.runs) == ["run1"]


def test_ledger_completes_a_running_run(registry: RunRegistry, tracker: MemoryTracker) -> None:
    registry.update("a", make_run("running", metrics={}))
    registry.update("a", make_run())
    assert [run.status for run in tracker.runs.values()] == ["finished"]


def test_ledger_a_writer_that_saw_less_undoes_nothing(registry: RunRegistry, tracker: MemoryTracker) -> None:
    registry.update("a", make_run())
    assert not registry.update("a", make_run("running", metrics={}))
    assert [run.status for run in tracker.runs.values()] == ["finished"]


@pytest.mark.parametrize("change", [{"metrics": {"m": 0.6}}, {"params": {"p": "2"}}])
def test_ledger_replaces_a_run_that_cannot_be_changed(
    registry: RunRegistry, tracker: MemoryTracker, change: dict[str, Any]
) -> None:
    registry.update("a", make_run())
    assert registry.update("a", make_run(**change))
    assert list(tracker.runs) == ["run1"]


def test_ledger_makes_a_run_again_that_was_removed_by_hand(
    registry: RunRegistry, tracker: MemoryTracker
) -> None:
    registry.update("a", make_run("running"))
    tracker.claims.clear()
    assert registry.update("a", make_run())
    assert list(tracker.claims) == ["run1"]


def test_ledger_prunes_what_the_sweep_no_longer_has(registry: RunRegistry, tracker: MemoryTracker) -> None:
    registry.update("a", make_run())
    registry.update("b", make_run())
    registry.prune({"b"})
    assert list(tracker.claims) == ["run1"]
    assert list(registry.store.keys()) == ["tracking/study/b.json"]


def test_ledger_keeps_trackers_apart(registry: RunRegistry, tracker: MemoryTracker) -> None:
    other = RunRegistry(registry.store, "study", MemoryTracker(), "study@2")
    assert registry.update("a", make_run())
    assert other.update("a", make_run())
    assert not registry.update("a", make_run())
