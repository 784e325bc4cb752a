"""Waiting for what another process or thread does, however long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], every: float = 0.02) -> None:
    """Ask every so many seconds until the condition holds. What never holds is ended by pytest's timeout."""
    while not condition():
        time.sleep(every)
