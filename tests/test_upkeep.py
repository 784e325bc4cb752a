"""Every byte of a store that is changed is noticed, and healed or said how."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from defectbench.data.archive import load_manifest
from defectbench.data.unpacked import unpack
from defectbench.records.cell import Cell
from defectbench.records.result import find_result, finished_cells
from defectbench.records.sweep_record import read_record
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import LOG, cell_key, result_key, spec_key
from defectbench.tables.collect import collect, write_views
from defectbench.upkeep import repair, unreferenced, verify

OLD = Path(__file__).parent / "records" / "store_0_1_0"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A store of version 0.1.0, its documents written again by this version."""
    shutil.copytree(OLD, tmp_path / "store")
    place = DirectoryStore(tmp_path / "store")
    record = read_record(place, "tiny")
    place.put("sweeps/tiny.json", record.to_json())
    for key in record.cells:
        result = find_result(place, key)
        assert result is not None
        place.put(result_key(key), result.to_json())
        place.put(spec_key(key), Cell.from_json(place.get(spec_key(key)).data).to_json())
        place.delete(cell_key(key, "lease.json"))
    manifest = load_manifest(place, "d1", "brick")
    place.put("datasets/d1/brick/manifest.json", manifest.to_json())
    write_views(place, collect(place, "tiny"))
    for key in list(place.keys("tracking/")):
        place.delete(key)
    return place


def test_a_store_of_version_0_1_0_is_whole(tmp_path: Path) -> None:
    shutil.copytree(OLD, tmp_path / "store")
    # The table of views has another version's bytes: it is made anew by the next report.
    found = [each.key for each in verify(DirectoryStore(tmp_path / "store"))]
    assert found in ([], ["sweeps/tiny/views.parquet"])


def test_a_whole_store_has_no_findings(store: DirectoryStore) -> None:
    assert list(verify(store)) == []


def test_every_file_flipped_anywhere_is_noticed_and_named(store: DirectoryStore) -> None:
    chosen = random.Random(0)
    names = [key for key in store.keys("") if not key.endswith(LOG)]
    kinds = {name.rpartition("/")[2].rpartition(".")[2]: name for name in names}
    assert set(kinds) == {"json", "parquet", "npz", "tar"}
    documents = {name.rpartition("/")[2]: name for name in names}
    for name in documents.values():
        data = store.get(name).data
        for _ in range(8):
            place, bit = chosen.randrange(len(data)), chosen.randrange(8)
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            store.put(name, bytes(changed))
            found = list(verify(store))
            assert found, (name, place, bit)
            # A document is named by itself; a file by its cell's result, whose digest it lacks.
            folder = "/".join(name.split("/")[:2])
            assert any(each.key.startswith(folder) for each in found), (name, place, bit)
            assert all(each.remedy for each in found)
        store.put(name, data)


def test_an_archive_is_healed_from_a_folder_of_pictures(store: DirectoryStore, tmp_path: Path) -> None:
    manifest = load_manifest(store, "d1", "brick")
    pictures = unpack(store, "d1", "brick", manifest.digest, tmp_path / "cache")
    shutil.copytree(pictures, tmp_path / "elsewhere")
    key = f"datasets/d1/brick/{manifest.digest}.tar"
    whole = store.get(key).data
    store.put(key, whole[:40_000] + bytes(2_000) + whole[42_000:])
    assert [each.key for each in verify(store)] == [key]
    assert "nowhere whole" in next(iter(repair(store, None, apply=True)))[1]
    assert "from the folder" in next(iter(repair(store, tmp_path / "elsewhere", apply=False)))[1]
    assert [each.key for each in verify(store)] == [key]
    list(repair(store, tmp_path / "elsewhere", apply=True))
    assert list(verify(store)) == []


def test_a_manifest_is_taken_from_its_archive(store: DirectoryStore) -> None:
    key = "datasets/d1/brick/manifest.json"
    whole = store.get(key).data
    store.put(key, b"null")
    done = {finding.key: text for finding, text in repair(store, None, apply=True)}
    assert done[key].startswith("taken from")
    assert store.get(key).data == whole


def test_a_damaged_result_is_removed_so_that_run_makes_it(store: DirectoryStore) -> None:
    first, *others = read_record(store, "tiny").cells
    store.put(cell_key(first, "1", "predictions.parquet"), b"")
    list(repair(store, None, apply=False))
    assert store.find(result_key(first)) is not None
    list(repair(store, None, apply=True))
    assert store.find(result_key(first)) is None
    assert finished_cells(store, [first, *others]) == set(others)
    assert [each.key for each in verify(store)] in ([], ["sweeps/tiny/views.parquet"])


def test_what_nothing_refers_to_is_named(store: DirectoryStore) -> None:
    assert list(unreferenced(store)) == []
    first = next(iter(read_record(store, "tiny").cells))
    store.put(cell_key(first, "0", "predictions.parquet"), b"x")
    store.put(f"datasets/d1/brick/{'0' * 64}.tar", b"x")
    store.put("tracking/gone/run.json", b"x")
    store.put("weights/file-x/" + "0" * 64, b"x")
    store.put("weights/resnet18.a1_in1k/" + "0" * 64, b"x")
    store.put("cells/0123/spec.json", b"x")
    assert [key for key, _ in unreferenced(store)] == [
        "cells/0123/spec.json",
        cell_key(first, "0", "predictions.parquet"),
        f"datasets/d1/brick/{'0' * 64}.tar",
        "tracking/gone/run.json",
        "weights/file-x/" + "0" * 64,
    ]
