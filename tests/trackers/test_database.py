"""MLflow's sqlite file: whole or not there, whatever stops the process that makes it."""

from __future__ import annotations

import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from defectbench.errors import ConfigurationError
from defectbench.trackers.choose import open_tracker

pytest.importorskip("mlflow")

OPEN = "import sys; from defectbench.trackers.choose import open_tracker; open_tracker(sys.argv[1]).open('e')"


def tables(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'").fetchone()
        return int(found[0])


def tables_on_the_way(folder: Path) -> int:
    """How many tables a database has that is being made; 0 before there is one."""
    most = 0
    for draft in folder.glob(".mlflow-drafts/*/mlflow.db"):
        with suppress(sqlite3.Error):
            most = max(most, tables(draft))
    return most


@pytest.mark.parametrize("at", [1, 12, 30])
def test_no_stop_makes_half_a_database(tmp_path: Path, at: int) -> None:
    database = tmp_path / "mlflow.db"
    with subprocess.Popen([sys.executable, "-c", OPEN, str(database)]) as process:
        while tables_on_the_way(tmp_path) < at and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not database.exists()
    assert open_tracker(str(database)).open("e")


def half_made(empty_database: Path, place: Path, runs: int) -> Path:
    """A database as a stop in the middle leaves it: a step done and not noted, later tables missing."""
    database = place / "mlflow.db"
    shutil.copy(empty_database, database)
    with closing(sqlite3.connect(database)) as connection:
        for table in ("evaluation_dataset_records", "scorer_versions", "webhook_events"):
            connection.execute(f"DROP TABLE {table}")
        # The revision in which dataset_records got a column: MLflow would add it again.
        connection.execute("UPDATE alembic_version SET version_num = '71994744cf8e'")
        for number in range(runs):
            connection.execute("INSERT INTO runs (run_uuid) VALUES (?)", (f"{number:032x}",))
        connection.commit()
    return database


def test_what_an_interrupted_mlflow_left_is_made_anew(empty_database: Path, tmp_path: Path) -> None:
    database = half_made(empty_database, tmp_path, 0)
    assert open_tracker(str(database)).open("e")
    assert tables(database) == tables(empty_database)


def test_one_with_runs_is_never_thrown_away(empty_database: Path, tmp_path: Path) -> None:
    database = half_made(empty_database, tmp_path, 2)
    before = database.read_bytes()
    with pytest.raises(ConfigurationError, match=r"2 runs .* Move it away: `defectbench track SWEEP`"):
        open_tracker(str(database)).open("e")
    assert database.read_bytes() == before


def test_a_whole_one_is_left_alone(empty_database: Path, tmp_path: Path) -> None:
    database = Path(shutil.copy(empty_database, tmp_path / "mlflow.db"))
    inode = database.stat().st_ino
    assert open_tracker(str(database)).open("e")
    assert database.stat().st_ino == inode
    assert not (tmp_path / ".mlflow-drafts").exists()
