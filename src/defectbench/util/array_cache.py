"""Arrays that are dear to make, kept on the local disk: whole or not there, those unused longest go first.

Losing the cache loses time only. A disk that is full or read-only means that nothing new is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import shutil
import sys
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from defectbench.errors import ConfigurationError, TryAgainError
from defectbench.util.files import draft_path, locked, move_into_place, remove_stale_drafts

DEFAULT_LIMIT = 20 << 30
"""Bytes that all entries together may take."""

LOCK_PATIENCE = 6 * 3600.0
"""Seconds to wait for another process that makes the same array."""

_DIGEST = 32
_CHUNK = 1 << 24
_log = logging.getLogger(__name__)
_caches: weakref.WeakSet[Cache] = weakref.WeakSet()


def default_cache() -> Path:
    """Return $DEFECTBENCH_CACHE, else ``defectbench`` in the user's cache directory."""
    if named := os.environ.get("DEFECTBENCH_CACHE"):
        return Path(named).expanduser()
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "defectbench"
    caches = "Library/Caches" if sys.platform == "darwin" else ".cache"
    return Path.home() / caches / "defectbench"


def limit_from_environment() -> int:
    """Return $DEFECTBENCH_CACHE_BYTES, else :data:`DEFAULT_LIMIT`; ConfigurationError for no number."""
    text = os.environ.get("DEFECTBENCH_CACHE_BYTES", "")
    if not text:
        return DEFAULT_LIMIT
    if not text.isdecimal():
        raise ConfigurationError(f"DEFECTBENCH_CACHE_BYTES is {text!r}; allowed: a number of bytes, or unset")
    return int(text)


class Cache:
    """Entries of named arrays below ``directory``: ``directory/<kind>/<entry>/<name>.npy``.

    Each file is an ordinary npy with its content's SHA-256 behind it, checked once in a process: a damaged
    one is thrown away. Entries used least recently go when room is needed, never one that a cache of this
    process has used. ``full`` says that something could not be kept.

    Args:
        limit: bytes; default: :func:`limit_from_environment`.
    """

    def __init__(self, directory: Path, kinds: tuple[str, ...], limit: int | None = None) -> None:
        self.directory = directory
        self.limit = limit_from_environment() if limit is None else limit
        self._kinds = kinds
        self._used: set[Path] = set()
        self._checked: set[tuple[int, int, int]] = set()
        self.full = False
        _caches.add(self)

    def find(self, entry: str, name: str) -> NDArray[Any] | None:
        """Return the array, mapped read-only; None when it is not there or damaged."""
        path = self._path(entry, name)
        try:
            with path.open("rb") as file:
                self._check(file)
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError) as error:
            _log.warning("%s is damaged (%s) and will be made again", path, error)
            with contextlib.suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            return None
        self._used.add(path.parent)
        with contextlib.suppress(OSError):
            os.utime(path.parent)
        return array

    def keep(
        self, entry: str, name: str, shape: tuple[int, ...], dtype: Any, rows: Iterable[NDArray[Any]]
    ) -> NDArray[Any] | None:
        """Write an array row by row, in bounded memory, and return it as :meth:`find` does.

        Returns None, after a warning, when there is no room; then ``rows`` may not have been read to its end.
        """
        path, size = self._path(entry, name), int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._used.add(path.parent)
        if not self._make_room(size):
            self._warn(f"{size} bytes more would pass its limit of {self.limit}")
            return None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_stale_drafts(path.parent)
            with draft_path(path.parent) as part:
                with part.open("xb") as file:
                    _write(file, shape, np.dtype(dtype), rows)
                move_into_place(part, path)
        except OSError as error:
            self._warn(error.strerror or str(error))
            return None
        return self.find(entry, name)

    def has(self, entry: str, name: str) -> bool:
        """Whether the array is there, damaged or not."""
        return self._path(entry, name).exists()

    @contextlib.contextmanager
    def lock(self, entry: str, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Keep others from making the same array meanwhile; without room for a lock, they may.

        Yields False, without ``wait``, when somebody else is making it.
        """
        path, patience = self._path(entry, name).with_suffix(".lock"), LOCK_PATIENCE if wait else 0
        with contextlib.ExitStack() as stack:
            free = True
            try:
                stack.enter_context(locked(path, patience))
            except OSError as error:
                self._warn(error.strerror or str(error))
            except TryAgainError:
                if wait:
                    raise
                free = False
            yield free

    def _path(self, entry: str, name: str) -> Path:
        return self.directory / entry / f"{name}.npy"

    def _warn(self, reason: str) -> None:
        if not self.full:
            self.full = True
            _log.warning(
                "the cache %s takes nothing more (%s): work goes on, slower; free some room, or name another "
                "place by DEFECTBENCH_CACHE or another limit by DEFECTBENCH_CACHE_BYTES",
                self.directory,
                reason,
            )

    def _check(self, file: BinaryIO) -> None:
        """Raise ValueError unless the file ends with the digest of all before it."""
        status = os.fstat(file.fileno())
        identity = (status.st_ino, status.st_size, status.st_mtime_ns)
        if identity in self._checked:
            return
        left, digest = status.st_size - _DIGEST, hashlib.sha256()
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        if left != 0 or file.read(_DIGEST) != digest.digest():
            raise ValueError("its digest does not hold")
        self._checked.add(identity)

    def _make_room(self, size: int) -> bool:
        entries = sorted(self._entries(), key=lambda entry: entry[0])
        total = sum(used for _, used, _ in entries)
        busy = set[Path]().union(*(cache._used for cache in _caches))
        for _, used, path in entries:
            if total + size <= self.limit:
                break
            if path not in busy:
                shutil.rmtree(path, ignore_errors=True)
                total -= used
        return total + size <= self.limit

    def _entries(self) -> Iterator[tuple[float, int, Path]]:
        """Yield (last use, bytes, path) of every entry."""
        for kind in self._kinds:
            for path in (self.directory / kind).glob("*"):
                with contextlib.suppress(OSError):
                    sizes = [file.stat().st_size for file in os.scandir(path)]
                    yield path.stat().st_mtime, sum(sizes), path


def _write(
    file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], rows: Iterable[NDArray[Any]]
) -> None:
    # Not through a writable map: on a full disk that ends in SIGBUS instead of an error.
    head = io.BytesIO()
    fields = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(head, fields)
    digest = hashlib.sha256(head.getvalue())
    file.write(head.getvalue())
    written = 0
    for row in rows:
        data = np.ascontiguousarray(row, dtype).tobytes()
        digest.update(data)
        file.write(data)
        written += len(data)
    if written != int(np.prod(shape)) * dtype.itemsize:
        raise ValueError(f"rows of {written} bytes do not make an array of shape {shape}")
    file.write(digest.digest())
    file.flush()
    os.fsync(file.fileno())
