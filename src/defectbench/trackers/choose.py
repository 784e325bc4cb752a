"""From a URI to the tracker that it names.

Another package registers a tracker by an entry point of the group ``defectbench.trackers``: its name is the
URI's scheme, its object takes the URI and returns a :class:`Tracker` (docs/extending.md).
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from defectbench.errors import ConfigurationError, UsageError, nearest
from defectbench.stores.base import Store
from defectbench.trackers.base import Tracker
from defectbench.util.plugins import find_scheme, schemes
from defectbench.util.secrets import redact_uri

GROUP = "defectbench.trackers"

_DATABASES = ("postgresql", "mysql", "mssql")
_SCHEMES = ("sqlite", "http", "https", *_DATABASES)


def tracking_uri(store: Store, uri: str | None) -> str | None:
    """Return where a store's results are tracked.

    Args:
        uri: what the caller names; without it MLFLOW_TRACKING_URI, then the mlflow.db of a store that is a
            directory here.

    Returns:
        A URI, or None: any other store has no tracker of its own.
    """
    named = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if named:
        return named
    return None if store.local_path is None else f"sqlite:///{store.local_path / 'mlflow.db'}"


def open_tracker(uri: str) -> Tracker:
    """Return the tracker at ``uri``: an MLflow server (http, https) or database, or a path of an sqlite file.

    A package's own tracker has a scheme of its own. Touches nothing yet. Credentials in the URI reach neither
    logs nor messages.

    Raises:
        UsageError: no such kind of tracker.
        ConfigurationError: the extra ``mlflow`` is not installed, or a package's tracker cannot be loaded.
    """
    scheme, separator, rest = uri.partition("://")
    kind = scheme.partition("+")[0].lower()
    opener = find_scheme(GROUP, kind, _SCHEMES) if separator else None
    if opener is not None:
        tracker: Tracker = opener(uri)
        return tracker
    if separator and kind not in _SCHEMES:
        known = {*_SCHEMES, *schemes(GROUP)}
        raise UsageError(f"no tracker of kind {scheme}://; {nearest(kind, known)}, or the path of a .db file")
    return _open_mlflow(uri, kind if separator else "", rest)


def _open_mlflow(uri: str, kind: str, rest: str) -> Tracker:
    """Return MLflow's tracker.

    Args:
        kind: the URI's scheme; empty for the path of a file.
        rest: what follows the scheme.
    """
    database = _file(uri, kind, rest) if kind in ("sqlite", "") else None
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
            f"tracker {redact_uri(uri)!r}: expected sqlite:///path/to/mlflow.db, the path of a .db file, or http://host:port"
        )
    return path
