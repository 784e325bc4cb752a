"""A store in a directory of this machine, or of a network disk that has locks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from defectbench.errors import (
    ConflictError,
    MissingInputError,
    MissingObjectError,
    StoreAwayError,
    UsageError,
)
from defectbench.stores.base import ABSENT, Blob, Store, check_key, check_prefix
from defectbench.util.files import (
    copy_synced,
    disk_error,
    disk_errors,
    draft_path,
    locked,
    move_into_place,
    remove_stale_drafts,
    written_whole,
)

OWN_FOLDER = ".defectbench"
"""The directory of locks and drafts inside a store. No key lies there: no part of one starts with a dot."""

# Two keys may share a lock file, which costs a wait and never a wrong result.
LOCKS = 256
_NESTED = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY}


class DirectoryStore(Store):
    """Objects as files below ``path``; a version is the content's SHA-256.

    The directory is made by the first write. Writers of one key exclude each other by a lock file,
    so a conditional put is exact between threads and processes; readers need no lock, because files appear
    whole.
    """

    readers = 1
    """A disk answers at once: threads would cost more than they wait less (three times at 10,000 cells)."""

    def __init__(self, path: Path | str) -> None:
        self.path = self.local_path = Path(path).expanduser().absolute()
        self.url = str(self.path)
        self._drafts = self.path / OWN_FOLDER / "drafts"
        self._ready = False

    def get(self, key: str) -> Blob:
        """Read the file; its version is its SHA-256."""
        with self._reading(key) as file:
            data = file.read()
        return Blob(data, _version(data))

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        """Write a draft and give it its name, all under the key's lock."""
        target = self._file(key)
        with self._writing(key), self._lock(key):
            if expected is not None:
                self._check(key, target, expected)
            self._place(target, data)
        return _version(data)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Walk the directory that the prefix names; hidden files are no keys."""
        check_prefix(prefix)
        start = self.path / prefix.rpartition("/")[0]
        try:
            found = [key for key in self._walk(start) if key.startswith(prefix)]
        except OSError as error:
            raise self._away(error) from error
        yield from sorted(found)

    def delete(self, key: str) -> None:
        """Remove the file and the directories that it leaves empty."""
        target = self._file(key)
        if not self._exists(target, key):
            return
        with self._writing(key), self._lock(key), contextlib.suppress(FileNotFoundError):
            target.unlink()
            self._prune(target.parent)

    def upload(self, key: str, path: Path) -> None:
        """Copy the file; MissingInputError where there is none."""
        target = self._file(key)
        try:
            source = path.open("rb")
        except FileNotFoundError as error:
            raise MissingInputError(f"{path}: no such file to upload as {key}") from error
        with source, self._writing(key):
            self._prepare()
            # Copied before the lock is taken: others need not wait for a large file.
            with draft_path(self._drafts) as part:
                copy_synced(source, part)
                with self._lock(key):
                    move_into_place(part, target)

    def download(self, key: str, path: Path) -> None:
        """Copy the object beside ``path``, then give it its name."""
        with self._reading(key) as source, disk_errors(path), written_whole(path) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def _file(self, key: str) -> Path:
        """Return the key's path, checked."""
        check_key(key)
        return self.path / key

    def _lock(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Return the lock of a key's writers."""
        # A fixed number of lock files shared by all keys: one for each key would never be cleaned up.
        return locked(self.path / OWN_FOLDER / "locks" / f"{zlib.crc32(key.encode()) % LOCKS:03d}")

    def _prepare(self) -> None:
        """Make the store's directories; once in a process, remove what killed writers left."""
        self._drafts.mkdir(parents=True, exist_ok=True)
        if not self._ready:
            remove_stale_drafts(self._drafts)
            self._ready = True

    def _check(self, key: str, target: Path, expected: str) -> None:
        """Raise ConflictError unless the object has the expected version."""
        try:
            found = _version(target.read_bytes())
        except FileNotFoundError:
            found = ABSENT
        if found != expected:
            was = "is already there" if expected == ABSENT else "was changed or removed by somebody else"
            raise ConflictError(f"{key} in {self.url} {was}")

    def _place(self, target: Path, data: bytes) -> None:
        """Write the bytes as a draft on the store's own disk, then rename it: readers see all or nothing."""
        self._prepare()
        with draft_path(self._drafts) as part:
            copy_synced(io.BytesIO(data), part)
            move_into_place(part, target)

    def _prune(self, directory: Path) -> None:
        """Remove directories that a delete left empty, so that their names are free for keys again."""
        with contextlib.suppress(OSError):
            while directory != self.path:
                # rmdir refuses a directory that is not empty: that ends the climb and spares a racing writer.
                directory.rmdir()
                directory = directory.parent

    def _walk(self, start: Path) -> Iterator[str]:
        """Yield the keys below a directory. A directory that a racing delete removes is no error."""
        for directory, folders, files in os.walk(start, onerror=_raise_unless_gone):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = Path(directory).relative_to(self.path)
            yield from ((below / name).as_posix() for name in files if not name.startswith("."))

    def _exists(self, target: Path, key: str) -> bool:
        """Whether a file is there; a broken link counts, so that it can be deleted."""
        with self._writing(key), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return target.lstat() is not None
        return False

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[BinaryIO]:
        """Open the object, and raise a disk's errors as the store's."""
        check_key(key)
        try:
            # Joined as text: a Path for each of ten thousand results would take as long as reading them.
            # A device or a pipe has no end, or never begins.
            if not stat.S_ISREG(os.stat(f"{self.url}/{key}").st_mode):  # noqa: PTH116
                raise MissingObjectError(f"{key} in {self.url} is no plain file")
            with open(f"{self.url}/{key}", "rb") as file:  # noqa: PTH123
                yield file
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise MissingObjectError(f"no {key} in {self.url}") from error
        except OSError as error:
            raise self._away(error) from error

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        """Raise a disk's errors as the store's; a file where a directory is wanted is a nested key."""
        try:
            yield
        except OSError as error:
            if error.errno in _NESTED:
                raise UsageError(f"{key}: a key below this one, or above it, is in {self.url}") from error
            if error.errno == errno.ENAMETOOLONG:
                raise UsageError(f"{key}: too long a name for the file system of {self.url}") from error
            raise self._away(error) from error

    def _away(self, error: OSError) -> StoreAwayError:
        """Return the store's error for one of its disk."""
        return StoreAwayError(str(disk_error(error, self.url)))


def _version(data: bytes) -> str:
    """Return the content's SHA-256: equal bytes have equal versions."""
    return hashlib.sha256(data).hexdigest()


def _raise_unless_gone(error: OSError) -> None:
    """Let a walk go on where a directory was removed meanwhile."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
