"""The cgroup that pods lie in: one in each hierarchy of version 1, the same one for all in version 2."""

from __future__ import annotations

import contextlib
from pathlib import Path

from node_files import CGROUP

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("cpu", "cpuset", "memory", "pids")


def is_unified(hierarchy: Path) -> bool:
    """Tell version 2 from version 1."""
    return (hierarchy / "cgroup.controllers").is_file()


def obstacle() -> str:
    """Why pods could not be limited here; empty when they can. Version 2 must hand its controllers down."""
    if not is_unified(ROOT):
        return "" if (ROOT / "memory" / "cgroup.procs").is_file() else f"no cgroups at {ROOT}"
    try:
        (ROOT / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
    except OSError as error:
        return f"cgroups cannot be handed to pods: {error}"
    return ""


def make() -> None:
    """Make it: the kubelet wants it to be there."""
    if is_unified(ROOT):
        (ROOT / CGROUP).mkdir(exist_ok=True)
        return
    for hierarchy in ROOT.iterdir():
        if (hierarchy / "cgroup.procs").is_file() and not is_unified(hierarchy):
            (hierarchy / CGROUP).mkdir(exist_ok=True)
    # A new cpuset is empty, and what is below it could hold no process.
    for name in ("cpuset.cpus", "cpuset.mems"):
        (ROOT / "cpuset" / CGROUP / name).write_text((ROOT / "cpuset" / name).read_text())


def found() -> list[Path]:
    """It and all below it, leaves first."""
    paths = {path for above in ("", "*/") for path in ROOT.glob(f"{above}{CGROUP}/**/")}
    return sorted(paths, key=lambda path: len(path.parts), reverse=True)


def remove() -> bool:
    """Remove what is empty; tell whether all is gone."""
    for path in found():
        with contextlib.suppress(OSError):
            path.rmdir()
    return not found()
