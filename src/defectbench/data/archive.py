"""Data sets in the store: one manifest and one content-addressed tar for each category."""

from __future__ import annotations

import hashlib
import io
import tarfile
import tempfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from defectbench.data.check import CheckReport, check, mvtec_categories
from defectbench.data.intensity import AUTO
from defectbench.data.layouts import NO_WISHES, Source, Wishes, read_layout
from defectbench.data.manifest import GOOD, UNKNOWN_LABEL, Image, Manifest, make_manifest
from defectbench.data.mask_checks import united
from defectbench.data.names import check_name, is_name
from defectbench.data.opened import Fact
from defectbench.data.orientation import MVTEC_AD, check_declared
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.publication import hidden, publish, visible
from defectbench.data.resolution import DefectWidths
from defectbench.data.resolution import keep as keep_widths
from defectbench.data.shortcut import Shortcut
from defectbench.data.unpacked import digests, sha256_of, unpack
from defectbench.errors import DataError, MissingInputError, nearest
from defectbench.stores.base import Store
from defectbench.stores.layout import DATASETS, MANIFEST, archive_key, dataset_key, manifest_key, shortcut_key
from defectbench.util.files import disk_errors
from defectbench.util.image_io import is_plain_mask, mask_png

__all__ = ["find_shortcut", "import_dataset", "list_categories", "list_datasets", "load_manifest", "unpack"]


def import_dataset(
    source: Path,
    store: Store,
    *,
    name: str | None = None,
    layout: str | None = None,
    follow_links: bool = False,
    wishes: Wishes = NO_WISHES,
    accept_duplicates: bool = False,
    intensity: str = AUTO,
    any_orientation: Collection[str] = (),
    progress: ProgressCallback = no_progress,
    report: Callable[[CheckReport], None] = lambda report: None,
) -> list[Manifest]:
    """Check the data set, put every category into the store, and return their manifests, sorted by category.

    All categories appear, or none: an import that is killed or finds the store full leaves nothing that can
    be seen, and the same command completes it. What the store has already is read and, where it is damaged,
    written again. A picture is stored byte for byte; a mask too if it is a PNG of 0 and 255, else as such a
    PNG.

    Args:
        source: folder of the data set.
        name: of the data set in the store; the folder's name by default.
        layout: its name, or None to recognise it.
        follow_links: read what links out of the folder lead to as well.
        wishes: groups, and the share of goods that is tested.
        accept_duplicates: copies of one picture under two labels are a note and no problem.
        intensity: ``auto`` or ``window:LOW,HIGH``: the scale of grey of more than 8 bits.
        any_orientation: categories whose parts come in any orientation; of MVTec AD's own it is known.
        report: called with what the check found, before anything is written.

    Raises:
        DataError: the check found problems: all of them; nothing is imported.
        UsageError: ``any_orientation`` names no category, or a name has characters other than letters,
            digits, ``.``, ``_`` and ``-``; or ``intensity`` is neither.
        MissingInputError: no such folder.
        TryAgainError: the disk or the store is full or out of reach.
    """
    reading = read_layout(source, layout, follow_links=follow_links, wishes=wishes)
    dataset = check_name(name or reading.root.name, "data set")
    check_declared(any_orientation, reading.categories)
    found = check(reading, progress, intensity, accept_duplicates=accept_duplicates)
    report(found)
    if found.problems:
        raise DataError(found.problems)
    rotated = {*any_orientation, *(mvtec_categories(found) & MVTEC_AD)}
    packs = [_pack(found, dataset, category, category in rotated) for category in reading.categories]
    for done, pack in enumerate(packs):
        progress("storing", done, len(packs))
        _store(pack, store)
        _store_shortcut(pack.manifest, found.shortcuts.get(pack.manifest.category), store)
        keep_widths(pack.manifest, DefectWidths(found.widths[pack.manifest.category]), store)
    manifests = [pack.manifest for pack in packs]
    publish(manifests, store)
    progress("storing", len(packs), len(packs))
    return manifests


@dataclass(frozen=True, slots=True)
class _Pack:
    """A manifest and where the bytes of its files come from."""

    manifest: Manifest
    files: dict[str, Path | bytes]


def _pack(report: CheckReport, dataset: str, category: str, any_orientation: bool) -> _Pack:
    images: list[Image] = []
    contents: dict[str, Path | bytes] = {}
    ids: dict[Path, str] = {}
    for source in (*report.reading.sources, *report.reading.uncertain):
        if source.category == category and source.file not in report.left_out:
            mask = _mask_content(source)
            images.append(_image(source, report.facts[source.file], mask, report.groups.get(source.file)))
            contents[source.path], ids[source.file] = source.file, source.id
            if mask is not None:
                contents[source.mask_path] = mask
    manifest = make_manifest(dataset, category, images, report.intensity)
    accepted = tuple((ids[one], ids[two]) for one, two in report.accepted_duplicates if one in ids)
    return _Pack(replace(manifest, any_orientation=any_orientation, accepted_duplicates=accepted), contents)


def _image(source: Source, fact: Fact, mask: Path | bytes | None, group: str | None) -> Image:
    return Image(
        id=source.id,
        path=source.path,
        sha256=fact.sha256,
        part=source.part,
        label=UNKNOWN_LABEL if source.uncertain else int(source.defect_type != GOOD),
        defect_type=source.defect_type,
        width=fact.width,
        height=fact.height,
        mask=None if mask is None else source.mask_path,
        mask_sha256=None if mask is None else sha256_of(mask),
        group=group,
    )


def _mask_content(source: Source) -> Path | bytes | None:
    """Return the mask's own file where it is one PNG of 0 and 255, else such a PNG of all its masks."""
    if not source.masks or source.defect_type == GOOD:
        return None
    first, *others = source.masks
    if isinstance(first, Path) and not others and is_plain_mask(first):
        return first
    return mask_png(united(source.masks))


def _store(pack: _Pack, store: Store) -> None:
    """Put the tar, unless the store has it and its bytes are right."""
    manifest = pack.manifest
    key = archive_key(manifest.dataset, manifest.category, manifest.digest)
    with disk_errors(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        path, there = Path(folder) / "pack.tar", Path(folder) / "there.tar"
        _write_tar(pack, path)
        if key in store.keys(key):
            store.download(key, there)
            if sha256_of(there) == sha256_of(path):
                return
        store.upload(key, path)


def pack_again(manifest: Manifest, files: dict[str, Path | bytes], path: Path) -> None:
    """Write a category's tar anew.

    Args:
        files: path in the archive -> contents, all that the manifest names.
    """
    _write_tar(_Pack(manifest, files), path)


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
    wanted = digests(pack.manifest)
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


# --- reading back


def list_datasets(store: Store) -> list[str]:
    """Return the sorted names of the data sets in the store."""
    return sorted({dataset for dataset, _ in visible(store, DATASETS)})


def list_categories(store: Store, dataset: str) -> list[str]:
    """Return the sorted names of a data set's categories.

    Raises:
        MissingInputError: no such data set; names those that are there.
    """
    seen = visible(store, dataset_key(dataset)) if is_name(dataset) else set()
    found = sorted(category for _, category in seen)
    if not found:
        _check_ended(store, dataset)
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
        _check_ended(store, dataset, category)
        raise MissingInputError(_not_there(f"category of {dataset}", category, store, names))
    return Manifest.from_json(store.get(manifest_key(dataset, category)).data)


def _check_ended(store: Store, dataset: str, category: str | None = None) -> None:
    """Say it where an import of the data set, or of the category, has not ended."""
    if not is_name(dataset):
        return
    names = sorted(name for _, name in hidden(store, store.keys(dataset_key(dataset))))
    if names and category in (None, *names):
        raise MissingInputError(
            f"{dataset} in {store.url}: an import of {', '.join(names)} has not ended: run the same "
            "`defectbench data import` again"
        )


def _not_there(what: str, got: str, store: Store, names: list[str]) -> str:
    if not names:
        return f"no {what} {got!r} in {store.url}: it holds no data set; run: defectbench data import"
    return f"no {what} {got!r} in {store.url}; {nearest(got, names)}"
