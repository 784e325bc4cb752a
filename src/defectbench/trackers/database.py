"""An sqlite file for MLflow, whole or not there.

MLflow makes its tables in forty steps, and a stop between two of them would leave a file that it can never
finish ("duplicate column name").
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from importlib import import_module
from pathlib import Path

from defectbench.errors import ConfigurationError
from defectbench.util.files import STALE, move_into_place, remove

_LOCK_PATIENCE = 20.0
"""Seconds to wait for a locked sqlite file, as MLflow does later."""

_DRAFTS = ".mlflow-drafts"
_log = logging.getLogger(__name__)


def make_database(database: Path) -> None:
    """Make the file with all its tables unless it has them; for one process at a time.

    What a stopped MLflow left without runs is made anew. What has runs and lacks tables is brought up to date
    in a copy, which then takes its place.

    Raises:
        ConfigurationError: it has runs, and MLflow cannot bring it up to date.
        OSError, sqlite3.Error: the file cannot be read or written, or is none of sqlite's.
    """
    runs = 0
    if database.exists() and database.stat().st_size:
        _check_writable(database)
        tables = _tables(database)
        if _all_tables() <= tables:
            return
        runs = _count(database, "runs") if "runs" in tables else 0
        _log.warning("%s lacks tables of MLflow's: it is made anew, with its %d runs", database, runs)
    folder = database.parent / _DRAFTS
    _sweep(folder)
    draft = folder / f"{database.name}.{time.time_ns()}"
    draft.mkdir(parents=True)
    try:
        _make(draft / database.name, database if runs else None, runs)
        move_into_place(draft / database.name, database)
    finally:
        remove(draft)


def _make(draft: Path, older: Path | None, runs: int) -> None:
    """Let MLflow make, or bring up to date, the tables of a file that nobody else knows."""
    if older is not None:
        with closing(sqlite3.connect(older)) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
    from mlflow.tracking import MlflowClient

    try:
        MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
    except Exception as error:
        if older is None:
            raise
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(
            f"{older}: MLflow cannot bring this database of {runs} runs up to date ({first[:200]}): an "
            "upgrade of it was interrupted. Move it away: `defectbench track SWEEP` fills a new one from the "
            f"store. Or put a backup in its place, then `mlflow db upgrade sqlite:///{older}`"
        ) from None


def _check_writable(database: Path) -> None:
    """Raise sqlite3's error at once where MLflow would try ten times, for two minutes."""
    with closing(sqlite3.connect(database, timeout=_LOCK_PATIENCE)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()


def _all_tables() -> set[str]:
    """Return the names of the tables that this version of MLflow wants."""
    # Slow, and loud about its own dependencies: imported where the caller has silenced warnings.
    from mlflow.store.db.base_sql_model import Base

    for store in ("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store"):
        import_module(store)  # its tables join Base
    return set(Base.metadata.tables)


def _tables(database: Path) -> set[str]:
    """Return the names of the tables in the file."""
    with closing(sqlite3.connect(database)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _count(database: Path, table: str) -> int:
    """Return how many rows a table has."""
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def _sweep(folder: Path) -> None:
    """Remove what killed processes left."""
    for left in folder.glob("*") if folder.is_dir() else ():
        if left.stat().st_mtime < time.time() - STALE:
            remove(left)
