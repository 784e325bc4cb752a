"""One damaged document is one cell's trouble; a store of version 0.1.0 is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from defectbench.errors import DataError
from defectbench.records.lease import read_lease
from defectbench.records.result import Failure, find_failure, find_result, finished_cells
from defectbench.records.state import CellState
from defectbench.records.sweep_record import read_record
from defectbench.runners.status import CellStatus, cell_statuses, read_stored_states
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import cell_key, failure_key, result_key, spec_key, sweep_key
from defectbench.tables.collect import collect
from defectbench.util.documents import read_document, write_document

OLD = Path(__file__).parent / "store_0_1_0"

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "null": lambda data: b"null",
    "list": lambda data: b"[]",
    "object": lambda data: b"{}",
    "cut": lambda data: data[: len(data) // 2],
    "deep": lambda data: b"[" * 99_999,
    "digits": lambda data: b'{"schema": ' + b"9" * 5_000 + b"}",
    "bytes": lambda data: bytes(range(256)),
    "nan": lambda data: data.replace(b": 0", b": NaN"),
    "numbers": lambda data: json.dumps(dict.fromkeys(json.loads(data), 7)).encode(),
    "texts": lambda data: json.dumps(dict.fromkeys(json.loads(data), "x")).encode(),
    "nulls": lambda data: json.dumps(dict.fromkeys(json.loads(data))).encode(),
    "lists": lambda data: json.dumps({name: [] for name in json.loads(data)}).encode(),
    "more": lambda data: json.dumps({**json.loads(data), "unknown": 1}).encode(),
    "schema": lambda data: json.dumps({**json.loads(data), "schema": True}).encode(),
}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    shutil.copytree(OLD, tmp_path / "store")
    return DirectoryStore(tmp_path / "store")


def statuses(store: DirectoryStore) -> dict[str, CellStatus]:
    record = read_record(store, "tiny")
    found = cell_statuses(record, read_stored_states(store, list(record.cells), record), asked=False)
    return {each.cell: each for each in found}


def test_a_store_of_version_0_1_0_is_read(store: DirectoryStore) -> None:
    record = read_record(store, "tiny")
    assert len(record.cells) == 4
    assert finished_cells(store, list(record.cells)) == set(record.cells)
    assert {each.state for each in statuses(store).values()} == {CellState.FINISHED}
    assert all(read_lease(store, key) is not None for key in record.cells)
    collected = collect(store, "tiny")
    assert not collected.damaged
    assert {row.label for row in collected.rows()} == {"filterbank-knn", "filterbank-logreg"}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("document", ["result", "failure", "spec"])
def test_a_damaged_document_is_its_cell_s_trouble(store: DirectoryStore, document: str, damage: str) -> None:
    record = read_record(store, "tiny")
    key, *others = record.cells
    if document != "result":
        store.delete(result_key(key))
    text = {
        "result": lambda: store.get(result_key(key)).data,
        "failure": lambda: Failure(65, "m", "t", 1).to_json(),  # type: ignore[arg-type]
        "spec": lambda: store.get(spec_key(key)).data,
    }[document]()
    broken = DAMAGES[damage](text)
    assert broken != text or damage == "nan"
    place = {"result": result_key, "failure": failure_key, "spec": spec_key}[document](key)
    store.put(place, broken if broken != text else b"{")
    found = statuses(store)
    assert found[key].state is CellState.DAMAGED
    assert f"{document}.json" in found[key].detail
    assert {found[other].state for other in others} == {CellState.FINISHED}
    collected = collect(store, "tiny")
    assert list(collected.results) == others
    if document != "spec":  # the report reads no spec
        assert list(collected.damaged) == [key]
        assert collected.damaged[key] in found[key].detail
    assert finished_cells(store, list(record.cells)) == set(others)


def test_one_digit_of_a_sealed_result_is_noticed(store: DirectoryStore) -> None:
    key = next(iter(read_record(store, "tiny").cells))
    result = find_result(store, key)
    assert result is not None
    text = result.to_json()
    place = text.index(b'"image_auroc": ') + len(b'"image_auroc": ')
    changed = text[:place] + (b"1" if text[place : place + 1] == b"0" else b"0") + text[place + 1 :]
    store.put(result_key(key), changed)
    assert "not those that its seal states" in statuses(store)[key].detail
    assert list(collect(store, "tiny").damaged) == [key]


@pytest.mark.parametrize(
    "files", [{}, {"1/history.parquet": "0" * 64}, {"../x/predictions.parquet": "0" * 64}]
)
def test_a_result_without_its_files_is_not_finished(store: DirectoryStore, files: dict[str, str]) -> None:
    key, *others = read_record(store, "tiny").cells
    document = read_document(store.get(result_key(key)).data, "result.json")
    store.put(result_key(key), write_document({**document, "files": files}))
    assert finished_cells(store, [key, *others]) == set(others)
    assert statuses(store)[key].state is CellState.DAMAGED
    assert list(collect(store, "tiny").damaged) == [key]


@pytest.mark.parametrize("name", ["predictions.parquet", "heatmaps.npz", "history.parquet"])
def test_status_and_report_agree_on_a_damaged_file(store: DirectoryStore, name: str) -> None:
    key, *others = read_record(store, "tiny").cells
    store.put(cell_key(key, "1", name), store.get(cell_key(key, "1", name)).data[:-3])
    assert [each for each, of in statuses(store).items() if of.state is CellState.DAMAGED] == [key]
    assert list(collect(store, "tiny").damaged) == [key]
    assert list(collect(store, "tiny").results) == others


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named(store: DirectoryStore, damage: str) -> None:
    store.put(sweep_key("tiny"), DAMAGES[damage](store.get(sweep_key("tiny")).data) or b"")
    if damage == "nan":
        store.put(sweep_key("tiny"), b'{"name": NaN}')
    with pytest.raises(DataError, match=r"sweeps/tiny\.json: .*run or plan the sweep again"):
        read_record(store, "tiny")


def test_a_damaged_failure_says_what_to_do(store: DirectoryStore) -> None:
    store.put(failure_key("k"), b'{"code": 65')
    with pytest.raises(
        DataError, match=r"cells/k/failure\.json: failure\.json is damaged: .*`defectbench retry`"
    ):
        find_failure(store, "k")


@pytest.mark.parametrize("indent", [None, 1])
def test_no_bit_of_a_document_changes_unseen(indent: int | None) -> None:
    text = write_document({"name": "ü\udcff", "figures": {"a": 0.5, "b": [1, 2]}}, indent=indent)
    assert read_document(text, "it") == {"name": "ü?", "figures": {"a": 0.5, "b": [1, 2]}}
    for place in range(len(text)):
        for bit in range(8):
            changed = bytearray(text)
            changed[place] ^= 1 << bit
            if place < len(text) - 2:
                with pytest.raises(DataError):
                    read_document(bytes(changed), "it")
