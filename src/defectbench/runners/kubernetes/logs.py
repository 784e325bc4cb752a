"""A cell's log: from the store, where it outlives the pod; from the pod while the store has none yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from defectbench.errors import DataError, MissingInputError
from defectbench.records.result import find_failure, find_result
from defectbench.records.state import CellState
from defectbench.runners.kubernetes.api import Cluster
from defectbench.runners.kubernetes.find import holder
from defectbench.stores.base import Store
from defectbench.stores.layout import LOG, attempts_of, cell_key

POLL = 5.0
"""Seconds between two looks at a log that is followed; workers write it every 30."""


def attempts(store: Store, cell: str) -> list[int]:
    """Return the attempts that have a log, in order."""
    files = attempts_of(cell, store.keys(cell_key(cell)))
    return sorted(attempt for attempt, name in files if name == LOG)


def read_log(store: Store, cell: str, attempt: int | None = None) -> str | None:
    """Return an attempt's log, the latest by default; None where the store has none yet.

    Raises:
        MissingInputError: no log of the attempt that was asked for.
    """
    there = attempts(store, cell)
    if attempt is None and not there:
        return None
    if attempt is not None and attempt not in there:
        known = f"attempts with a log: {', '.join(map(str, there))}" if there else "no attempt has one yet"
        raise MissingInputError(f"cell {cell} has no log of attempt {attempt}; {known}")
    chosen = there[-1] if attempt is None else attempt
    return store.get(cell_key(cell, str(chosen), LOG)).data.decode(errors="replace")


def follow(store: Store, cell: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Yield the latest attempt's log as it grows, then that of the next, until the cell has ended."""
    shown: dict[int, int] = {}
    while True:
        over = _has_ended(store, cell)
        there = attempts(store, cell)
        # Attempts that ended before the first look are left out; none that comes later is.
        for attempt in [each for each in there if shown and each >= min(shown)] or there[-1:]:
            text = read_log(store, cell, attempt) or ""
            if len(text) > shown.get(attempt, 0):
                yield text[shown.get(attempt, 0) :]
            shown[attempt] = len(text)
        if over:
            return
        sleep(POLL)


def _has_ended(store: Store, cell: str) -> bool:
    """Whether a cell has a result or a failure; a damaged one is no sign of a worker either."""
    try:
        return find_result(store, cell) is not None or find_failure(store, cell) is not None
    except DataError:
        return True


def from_pod(cluster: Cluster, cell: str, *, following: bool = False) -> Iterator[str]:
    """Yield the log of the pod that holds the cell, its other cells' lines among it.

    Raises:
        MissingInputError: no pod has begun on it.
    """
    held = holder(cluster, cell)
    if (
        held is None
        or not held.pods
        or held.view.phase in (CellState.PENDING, CellState.PULLING, CellState.DOOMED)
    ):
        raise MissingInputError(f"cell {cell} has no log: no pod has begun on it (`defectbench why {cell}`)")
    query = {"follow": "true"} if following else {}
    for line in cluster.lines(cluster.path("pods", held.view.pod, "log"), query=query):
        yield line.decode(errors="replace") + "\n"
