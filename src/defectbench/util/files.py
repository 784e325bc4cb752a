"""Files that appear whole or not at all, locks between processes, and what the disk's errors mean."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from defectbench.errors import ConfigurationError, TryAgainError

LOCK_PATIENCE = 120.0
"""Seconds after which a lock that nobody gives back is reported."""

STALE = 3600.0
"""Seconds since its last write after which a draft is taken for a killed writer's."""

_CHUNK = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM}


def disk_error(error: OSError, place: str | Path) -> TryAgainError:
    """Say what an error of the disk means and what to do, naming ``place``."""
    if error.errno in _FULL:
        return TryAgainError(f"{place}: the disk is full; free some room, then run the same command again")
    if error.errno == errno.EROFS:
        return TryAgainError(
            f"{place}: the disk is read-only; make it writable or name another place, "
            "then run the same command again"
        )
    if error.errno in _FORBIDDEN:
        return TryAgainError(
            f"{place}: this user may not do that here; change the rights or name another place, "
            "then run the same command again"
        )
    reason = error.strerror or type(error).__name__
    return TryAgainError(f"{place}: the disk answers {reason!r}; mend it, then run the same command again")


@contextlib.contextmanager
def disk_errors(place: str | Path) -> Iterator[None]:
    """Turn every OSError inside into a :class:`TryAgainError` that names ``place``."""
    try:
        yield
    except OSError as error:
        raise disk_error(error, place) from error


@contextlib.contextmanager
def locked(path: Path, patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Hold the lock file ``path`` alone among threads and processes; its directory is made.

    The file stays: removing a lock that others wait for would split them.

    Args:
        patience: seconds to wait for it; 0 tries once.

    Raises:
        OSError: it cannot be made.
        TryAgainError: somebody held it all the time.
        ConfigurationError: the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock: BaseFileLock = FileLock(path)
    try:
        lock.acquire(timeout=patience, poll_interval=0.005)
    except Timeout as error:
        raise TryAgainError(
            f"{path}: another process has held this lock for {patience:.0f} s; try again later"
        ) from error
    try:
        if isinstance(lock, SoftFileLock):  # what filelock turns itself into without flock: not exact
            raise ConfigurationError(f"{path}: this file system has no file locks; name a place that has")
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def draft_path(directory: Path) -> Iterator[Path]:
    """Give a free hidden name in ``directory``; what still lies there when the block ends is removed."""
    path = directory / f".{os.urandom(12).hex()}.part"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def remove_stale_drafts(directory: Path) -> None:
    """Remove the drafts that killed writers left in ``directory``."""
    oldest = time.time() - STALE
    for path in directory.glob(".*.part"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def copy_synced(source: BinaryIO, path: Path) -> None:
    """Copy to a new file in bounded memory; when this returns, it is on the disk."""
    with path.open("xb") as file:
        shutil.copyfileobj(source, file, _CHUNK)
        file.flush()
        os.fsync(file.fileno())


def move_into_place(source: Path, target: Path) -> None:
    """Give a finished draft its name at once, over an older file; makes the directory."""
    for _ in range(100):
        target.parent.mkdir(parents=True, exist_ok=True)
        # Somebody may remove the empty directory between the two calls.
        with contextlib.suppress(FileNotFoundError):
            source.replace(target)
            _sync_directory(target.parent)
            return
        if not source.exists():
            break
    raise OSError(errno.EBUSY, "the draft or its directory went away", str(target))


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Give a new file to write; it takes the name ``path`` when the block ends, and goes when it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with draft_path(path.parent) as part:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        move_into_place(part, path)


@contextlib.contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Give a new folder to fill; it takes ``path``'s place when the block ends, and goes when it raises."""
    # Random, because a process's number is no name: two containers may have the same one.
    draft = path.parent / f".{path.name}.{os.urandom(6).hex()}.part"
    draft.mkdir(parents=True)
    older = draft.with_suffix(".old")
    try:
        yield draft
        if os.path.lexists(path):  # a link that leads nowhere is in the way too
            path.replace(older)
        draft.replace(path)
        _sync_directory(path.parent)
    finally:
        remove(draft)
        remove(older)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all in it; nothing happens where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    # Makes the new name last through a power cut; some network disks cannot.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
