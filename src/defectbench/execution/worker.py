"""A process that runs several cells: its own first, those that others hold last."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from defectbench.errors import DefectbenchError, ExitCode
from defectbench.execution import run_cell, unpublished
from defectbench.execution.checkpoints import EVERY, remove_leftovers
from defectbench.execution.delivery import Delivery
from defectbench.execution.events import Event
from defectbench.execution.home import Home, find_home
from defectbench.execution.lease import BEAT, PATIENCE, HeldLease, take_lease
from defectbench.execution.watchdog import Watchdog
from defectbench.records.cell import Cell
from defectbench.records.lease import read_lease
from defectbench.records.result import find_failure, find_verified_result
from defectbench.records.state import CellState, state_of
from defectbench.stores.base import Store
from defectbench.util.shutdown import Stop, fall_silent

log = logging.getLogger(__name__)

_POLL = 3.0
"""Seconds between two looks at a lease that is waited for."""

_GAP = 30.0
"""Seconds without a look at a lease, or without an answer, after which its silence says little."""

_ONE_BEAT = 1.5 * BEAT


@dataclass
class Worker:
    """Runs cells until each has ended, here or with the worker that holds it.

    Attributes:
        cache: as in :class:`defectbench.execution.run_cell.WorkerContext`.
        tracking_uri: MLflow, or None or empty for none.
        stop: set by SIGTERM.
        on_event: called with every event.
        checkpoint_every: seconds between two checkpoints of a fit.
        watchdog: as in :class:`defectbench.execution.run_cell.WorkerContext`.
    """

    store: Store
    cache: Path
    device: str
    tracking_uri: str | None
    stop: Stop
    on_event: Callable[[Event], None]
    checkpoint_every: float = EVERY
    watchdog: Watchdog = field(default_factory=Watchdog)
    codes: dict[str, ExitCode] = field(default_factory=dict)
    _home: Home = field(default_factory=find_home)
    _held: dict[str, HeldLease] = field(default_factory=dict)
    _looked: dict[str, float] = field(default_factory=dict)
    _delivery: Delivery | None = None

    def run(self, cells: Sequence[str]) -> ExitCode:
        """Run them and return what the process ends with.

        143 if it was stopped, 74 if the store was away for too long, else 75 if any cell can be tried again,
        else the first permanent code, else 0.
        """
        waiting = list(cells)
        while waiting and not self.stop.is_set() and not self._store_is_away:
            self.watchdog.note_step()
            still = [key for key in waiting if not self._one(key)]
            # Waits only after a round in which nothing moved: a cell that is freed is taken at once.
            if still and still == waiting:
                self.stop.wait(_POLL)
            waiting = still
        for key in waiting:
            if self._store_is_away:
                self._end(key, ExitCode.STORE_AWAY, "the store went away before it began")
            else:
                self._end(key, ExitCode.STOPPED, "stopped before it began")
        if self._delivery is not None:
            self._delivery.end(wait=not self.stop.is_set())
        return self._code()

    @property
    def _store_is_away(self) -> bool:
        """Whether a cell has waited for the store in vain: the next would only wait again."""
        return ExitCode.STORE_AWAY in self.codes.values()

    def _code(self) -> ExitCode:
        """Return the exit code of the process: what can be tried again outranks what cannot."""
        codes = list(self.codes.values())
        for code in (ExitCode.STOPPED, ExitCode.STORE_AWAY, ExitCode.TRY_AGAIN):
            if code in codes:
                return code
        return next((code for code in codes if code is not ExitCode.DONE), ExitCode.DONE)

    def _one(self, key: str) -> bool:
        """Run a cell, or find out how it ended elsewhere. False when another worker holds it."""
        if self.stop.is_set() or self._store_is_away:
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
        """Run a cell unless it is finished, failed or held; False for held."""
        if find_verified_result(self.store, key) is not None:
            remove_leftovers(self.store, key)
            unpublished.remove(self.cache, key)
            self._end(key, ExitCode.DONE, "")
            return True
        failure = find_failure(self.store, key)
        if failure is not None:
            self._end(key, failure.code, failure.message)
            return True
        cell = run_cell.read_cell(self.store, key)
        # Before it is taken: what the last attempt spent counts against the deadline.
        before = read_lease(self.store, key)
        lease = take_lease(self.store, key, owner(), seen=self._silent(key), home=self._home)
        self._looked[key] = time.monotonic()
        if isinstance(lease, HeldLease):
            if key not in self._held:
                self._report(Event(key, CellState.WAITING, message=lease.record.owner))
            self._held[key] = lease
            return False
        self._report(Event(key, CellState.RUNNING))
        place = run_cell.WorkerContext(
            self.store,
            self.cache,
            self.device,
            self.stop,
            self._report,
            self.checkpoint_every,
            self.watchdog,
        )
        run_cell.run_cell(cell, place, lease, before)
        self._track(cell)
        self._end(key, ExitCode.DONE, "")
        return True

    def _silent(self, key: str) -> HeldLease | None:
        """Return the lease as it was seen last, its silence no longer than somebody watched it.

        While nobody looked, the store may have been away, and so a holder that lives could not beat: it is
        given the time for one beat more.
        """
        seen = self._held.get(key)
        if seen is None or time.monotonic() - self._looked[key] < _GAP:
            return seen
        return replace(seen, since=max(seen.since, time.monotonic() - PATIENCE + _ONE_BEAT))

    def _end(self, key: str, code: ExitCode, message: str) -> None:
        """Note and report how a cell ended."""
        self.codes[key] = code
        self._report(Event(key, state_of(code), code=code, message=message))

    def _report(self, event: Event) -> None:
        """Report an event. A broken pipe: whoever started this worker is gone, and so it goes too."""
        try:
            self.on_event(event)
        except BrokenPipeError:
            fall_silent()
            self.stop.set()

    def _track(self, cell: Cell) -> None:
        """Show the cell in MLflow. A tracker that is down never fails a cell: `track` fills it later."""
        if self.tracking_uri and cell.sweep:
            if self._delivery is None:
                self._delivery = Delivery(self.store.once, self.tracking_uri, self.cache)
            self._delivery.add(cell.key, cell.sweep)


def owner() -> str:
    """Return what a lease calls this process: host and process number."""
    return f"{platform.node()}:{os.getpid()}"
