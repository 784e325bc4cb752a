"""The seam to storage: small objects with conditional puts, large ones as files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from defectbench.errors import MissingInputError

ABSENT = ""
"""As ``expected`` of a conditional put: the object must not be there yet (If-None-Match: *)."""


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes and the version (S3: the ETag) that a conditional put may name."""

    data: bytes
    version: str


class Store(ABC):
    """Objects under keys. A key is a relative path with forward slashes; no key lies below another key.

    Every method raises:
        TryAgainError: the store is out of reach, read-only or full. Nothing half-written is visible.
        NoRightsError: the credentials do not allow it.
        MissingInputError: (reads) no such object; (any) no such bucket.
    """

    url: str

    @abstractmethod
    def get(self, key: str) -> Blob:
        """Return the object. MissingInputError names the key and the store."""

    @abstractmethod
    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        """Write the object whole and return its new version.

        Args:
            expected: None writes whatever is there; ``ABSENT`` only when nothing is; a version only when the
                object still has that version.

        Raises:
            ConflictError: ``expected`` does not hold. Exact under racing writers: one wins.
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

    def find(self, key: str) -> Blob | None:
        """Return the object, or None where there is none."""
        try:
            return self.get(key)
        except MissingInputError:
            return None
