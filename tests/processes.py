"""Wait for a command in a process of its own, and leave nothing of it behind."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress

import psutil


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Return what the process printed, on standard output and on standard error, once it has ended.

    Where the wait is broken off, by the time limit of the test say, the process and its children tell where
    each thread was (if run with PYTHONFAULTHANDLER) and are killed: they would slow all that follows.
    """
    try:
        return process.communicate()
    except BaseException:
        family: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(process.pid)
            family = [own, *own.children(recursive=True)]
        for number in (signal.SIGABRT, signal.SIGKILL):
            for each in family:
                with suppress(psutil.NoSuchProcess):
                    each.send_signal(number)
            psutil.wait_procs(family, timeout=5)
        print(*process.communicate(), sep="\n")
        raise
