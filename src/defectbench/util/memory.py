"""The peak of this process's memory over a stretch of work."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path
from types import TracebackType

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


class PeakMemory:
    """Measure the peak resident memory between enter and exit, in bytes.

    Linux can forget the peak of what ran before in the process; elsewhere the peak since the process
    started is given, which with several cells in a process is an upper bound.
    """

    peak: int = 0

    def __enter__(self) -> PeakMemory:
        with contextlib.suppress(OSError):
            _CLEAR.write_text("5")  # resets VmHWM, see proc(5)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.peak = _high_water_mark()

    def so_far(self) -> int:
        """Return the peak since enter."""
        return _high_water_mark()


def _high_water_mark() -> int:
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def ran_out(error: BaseException) -> bool:
    """Whether memory ran out. torch says it by a class of its own on a GPU, and in words on the CPU.

    >>> ran_out(MemoryError()), ran_out(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    (True, True)
    >>> ran_out(RuntimeError("shapes differ"))
    False
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
