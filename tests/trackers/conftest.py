"""A real MLflow server, and a store's own database."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts import MlflowServer


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
