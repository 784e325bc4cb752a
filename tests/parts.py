"""The real parts that tests stand on: an S3 server, MLflow's, disks that are full or read-only."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "bench"


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class S3Server:
    """A versitygw over a directory; ``environment`` is what a client's process needs to reach it."""

    binary: str
    directory: Path
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    access_key: str = "tester"
    secret_key: str = "a-secret-of-tests"
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        nowhere = str(self.directory / "no-such-file")
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_CONFIG_FILE": nowhere,
            "AWS_SHARED_CREDENTIALS_FILE": nowhere,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def secret(self, namespace: str) -> dict[str, Any]:
        """The Secret by which pods of a namespace know it."""
        keys = {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}
        metadata = {"name": "defectbench-s3", "namespace": namespace}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}

    def start(self) -> None:
        data = self.directory / "data"
        (data / BUCKET).mkdir(parents=True, exist_ok=True)
        command = [
            self.binary,
            "--port",
            f"{self.host}:{self.port}",
            "--health",
            "/healthz",
            "posix",
            str(data),
        ]
        credentials = {"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=os.environ | credentials, stdout=log, stderr=log, cwd=self.directory
            )
        self._wait()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait(self) -> None:
        for _ in range(600):
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError((self.directory / "log").read_text())
            with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            time.sleep(0.05)
        raise RuntimeError("versitygw does not answer")


@dataclass
class MlflowServer:
    """``mlflow server`` over a database in a directory."""

    directory: Path
    host: str = "127.0.0.1"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://{self.host}:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", self.host, "--port", str(self.port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db"]
        command += ["--artifacts-destination", str(self.directory / "artifacts")]
        command += ["--allowed-hosts", f"{self.host}:{self.port}", "--cors-allowed-origins", self.uri]
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


def find_gateway() -> str:
    """Return versitygw's path; without it, skip the test."""
    built = ROOT / ".parts" / "bin" / "versitygw"
    found = str(built) if built.is_file() else shutil.which("versitygw")
    if found is None:
        pytest.skip("no versitygw here; run: make parts")
    return found


def find_helm() -> str:
    """Return helm's path; without it, skip the test."""
    built = ROOT / ".parts" / "bin" / "helm"
    found = str(built) if built.is_file() else shutil.which("helm")
    if found is None:
        pytest.skip("no helm here; run: make parts")
    return found


@contextlib.contextmanager
def mounted(path: Path, options: str) -> Iterator[Path]:
    """Mount a tmpfs; without the rights to, skip the test."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount here: {made.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def make_read_only(path: Path) -> None:
    """Turn a disk that :func:`mounted` made read-only."""
    subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)


def make_writable(path: Path) -> None:
    """Undo :func:`make_read_only`."""
    subprocess.run(["mount", "-o", "remount,rw", str(path)], check=True)
