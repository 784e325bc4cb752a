"""Trackers that hang, are down or come back, beside work that goes on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from defectbench.errors import TryAgainError
from defectbench.execution.delivery import Delivery
from defectbench.stores.directory import DirectoryStore
from defectbench.trackers import choose, sync
from waiting import wait_until


class Tracker:
    """What stands for MLflow: notes what it is given, or hangs, or refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        self.trouble: Exception | None = None
        self.going_on = threading.Event()
        self.going_on.set()
        monkeypatch.setattr(choose, "open_tracker", lambda uri: None)
        monkeypatch.setattr(sync, "sync_sweep", self.sync)

    def sync(self, store: Any, sweep: str, tracker: Any, keys: list[str], cache: Path) -> None:
        self.going_on.wait()
        if self.trouble is not None:
            raise self.trouble
        self.shown += keys


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> Tracker:
    return Tracker(monkeypatch)


def delivery(tmp_path: Path) -> Delivery:
    return Delivery(DirectoryStore(tmp_path), "http://tracker", tmp_path, patience=0.2)


def test_cells_are_shown_as_they_end(tracker: Tracker, tmp_path: Path) -> None:
    found = delivery(tmp_path)
    found.add("a", "s")
    assert tracker.shown == ["a"]
    found.add("b", "s")
    found.end(wait=True)
    assert tracker.shown == ["a", "b"]


def test_a_tracker_that_hangs_holds_nobody_up(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.going_on.clear()
    found = delivery(tmp_path)
    found.add("a", "s")
    found.add("b", "s")
    assert caplog.text.count("the work goes on") == 2
    tracker.going_on.set()
    wait_until(lambda: tracker.shown == ["a"])
    found.add("c", "s")
    found.end(wait=True)
    assert tracker.shown == ["a", "b", "c"]


@pytest.mark.parametrize("trouble", [TryAgainError("out of reach"), ValueError("a bug")])
def test_what_a_tracker_refuses_waits_and_is_named_at_the_end(
    trouble: Exception, tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker.trouble = trouble
    found = delivery(tmp_path)
    found.add("a", "s")
    found.add("b", "s")
    found.end(wait=True)
    assert "MLflow lacks 2 cells of this worker: `defectbench track s` adds them (a, b)" in caplog.text
    tracker.trouble = None
    found.add("c", "t")
    assert sorted(tracker.shown) == ["a", "b", "c"]


def test_a_stopped_worker_does_not_try_again(tracker: Tracker, tmp_path: Path) -> None:
    tracker.trouble = TryAgainError("out of reach")
    found = delivery(tmp_path)
    found.add("a", "s")
    tracker.trouble = None
    found.end(wait=False)
    assert tracker.shown == []
