"""Checkpoints in the store: blob first, pointer after; who may move it; what is not gone on with."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from defectbench.errors import CheckpointError, ConflictError, TryAgainError
from defectbench.execution import checkpoints
from defectbench.execution.checkpoints import Pointer, StoredCheckpoints
from defectbench.execution.fitting import FitState
from defectbench.execution.lease import PATIENCE, HeldLease, Lease, take_lease
from defectbench.records import result
from defectbench.records.predictions import HistoryPoint
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.util.documents import read_document, write_document

POINTER = "cells/k/checkpoint.json"
SAVED = FitState(
    done=2,
    total=5,
    steps=17,
    seconds=12.5,
    attempts=1,
    peak_memory_bytes=1 << 30,
    device="cpu",
    history=(HistoryPoint(1, "train_loss", 0.1 + 0.2), HistoryPoint(2, "train_loss", 1e-300)),
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def writes(data: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def taken(store: Store, clock: Clock, owner: str = "a") -> Lease:
    """Take the cell, waiting out who holds it."""
    found = take_lease(store, "k", owner, clock=clock)
    if isinstance(found, HeldLease):
        clock.now += PATIENCE
        found = take_lease(store, "k", owner, seen=found, clock=clock)
    assert isinstance(found, Lease)
    return found


def checkpointer(store: Store, lease: Lease, tmp_path: Path, clock: Clock) -> StoredCheckpoints:
    return StoredCheckpoints(store, lease, tmp_path / "checkpoints" / "arrived", 100.0, clock)


def blobs(store: Store) -> list[str]:
    return [key.removeprefix("cells/k/") for key in store.keys("cells/k/") if "/checkpoints/" in key]


def test_the_next_attempt_finds_what_was_kept(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    first = taken(store, clock)
    checkpointer(store, first, tmp_path, clock).save(SAVED, writes(b"state"))
    first.release()
    document = read_document(store.get(POINTER).data, POINTER)
    assert document["blob"].startswith("1/checkpoints/")
    assert (document["attempt"], document["size"], document["fit"]["steps"]) == (1, 5, 17)
    assert store.get(f"cells/k/{document['blob']}").data == b"state"
    second = checkpointer(store, taken(store, clock), tmp_path, clock)
    found = second.find()
    assert found is not None
    assert found.saved == SAVED
    assert found.path.read_bytes() == b"state"
    assert second.resumed
    adopted = read_document(store.get(POINTER).data, POINTER)
    assert adopted == {**document, "attempt": 2}


def test_a_cell_without_checkpoint_has_nothing_to_find(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    found = checkpointer(store, taken(store, clock), tmp_path, clock)
    assert found.find() is None
    assert not found.resumed


def test_only_the_latest_blob_is_kept(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    first = taken(store, clock)
    one = checkpointer(store, first, tmp_path, clock)
    for data in (b"one", b"two", b"two", b"three"):
        one.save(SAVED, writes(data))
        assert len(blobs(store)) == 1
    first.release()
    store.put("cells/k/1/log.txt", b"kept")
    two = checkpointer(store, taken(store, clock), tmp_path, clock)
    assert two.find() is not None
    two.save(replace(SAVED, attempts=2), writes(b"four"))
    assert [blob.split("/")[0] for blob in blobs(store)] == ["2"]
    two.clear()
    assert sorted(store.keys("cells/k/")) == ["cells/k/1/log.txt", "cells/k/lease.json"]
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_holder_that_lost_the_cell_moves_no_pointer(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    first = taken(store, clock)
    old = checkpointer(store, first, tmp_path / "old", clock)
    old.save(SAVED, writes(b"old"))
    heir = taken(store, clock, "heir")
    new = checkpointer(store, heir, tmp_path / "new", clock)
    assert new.find() is not None
    before = store.get(POINTER)
    # Also in the moment between its last look at the lease and its put.
    with pytest.raises(ConflictError, match="was changed or removed"):
        old._put(Pointer.from_json(before.data), old._seen)
    old.save(replace(SAVED, steps=18), writes(b"late"))
    assert "heir took it over as attempt 2" in caplog.text
    assert first.lost
    assert store.get(POINTER) == before
    new.save(replace(SAVED, steps=19), writes(b"new"))
    assert [blob.split("/")[0] for blob in blobs(store)] == ["2"]
    old.clear()
    assert [blob.split("/")[0] for blob in blobs(store)] == ["2"]


def test_a_late_first_pointer_of_a_lost_holder_is_overwritten(store: Store, tmp_path: Path) -> None:
    """There was none when the cell was taken over, so nothing told the old holder's put from a first one."""
    clock = Clock()
    old = checkpointer(store, taken(store, clock), tmp_path / "old", clock)
    heir = taken(store, clock, "heir")
    new = checkpointer(store, heir, tmp_path / "new", clock)
    assert new.find() is None
    store.put("cells/k/1/checkpoints/00", b"late")
    late = Pointer("k", 1, "1/checkpoints/00", "0" * 64, 4, {}, "", SAVED)
    old._put(late, old._seen)
    new.save(SAVED, writes(b"new"))
    assert Pointer.from_json(store.get(POINTER).data).attempt == 2
    assert [blob.split("/")[0] for blob in blobs(store)] == ["2"]


def test_an_old_holder_removes_nothing_of_a_later_attempt(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    old = checkpointer(store, taken(store, clock), tmp_path, clock)
    store.put("cells/k/1/checkpoints/aa", b"")
    store.put("cells/k/2/checkpoints/bb", b"")
    store.put("cells/k/10/checkpoints/cc", b"")
    old._remove_blobs(but="")
    assert sorted(blobs(store)) == ["10/checkpoints/cc", "2/checkpoints/bb"]


def changed(**more: object) -> Callable[[dict[str, object]], object]:
    return lambda document: {**document, **more}


def changed_fit(**more: object) -> Callable[[dict[str, object]], object]:
    return lambda document: {**document, "fit": {**document["fit"], **more}}  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda document: [document], "expected a JSON object"),
        (lambda document: {}, "cell: Field required"),
        (changed(schema=99), "has schema 99; this version reads 1 and 2"),
        (changed(more=1), "more: Unexpected"),
        (changed(cell="other"), "it is of cell other"),
        (changed(blob="../../secrets"), "names no checkpoint: '../../secrets'"),
        (changed(blob=None), "blob: Input should be a valid string"),
        (changed(blob="1/checkpoints/abcd"), "no cells/k/1/checkpoints/abcd"),
        (changed(sha256="0" * 64), "is damaged"),
        (changed(versions={"python": "2.7"}), r"python 2\.7 \(here 3"),
        (changed_fit(seconds="12"), "fit.seconds: Input should be a valid number"),
        (changed_fit(steps=None), "fit.steps: Input should be a valid integer"),
        (changed_fit(history=[[1]]), "fit.history.0.name: Field required"),
        (changed_fit(other=1), "fit.other: Unexpected"),
    ],
)
def test_a_damaged_checkpoint_is_said_and_not_gone_on_with(
    change: Callable[[object], object], says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = DirectoryStore(tmp_path / "store"), Clock()
    first = taken(store, clock)
    checkpointer(store, first, tmp_path, clock).save(SAVED, writes(b"state"))
    first.release()
    changed_document = change(read_document(store.get(POINTER).data, POINTER))
    text = write_document(changed_document) if isinstance(changed_document, dict) else None
    store.put(POINTER, text or json.dumps(changed_document).encode())
    second = checkpointer(store, taken(store, clock), tmp_path, clock)
    assert second.find() is None
    assert "the fit starts anew" in caplog.text
    assert re.search(says, caplog.text)
    assert not second.resumed
    # The next checkpoint takes its place.
    second.save(SAVED, writes(b"new"))
    assert [blob.split("/")[0] for blob in blobs(store)] == ["2"]
    third = checkpointer(store, _after(store, second, clock), tmp_path, clock)
    found = third.find()
    assert found is not None
    assert found.path.read_bytes() == b"new"


def _after(store: Store, before: StoredCheckpoints, clock: Clock) -> Lease:
    before._lease.release()
    return taken(store, clock)


def test_a_pointer_that_is_no_json_is_not_gone_on_with(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    store.put(POINTER, b"\xff{")
    found = checkpointer(store, taken(store, clock), tmp_path, clock)
    assert found.find() is None
    found.save(SAVED, writes(b"new"))
    assert Pointer.from_json(store.get(POINTER).data).fit == SAVED


def test_other_versions_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store: Store) -> None:
    clock = Clock()
    first = taken(store, clock)
    monkeypatch.setattr(checkpoints, "versions", lambda: {"torch": "2.6", "numpy": "1"})
    checkpointer(store, first, tmp_path, clock).save(SAVED, writes(b"state"))
    first.release()
    monkeypatch.setattr(result, "versions", lambda *packages: {"torch": "2.7", "scipy": "1"})
    found = checkpointer(store, taken(store, clock), tmp_path, clock)
    with pytest.raises(CheckpointError, match=r"numpy 1 \(here none\), scipy none \(here 1\), torch 2.6 \("):
        found._check(Pointer.from_json(store.get(POINTER).data))
    assert found.find() is None


def test_a_checkpoint_is_due_by_time(store: Store, tmp_path: Path) -> None:
    clock = Clock()
    found = checkpointer(store, taken(store, clock), tmp_path, clock)
    assert not found.due()
    clock.now += 100
    assert found.due()
    found.save(SAVED, writes(b"state"))
    assert not found.due()


def test_a_checkpoint_that_cannot_be_written_ends_no_fit_and_is_tried_again(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    found = checkpointer(store, taken(store, clock), tmp_path, clock)
    clock.now += 100

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    found.save(SAVED, full)
    assert "the disk is full" in caplog.text
    assert not found.due()
    clock.now += 30
    assert found.due()
    assert not blobs(store)
    assert not list((tmp_path / "checkpoints").iterdir())
    found.save(SAVED, writes(b"state"))
    assert len(blobs(store)) == 1


def test_a_disk_that_fails_is_no_damaged_checkpoint(tmp_path: Path) -> None:
    store, clock = DirectoryStore(tmp_path / "store"), Clock()
    first = taken(store, clock)
    checkpointer(store, first, tmp_path, clock).save(SAVED, writes(b"state"))
    first.release()
    second = checkpointer(store, taken(store, clock), tmp_path, clock)
    (tmp_path / "checkpoints").rmdir()
    (tmp_path / "checkpoints").write_text("no directory")
    with pytest.raises(TryAgainError):
        second.find()
