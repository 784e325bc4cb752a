"""Where a worker runs, so that one that comes back knows its own dead lease from that of a live neighbour."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

JOB_VARIABLE = "DEFECTBENCH_JOB_UID"
"""Set by the chart in a Job's pods: the Job's UID."""


@dataclass(frozen=True, slots=True)
class Home:
    """A place where it can be told whether a process still runs.

    Attributes:
        name: of the Job, or of this machine's boot and process namespace; empty where nothing can be told.
        process: this process's number there; 0 in a Job, which has one pod at a time.
    """

    name: str = ""
    process: int = 0

    def has_ended(self, name: str, process: int) -> bool:
        """Whether the process that took a lease at ``name`` has surely ended.

        A Job makes no pod before the last one has ended, so another holder from the same Job is gone. So is
        one of this very process, which runs one cell at a time. (Were it wrong, as with a pod that was
        deleted by force and runs on, the work would be done twice; the fence number keeps results apart.)
        """
        if not name or name != self.name:
            return False
        return process in (0, self.process) or not _runs(process)


NOWHERE = Home()
"""Tells nothing."""


def find_home() -> Home:
    """Return where this process runs."""
    job = os.environ.get(JOB_VARIABLE, "")
    if job:
        return Home(f"job {job}")
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # Two containers of one host count their processes apart.
        namespace = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return NOWHERE
    return Home(f"{platform.node()} {boot} {namespace}", os.getpid())


def _runs(process: int) -> bool:
    """Whether a process of this number is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether it has ended and only its parent has not asked yet."""
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return True
    return status.rpartition(")")[2].split()[:1] == ["Z"]
