"""The wish that this process end: SIGTERM, Ctrl-C, or a listener that went away."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from defectbench.errors import StoppedError

_SLICE = 0.1


def fall_silent() -> None:
    """Write nothing to standard output any more, whose reader went away; not even at the flush on exit."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


class Stop:
    """A flag that a signal sets.

    A fit looks at it between two steps, so that it can save first. Where there is nothing to save
    (:meth:`at_once`) the signal itself ends the work: to import torch may take longer than the 15 s that a
    spot node leaves. (No threading.Event: a handler that sets one while its own thread holds the event's
    lock, in ``wait`` or in a handler before it, waits for itself.)
    """

    def __init__(self) -> None:
        self._wanted = False
        self._abrupt = False

    def listen(self) -> None:
        """Be set by SIGTERM and SIGINT from now on; for the main thread."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hear)

    def set(self) -> None:
        """Ask for the end."""
        self._wanted = True

    def is_set(self) -> bool:
        """Whether the end is wanted."""
        return self._wanted

    def wait(self, seconds: float) -> None:
        """Sleep for so long, or until the end is wanted."""
        end = time.monotonic() + seconds
        while not self._wanted and (left := end - time.monotonic()) > 0:
            time.sleep(min(_SLICE, left))

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """End the block by StoppedError where the end is wanted already, or as soon as a signal wants it."""
        self._abrupt = True
        try:
            if self._wanted:
                raise _stopped()
            yield
        finally:
            self._abrupt = False

    def _hear(self, number: int, frame: object) -> None:
        first, self._wanted = not self._wanted, True
        if first and self._abrupt:
            raise _stopped()


def _stopped() -> StoppedError:
    return StoppedError("stopped; the same command goes on where it ended")
