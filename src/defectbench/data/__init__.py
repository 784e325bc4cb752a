"""Data sets: layouts, checks, near-duplicates, archives in the store, and the synthetic one."""

from __future__ import annotations

from collections.abc import Callable

Step = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """A :data:`Step` that says nothing."""
