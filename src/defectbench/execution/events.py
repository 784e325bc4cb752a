"""What every runner shares: the worker's command, and the words that a worker says about its cells.

Runner and job meet at a command, never at an import.
"""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from defectbench.records.state import CellState


@dataclass(frozen=True, slots=True)
class Event:
    """What a worker says of a cell, one JSON line on its standard output each time.

    Attributes:
        phase: ``fitting`` or ``scoring`` while running.
        done, total: in the phase's unit.
        left: seconds that the phase still takes, or None while unknown.
        code: exit code of a cell that ended.
        message: of a failure.
    """

    cell: str
    state: CellState
    phase: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None
    code: int = 0
    message: str = ""

    def to_line(self) -> str:
        """Return the event as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_line(cls, line: str) -> Event:
        """Read what :meth:`to_line` wrote.

        Raises:
            ValueError: it is something else.
        """
        document = json.loads(line)
        if not isinstance(document, dict) or "state" not in document:
            raise ValueError(f"not an event: {line!r}")
        document["state"] = CellState(document["state"])
        return cls(**document)


def worker_command(store: str, cells: Sequence[str]) -> list[str]:
    """Return the arguments after ``defectbench`` that run ``cells``, the same on every backend."""
    return ["job", "--store", store, *(part for key in cells for part in ("--cell", key))]


def thread_variables(threads: int) -> dict[str, str]:
    """Return the variables that hold a worker to ``threads``, read when libraries make their pools."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    return dict.fromkeys(names, str(threads))


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the block as Ctrl-C does: by KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def clock(seconds: float | None) -> str:
    """Return a duration as people read it.

    >>> clock(3725), clock(None)
    ('1:02:05', '')
    """
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
