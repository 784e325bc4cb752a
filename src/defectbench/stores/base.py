"""The interface of storage: small objects with conditional puts, large ones as files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from defectbench.errors import MissingObjectError, UsageError

Name = TypeVar("Name")
Item = TypeVar("Item")

ABSENT = ""
"""As ``expected`` of a conditional put: the object must not be there yet (If-None-Match: *)."""


LONGEST_KEY = 1024
"""Bytes of UTF-8, S3's limit."""

LONGEST_PART = 255
"""Bytes of UTF-8 between two slashes, the limit of file-backed stores."""


def check_key(key: str) -> str:
    """Return ``key`` if it can name an object in every store.

    Raises:
        UsageError: it is empty or too long, absolute, holds a backslash or a control character, or a part of
            it is empty or starts with a dot (``.``, ``..`` and the stores' own files).
    """
    if not key:
        raise UsageError("an empty key names no object")
    if any(not part or part.startswith(".") for part in key.split("/")):
        raise UsageError(f"key {key!r}: no part between slashes may be empty or start with a dot")
    return _check_text(key)


def check_prefix(prefix: str) -> str:
    """Return ``prefix`` if a key may start with it; UsageError as in :func:`check_key`."""
    whole = prefix.split("/")[:-1]
    if any(not part or part.startswith(".") for part in whole) or prefix.rpartition("/")[2].startswith("."):
        raise UsageError(f"prefix {prefix!r}: no part between slashes may be empty or start with a dot")
    return _check_text(prefix)


def _check_text(key: str) -> str:
    """Refuse what some file system, bucket or terminal cannot hold or show."""
    if "\\" in key or not key.isprintable():
        raise UsageError(
            f"key {key!r}: backslashes, control and other unprintable characters are not allowed"
        )
    if len(key.encode()) > LONGEST_KEY or any(len(part.encode()) > LONGEST_PART for part in key.split("/")):
        raise UsageError(f"key {key[:60]!r}...: at most {LONGEST_KEY} bytes, {LONGEST_PART} between slashes")
    return key


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes and the version (S3: the ETag) that a conditional put may name.

    Equal bytes may have equal versions: what must be distinguished needs something of its own inside.
    """

    data: bytes
    version: str


class Store(ABC):
    """Objects under keys. A key is a relative path with forward slashes; no key lies below another key.

    Every method raises:
        UsageError: the key cannot name an object (:func:`check_key`), or lies below or above another key.
        StoreAwayError: the store is out of reach, read-only or full. Nothing half-written is visible.
        NoRightsError: the credentials do not allow it.
        MissingObjectError: (reads) no such object.
        MissingInputError: no such bucket.
    """

    url: str

    local_path: Path | None = None
    """Where it lies on this machine, as a directory that other programs may see; None for all others."""

    readers: int = 8
    """How many reads are under way at once in :meth:`each`: while one waits for its answer, others go on."""

    waited: float = 0.0
    """Seconds that callers have spent waiting for a store that was away; only a patient one waits."""

    @property
    def once(self) -> Store:
        """This store without patience: asked once, it answers or raises."""
        return self

    def patiently(self, act: Callable[[], Item]) -> Item:
        """Return what ``act`` returns, which asks this store; a patient one tries again while it is away."""
        return act()

    def renew(self) -> None:  # noqa: B027 - a store without credentials has nothing to do
        """Read the credentials anew, where there are any: they may have been rotated."""

    @abstractmethod
    def get(self, key: str) -> Blob:
        """Return the object. MissingObjectError names the key and the store."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        """Write the object whole and return its new version.

        Args:
            expected: None writes whatever is there; ``ABSENT`` only when nothing is; a version only when the
                object still has that version.

        Raises:
            ConflictError: ``expected`` does not hold. Exact under racing writers: one wins.
            StoreAwayError: the object may be written or not, since the answer may be what was
                lost; read it back before a conditional put is tried again.
        """

    @abstractmethod
    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys that start with ``prefix``, sorted."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove the object; nothing happens where there is none."""

    @abstractmethod
    def upload(self, key: str, path: Path) -> None:
        """Write a file of any size, in bounded memory; appears whole or not at all."""

    @abstractmethod
    def download(self, key: str, path: Path) -> None:
        """Read an object of any size into ``path``, in bounded memory; appears whole or not at all."""

    def each(self, read: Callable[[Name], Item], names: Iterable[Name]) -> Iterator[Item]:
        """Yield what ``read``, which asks this store, returns for each name, in order."""
        if self.readers == 1:
            yield from map(read, names)
            return
        # pool.map keeps the order of the names, whichever answer arrives first.
        with ThreadPoolExecutor(self.readers) as pool:
            yield from pool.map(read, names)

    def find(self, key: str) -> Blob | None:
        """Return the object, or None where there is none."""
        try:
            return self.get(key)
        except MissingObjectError:
            return None
