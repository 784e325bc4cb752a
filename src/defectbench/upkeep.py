"""A store looked through: what is damaged, what heals it, what nothing refers to any more."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from defectbench.data.archive import pack_again
from defectbench.data.manifest import Manifest
from defectbench.data.resolution import DefectWidths
from defectbench.data.shortcut import Shortcut
from defectbench.data.unpacked import digests, read_archive, sha256_of
from defectbench.errors import CheckpointError, DataError, MissingInputError
from defectbench.execution.checkpoints import Pointer
from defectbench.records.cell import Cell
from defectbench.records.lease import LeaseRecord, read_lease
from defectbench.records.predictions import Predictions
from defectbench.records.result import Failure, find_result, read_verified
from defectbench.records.sweep_record import Record, read_record
from defectbench.stores.base import Store
from defectbench.stores.layout import (
    CELLS,
    CHECKPOINT,
    DATASETS,
    FAILURE,
    LEASE,
    LOG,
    MANIFEST,
    RESULT,
    SPEC,
    SWEEPS,
    TRACKING,
    WEIGHTS,
    cell_key,
    is_importing_key,
    manifest_key,
    second_part,
)
from defectbench.tables.collect import collect, views_file
from defectbench.trackers.run_registry import read_references
from defectbench.util.documents import read_document

_AGAIN = "`defectbench run` or `retry` fits the cell again"
_IMPORT = "`defectbench store repair --from FOLDER`, or import the data set again"
_MANIFEST_REMEDY = "`defectbench store repair` takes it from its archive, or import the data set again"
_FILE_WEIGHTS = "file-"
_PREFIXES = (DATASETS, WEIGHTS, CELLS, SWEEPS, TRACKING)


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged object of the store.

    Attributes:
        remedy: what heals it.
        removable: it is of no use as it is, and what makes it anew does so once it is away.
    """

    key: str
    problem: str
    remedy: str
    removable: bool = False


def verify(store: Store) -> Iterator[Damage]:
    """Yield all that is damaged, key by key. Reads every object once; changes nothing."""
    # Beside ours may lie MLflow's database and its files, or a report.
    keys = [key for prefix in _PREFIXES for key in store.keys(prefix)]
    for key in keys:
        yield from _verify_one(store, key)
    for name in sorted({second_part(key) for key in keys if key.startswith(CELLS)}):
        yield from _verify_cell(store, name)


def findings_about(store: Store, key: str) -> Iterator[Damage]:
    """Yield what :func:`verify` finds of one object, and of the cell that it belongs to."""
    yield from _verify_one(store, key)
    if key.startswith(CELLS):
        yield from _verify_cell(store, second_part(key))


def _verify_one(store: Store, key: str) -> Iterator[Damage]:
    """Check an object by itself."""
    check, remedy, removable = _check_of(key)
    if check is None:
        yield Damage(key, "no object of a store", "remove it, if nobody needs it")
        return
    try:
        check(store, key)
    except (DataError, CheckpointError, MissingInputError) as error:
        yield Damage(key, str(error), remedy, removable)


_Check = Callable[[Store, str], object]


def _check_of(key: str) -> tuple[_Check | None, str, bool]:
    """Return what checks an object, what heals it, and whether it may be removed for that."""
    parts = key.split("/")
    name = parts[-1]
    if key.startswith(CELLS) and len(parts) >= 3:
        return _cell_check(parts)
    if key.startswith(SWEEPS):
        if len(parts) == 2:
            return _check_record, "run or plan the sweep again", False
        return _check_views, "`defectbench report` or `track` writes it anew", True
    if key.startswith(TRACKING):
        return read_references, "`defectbench track` writes it anew, into new runs", True
    if key.startswith(WEIGHTS) and len(parts) == 3:
        return _check_weights, "`defectbench weights push` brings it again", True
    if key.startswith(DATASETS):
        if is_importing_key(key):
            return (lambda s, k: read_document(s.get(k).data, k)), "import the data set again", True
        readers: Mapping[str, Callable[[bytes], object]] = {
            "shortcut": Shortcut.from_json,
            "widths": DefectWidths.from_json,
        }
        kind = name.split(".")[-2] if name.count(".") == 2 else ""
        if kind in readers:
            return (lambda s, k: readers[kind](s.get(k).data)), "import the data set again", True
        if name == MANIFEST:
            return (
                _check_manifest,
                f"`defectbench store repair` takes it from the archive; else {_IMPORT}",
                False,
            )
        if name.endswith(".tar"):
            return _check_archive, _IMPORT, False
    return None, "", False


def _cell_check(parts: list[str]) -> tuple[_Check | None, str, bool]:
    """Return the check of a cell's object; files of a result are checked with it."""
    readers: Mapping[str, Callable[[bytes], object]] = {
        SPEC: Cell.from_json,
        LEASE: LeaseRecord.from_json,
        CHECKPOINT: Pointer.from_json,
        FAILURE: Failure.from_json,
    }
    if len(parts) == 3 and parts[2] in readers:
        remedy = {LEASE: "the next worker takes the cell over", CHECKPOINT: "the fit starts anew"}
        return (lambda s, k: readers[parts[2]](s.get(k).data)), remedy.get(parts[2], _AGAIN), True
    known = parts[2] == RESULT if len(parts) == 3 else parts[2].isdecimal()
    return ((lambda s, k: None) if known else None), "", False


def _verify_cell(store: Store, cell: str) -> Iterator[Damage]:
    """Check a cell's result with all its files, and its checkpoint's blob."""
    place = cell_key(cell, RESULT)
    try:
        found = read_verified(store, cell)
        if found is not None and Predictions.from_parquet(found[1]).cell != cell:
            yield Damage(place, "its predictions are another cell's", _AGAIN, True)
    except (DataError, MissingInputError) as error:
        yield Damage(place, str(error), _AGAIN, True)
    blob = store.find(cell_key(cell, CHECKPOINT))
    if blob is None:
        return
    try:
        pointer = Pointer.from_json(blob.data)
        data = store.get(cell_key(cell, pointer.blob)).data
        if hashlib.sha256(data).hexdigest() != pointer.sha256:
            yield Damage(
                cell_key(cell, pointer.blob), "is not what its pointer says", "the fit starts anew", True
            )
    except (DataError, CheckpointError, MissingInputError):
        return  # the pointer is named by itself, and a blob that is away only costs time


def _check_record(store: Store, key: str) -> None:
    read_record(store, second_part(key))


def _check_views(store: Store, key: str) -> None:
    """Compare with what the cells give now: the file is made of nothing else."""
    collected = collect(store, second_part(key))
    if views_file(collected) != store.get(key).data:
        raise DataError("is not what the sweep's cells give now: damaged, or older than its cells")


def _check_weights(store: Store, key: str) -> None:
    with tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        path = Path(folder) / "weights"
        store.download(key, path)
        if sha256_of(path) != key.rpartition("/")[2]:
            raise DataError("its contents are not those that its name states")


def _check_manifest(store: Store, key: str) -> None:
    _, dataset, category, _ = key.split("/")
    manifest = Manifest.from_json(store.get(key).data)
    if (manifest.dataset, manifest.category) != (dataset, category):
        raise DataError(f"is the manifest of {manifest.dataset}/{manifest.category}")
    archive = f"{key.rpartition('/')[0]}/{manifest.digest}.tar"
    if archive not in store.keys(archive):
        raise DataError(f"its archive {archive} is not there")


def _check_archive(store: Store, key: str) -> None:
    with tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        path = Path(folder) / "archive.tar"
        store.download(key, path)
        read_archive(path, key)


# --- healing


def repair(store: Store, source: Path | None, apply: bool) -> Iterator[tuple[Damage, str]]:
    """Heal what can be healed; yield each finding and what was, or would be, done.

    Args:
        source: a folder that holds the pictures of damaged archives, anywhere and under any names.
        apply: else nothing is changed.
    """
    known = {sha256_of(path): path for path in source.rglob("*") if path.is_file()} if source else {}
    for finding in list(verify(store)):
        if finding.key.endswith(".tar"):
            yield finding, _repair_archive(store, finding.key, known, apply)
        elif finding.key.endswith(f"/{MANIFEST}"):
            yield finding, _repair_manifest(store, finding.key, apply)
        elif finding.removable:
            if apply:
                store.delete(finding.key)
            yield finding, f"removed: {finding.remedy}"
        else:
            yield finding, f"left: {finding.remedy}"


def _repair_archive(store: Store, key: str, known: Mapping[str, Path], apply: bool) -> str:
    """Write an archive anew from its manifest, what is whole in it, and a folder's pictures."""
    digest = key.rpartition("/")[2].removesuffix(".tar")
    try:
        manifest = Manifest.from_json(store.get(f"{key.rpartition('/')[0]}/{MANIFEST}").data)
    except (DataError, MissingInputError):
        return f"left: its manifest is damaged too; {_IMPORT}"
    if manifest.digest != digest:
        return f"left: an older import's, whose manifest is not there; {_IMPORT}"
    wanted = digests(manifest)
    with tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        path = Path(folder) / "archive.tar"
        store.download(key, path)
        whole = {
            name: data
            for name, data in _members(path)
            if hashlib.sha256(data).hexdigest() == wanted.get(name)
        }
        files: dict[str, Path | bytes] = {}
        for name, sha256 in wanted.items():
            if name in whole:
                files[name] = whole[name]
            elif sha256 in known:
                files[name] = known[sha256]
        lacking = sorted(wanted.keys() - files.keys())
        if lacking:
            return f"left: {len(lacking)} files are nowhere whole, such as {lacking[0]}; {_IMPORT}"
        if apply:
            made = Path(folder) / "made.tar"
            pack_again(manifest, files, made)
            store.upload(key, made)
    taken = len(wanted) - len(whole)
    return f"written anew: {len(whole)} files from the archive itself, {taken} from the folder"


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield what can still be read of a damaged tar."""
    try:
        with tarfile.open(path, "r:", ignore_zeros=True) as tar:
            while (member := tar.next()) is not None:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None and member.size <= path.stat().st_size:
                    yield member.name, file.read()
    except (tarfile.TarError, EOFError, ValueError):
        return


def _repair_manifest(store: Store, key: str, apply: bool) -> str:
    """Take a manifest from its archive, the newest that is whole where there are several."""
    folder = key.rpartition("/")[0]
    for name in store.keys(f"{folder}/"):
        if not name.endswith(".tar"):
            continue
        with tempfile.TemporaryDirectory(prefix="defectbench-") as directory:
            path = Path(directory) / "archive.tar"
            store.download(name, path)
            try:
                manifest = read_archive(path, name)
            except DataError:
                continue
        if apply:
            store.put(key, manifest.to_json())
        return f"taken from {name}"
    return f"left: no archive beside it is whole; {_IMPORT}"


# --- what nothing refers to


def unreferenced(store: Store) -> Iterator[tuple[str, str]]:
    """Yield (key, why) of what nothing refers to any more.

    Raises:
        DataError: a sweep's record is damaged: what it refers to is not known, so nothing is.
    """
    keys = list(store.keys())
    names = [second_part(key) for key in keys if key.startswith(SWEEPS) and key.count("/") == 1]
    records = {name: read_record(store, name) for name in names}
    cells = {cell for record in records.values() for cell in record.cells}
    finished = {cell: _finished_files(store, cell) for cell in cells}
    data = _data_in_use(store, keys, list(records.values()))
    used = _weights_in_use(store, cells)
    for key in keys:
        parts = key.split("/")
        if key.startswith(CELLS):
            lease = read_lease(store, parts[1]) if parts[1] not in cells else None
            if parts[1] not in cells and (lease is None or lease.released):
                yield key, "no sweep has this cell"
            elif finished.get(parts[1]) and len(parts) > 3 and "/".join(parts[2:]) not in finished[parts[1]]:
                yield key, "of an attempt before the one that finished"
        elif key.startswith((SWEEPS, TRACKING)) and len(parts) > 2 and parts[1] not in records:
            yield key, "there is no such sweep"
        elif key.startswith(DATASETS) and len(parts) == 4 and parts[3] != MANIFEST:
            if (parts[1], parts[2], parts[3].split(".")[0]) not in data:
                yield key, "of data that were imported anew, and no sweep reads"
        elif key.startswith(f"{WEIGHTS}{_FILE_WEIGHTS}") and parts[-1] not in used:
            yield key, "a file of the user's own that no cell was fitted with"


def _finished_files(store: Store, cell: str) -> set[str]:
    """Return the paths below a finished cell that stay; empty where it is not finished."""
    try:
        result = find_result(store, cell)
    except DataError:
        return set()
    if result is None:
        return set()
    attempts = {place.partition("/")[0] for place in result.files}
    return {*result.files, *(f"{attempt}/{LOG}" for attempt in attempts)}


def _data_in_use(store: Store, keys: list[str], records: list[Record]) -> set[tuple[str, str, str]]:
    """Return (data set, category, digest) of what is imported, or read by a sweep."""
    used = {
        (record.dataset, category, digest)
        for record in records
        for category, digest in record.digests.items()
    }
    for key in keys:
        if key.startswith(DATASETS) and key.endswith(f"/{MANIFEST}"):
            _, dataset, category, _ = key.split("/")
            digest = Manifest.from_json(store.get(manifest_key(dataset, category)).data).digest
            used.add((dataset, category, digest))
    return used


def _weights_in_use(store: Store, cells: set[str]) -> set[str]:
    """Return the digests of weights that the cells' specs name."""
    used: set[str] = set()
    for cell in cells:
        blob = store.find(cell_key(cell, SPEC))
        if blob is not None:
            used.update(Cell.from_json(blob.data).fit.weights.values())
    return used
