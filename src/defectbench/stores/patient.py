"""A store that is waited for while it is away: for work that is worth more than the wait."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from defectbench.errors import (
    ConflictError,
    MissingObjectError,
    NoRightsError,
    StoppedError,
    StoreAwayError,
)
from defectbench.stores.base import Blob, Store
from defectbench.util.shutdown import Stop

PATIENCE = 600.0
"""Seconds that a worker waits for a store that is away: longer than a server takes to be replaced."""

_FIRST, _LONGEST = 0.5, 30.0
"""Seconds before the second try, and between two tries at most."""

_SAY_EVERY = 60.0

Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


class PatientStore(Store):
    """Another store, asked again while it is away; thread-safe.

    Credentials that were good and are refused now are waited for as well, and read anew before each try: they
    are being rotated. Those that never were good are refused at once.

    Args:
        inner: the store.
        patience: seconds that one call waits; 0 asks once.
        stop: ends a wait.
        clock: seconds, monotonic.
        sleep: for so many seconds; default: until the stop.

    Attributes:
        waited: seconds that calls have waited, all together.
    """

    def __init__(
        self,
        inner: Store,
        stop: Stop,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        self.url = inner.url
        self.local_path = inner.local_path
        self.readers = inner.readers
        self._inner = inner
        self._stop = stop
        self._patience = patience
        self._clock = clock
        self._sleep = sleep or stop.wait
        self._answered = False

    @property
    def once(self) -> Store:
        """The store itself."""
        return self._inner

    def renew(self) -> None:
        """Read the store's credentials anew."""
        self._inner.renew()

    def get(self, key: str) -> Blob:
        """Return the object."""
        return self.patiently(lambda: self._inner.get(key))

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        """Write the object. An earlier try whose answer was lost is recognised by what lies there."""
        tried = False

        def write() -> str:
            nonlocal tried
            again, tried = tried, True
            if again and expected is not None and (own := self._own_write(key, data)) is not None:
                return own
            try:
                return self._inner.put(key, data, expected=expected)
            except ConflictError:
                # A request that was given up may have arrived after all, between our look and our write.
                own = self._own_write(key, data) if again else None
                if own is None:
                    raise
                return own

        return self.patiently(write)

    def _own_write(self, key: str, data: bytes) -> str | None:
        """Return the object's version if it is what was to be written."""
        found = self._inner.find(key)
        return found.version if found is not None and found.data == data else None

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys; a listing that breaks off begins anew."""
        return iter(self.patiently(lambda: list(self._inner.keys(prefix))))

    def delete(self, key: str) -> None:
        """Remove the object."""
        self.patiently(lambda: self._inner.delete(key))

    def upload(self, key: str, path: Path) -> None:
        """Write a file."""
        self.patiently(lambda: self._inner.upload(key, path))

    def download(self, key: str, path: Path) -> None:
        """Read into a file."""
        self.patiently(lambda: self._inner.download(key, path))

    def patiently(self, act: Callable[[], Answer]) -> Answer:
        """Return what ``act`` returns, trying again while the store is away.

        Raises:
            StoreAwayError, NoRightsError: it is still so after ``patience`` seconds.
            StoppedError: the stop is set while it waits.
        """
        began = said = self._clock()
        pause = _FIRST
        while True:
            try:
                answer = act()
            except MissingObjectError:
                self._answered = True
                raise
            except StoreAwayError as error:
                trouble: StoreAwayError | NoRightsError = error
            except NoRightsError as error:
                if not self._answered:
                    raise
                trouble = error
            else:
                self._answered = True
                self._say_back(began, pause)
                return answer
            now = self._clock()
            if now - began >= self._patience:
                raise trouble
            if pause == _FIRST or now - said >= _SAY_EVERY:
                said = now
                _log.warning("%s; trying again for %.0f s", trouble, self._patience - (now - began))
            self._wait(min(pause, self._patience - (now - began)))
            pause = min(2 * pause, _LONGEST)
            if isinstance(trouble, NoRightsError):
                self._inner.renew()

    def _wait(self, seconds: float) -> None:
        """Sleep for about so long: workers that lost the store together must not all return at once."""
        began = self._clock()
        self._sleep(random.uniform(seconds / 2, seconds))
        self.waited += self._clock() - began
        if self._stop.is_set():
            raise StoppedError("stopped while the store was away; the same command goes on where it ended")

    def _say_back(self, began: float, pause: float) -> None:
        """Say that the store answers again, where it was said to be away."""
        if pause != _FIRST:
            _log.warning("%s answers again after %.0f s", self.url, self._clock() - began)
