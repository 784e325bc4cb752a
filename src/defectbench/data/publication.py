"""Categories become visible by their manifests: all that one import brings, or none."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Sequence

from defectbench.data.manifest import Manifest, canonical_json
from defectbench.errors import DataError, DefectbenchError
from defectbench.stores.base import Store
from defectbench.stores.layout import MANIFEST, importing_key, is_importing_key, manifest_key
from defectbench.util.documents import read_document, typed, write_document


def publish(manifests: Sequence[Manifest], store: Store) -> None:
    """Put the manifests of one data set, which make its categories visible: all, or none.

    Several of them are named by an object of their own meanwhile, and a category that it names is not seen:
    so a process killed halfway leaves none. A put that fails takes the others back.
    """
    dataset, mine = manifests[0].dataset, {manifest.category for manifest in manifests}
    changed = _changed(manifests, store)
    markers = _unfinished(store, store.keys(importing_key(dataset)))
    ended = {key for key, names in markers.items() if names & mine}
    if len(changed) > 1:
        names = sorted(key.split("/")[2] for key in changed)
        marker = _importing_key(dataset, names)
        store.put(marker, write_document({"categories": names}))
        ended.add(marker)
    try:
        for key, (text, _) in changed.items():
            store.put(key, text)
    except DefectbenchError:
        with contextlib.suppress(DefectbenchError):
            _take_back(changed, store)
            for key in ended - markers.keys():
                store.delete(key)
        raise
    for key in ended:
        store.delete(key)


def _changed(manifests: Sequence[Manifest], store: Store) -> dict[str, tuple[bytes, bytes | None]]:
    """Return key -> new and old text of the manifests that the store does not have."""
    changed = {}
    for manifest in manifests:
        key, text = manifest_key(manifest.dataset, manifest.category), manifest.to_json()
        blob = store.find(key)
        if blob is None or blob.data != text:
            changed[key] = (text, None if blob is None else blob.data)
    return changed


def _take_back(changed: Mapping[str, tuple[bytes, bytes | None]], store: Store) -> None:
    """Put back what was there before, wherever it is there no more."""
    for key, (_, before) in changed.items():
        blob = store.find(key)
        if before is None:
            store.delete(key)
        elif blob is None or blob.data != before:
            store.put(key, before)


def _importing_key(dataset: str, categories: Sequence[str]) -> str:
    name = hashlib.sha256(canonical_json(categories)).hexdigest()[:12]
    return importing_key(dataset, name)


def _unfinished(store: Store, keys: Iterable[str]) -> dict[str, set[str]]:
    """Return the categories of imports that have not ended, by the key of the object that says so."""
    found: dict[str, set[str]] = {}
    for key in keys:
        if is_importing_key(key):
            blob = store.find(key)
            found[key] = _named_categories(blob.data) if blob is not None else set()
    return found


def _named_categories(data: bytes) -> set[str]:
    """Return what :func:`publish` wrote; nothing where it is damaged: then the manifests alone count."""
    try:
        return set(typed(list[str], read_document(data, "import").get("categories"), "import"))
    except DataError:
        return set()


def hidden(store: Store, keys: Iterable[str]) -> set[tuple[str, str]]:
    """Return (data set, category) of what an import that has not ended was to bring."""
    return {(key.split("/")[1], name) for key, names in _unfinished(store, keys).items() for name in names}


def visible(store: Store, prefix: str) -> set[tuple[str, str]]:
    """Return (data set, category) of what has been imported whole."""
    keys = list(store.keys(prefix))
    there = {(key.split("/")[1], key.split("/")[2]) for key in keys if key.endswith(f"/{MANIFEST}")}
    return there - hidden(store, keys)
