"""A process that hangs ends itself, one that was only paused does not."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from defectbench.errors import DefectbenchError, TryAgainError
from defectbench.execution.watchdog import KILLED, Watchdog
from waiting import wait_until


class Ended:
    def __init__(self) -> None:
        self.codes: list[int] = []
        self.reasons: list[str] = []

    def end(self, code: int) -> None:
        self.codes.append(code)

    def reason(self, error: DefectbenchError) -> None:
        self.reasons.append(str(error))


def test_a_fit_without_a_step_ends_its_process(caplog: pytest.LogCaptureFixture) -> None:
    ended = Ended()
    watchdog = Watchdog(0.3, look_every=0.02, end=ended.end)

    def overdue() -> DefectbenchError | None:
        return TryAgainError("it is stuck") if watchdog.stuck else None

    with watchdog.watching(overdue, ended.reason):
        for _ in range(10):
            time.sleep(0.05)
            watchdog.note_step()
        assert ended.codes == []
        wait_until(lambda: ended.codes)
    assert ended.codes == [KILLED]
    assert ended.reasons == ["it is stuck"]
    # What a person needs: where every thread hangs.
    assert "test_a_fit_without_a_step_ends_its_process" in caplog.text


def test_what_cannot_be_written_does_not_keep_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "join", lambda thread, seconds=None: None)
    ended, never = Ended(), threading.Event()
    watchdog = Watchdog(0.01, look_every=0.02, end=ended.end)

    def write(error: DefectbenchError) -> None:
        never.wait()

    with watchdog.watching(lambda: TryAgainError("stuck"), write):
        wait_until(lambda: ended.codes)
    never.set()


def test_a_process_that_was_paused_as_a_whole_goes_on() -> None:
    """The clock jumps between two looks: nothing ran meanwhile, so nothing hung."""
    paused, ended = [0.0], Ended()
    watchdog = Watchdog(0.5, look_every=0.02, end=ended.end, clock=lambda: time.monotonic() + paused[0])
    looks = []

    def overdue() -> DefectbenchError | None:
        looks.append(watchdog.still)
        return TryAgainError("stuck") if watchdog.stuck else None

    with watchdog.watching(overdue, ended.reason):
        wait_until(lambda: len(looks) > 2)
        paused[0] += 5000.0
        before = len(looks)
        wait_until(lambda: len(looks) > before + 2)
        assert ended.codes == []
        wait_until(lambda: ended.codes)  # now it runs, and makes no step


def test_0_never_ends_a_process() -> None:
    now = [0.0]
    watchdog = Watchdog(0.0, clock=lambda: now[0])
    now[0] = 1e9
    assert not watchdog.stuck


def test_steps_are_the_time_of_a_file(tmp_path: Path) -> None:
    now, alive = [0.0], tmp_path / "alive"
    watchdog = Watchdog(alive=alive, clock=lambda: now[0])
    assert alive.exists(), "a probe may look before the first step"
    alive.unlink()
    watchdog.note_step()
    assert not alive.exists(), "cheap: not at every step"
    now[0] = 11.0
    watchdog.note_step()
    assert alive.exists()
