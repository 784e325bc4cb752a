"""A real MLflow server, and an empty database that tests copy: making its tables takes seconds."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parts import free_port


@dataclass
class MlflowServer:
    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db"]
        command += ["--artifacts-destination", str(self.directory / "artifacts")]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=os.environ | settings,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        self._wait()

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)
            self.process.wait()
            self.process = None

    def _wait(self) -> None:
        for _ in range(1200):
            assert self.process is not None
            assert self.process.poll() is None, (self.directory / "log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.1)
        raise RuntimeError("mlflow server does not answer")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with all its tables and nothing in them."""
    pytest.importorskip("mlflow")
    from defectbench.trackers.choose import open_tracker

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    open_tracker(str(path)).delete("0" * 32)
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """The store's own MLflow database, empty."""
    path = tmp_path / "bench" / "mlflow.db"
    path.parent.mkdir()
    shutil.copy(empty_database, path)
    return path


@pytest.fixture(scope="session")
def mlflow_server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A running MLflow server; a test that kills it starts it again."""
    directory = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_database, directory / "mlflow.db")
    server = MlflowServer(directory)
    server.start()
    yield server
    server.kill()
