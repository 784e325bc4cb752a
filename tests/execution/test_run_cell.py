"""One cell's end: codes, stops, deadlines, and who is told."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from defectbench.errors import (
    ConflictError,
    DataError,
    DeadlineError,
    ExitCode,
    StoppedError,
    StoreAwayError,
    TryAgainError,
)
from defectbench.execution import fit_and_score, run_cell
from defectbench.execution.events import Event
from defectbench.execution.lease import Lease, take_lease
from defectbench.execution.watchdog import KILLED, Watchdog
from defectbench.execution.worker import Worker
from defectbench.records.lease import read_lease
from defectbench.records.result import find_failure, find_result
from defectbench.records.state import CellState
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.util.shutdown import Stop
from fakes import put_category
from waiting import wait_until


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("x"), ExitCode.DATA),
        (ConflictError("x"), ExitCode.TRY_AGAIN),
        (StoreAwayError("x"), ExitCode.STORE_AWAY),
        (MemoryError(), ExitCode.TRY_AGAIN),
        (OutOfMemoryError("CUDA out of memory"), ExitCode.TRY_AGAIN),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), ExitCode.TRY_AGAIN),
        (OSError(errno.ENOSPC, "No space left on device"), ExitCode.TRY_AGAIN),
        (OSError(errno.ENOENT, "No such file"), ExitCode.BUG),
        (RuntimeError("shapes differ"), ExitCode.BUG),
        (ZeroDivisionError(), ExitCode.BUG),
    ],
)
def test_an_errors_code_says_whether_to_try_again(error: BaseException, code: ExitCode) -> None:
    assert run_cell.code_of(error) is code


@pytest.fixture
def cells(tmp_path: Path) -> tuple[Store, list[str]]:
    """A store with the specs of one detector's and three classifiers' cells."""
    store = DirectoryStore(tmp_path / "store")
    put_category(store, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    document = {
        "name": "small",
        "data": {"dataset": "parts"},
        "models": ["filterbank-knn", "filterbank-logreg"],
        "seeds": [0],
        "weights": "none",
        "image_size": 64,
        "threads": 1,
        "resources": {"deadline": "30s"},
        "protocols": {"detection": {"folds": 3}},
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("small.yaml", {})), store)
    plans.write_plan(plan, store, list(plan.cells))
    return store, list(plan.cells)


def worker(store: Store, tmp_path: Path, events: list[Event]) -> Worker:
    return Worker(store, tmp_path / "cache", "cpu", None, Stop(), events.append)


def test_a_worker_runs_its_cells_and_says_so(cells: tuple[Store, list[str]], tmp_path: Path) -> None:
    store, keys = cells
    events: list[Event] = []
    assert worker(store, tmp_path, events).run(keys) is ExitCode.DONE
    assert [event.cell for event in events if event.state is CellState.FINISHED] == keys
    assert all(find_result(store, key) for key in keys)
    record = read_lease(store, keys[0])
    assert record is not None
    assert record.released


def test_a_cell_held_by_another_is_taken_last(cells: tuple[Store, list[str]], tmp_path: Path) -> None:
    store, keys = cells
    lease = take_lease(store, keys[0], "another")
    assert isinstance(lease, Lease)
    events: list[Event] = []

    def say(event: Event) -> None:
        events.append(event)
        if event.cell == keys[-1] and event.state is CellState.FINISHED:
            lease.release()

    found = worker(store, tmp_path, events)
    found.on_event = say
    assert found.run(keys) is ExitCode.DONE
    assert [event.cell for event in events if event.state is CellState.FINISHED] == [*keys[1:], keys[0]]
    assert [event.message for event in events if event.state is CellState.WAITING] == ["another"]


def test_a_finished_cell_loses_what_its_killed_worker_left(
    cells: tuple[Store, list[str]], tmp_path: Path
) -> None:
    store, [key, *_] = cells
    assert worker(store, tmp_path, []).run([key]) is ExitCode.DONE
    whole = set(store.keys(f"cells/{key}/"))
    for name in ("checkpoint.json", "1/checkpoints/0123abcd", "2/checkpoints/4567cdef"):
        store.put(f"cells/{key}/{name}", b"left")
    assert worker(store, tmp_path, []).run([key]) is ExitCode.DONE
    assert set(store.keys(f"cells/{key}/")) == whole


def test_a_worker_whose_listener_went_away_stops(
    cells: tuple[Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = cells
    said = (tmp_path / "said").open("w")
    monkeypatch.setattr("sys.stdout", said)  # of its own: what lies below it is lost
    found = worker(store, tmp_path, [])

    def gone(event: Event) -> None:
        raise BrokenPipeError

    found.on_event = gone
    assert found.run(keys) is ExitCode.STOPPED
    assert not any(find_failure(store, key) for key in keys)
    print("unheard", file=said, flush=True)
    said.close()
    assert (tmp_path / "said").read_text() == ""


def place(store: Store, tmp_path: Path) -> run_cell.WorkerContext:
    return run_cell.WorkerContext(store, tmp_path / "cache", "cpu", Stop(), lambda event: None)


def test_the_deadline_counts_all_attempts(cells: tuple[Store, list[str]], tmp_path: Path) -> None:
    store, keys = cells
    first = take_lease(store, keys[0], "first")
    assert isinstance(first, Lease)
    first.beat({"spent": 29.99})
    first.release()
    before = read_lease(store, keys[0])
    # An attempt that was killed before its first beat hands the spent time on.
    killed = take_lease(store, keys[0], "killed")
    assert isinstance(killed, Lease)
    assert read_lease(store, keys[0]).progress == {"spent": 29.99}  # type: ignore[union-attr]
    with pytest.raises(DeadlineError, match="its deadline is 30 s"):
        run_cell.run_cell(run_cell.read_cell(store, keys[0]), place(store, tmp_path), killed, before)
    failure = find_failure(store, keys[0])
    assert failure is not None
    assert failure.code is ExitCode.DEADLINE


def test_the_deadline_holds_for_a_fit_that_hangs(
    cells: tuple[Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No step looks at it any more, so the process ends itself; what it was at fails for good."""
    store, keys = cells
    ended: list[int] = []

    def hang(*arguments: object) -> object:
        wait_until(lambda: ended)
        raise StoppedError("here the process would have ended")

    monkeypatch.setattr(fit_and_score, "fit_and_score", hang)
    lease = take_lease(store, keys[0], "me")
    assert isinstance(lease, Lease)
    watchdog = Watchdog(look_every=0.05, grace=0.0, end=ended.append)
    here = replace(place(store, tmp_path), watchdog=watchdog)
    cell = replace(run_cell.read_cell(store, keys[0]), deadline=0.5)
    with pytest.raises(StoppedError):
        run_cell.run_cell(cell, here, lease, None)
    assert ended == [KILLED]
    failure = find_failure(store, keys[0])
    assert failure is not None
    assert failure.code is ExitCode.DEADLINE
    assert read_lease(store, keys[0]).released  # type: ignore[union-attr]
    assert "wait_until" in store.get(f"cells/{keys[0]}/1/log.txt").data.decode()


def test_time_without_the_store_counts_against_no_deadline(
    cells: tuple[Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = cells
    real = fit_and_score.fit_and_score

    def late(*arguments: object) -> object:
        store.waited += 1000.0
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fit_and_score, "fit_and_score", late)
    monkeypatch.setattr(run_cell, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + store.waited))
    lease = take_lease(store, keys[0], "me")
    assert isinstance(lease, Lease)
    run_cell.run_cell(run_cell.read_cell(store, keys[0]), place(store, tmp_path), lease, None)
    assert find_result(store, keys[0]) is not None


def test_a_stop_is_no_failure(cells: tuple[Store, list[str]], tmp_path: Path) -> None:
    store, keys = cells
    here = place(store, tmp_path)
    here.stop.set()
    lease = take_lease(store, keys[0], "me")
    assert isinstance(lease, Lease)
    with pytest.raises(StoppedError):
        run_cell.run_cell(run_cell.read_cell(store, keys[0]), here, lease, None)
    assert find_failure(store, keys[0]) is None
    assert read_lease(store, keys[0]).released  # type: ignore[union-attr]


def test_a_worker_that_lost_its_lease_writes_no_result(
    cells: tuple[Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = cells
    lease = take_lease(store, keys[0], "old")
    assert isinstance(lease, Lease)
    real = fit_and_score.fit_and_score

    def robbed(*arguments: object) -> object:
        outcome = real(*arguments)  # type: ignore[arg-type]
        seen = take_lease(store, keys[0], "new")
        heir = take_lease(store, keys[0], "new", seen=seen, patience=0)  # type: ignore[arg-type]
        assert isinstance(heir, Lease)
        return outcome

    monkeypatch.setattr(fit_and_score, "fit_and_score", robbed)
    with pytest.raises(TryAgainError, match="new took it over"):
        run_cell.run_cell(run_cell.read_cell(store, keys[0]), place(store, tmp_path), lease, None)
    assert find_result(store, keys[0]) is None
    assert find_failure(store, keys[0]) is None


def test_pictures_are_decoded_before_the_fit_is_timed(
    cells: tuple[Store, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, keys = cells
    lease = take_lease(store, keys[0], "me")
    assert isinstance(lease, Lease)
    kept: list[Path] = []

    def run(*_: object) -> None:
        kept.extend((tmp_path / "cache" / "pictures").rglob("*.npy"))
        raise StoppedError("seen enough")

    monkeypatch.setattr(fit_and_score, "fit_and_score", run)
    with pytest.raises(StoppedError):
        run_cell.run_cell(run_cell.read_cell(store, keys[0]), place(store, tmp_path), lease, None)
    assert len(kept) == 1


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def to_folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize("damage", [cut, to_folder, Path.unlink, lambda path: path.write_bytes(b"[]")])
@pytest.mark.parametrize("name", [".index.json", "manifest.json", "*/*/*.png"])
def test_a_damaged_cache_is_made_anew(
    cells: tuple[Store, list[str]], tmp_path: Path, damage: Callable[[Path], object], name: str
) -> None:
    store, (first, *others) = cells
    assert worker(store, tmp_path, []).run([first]) is ExitCode.DONE
    for kept in (tmp_path / "cache").rglob("*.npy"):
        damage(kept)
    damage(min((tmp_path / "cache").glob(f"datasets/*/{name}")))
    assert worker(store, tmp_path, []).run(others) is ExitCode.DONE
    assert all(find_result(store, key) for key in others)
    assert list(store.keys("cells/")) == [key for key in store.keys("cells/") if "failure.json" not in key]


def test_a_picture_that_rots_on_this_machine_is_tried_again_and_is_no_failure(
    cells: tuple[Store, list[str]], tmp_path: Path
) -> None:
    store, (first, second, *_) = cells
    assert worker(store, tmp_path, []).run([first]) is ExitCode.DONE
    for kept in (tmp_path / "cache").rglob("*.npy"):
        kept.unlink()
    picture = min((tmp_path / "cache").glob("datasets/*/test/*/*.png"))
    data, times = picture.read_bytes(), picture.stat()
    picture.write_bytes(data[:-1] + b"x")
    os.utime(picture, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert worker(store, tmp_path, []).run([second]) is ExitCode.TRY_AGAIN
    assert find_failure(store, second) is None
    assert worker(store, tmp_path, []).run([second]) is ExitCode.DONE
    assert picture.read_bytes() == data
