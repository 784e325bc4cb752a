"""Work on all cores of this machine, in threads: what decodes and filters pictures lets the others run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST = 4
"""Threads at most, because each may hold a picture of any size."""


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield ``function`` of each item, in their order, whatever the number of threads.

    Meanwhile BLAS has one thread: on small matrices more of them only wait for one another, at full load.
    """
    from threadpoolctl import threadpool_limits

    pool = ThreadPoolExecutor(thread_count())
    try:
        with threadpool_limits(1):
            yield from pool.map(function, items)
    finally:
        pool.shutdown(cancel_futures=True)


def thread_count() -> int:
    """Return the cores that this process may use, or OMP_NUM_THREADS where that is less; four at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, min(cores, _MOST, int(asked) if asked.isdigit() else cores))
