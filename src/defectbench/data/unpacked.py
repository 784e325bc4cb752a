"""A category's archive unpacked on this machine: fetched once, verified, mended where it is damaged."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.stores.base import Store
from defectbench.stores.layout import MANIFEST, archive_key
from defectbench.util.documents import LARGEST, read_json, typed
from defectbench.util.files import disk_errors, locked, remove

_INDEX = ".index.json"
_CHUNK = 1 << 20
_log = logging.getLogger(__name__)


def sha256_of(content: Path | bytes) -> str:
    """Return the SHA-256 (hex) of bytes or of a file."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(manifest: Manifest) -> dict[str, str]:
    """Return path -> SHA-256 for every file of the archive but manifest.json."""
    found = {image.path: image.sha256 for image in manifest.images}
    found.update({i.mask: i.mask_sha256 for i in manifest.images if i.mask and i.mask_sha256})
    return found


def unpack(store: Store, dataset: str, category: str, digest: str, cache: Path) -> Path:
    """Return a local folder with the category's files under their paths, and ``manifest.json``.

    The first call fetches the tar and verifies every file; the folder appears whole. Later calls only
    compare sizes and times of the files, and hash what changed; where one is damaged or lacking, the tar
    is fetched again.

    Args:
        digest: of the manifest; older ones than the store's newest can be had as well.
        cache: folder of this machine, shared by any number of processes.

    Raises:
        MissingInputError: no such archive in the store.
        DataError: the archive in the store is damaged.
        TryAgainError: the disk is full, or the store out of reach.
    """
    target = cache / "datasets" / digest
    with disk_errors(cache):
        if not _is_unpacked(target, digest):
            with locked(cache / "datasets" / f"{digest}.lock"):
                if not _is_unpacked(target, digest):
                    _fetch(store, archive_key(dataset, category, digest), digest, target)
    return target


def forget(folder: Path) -> None:
    """Have the next :func:`unpack` verify the folder by its contents: a file in it is not what it was."""
    with contextlib.suppress(OSError):
        (folder / _INDEX).unlink()


def _fetch(store: Store, key: str, digest: str, target: Path) -> None:
    """Download, extract and verify beside ``target``, then give the folder its name, or mend it in place."""
    draft = target.with_name(f".{target.name}")
    remove(draft)  # a killed process's; we hold the lock
    draft.mkdir(parents=True)
    try:
        tar = draft / ".tar"
        store.download(key, tar)
        _extract(tar, key, digest, draft)
        tar.unlink()
        _place(draft, target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(path: Path, key: str, digest: str, target: Path) -> None:
    """Write the members that the manifest names, and no others, to ``target``; verify each."""
    try:
        with tarfile.open(path, "r:") as tar:  # nothing packed: a few bytes of gzip unpack to any size
            manifest = _first_manifest(tar, key, digest)
            wanted = digests(manifest)
            index = {MANIFEST: (_write(io.BytesIO(manifest.to_json()), target / MANIFEST))}
            for member, file in _members(tar):
                if member.name not in wanted or member.name in index:
                    raise DataError(f"{key}: holds {member.name!r}, which its manifest does not name (once)")
                index[member.name] = _write(file, target / member.name)
                if index[member.name] != wanted[member.name]:
                    raise DataError(f"{key}: {member.name} is damaged; import the data set again")
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        raise DataError(f"{key}: not a tar, or a damaged one ({error}); import the data set again") from error
    lacking = sorted(wanted.keys() - index.keys())
    if lacking:
        raise DataError(f"{key}: lacks {lacking[0]} and {len(lacking) - 1} more; import the data set again")
    _write_index(target, index)


def read_archive(path: Path, key: str) -> Manifest:
    """Verify a tar to its last byte and return its manifest.

    Raises:
        DataError: a file of it is damaged, or a byte between them.
    """
    digest = key.rpartition("/")[2].removesuffix(".tar")
    with tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        _extract(path, key, digest, Path(folder))
    # Headers and padding too: the same members written again must give the same bytes.
    sink = _HashSink()
    with tarfile.open(path, "r:") as tar:
        manifest = _first_manifest(tar, key, digest)
    with (
        tarfile.open(path, "r:") as tar,
        tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as again,
    ):
        for member, file in _members(tar):
            info = tarfile.TarInfo(member.name)
            info.size, info.mtime, info.mode = member.size, 0, 0o644
            again.addfile(info, file)
    if sink.digest.hexdigest() != sha256_of(path):
        raise DataError(f"{key}: bytes between its files are damaged; import the data set again")
    return manifest


class _HashSink(io.RawIOBase):
    """Hashes what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = hashlib.sha256()
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        self.digest.update(data)
        self._size += len(data)
        return len(data)


def _first_manifest(tar: tarfile.TarFile, key: str, digest: str) -> Manifest:
    first = tar.next()
    file = tar.extractfile(first) if first is not None and first.isfile() else None
    if first is None or file is None or first.name != MANIFEST:
        raise DataError(f"{key}: does not start with {MANIFEST}; import the data set again")
    if first.issparse() or first.size > LARGEST:
        raise DataError(f"{key}: its {MANIFEST} states {first.size} bytes; import the data set again")
    manifest = Manifest.from_json(file.read())
    if manifest.digest != digest:
        raise DataError(f"{key}: holds the data {manifest.digest[:12]}, not {digest[:12]}; import it again")
    for name in digests(manifest):
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DataError(f"{key}: {name!r} would lie outside the folder")
    return manifest


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    while (member := tar.next()) is not None:
        file = tar.extractfile(member) if member.isfile() else None
        if file is None or member.issparse():
            raise DataError(f"{tar.name!s}: {member.name!r} is no plain file")
        yield member, file


def _write(source: IO[bytes], path: Path) -> str:
    """Write the file and return its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("xb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def _write_index(target: Path, digests: dict[str, str]) -> None:
    entries = {}
    for name, digest in digests.items():
        stat = (target / name).stat()
        entries[name] = [stat.st_size, stat.st_mtime_ns, digest]
    (target / _INDEX).write_text(json.dumps(entries), encoding="utf-8")


def _place(draft: Path, target: Path) -> None:
    """Give the draft its name; over a damaged folder file by file, since others may read there now."""
    if not target.is_dir():
        remove(target)
        draft.replace(target)
        return
    for source in sorted(path for path in draft.rglob("*") if path.is_file() and path.name != _INDEX):
        wanted = target / source.relative_to(draft)
        for parent in reversed(wanted.relative_to(target).parents[:-1]):
            if not (target / parent).is_dir():
                remove(target / parent)
        if wanted.is_dir() and not wanted.is_symlink():
            remove(wanted)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        source.replace(wanted)
    if (target / _INDEX).is_dir():
        remove(target / _INDEX)
    (draft / _INDEX).replace(target / _INDEX)


def _is_unpacked(target: Path, digest: str) -> bool:
    """Whether every file is there and as the index says; one whose size or time differs is hashed."""
    try:
        entries = typed(
            dict[str, tuple[int, int, str]], read_json((target / _INDEX).read_bytes(), _INDEX), _INDEX
        )
        manifest = Manifest.from_json((target / MANIFEST).read_bytes())
        wanted = {MANIFEST: entries[MANIFEST][2], **digests(manifest)}
        bad = [name for name, sha256 in wanted.items() if not _is_whole(target / name, *entries[name])]
        told = [name for name, sha256 in wanted.items() if entries[name][2] != sha256]
    except FileNotFoundError:
        return False
    except (OSError, DataError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        _log.warning("%s is damaged (%s) and will be unpacked again", target, error)
        return False
    if bad or told:
        _log.warning("%s: %s is damaged and will be unpacked again", target, (bad + told)[0])
    return not bad and not told and manifest.digest == digest


def _is_whole(path: Path, size: int, mtime_ns: int, digest: str) -> bool:
    if not path.is_file():
        return False
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns):
        return True
    return stat.st_size == size and sha256_of(path) == digest
