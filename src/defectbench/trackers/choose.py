"""From a URI to the tracker that it names."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from defectbench.errors import ConfigurationError, UsageError, nearest
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.trackers.base import Tracker

_DATABASES = ("postgresql", "mysql", "mssql")
_SCHEMES = ("sqlite", "http", "https", *_DATABASES)


def tracking_uri(store: Store, uri: str | None) -> str | None:
    """Return where a store's results are tracked.

    Args:
        uri: what the caller names; without it MLFLOW_TRACKING_URI, then a directory store's own mlflow.db.

    Returns:
        A URI, or None: an S3 store has no tracker of its own.
    """
    named = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    return f"sqlite:///{store.path / 'mlflow.db'}" if isinstance(store, DirectoryStore) else None


def open_tracker(uri: str) -> Tracker:
    """Return the tracker at ``uri``: an MLflow server (http, https) or database, or a path of an sqlite file.

    Touches nothing yet. Credentials in the URI reach neither logs nor messages.

    Raises:
        UsageError: no such kind of tracker.
        ConfigurationError: the extra ``mlflow`` is not installed.
    """
    scheme, separator, rest = uri.partition("://")
    kind = scheme.partition("+")[0].lower()
    if separator and kind not in _SCHEMES:
        raise UsageError(
            f"no tracker of kind {scheme}://; {nearest(kind, _SCHEMES)}, or the path of a .db file"
        )
    database = _file(uri, kind, rest) if kind == "sqlite" or not separator else None
    try:
        from defectbench.trackers.mlflow import MlflowTracker  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"tracking needs the package {error.name}; install the extra: pip install 'defectbench[mlflow]'"
        ) from error
    return MlflowTracker(f"sqlite:///{database}" if database else uri, database)


def _file(uri: str, kind: str, rest: str) -> Path:
    """Return the sqlite file that a URI or a path names."""
    name = unquote(rest.removeprefix("/")) if kind == "sqlite" and rest else uri
    path = Path(name).expanduser().absolute()
    if path.suffix not in (".db", ".sqlite", ".sqlite3") or path.is_dir():
        raise UsageError(
            f"tracker {uri!r}: expected sqlite:///path/to/mlflow.db, the path of a .db file, or http://host:port"
        )
    return path
