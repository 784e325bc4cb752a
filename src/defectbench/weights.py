"""Weights in the store: ``weights/<name>/<sha256>``. Nothing here asks a hub.

Published weights have timm's full name; a user's own file, which takes their place in one sweep, lies under
``file-<name>``, so that ``pretrained`` never meets it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from defectbench.catalog import Entry, Setting
from defectbench.errors import MissingInputError, MissingWeightsError, TryAgainError
from defectbench.files import disk_errors, draft, locked, move, sweep
from defectbench.stores.base import Store

FETCH_PATIENCE = 3600.0
"""Seconds to wait for another process that downloads the same file."""

_CHUNK = 1 << 20
_FILE = "file-"


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
        kind: ``none``, ``pretrained`` or a file, whose weights take the place of the model's first.

    Raises:
        MissingWeightsError: the store lacks them, or the file is not there; says how to bring them.
    """
    names = needed(entry, settings)
    if kind == "none" or not names:
        return {}
    if kind == "pretrained":
        return {name: _only(entry, name, store) for name in names}
    path = Path(kind)
    if not path.is_file():
        raise MissingWeightsError(f"{entry.name}: weights {kind!r}: allowed: none, pretrained, or a file")
    with disk_errors(path):
        return {_FILE + names[0]: digest_of(path)}


def _only(entry: Entry, name: str, store: Store) -> str:
    """Return the digest of the one file under the weights' name."""
    digests = [key.rsplit("/", 1)[1] for key in store.keys(f"weights/{name}/")]
    if len(digests) == 1:
        return digests[0]
    if digests:
        raise MissingWeightsError(
            f"{entry.name}: {store.url} has {len(digests)} files of the weights {name}: name one by "
            f"`weights: FILE`, or remove the others of {', '.join(sorted(digests))}"
        )
    if not is_full_name(name):
        raise MissingWeightsError(
            f"{entry.name}: {name!r} names a network but not its weights: say timm's full name, as in "
            "resnet18.tv_in1k, or `weights: none` for random ones"
        )
    raise MissingWeightsError(
        f"{entry.name} needs the weights {name}, which {store.url} does not have: bring the file with "
        f"`defectbench weights push {name} FILE`, or say `weights: none` for random ones"
    )


def is_full_name(name: str) -> bool:
    """Whether a name has the form of timm's full names: a network and a tag for its weights.

    >>> is_full_name("resnet18.tv_in1k"), is_full_name("resnet18")
    (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+", name) is not None


def push(store: Store, name: str, path: Path) -> str:
    """Put a file into the store under the weights' name; nothing happens where it is. Return its SHA-256.

    Raises:
        MissingInputError: there is no such file.
    """
    if not path.is_file():
        raise MissingInputError(f"no such weights file: {path}")
    with disk_errors(path):
        digest = digest_of(path)
    _upload(store, name, digest, path)
    return digest


def push_file(store: Store, weights: Mapping[str, str], path: Path) -> None:
    """Put the file of ``weights: FILE`` into the store under the name that :func:`resolve` gave it.

    Raises:
        TryAgainError: it is no longer the file that was resolved.
    """
    for name, digest in weights.items():
        with disk_errors(path):
            got = digest_of(path)
        if got != digest:
            raise TryAgainError(f"{path} was changed since the sweep was planned: run the same command again")
        _upload(store, name, digest, path)


def _upload(store: Store, name: str, digest: str, path: Path) -> None:
    key = f"weights/{name}/{digest}"
    if key not in set(store.keys(key)):
        store.upload(key, path)


def fetch(store: Store, weights: Mapping[str, str], cache: Path) -> dict[str, Path]:
    """Return weights' name -> local file, downloaded once and checked against its SHA-256.

    A user's file comes under the name of the weights whose place it takes.

    Raises:
        MissingWeightsError: the store lacks a file, or what it has is damaged.
        TryAgainError: the cache is full or cannot be written, or another process downloads for an hour.
    """
    return {name.removeprefix(_FILE): _fetch(store, name, digest, cache) for name, digest in weights.items()}


def _fetch(store: Store, name: str, digest: str, cache: Path) -> Path:
    path = cache / "weights" / digest
    with disk_errors(path):
        if path.is_file():
            return path
        with locked(path.with_name(f"{digest}.lock"), FETCH_PATIENCE):
            if not path.is_file():
                sweep(path.parent)
                with draft(path.parent) as part:
                    _download(store, name, digest, part)
                    move(part, path)
    return path


def _download(store: Store, name: str, digest: str, part: Path) -> None:
    """Bring the file to ``part``; raise MissingWeightsError unless it is the one that is meant."""
    try:
        store.download(f"weights/{name}/{digest}", part)
    except MissingInputError as error:
        raise MissingWeightsError(f"weights {name} {digest[:12]} are not in {store.url}") from error
    got = digest_of(part)
    if got != digest:
        raise MissingWeightsError(f"weights {name} in {store.url} are damaged: {got[:12]}, not {digest[:12]}")
