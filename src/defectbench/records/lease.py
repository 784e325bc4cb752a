"""``lease.json``: who holds a cell, as everyone may read it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from defectbench.errors import DataError
from defectbench.stores.base import Store
from defectbench.stores.layout import LEASE, lease_key
from defectbench.util.documents import STRICT, read_document, typed, write_document

_log = logging.getLogger(__name__)

STILL = 600.0
"""Seconds without a step after which a cell looks stuck."""

SILENT = 300.0
"""Seconds without a beat, by the wall clocks of two machines: beats come every 20."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """What ``lease.json`` says.

    Attributes:
        owner: names the worker for people: host, process.
        holder: a random name of this one holding.
        fence: number of the attempt, from 1.
        progress: as the holder last reported it; for ``status`` and ``watch``.
        home: where the holder's process can be asked about (:class:`defectbench.execution.home.Home`).
        process: its number there.
        beat: how often the holder has changed the object.
        still: seconds since the holder's progress last changed, by its own clock.
        at: wall-clock time of the last beat, ISO 8601; for people: whether a cell may be taken over never
            depends on it.
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
    home: str = ""
    process: int = 0
    still: float = 0.0

    def to_json(self) -> bytes:
        """Return the text of ``lease.json``."""
        return write_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes, key: str = LEASE) -> LeaseRecord:
        """Read it; DataError when something else lies there."""
        return typed(cls, read_document(data, key), key)


def read_lease(store: Store, key: str) -> LeaseRecord | None:
    """Return who holds, or last held, the cell ``key``; None when nobody did, or the lease is damaged."""
    found = store.find(lease_key(key))
    return readable_lease(found.data, lease_key(key)) if found else None


def readable_lease(data: bytes, name: str) -> LeaseRecord | None:
    """Return the lease; None, and a line in the log, where it is damaged: whoever wants the cell takes it."""
    try:
        return LeaseRecord.from_json(data, name)
    except DataError as error:
        _log.warning("%s; the cell can be taken over", error)
        return None


def describe_silence(lease: LeaseRecord) -> str:
    """Say that the holder of a cell seems to hang; empty where it does not.

    A beat comes from a thread that does no work, so a holder that beats may hang all the same: its own word
    of its last step counts. A holder that does not beat is paused, killed or cut off from the store.
    """
    if _is_silent(lease):
        return f"no beat since {lease.at}"
    return f"no step for {lease.still / 60:.0f} min" if lease.still >= STILL else ""


def _is_silent(lease: LeaseRecord) -> bool:
    """Whether the last beat is long ago, as far as clocks agree."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(lease.at)).total_seconds() >= SILENT
    except (ValueError, TypeError):  # nothing that a clock wrote
        return False


def is_held(store: Store, key: str) -> bool:
    """Whether a worker holds the cell ``key`` and beats, however slow its steps are."""
    lease = read_lease(store, key)
    return lease is not None and not lease.released and not _is_silent(lease)
