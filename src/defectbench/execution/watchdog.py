"""What ends a worker that hangs: a fit that makes no step looks at no flag, no lease and no deadline.

A thread that does nothing else looks at the time of the last step. It cannot see a process that is paused as
a whole; for that the time of the last step is also the time of a file (``DEFECTBENCH_ALIVE_FILE``), which the
chart's liveness probe looks at.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from defectbench.errors import DefectbenchError

KILLED = 137
"""What a hanging process ends with, as if it had been killed: whoever runs workers starts another."""

STUCK_AFTER = 1800.0
"""Seconds without a step after which a cell hangs."""

_LOOK_EVERY = 5.0
_TOUCH_EVERY = 10.0
_GRACE = 60.0
_log = logging.getLogger(__name__)


class Watchdog:
    """Watches the cell that this process is at.

    Args:
        stuck_after: seconds without a step; 0 never ends a cell for that.
        alive: a file whose time is that of the last step, to 10 s.
        look_every: seconds between two looks.
        grace: seconds over its deadline before a cell's process is ended.
        end: ends this process.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        stuck_after: float = STUCK_AFTER,
        alive: Path | None = None,
        look_every: float = _LOOK_EVERY,
        grace: float = _GRACE,
        end: Callable[[int], object] = os._exit,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.grace = grace
        self._stuck_after = stuck_after
        self._alive = alive
        self._look_every = look_every
        self._end = end
        self._clock = clock
        self._last = clock()
        self._touched = float("-inf")
        self.note_step()

    def note_step(self) -> None:
        """Note that the work goes on; cheap, for every step."""
        self._last = self._clock()
        if self._alive is not None and self._last - self._touched >= _TOUCH_EVERY:
            self._touched = self._last
            with suppress(OSError):  # a full disk must not end a fit; the probe will, if it lasts
                self._alive.touch()

    @property
    def still(self) -> float:
        """Seconds since the last step."""
        return self._clock() - self._last

    @property
    def stuck(self) -> bool:
        """Whether the last step is too long ago."""
        return bool(self._stuck_after) and self.still >= self._stuck_after

    @contextmanager
    def watching(
        self, overdue: Callable[[], DefectbenchError | None], before_end: Callable[[DefectbenchError], None]
    ) -> Iterator[None]:
        """End the process as soon as ``overdue`` returns a reason while the block runs.

        Args:
            before_end: called with the reason, for what must be written; it gets 30 s.
        """
        done = threading.Event()
        arguments = (done, overdue, before_end)
        thread = threading.Thread(target=self._watch, args=arguments, name="watchdog", daemon=True)
        self.note_step()
        thread.start()
        try:
            yield
        finally:
            done.set()

    def _watch(
        self,
        done: threading.Event,
        overdue: Callable[[], DefectbenchError | None],
        before_end: Callable[[DefectbenchError], None],
    ) -> None:
        """Look again and again."""
        looked = self._clock()
        while not done.wait(self._look_every):
            now = self._clock()
            if now - looked > 3 * self._look_every:
                # This thread was not run either: the whole process was paused, and goes on now.
                self._last += now - looked
            looked = now
            reason = overdue()
            if reason is not None and not done.is_set():
                self._say_why(reason)
                writing = threading.Thread(target=before_end, args=(reason,), daemon=True)
                writing.start()
                writing.join(30)
                self._end(KILLED)
                return

    def _say_why(self, reason: DefectbenchError) -> None:
        """Log the reason, and where every thread is: that is what somebody must know to mend it."""
        with suppress(OSError), tempfile.TemporaryFile("w+") as file:
            faulthandler.dump_traceback(file)
            file.seek(0)
            _log.error("%s; this process ends. Its threads:\n%s", reason, file.read())


def alive_file() -> Path | None:
    """Return the file whose time tells a liveness probe of the last step; None where nobody asks."""
    name = os.environ.get("DEFECTBENCH_ALIVE_FILE", "")
    return Path(name) if name else None
