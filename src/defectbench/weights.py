"""Pretrained weights in the store: ``weights/<name>/<sha256>``. Nothing here asks a hub."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from defectbench.catalog import Entry
from defectbench.errors import MissingInputError, MissingWeightsError
from defectbench.stores.base import Store

_CHUNK = 1 << 20


def digest_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def resolve(entry: Entry, kind: str, store: Store) -> dict[str, str]:
    """Return weights' name -> SHA-256 for a model under the sweep's ``weights``.

    Args:
        kind: ``none``, ``pretrained`` or a file, whose weights take the place of the model's first.

    Raises:
        MissingWeightsError: the store lacks them, or the file is not there; says how to bring them.
    """
    if kind == "none" or not entry.weights:
        return {}
    if kind != "pretrained":
        path = Path(kind)
        if not path.is_file():
            raise MissingWeightsError(f"{entry.name}: weights {kind!r}: allowed: none, pretrained, or a file")
        return {entry.weights[0].name: digest_of(path)}
    return {weights.name: _only(entry, weights.name, store) for weights in entry.weights}


def _only(entry: Entry, name: str, store: Store) -> str:
    """Return the digest of the one file under the weights' name."""
    digests = [key.rsplit("/", 1)[1] for key in store.keys(f"weights/{name}/")]
    if len(digests) == 1:
        return digests[0]
    if not digests:
        raise MissingWeightsError(
            f"{entry.name} needs the weights {name}, which {store.url} does not have: bring the file with "
            f"`defectbench weights push {name} FILE`, or say `weights: none` for random ones"
        )
    raise MissingWeightsError(
        f"{entry.name}: {store.url} has {len(digests)} files of the weights {name}: name one by "
        f"`weights: FILE`, or remove the others of {', '.join(sorted(digests))}"
    )


def push(store: Store, name: str, path: Path) -> str:
    """Put a file into the store under the weights' name; nothing happens where it is. Return its SHA-256.

    Raises:
        MissingInputError: there is no such file.
    """
    if not path.is_file():
        raise MissingInputError(f"no such weights file: {path}")
    digest = digest_of(path)
    key = f"weights/{name}/{digest}"
    if key not in set(store.keys(key)):
        store.upload(key, path)
    return digest


def fetch(store: Store, weights: Mapping[str, str], cache: Path) -> dict[str, Path]:
    """Return weights' name -> local file, downloaded once and checked against its SHA-256.

    Raises:
        MissingWeightsError: the store lacks a file, or what it has is damaged.
    """
    return {name: _fetch(store, name, digest, cache) for name, digest in weights.items()}


def _fetch(store: Store, name: str, digest: str, cache: Path) -> Path:
    path = cache / "weights" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(path.name + ".lock")):
        if path.is_file():
            return path
        partial = path.with_name(path.name + ".partial")
        try:
            store.download(f"weights/{name}/{digest}", partial)
        except MissingInputError as error:
            raise MissingWeightsError(f"weights {name} {digest[:12]} are not in {store.url}") from error
        got = digest_of(partial)
        if got != digest:
            partial.unlink()
            raise MissingWeightsError(
                f"weights {name} in {store.url} are damaged: {got[:12]}, not {digest[:12]}"
            )
        partial.replace(path)
    return path
