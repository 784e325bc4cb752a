"""The node's first process, in mount and pid namespaces of its own.

It binds the node's directories over the standard ones, then keeps containerd and the kubelet running, as a
service manager would. When it ends, the kernel ends every process of the node and drops every mount.

``node_init.py PLAN``: PLAN is JSON with ``binds`` (source -> target) and ``services`` (commands).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path


def mount(*words: str) -> None:
    """Mount, or end."""
    subprocess.run(["mount", *words], check=True)


def start(command: list[str]) -> int:
    """Start a service in a session of its own; return its process id."""
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True).pid


def main(plan: dict[str, object]) -> None:
    """Serve until killed; orphans are reaped, as the first process must."""
    binds, services = plan["binds"], plan["services"]
    assert isinstance(binds, dict)
    assert isinstance(services, list)
    mount("-t", "proc", "proc", "/proc")
    for source, target in binds.items():
        mount("--bind", source, target)
    running = {start(command): command for command in services}
    while True:
        pid, _ = os.wait()
        if command := running.pop(pid, None):
            time.sleep(0.5)
            running[start(command)] = command


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
