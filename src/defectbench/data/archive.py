"""Data sets in the store: one manifest and one content-addressed tar for each category."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from defectbench.data.check import CheckReport, check, mvtec_categories
from defectbench.data.layouts import Source, read_layout
from defectbench.data.manifest import GOOD, Image, Manifest, make_manifest
from defectbench.data.mask_checks import united
from defectbench.data.names import check_name, is_name
from defectbench.data.opened import Fact
from defectbench.data.orientation import MVTEC_AD, check_declared
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.shortcut import Shortcut
from defectbench.errors import DataError, MissingInputError, nearest
from defectbench.stores.base import Store
from defectbench.stores.layout import (
    DATASETS,
    MANIFEST,
    archive_key,
    dataset_key,
    manifest_key,
    second_part,
    shortcut_key,
)
from defectbench.util.files import disk_errors, locked
from defectbench.util.image_io import mask_png

_INDEX = ".index.json"
_CHUNK = 1 << 20


def import_dataset(
    source: Path,
    store: Store,
    *,
    name: str | None = None,
    layout: str | None = None,
    follow_links: bool = False,
    accept_duplicates: bool = False,
    any_orientation: Collection[str] = (),
    progress: ProgressCallback = no_progress,
    report: Callable[[CheckReport], None] = lambda report: None,
) -> list[Manifest]:
    """Check the data set, put every category into the store, and return their manifests, sorted by category.

    What the store has already is not written again. A picture is stored byte for byte; a mask too if it is
    a PNG of 0 and 255, else as such a PNG.

    Args:
        source: folder of the data set.
        name: of the data set in the store; the folder's name by default.
        layout: its name, or None to recognise it.
        follow_links: read what links out of the folder lead to as well.
        accept_duplicates: copies of one picture under two labels are a note and no problem.
        any_orientation: categories whose parts come in any orientation; of MVTec AD's own it is known.
        report: called with what the check found, before anything is written.

    Raises:
        DataError: the check found problems: all of them; nothing is imported.
        UsageError: ``any_orientation`` names no category, or a name has characters other than letters,
            digits, ``.``, ``_`` and ``-``.
        MissingInputError: no such folder.
        TryAgainError: the disk or the store is full or out of reach.
    """
    reading = read_layout(source, layout, follow_links=follow_links)
    dataset = check_name(name or reading.root.name, "data set")
    check_declared(any_orientation, reading.categories)
    found = check(reading, progress, accept_duplicates=accept_duplicates)
    report(found)
    if found.problems:
        raise DataError(found.problems)
    rotated = {*any_orientation, *(mvtec_categories(found) & MVTEC_AD)}
    packs = [_pack(found, dataset, category, category in rotated) for category in reading.categories]
    for done, pack in enumerate(packs):
        progress(f"storing {pack.manifest.category}", done, len(packs))
        _store(pack, store)
        _store_shortcut(pack.manifest, found.shortcuts.get(pack.manifest.category), store)
    progress("storing", len(packs), len(packs))
    return [pack.manifest for pack in packs]


@dataclass(frozen=True, slots=True)
class _Pack:
    """A manifest and where the bytes of its files come from."""

    manifest: Manifest
    files: dict[str, Path | bytes]


def _pack(report: CheckReport, dataset: str, category: str, any_orientation: bool) -> _Pack:
    images: list[Image] = []
    contents: dict[str, Path | bytes] = {}
    for source in report.reading.sources:
        if source.category == category and source.file not in report.left_out:
            mask = _mask_content(source)
            images.append(_image(source, report.facts[source.file], mask))
            contents[source.path] = source.file
            if mask is not None:
                contents[source.mask_path] = mask
    manifest = replace(make_manifest(dataset, category, images), any_orientation=any_orientation)
    return _Pack(manifest, contents)


def _image(source: Source, fact: Fact, mask: Path | bytes | None) -> Image:
    return Image(
        id=source.id,
        path=source.path,
        sha256=fact.sha256,
        part=source.part,
        label=int(source.defect_type != GOOD),
        defect_type=source.defect_type,
        width=fact.width,
        height=fact.height,
        mask=None if mask is None else source.mask_path,
        mask_sha256=None if mask is None else _sha256(mask),
    )


def _mask_content(source: Source) -> Path | bytes | None:
    """Return the mask's own file where it is one PNG of 0 and 255, else such a PNG of all its masks."""
    if not source.masks or source.defect_type == GOOD:
        return None
    first, *others = source.masks
    if isinstance(first, Path) and not others and _is_plain(first):
        return first
    return mask_png(united(source.masks))


def _is_plain(mask: Path) -> bool:
    from PIL import Image as PillowImage

    with PillowImage.open(mask) as image:
        turned = image.getexif().get(0x0112, 1) != 1 or image.has_transparency_data
        if image.format != "PNG" or image.mode not in ("1", "L") or turned:
            return False
        return image.mode == "1" or {value for _, value in image.getcolors(256) or ()} <= {0, 255}


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _store(pack: _Pack, store: Store) -> None:
    """Put the tar, then the manifest: a manifest in the store means that its tar is there."""
    manifest = pack.manifest
    key = archive_key(manifest.dataset, manifest.category, manifest.digest)
    text = manifest.to_json()
    where = manifest_key(manifest.dataset, manifest.category)
    there = key in store.keys(key)
    if not there:
        with disk_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
            path = Path(folder) / "pack.tar"
            _write_tar(pack, path)
            store.upload(key, path)
    blob = store.find(where)
    if blob is None or blob.data != text:
        store.put(where, text)


def _store_shortcut(manifest: Manifest, found: Shortcut | None, store: Store) -> None:
    """Keep what the check measured, for the report."""
    key = shortcut_key(manifest.dataset, manifest.category, manifest.digest)
    if found is not None and store.find(key) is None:
        store.put(key, found.to_json())


def find_shortcut(store: Store, dataset: str, category: str, digest: str) -> Shortcut | None:
    """Return what the import measured of a category's data; None where it could not, or an older one did not.

    Raises:
        DataError: what is kept is damaged.
    """
    blob = store.find(shortcut_key(dataset, category, digest))
    return None if blob is None else Shortcut.from_json(blob.data)


def _write_tar(pack: _Pack, path: Path) -> None:
    """Write manifest.json, then the files by path; the same bytes for the same content, whoever runs it."""
    wanted = _digests(pack.manifest)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, MANIFEST, pack.manifest.to_json())
        for name, content in sorted(pack.files.items()):
            data = content if isinstance(content, bytes) else content.read_bytes()
            if hashlib.sha256(data).hexdigest() != wanted[name]:
                raise DataError(
                    f"{content if isinstance(content, Path) else name}: changed while it was imported"
                )
            _add(tar, name, data)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), 0, 0o644
    tar.addfile(info, io.BytesIO(data))


def _digests(manifest: Manifest) -> dict[str, str]:
    """Return path -> SHA-256 for every file of the archive but manifest.json."""
    found = {image.path: image.sha256 for image in manifest.images}
    found.update({i.mask: i.mask_sha256 for i in manifest.images if i.mask and i.mask_sha256})
    return found


# --- reading back


def list_datasets(store: Store) -> list[str]:
    """Return the sorted names of the data sets in the store."""
    return sorted({second_part(key) for key in store.keys(DATASETS) if key.endswith(f"/{MANIFEST}")})


def list_categories(store: Store, dataset: str) -> list[str]:
    """Return the sorted names of a data set's categories.

    Raises:
        MissingInputError: no such data set; names those that are there.
    """
    keys = store.keys(dataset_key(dataset)) if is_name(dataset) else ()
    found = sorted({key.split("/")[2] for key in keys if key.endswith(f"/{MANIFEST}")})
    if not found:
        raise MissingInputError(_not_there("data set", dataset, store, list_datasets(store)))
    return found


def load_manifest(store: Store, dataset: str, category: str) -> Manifest:
    """Return the manifest of a category.

    Raises:
        MissingInputError: no such data set or category; names those that are there.
        DataError: what the store has is no manifest.
    """
    names = list_categories(store, dataset)
    if category not in names:
        raise MissingInputError(_not_there(f"category of {dataset}", category, store, names))
    return Manifest.from_json(store.get(manifest_key(dataset, category)).data)


def _not_there(what: str, got: str, store: Store, names: list[str]) -> str:
    if not names:
        return f"no {what} {got!r} in {store.url}: it holds no data set; run: defectbench data import"
    return f"no {what} {got!r} in {store.url}; {nearest(got, names)}"


def unpack(store: Store, dataset: str, category: str, digest: str, cache: Path) -> Path:
    """Return a local folder with the category's files under their paths, and ``manifest.json``.

    The first call fetches the tar and verifies every file; the folder appears whole. Later calls only
    compare sizes and times of the files, and hash what changed.

    Args:
        digest: of the manifest; older ones than the store's newest can be had as well.
        cache: folder of this machine, shared by any number of processes.

    Raises:
        MissingInputError: no such archive in the store.
        DataError: the archive, or the folder in the cache, is damaged.
        TryAgainError: the disk is full, or the store out of reach.
    """
    target = cache / "datasets" / digest
    with disk_errors(cache):
        if not (target / _INDEX).is_file():
            with locked(cache / "datasets" / f"{digest}.lock"):
                if not (target / _INDEX).is_file():
                    _fetch(store, archive_key(dataset, category, digest), digest, target)
        _verify_cache(target)
    return target


def _fetch(store: Store, key: str, digest: str, target: Path) -> None:
    """Download, extract and verify beside ``target``, then give the folder its name."""
    draft = target.with_name(f".{target.name}")
    shutil.rmtree(draft, ignore_errors=True)  # a killed process's; we hold the lock
    shutil.rmtree(target, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        tar = draft / ".tar"
        store.download(key, tar)
        _extract(tar, key, digest, draft)
        tar.unlink()
        draft.replace(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _extract(path: Path, key: str, digest: str, target: Path) -> None:
    """Write the members that the manifest names, and no others, to ``target``; verify each."""
    try:
        with tarfile.open(path) as tar:
            manifest = _first_manifest(tar, key, digest)
            wanted = _digests(manifest)
            index = {MANIFEST: (_write(io.BytesIO(manifest.to_json()), target / MANIFEST))}
            for member, file in _members(tar):
                if member.name not in wanted or member.name in index:
                    raise DataError(f"{key}: holds {member.name!r}, which its manifest does not name (once)")
                index[member.name] = _write(file, target / member.name)
                if index[member.name] != wanted[member.name]:
                    raise DataError(f"{key}: {member.name} is damaged; import the data set again")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{key}: not a tar, or a damaged one ({error}); import the data set again") from error
    lacking = sorted(wanted.keys() - index.keys())
    if lacking:
        raise DataError(f"{key}: lacks {lacking[0]} and {len(lacking) - 1} more; import the data set again")
    _write_index(target, index)


def _first_manifest(tar: tarfile.TarFile, key: str, digest: str) -> Manifest:
    first = tar.next()
    file = tar.extractfile(first) if first is not None and first.isfile() else None
    if first is None or file is None or first.name != MANIFEST:
        raise DataError(f"{key}: does not start with {MANIFEST}; import the data set again")
    manifest = Manifest.from_json(file.read())
    if manifest.digest != digest:
        raise DataError(f"{key}: holds the data {manifest.digest[:12]}, not {digest[:12]}; import it again")
    for name in _digests(manifest):
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise DataError(f"{key}: {name!r} would lie outside the folder")
    return manifest


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    while (member := tar.next()) is not None:
        file = tar.extractfile(member) if member.isfile() else None
        if file is None:
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


def _verify_cache(target: Path) -> None:
    """Compare every file with the index; one whose size or time differs is hashed."""
    try:
        entries = json.loads((target / _INDEX).read_text(encoding="utf-8"))
        bad = [name for name, entry in entries.items() if not _is_whole(target / name, *entry)]
    except (ValueError, TypeError) as error:
        raise DataError(f"{target}: its index is damaged; remove the folder and run again") from error
    if bad:
        raise DataError(
            [f"{target / name}: damaged in the cache; remove {target} and run again" for name in bad]
        )


def _is_whole(path: Path, size: int, mtime_ns: int, digest: str) -> bool:
    if not path.is_file():
        return False
    stat = path.stat()
    if (stat.st_size, stat.st_mtime_ns) == (size, mtime_ns):
        return True
    return stat.st_size == size and _sha256(path) == digest
