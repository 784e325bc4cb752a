"""A process that runs several cells: its own first, those that others hold last."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from defectbench.errors import DefectbenchError, ExitCode, TryAgainError
from defectbench.execution import run_cell
from defectbench.execution.checkpoints import EVERY, remove_leftovers
from defectbench.execution.events import Event
from defectbench.execution.lease import HeldLease, read_lease, take_lease
from defectbench.records.cell import Cell
from defectbench.records.result import find_failure, find_verified_result
from defectbench.records.state import CellState
from defectbench.stores.base import Store
from defectbench.util.shutdown import Stop, fall_silent

log = logging.getLogger(__name__)

_POLL = 3.0
"""Seconds between two looks at a lease that is waited for."""


@dataclass
class Worker:
    """Runs cells until each has ended, here or with the worker that holds it.

    Attributes:
        cache: as in :class:`defectbench.execution.run_cell.WorkerContext`.
        tracking_uri: MLflow, or None or empty for none.
        stop: set by SIGTERM.
        say: hears every event.
        checkpoint_every: seconds between two checkpoints of a fit.
    """

    store: Store
    cache: Path
    device: str
    tracking_uri: str | None
    stop: Stop
    say: Callable[[Event], None]
    checkpoint_every: float = EVERY
    codes: dict[str, ExitCode] = field(default_factory=dict)
    _held: dict[str, HeldLease] = field(default_factory=dict)

    def run(self, cells: Sequence[str]) -> ExitCode:
        """Run them and return what the process ends with.

        143 if it was stopped, else 75 if any cell can be tried again, else the first permanent code, else 0.
        """
        waiting = list(cells)
        while waiting and not self.stop.is_set():
            still = [key for key in waiting if not self._one(key)]
            if still and still == waiting:
                self.stop.wait(_POLL)
            waiting = still
        for key in waiting:
            self._end(key, ExitCode.STOPPED, "stopped before it began")
        return self._code()

    def _code(self) -> ExitCode:
        codes = list(self.codes.values())
        for code in (ExitCode.STOPPED, ExitCode.TRY_AGAIN):
            if code in codes:
                return code
        return next((code for code in codes if code is not ExitCode.DONE), ExitCode.DONE)

    def _one(self, key: str) -> bool:
        """Run a cell, or find out how it ended elsewhere. False when another worker holds it."""
        if self.stop.is_set():
            return False
        try:
            return self._take(key)
        except Exception as error:
            code = run_cell.code_of(error)
            if not isinstance(error, DefectbenchError):
                log.exception("cell %s", key)
            self._end(key, code, str(error) or type(error).__name__)
            return True

    def _take(self, key: str) -> bool:
        if find_verified_result(self.store, key) is not None:
            remove_leftovers(self.store, key)
            self._end(key, ExitCode.DONE, "")
            return True
        failure = find_failure(self.store, key)
        if failure is not None:
            self._end(key, failure.code, failure.message)
            return True
        cell = run_cell.read_cell(self.store, key)
        before = read_lease(self.store, key)
        lease = take_lease(self.store, key, owner(), seen=self._held.get(key))
        if isinstance(lease, HeldLease):
            if key not in self._held:
                self._tell(Event(key, CellState.WAITING, message=lease.record.owner))
            self._held[key] = lease
            return False
        self._tell(Event(key, CellState.RUNNING))
        place = run_cell.WorkerContext(
            self.store, self.cache, self.device, self.stop, self._tell, self.checkpoint_every
        )
        run_cell.run_cell(cell, place, lease, before)
        self._track(cell)
        self._end(key, ExitCode.DONE, "")
        return True

    def _end(self, key: str, code: ExitCode, message: str) -> None:
        self.codes[key] = code
        states = {
            ExitCode.DONE: CellState.FINISHED,
            ExitCode.STOPPED: CellState.STOPPED,
            ExitCode.TRY_AGAIN: CellState.AGAIN,
        }
        self._tell(Event(key, states.get(code, CellState.FAILED), code=code, message=message))

    def _tell(self, event: Event) -> None:
        """Say an event. Nobody listens any more: whoever started this worker is gone, and so it goes too."""
        try:
            self.say(event)
        except BrokenPipeError:
            fall_silent()
            self.stop.set()

    def _track(self, cell: Cell) -> None:
        """Show the cell in MLflow. A tracker that is down never fails a cell: `track` fills it later."""
        if not self.tracking_uri or not cell.sweep:
            return
        from defectbench.trackers.choose import open_tracker
        from defectbench.trackers.sync import sync_sweep

        try:
            sync_sweep(self.store, cell.sweep, open_tracker(self.tracking_uri), [cell.key], self.cache)
        except TryAgainError as error:
            log.warning(
                "MLflow lacks cell %s (`defectbench track %s` adds it): %s", cell.key, cell.sweep, error
            )
        except Exception:
            log.exception("MLflow lacks cell %s (`defectbench track %s` adds it)", cell.key, cell.sweep)


def owner() -> str:
    """Return what a lease calls this process: host and process number."""
    return f"{platform.node()}:{os.getpid()}"
