"""Finished cells on their way to the tracker, which may hang or be down without holding the next fit up."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from pathlib import Path

from defectbench.errors import TryAgainError
from defectbench.stores.base import Store

PATIENCE = 15.0
"""Seconds that a worker waits for the tracker after a cell, and once more at its end."""

_log = logging.getLogger(__name__)


class Delivery:
    """Shows cells in the tracker, each as soon as it answers; what it never took `track` adds.

    Args:
        cache: of files on this machine.
        patience: seconds that one call waits.
    """

    def __init__(self, store: Store, uri: str, cache: Path, patience: float = PATIENCE) -> None:
        self._store = store
        self._uri = uri
        self._cache = cache
        self._patience = patience
        self._waiting: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def add(self, key: str, sweep: str) -> None:
        """Show a cell, and those that the tracker could not take before."""
        self._waiting[key] = sweep
        self._deliver()

    def end(self, wait: bool) -> None:
        """Say what the tracker lacks, after one more try where there is time to ``wait``."""
        if self._waiting and wait:
            self._deliver()
        for sweep, keys in self._by_sweep().items():
            _log.warning(
                "MLflow lacks %d cells of this worker: `defectbench track %s` adds them (%s)",
                len(keys),
                sweep,
                ", ".join(keys),
            )

    def _deliver(self) -> None:
        """Send what waits, for so long as the patience lasts; then let the sending go on beside the work."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._send, name="tracker", daemon=True)
            self._thread.start()
        self._thread.join(self._patience)
        if self._thread.is_alive():
            _log.warning("the tracker has not answered for %.0f s; the work goes on", self._patience)

    def _send(self) -> None:
        """Send all that waits, sweep by sweep. What fails waits for the next time."""
        from defectbench.trackers.choose import open_tracker
        from defectbench.trackers.sync import sync_sweep

        for sweep, keys in self._by_sweep().items():
            try:
                sync_sweep(self._store, sweep, open_tracker(self._uri), keys, self._cache)
            except TryAgainError as error:
                _log.warning("MLflow lacks cells of %s: %s", sweep, error)
            except Exception:
                _log.exception("MLflow lacks cells of %s", sweep)
            else:
                for key in keys:
                    self._waiting.pop(key, None)

    def _by_sweep(self) -> dict[str, list[str]]:
        """Return what waits, by sweep."""
        found: dict[str, list[str]] = defaultdict(list)
        for key, sweep in list(self._waiting.items()):
            found[sweep].append(key)
        return found
