"""The lease of a cell: one worker at a time, and a fence number that only ever grows.

``cells/<key>/lease.json`` is changed by conditional puts only. A holder changes it every :data:`BEAT`
seconds; a worker that has seen it unchanged for :data:`PATIENCE` seconds by its own clock may take it over
under the next fence number. No two machines' clocks are ever compared. A holder that was paused and wakes up
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
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, ClassVar

from defectbench.errors import BugError, ConflictError, DataError, DefectbenchError, LeaseLostError
from defectbench.stores.base import ABSENT, Store
from defectbench.stores.layout import LEASE, attempts_of, cell_key, lease_key
from defectbench.util.documents import STRICT, read_document, typed, write_document

PATIENCE = 90.0
"""Seconds that a lease must be seen unchanged before it may be taken over."""

BEAT = 20.0
"""Seconds between two beats of a holder."""

_HURRY = 5.0
"""Seconds that a stopping worker waits for a beat under way: SIGTERM leaves it 15 s at worst."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What ``lease.json`` says.

    Attributes:
        owner: names the worker for people: host, process.
        holder: a random name of this one holding.
        fence: number of the attempt, from 1.
        progress: as the holder last reported it; for ``status`` and ``watch``.
        beat: how often the holder has changed the object.
        at: wall-clock time of the last beat, ISO 8601; for people, never compared.
        released: nobody holds the cell.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    owner: str
    holder: str
    fence: int
    progress: Mapping[str, Any] = field(default_factory=dict)
    beat: int = 0
    at: str = ""
    released: bool = False

    def to_json(self) -> bytes:
        """Return the text of ``lease.json``."""
        return write_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes, key: str = LEASE) -> LeaseRecord:
        """Read it; DataError when something else lies there."""
        return typed(cls, read_document(data, key), key)


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


def read_lease(store: Store, key: str) -> LeaseRecord | None:
    """Return who holds, or last held, the cell ``key``; None when nobody did, or the lease is damaged."""
    found = store.find(lease_key(key))
    return _readable(found.data, lease_key(key)) if found else None


def _readable(data: bytes, name: str) -> LeaseRecord | None:
    """Return the lease; None, and a line in the log, where it is damaged: whoever wants the cell takes it."""
    try:
        return LeaseRecord.from_json(data, name)
    except DataError as error:
        _log.warning("%s; the cell can be taken over", error)
        return None


def take_lease(
    store: Store,
    key: str,
    owner: str,
    *,
    seen: HeldLease | None = None,
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> Lease | HeldLease:
    """Take the cell's lease if it is free, released, or silent for ``patience`` seconds.

    Args:
        seen: what the last call for this cell gave: only a version that the caller itself has seen unchanged
            for ``patience`` seconds is taken over.
        clock: seconds, monotonic.

    Raises:
        TryAgainError: the store is out of reach.
    """
    # Read before the store: a slow answer must not make the holder look silent for longer than it was.
    now = clock()
    found = store.find(lease_key(key))
    if found is None:
        first = LeaseRecord(owner, secrets.token_hex(8), 1 + _last_attempt(store, key), at=_now())
        return _claim(store, key, first, ABSENT, patience, clock)
    record = _readable(found.data, lease_key(key))
    if record is None:
        # Nobody can be asked who held it. A holder that lives loses it at its next beat and ends its attempt.
        first = LeaseRecord(owner, secrets.token_hex(8), 1 + _last_attempt(store, key), at=_now())
        return _claim(store, key, first, found.version, patience, clock)
    if not record.released:
        # The clock starts at the first sight of a version, never at a time that the holder wrote.
        if seen is None or seen.version != found.version:
            return HeldLease(record, found.version, clock())
        if now - seen.since < patience:
            return seen
    # The progress is handed on: an attempt that ends before its first beat must not set spent time to 0.
    successor = LeaseRecord(owner, secrets.token_hex(8), record.fence + 1, record.progress, at=_now())
    return _claim(store, key, successor, found.version, patience, clock)


class Lease:
    """A lease that this worker holds, as long as :attr:`lost` is false. Made by :func:`take_lease`;
    thread-safe.

    Attributes:
        key: the cell's.
        fence: number of this attempt.
        progress: what the next beat reports, at first the last report of the attempt before; replace it as a
            whole.
    """

    def __init__(
        self,
        store: Store,
        key: str,
        record: LeaseRecord,
        version: str,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        self.key = key
        self.fence = record.fence
        self.progress: Mapping[str, Any] = record.progress
        self._store = store
        self._record = record
        self._version = version
        self._patience = patience
        self._clock = clock
        self._confirmed = clock()
        self._reason = ""
        self._mutex = threading.Lock()

    @property
    def prefix(self) -> str:
        """Where all that this attempt writes lies: ``cells/<key>/<fence>/``."""
        return f"{cell_key(self.key, str(self.fence))}/"

    @property
    def lost(self) -> bool:
        """Whether the worker must stop: another one has the cell, or may have it by now."""
        return bool(self._reason)

    def check(self) -> None:
        """Raise LeaseLostError when the lease is lost; cheap, for every step of a fit."""
        if self.lost:
            raise LeaseLostError(f"cell {self.key}, attempt {self.fence}: {self._reason}")

    def beat(self, progress: Mapping[str, Any] | None = None) -> None:
        """Show in the store that this worker lives; call it before publishing a result.

        Raises:
            LeaseLostError: somebody has taken the cell over.
            TryAgainError: the store is out of reach; the lease still holds while :attr:`lost` is false.
        """
        if progress is not None:
            self.progress = progress
        with self._mutex:
            if self._record.released:
                raise BugError(f"cell {self.key}: a released lease cannot beat")
            self.check()
            self._write(released=False)

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
        """Beat until the block ends; give up where no beat was confirmed for the patience."""
        while not stop.wait(every):
            try:
                self.beat()
            except LeaseLostError:
                return
            except Exception as error:  # whatever it is: without beats the lease runs out
                _log.warning("cell %s: no beat: %s", self.key, error)
                if self._clock() - self._confirmed >= self._patience:
                    self._reason = f"no beat reached the store for {self._patience:.0f} s: {error}"
                    return

    def _write(self, *, released: bool) -> None:
        """Write the next record. The time of the beat is when it began: the answer may take long."""
        began = self._clock()
        record = replace(
            self._record,
            progress=dict(self.progress),
            beat=self._record.beat + 1,
            at=_now(),
            released=released,
        )
        try:
            version = self._put(record)
        except ConflictError:
            self._adopt()
            version = self._put(record)
        self._record, self._version, self._confirmed = record, version, began

    def _put(self, record: LeaseRecord) -> str:
        """Write the record over the version that this holder knows."""
        return self._store.put(lease_key(self.key), record.to_json(), expected=self._version)

    def _adopt(self) -> None:
        """After a conflict: go on from an earlier write of our own whose answer was lost, else give up."""
        found = self._store.find(lease_key(self.key))
        now = _readable(found.data, lease_key(self.key)) if found else None
        # Only our own holder name proves our own write: the owner's name may be reused after a restart.
        if found and now and now.holder == self._record.holder:
            self._version = found.version
            return
        self._reason = f"{now.owner} took it over as attempt {now.fence}" if now else "its lease was removed"
        self.check()


def _claim(
    store: Store,
    key: str,
    record: LeaseRecord,
    expected: str,
    patience: float,
    clock: Callable[[], float],
) -> Lease | HeldLease:
    """Try to take the cell; where somebody was faster, look again."""
    try:
        version = store.put(lease_key(key), record.to_json(), expected=expected)
    except ConflictError:
        return take_lease(store, key, record.owner, patience=patience, clock=clock)
    return Lease(store, key, record, version, patience, clock)


def _last_attempt(store: Store, key: str) -> int:
    """Return the highest fence number that an attempt has written under: a lost lease.json resets nothing."""
    return max((attempt for attempt, _ in attempts_of(key, store.keys(cell_key(key)))), default=0)


def _now() -> str:
    """Return the wall-clock time for people."""
    return datetime.now(UTC).isoformat(timespec="seconds")
