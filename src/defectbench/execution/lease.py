"""The lease of a cell: one worker at a time, and a fence number that only ever grows.

``cells/<key>/lease.json`` is changed by conditional puts only. A holder changes it every :data:`BEAT`
seconds; a worker that has seen it unchanged for :data:`PATIENCE` seconds by its own clock may take it over
under the next fence number, and at once where it knows that the holder has ended. A store that is away
costs a holder nothing: it works on and beats when the store is back, unless somebody has taken the cell by
then. No two machines' clocks are ever compared. A holder that was paused and wakes up
finds the object changed, so it can neither beat nor release, and what it wrote lies below its own fence
number.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from defectbench.errors import (
    BugError,
    ConflictError,
    DefectbenchError,
    LeaseLostError,
    NoRightsError,
)
from defectbench.execution.home import NOWHERE, Home
from defectbench.records.lease import LeaseRecord, readable_lease
from defectbench.stores.base import ABSENT, Store
from defectbench.stores.layout import attempts_of, cell_key, lease_key

PATIENCE = 90.0
"""Seconds that a lease must be seen unchanged before it may be taken over."""

BEAT = 20.0
"""Seconds between two beats of a holder."""

_SOON = 5.0
"""Seconds between two beats while none reaches the store."""

_HURRY = 5.0
"""Seconds that a stopping worker waits for a beat under way: SIGTERM leaves it 15 s at worst."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HeldLease:
    """Somebody else holds the cell. Give it back to the next :func:`take_lease`, which then knows how long.

    Attributes:
        record: what the lease said.
        version: of ``lease.json`` when it was seen.
        since: when this version was first seen, by the waiter's clock.
    """

    record: LeaseRecord
    version: str
    since: float


def take_lease(
    store: Store,
    key: str,
    owner: str,
    *,
    seen: HeldLease | None = None,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
    home: Home = NOWHERE,
) -> Lease | HeldLease:
    """Take the cell's lease if it is free, released, left by a process that ended, or silent for ``patience``
    seconds.

    Args:
        home: where this worker runs, which tells whether a holder from there still lives.
        seen: what the last call for this cell gave: only a version that the caller itself has seen unchanged
            for ``patience`` seconds is taken over.
        clock: seconds, monotonic.

    Raises:
        TryAgainError: the store is out of reach.
    """
    waiting = _Candidate(store, key, owner, home, patience, clock)
    # Read before the store: a slow answer must not make the holder look silent for longer than it was.
    now = clock()
    found = store.find(lease_key(key))
    if found is None:
        return waiting.claim(1 + _last_attempt(store, key), ABSENT)
    record = readable_lease(found.data, lease_key(key))
    if record is None:
        # Nobody can be asked who held it. A holder that lives loses it at its next beat and ends its attempt.
        return waiting.claim(1 + _last_attempt(store, key), found.version)
    if not record.released and not home.has_ended(record.home, record.process):
        # The clock starts at the first sight of a version, never at a time that the holder wrote.
        if seen is None or seen.version != found.version:
            return HeldLease(record, found.version, clock())
        if now - seen.since < patience:
            return seen
    # The progress is handed on: an attempt that ends before its first beat must not set spent time to 0.
    return waiting.claim(record.fence + 1, found.version, record.progress)


class Lease:
    """A lease that this worker holds, as long as :attr:`lost` is false. Made by :func:`take_lease`;
    thread-safe.

    Attributes:
        key: the cell's.
        fence: number of this attempt.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        record: LeaseRecord,
        version: str,
        clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.fence = record.fence
        self._progress: Mapping[str, Any] = record.progress
        self._patient = store
        # A beat waits for nobody: the next one comes soon.
        self._store = store.once
        self._record = record
        self._version = version
        self._clock = clock
        self._moved = clock()
        self._reason = ""
        self._mutex = threading.Lock()

    @property
    def prefix(self) -> str:
        """Where all that this attempt writes lies: ``cells/<key>/<fence>/``."""
        return f"{cell_key(self.key, str(self.fence))}/"

    @property
    def progress(self) -> Mapping[str, Any]:
        """What the next beat reports, at first the last report of the attempt before; replaced as a whole."""
        return self._progress

    @progress.setter
    def progress(self, progress: Mapping[str, Any]) -> None:
        self._progress = progress
        self._moved = self._clock()

    @property
    def still(self) -> float:
        """Seconds since the progress was last replaced, or since the cell was taken."""
        return self._clock() - self._moved

    @property
    def lost(self) -> bool:
        """Whether the worker must stop: another one has the cell, or may have it by now."""
        return bool(self._reason)

    def check(self) -> None:
        """Raise LeaseLostError when the lease is lost; cheap, for every step of a fit."""
        if self.lost:
            raise LeaseLostError(f"cell {self.key}, attempt {self.fence}: {self._reason}")

    def beat(self, progress: Mapping[str, Any] | None = None) -> None:
        """Show in the store that this worker lives.

        Raises:
            LeaseLostError: somebody has taken the cell over.
            StoreAwayError: the store is out of reach; the lease still holds while :attr:`lost` is false.
        """
        if progress is not None:
            self.progress = progress
        with self._mutex:
            if self._record.released:
                raise BugError(f"cell {self.key}: a released lease cannot beat")
            self.check()
            self._write(released=False)

    def confirm(self) -> None:
        """Beat before a result is published, with the patience of the store that the lease was taken from.

        Raises:
            LeaseLostError, StoreAwayError: as :meth:`beat`.
        """
        self._patient.patiently(self.beat)

    def release(self) -> None:
        """Give the cell back. Nothing happens when it is given back or lost already; a store out of reach is
        only logged, because the lease runs out by itself.
        """
        if not self._mutex.acquire(timeout=_HURRY):
            _log.warning("cell %s: the lease could not be released: a beat is still under way", self.key)
            return
        try:
            if not self.lost and not self._record.released:
                self._write(released=True)
        except DefectbenchError as error:
            _log.warning("cell %s: the lease could not be released: %s", self.key, error)
        finally:
            self._mutex.release()

    @contextlib.contextmanager
    def beating(self, every: float = BEAT) -> Iterator[Lease]:
        """Beat in a thread every ``every`` seconds while the block runs, then release."""
        stop = threading.Event()
        thread = threading.Thread(
            target=self._keep_beating, args=(stop, every), name=f"lease {self.key}", daemon=True
        )
        thread.start()
        try:
            yield self
        finally:
            stop.set()
            thread.join(_HURRY)
            self.release()

    def _keep_beating(self, stop: threading.Event, every: float) -> None:
        """Beat until the block ends or the lease is lost. Without beats it is lost once somebody takes it."""
        pause, silent = every, False
        while not stop.wait(pause):
            try:
                self.beat()
                silent = False
            except LeaseLostError:
                return
            except Exception as error:  # whatever it is: the work goes on
                if not silent:
                    _log.warning("cell %s: no beat, the work goes on: %s", self.key, error)
                silent = True
                if isinstance(error, NoRightsError):
                    self._renew()
            # Sooner than usual once the store was away: whoever waits for the cell looks again, too.
            pause = min(every, _SOON) if silent else every

    def _renew(self) -> None:
        """Read rotated credentials; where that fails, the next beat says so again."""
        with contextlib.suppress(DefectbenchError):
            self._store.renew()

    def _write(self, *, released: bool) -> None:
        """Write the next record."""
        record = replace(
            self._record,
            progress=dict(self.progress),
            beat=self._record.beat + 1,
            at=_now(),
            still=round(self.still, 1),
            released=released,
        )
        try:
            version = self._put(record)
        except ConflictError:
            self._adopt()
            version = self._put(record)
        self._record, self._version = record, version

    def _put(self, record: LeaseRecord) -> str:
        """Write the record over the version that this holder knows."""
        return self._store.put(lease_key(self.key), record.to_json(), expected=self._version)

    def _adopt(self) -> None:
        """After a conflict: go on from an earlier write of our own whose answer was lost, else give up."""
        found = self._store.find(lease_key(self.key))
        now = readable_lease(found.data, lease_key(self.key)) if found else None
        # Only our own holder name proves our own write: the owner's name may be reused after a restart.
        if found and now and now.holder == self._record.holder:
            self._version = found.version
            return
        self._reason = f"{now.owner} took it over as attempt {now.fence}" if now else "its lease was removed"
        self.check()


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A worker that wants a cell."""

    store: Store
    key: str
    owner: str
    home: Home
    patience: float
    clock: Callable[[], float]

    def claim(
        self, fence: int, expected: str, progress: Mapping[str, Any] | None = None
    ) -> Lease | HeldLease:
        """Try to take the cell; where somebody was faster, look again."""
        holder = secrets.token_hex(8)
        record = LeaseRecord(
            self.owner,
            holder,
            fence,
            progress or {},
            at=_now(),
            home=self.home.name,
            process=self.home.process,
        )
        try:
            version = self.store.put(lease_key(self.key), record.to_json(), expected=expected)
        except ConflictError:
            return take_lease(
                self.store, self.key, self.owner, patience=self.patience, clock=self.clock, home=self.home
            )
        return Lease(self.store, self.key, record, version, self.clock)


def _last_attempt(store: Store, key: str) -> int:
    """Return the highest fence number that an attempt has written under: a lost lease.json resets nothing."""
    return max((attempt for attempt, _ in attempts_of(key, store.keys(cell_key(key)))), default=0)


def _now() -> str:
    """Return the wall-clock time for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")
