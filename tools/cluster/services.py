"""Long-lived processes: started once, found again by their pid file, stopped for good."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from layout import BIN, Layout


@dataclass(frozen=True)
class Service:
    """One process; its command names a path below the cluster's directory: by that it is told from others."""

    name: str
    command: tuple[str, ...]
    layout: Layout

    @property
    def pid_file(self) -> Path:
        """Where the process's id is kept."""
        return self.layout.root / f"{self.name}.pid"

    @property
    def log(self) -> Path:
        """What it printed, over all its starts."""
        return self.layout.logs / f"{self.name}.log"

    def pid(self) -> int | None:
        """The process's id while it lives; a reused id is not taken for it."""
        if not self.pid_file.is_file():
            return None
        pid = int(self.pid_file.read_text())
        return pid if str(self.layout.root) in command_of(pid) else None

    def start(self) -> bool:
        """Start the process unless it lives; tell whether it had to be."""
        if self.pid():
            return False
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.layout.root,
                env=clean_environment(),
                start_new_session=True,
            )
        self.pid_file.write_text(str(process.pid))
        return True

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """End the process, by force when it does not go within ten seconds."""
        pid = self.pid()
        for sign in (first, signal.SIGKILL):
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
                if wait(lambda: not self.pid(), 10):
                    break
        self.pid_file.unlink(missing_ok=True)

    def tail(self, lines: int = 15) -> str:
        """The end of the log, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def command_of(pid: int) -> str:
    """A process's command line; empty when there is none, or only its zombie."""
    query = ["ps", "-ww", "-o", "stat=", "-o", "command=", "-p", str(pid)]
    found = subprocess.run(query, capture_output=True, text=True).stdout
    state, _, command = found.strip().partition(" ")
    return "" if state.startswith("Z") else command


def clean_environment() -> dict[str, str]:
    """Our environment with the parts on the path, without proxies and other clusters' names."""
    ours = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "KUBECONFIG"}
    return ours | {"PATH": f"{BIN}:{ours.get('PATH', os.defpath)}:/usr/sbin:/sbin"}


def wait(condition: Callable[[], bool], seconds: float) -> bool:
    """Ask until the condition holds; tell whether it did in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def wait_ready(service: Service, ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a service to answer; one that ends or is late stops all with the end of its log."""
    wait(lambda: ready() or _ended(service), seconds)
    if not ready():
        state = "does not answer" if service.pid() else "ended"
        raise SystemExit(f"{service.name} {state}; the end of {service.log}:\n{service.tail()}")


def _ended(service: Service) -> bool:
    """Whether there is no process, asked twice: one that has just begun shows no command for a moment."""
    if service.pid():
        return False
    time.sleep(0.5)
    return not service.pid()
