"""Where cells are, from what the store and the Jobs say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from defectbench.errors import ExitCode, MissingInputError, UsageError
from defectbench.records.lease import SILENT, STILL, LeaseRecord
from defectbench.records.result import Failure
from defectbench.records.state import CellState, state_of
from defectbench.records.sweep_record import WHOLE, Narrowing, Record, read_record
from defectbench.runners.job_view import JobView
from defectbench.runners.status import StoredState, cell_statuses, count_states, read_stored_states
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from fakes import made_up_sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return DirectoryStore(tmp_path_factory.mktemp("status") / "store")


@pytest.fixture(scope="module")
def record(store: Store) -> Record:
    return made_up_sweep(store, unfinished=4, failed=2)


def seen(phase: CellState, cells: tuple[str, ...], **parts: object) -> JobView:
    values = {"name": "job-1", "uid": "u1", "sweep": "madeup", "model": "m", "category": "c", "digest": "d"}
    return JobView(**{**values, "cells": cells, "phase": phase, **parts})  # type: ignore[arg-type]


HELD = LeaseRecord("pod-a:1", "h", 2, {"phase": "fitting", "done": 3, "total": 20, "left": 75.0}, at="10:00")
GONE = LeaseRecord("pod-a:1", "h", 2, {}, released=True)
WRONG = Failure(ExitCode.DATA, "wrong\nmore", "", 1)


@pytest.mark.parametrize(
    ("kept", "phase", "parts", "state", "detail"),
    [
        (StoredState(finished=True), CellState.RUNNING, {}, CellState.FINISHED, ""),
        (
            StoredState(failure=WRONG),
            CellState.RUNNING,
            {},
            CellState.FAILED,
            "exit code 65 (the images are wrong): wrong",
        ),
        (StoredState(lease=HELD), CellState.RUNNING, {}, CellState.RUNNING, "fitting 3/20, 1:15 left"),
        (StoredState(lease=GONE), CellState.RUNNING, {}, CellState.PENDING, "in line in Job job-1"),
        (StoredState(), CellState.RUNNING, {}, CellState.PENDING, "in line in Job job-1"),
        (StoredState(lease=HELD), None, {}, CellState.RUNNING, "fitting 3/20, 1:15 left, last beat 10:00"),
        (
            StoredState(lease=GONE),
            None,
            {},
            CellState.PENDING,
            "stopped in attempt 2; it goes on from its checkpoint",
        ),
        (StoredState(), None, {}, CellState.PENDING, "not submitted"),
        (StoredState(), CellState.RUNNING, {"leaving": True}, CellState.PENDING, "its Job is being deleted"),
        (StoredState(), CellState.QUEUED, {"reason": "in queue q"}, CellState.QUEUED, "in queue q"),
        (StoredState(), CellState.DOOMED, {"reason": "ErrImagePull: x"}, CellState.DOOMED, "ErrImagePull: x"),
        (
            StoredState(lease=HELD),
            CellState.FAILED,
            {"code": 137, "killed": "OOMKilled", "reason": "often"},
            CellState.FAILED,
            "killed for want of memory (exit code 137); often",
        ),
        (
            StoredState(),
            CellState.FINISHED,
            {},
            CellState.PENDING,
            "its Job is complete without a verified result: retry --only all",
        ),
    ],
)
def test_a_cell_is_where_store_and_job_say(
    record: Record,
    kept: StoredState,
    phase: CellState | None,
    parts: dict[str, object],
    state: CellState,
    detail: str,
) -> None:
    key = next(iter(record.cells))
    views = [] if phase is None else [seen(phase, (key,), **parts)]
    found = cell_statuses(record, {key: kept}, views)[0]
    assert (found.state, found.detail) == (state, detail)
    assert (found.progress is not None) == (state is CellState.RUNNING)


@pytest.mark.parametrize(
    ("still", "beat", "state", "words"),
    [
        (STILL - 1, 1, CellState.RUNNING, "fitting 3/20"),
        (STILL, 1, CellState.STUCK, "no step for 10 min; fitting 3/20"),
        (0, SILENT - 60, CellState.RUNNING, "fitting 3/20"),
        (0, SILENT + 5, CellState.STUCK, "no beat since "),
        (0, -3600, CellState.RUNNING, "fitting 3/20"),  # a clock that is ahead is no silence
    ],
)
@pytest.mark.parametrize("phase", [CellState.RUNNING, None])
def test_a_holder_that_hangs_is_stuck(
    record: Record, still: float, beat: float, state: CellState, words: str, phase: CellState | None
) -> None:
    """Its last step and its last beat are so many seconds ago."""
    key = next(iter(record.cells))
    at = (datetime.now(UTC) - timedelta(seconds=beat)).isoformat(timespec="seconds")
    kept = {key: StoredState(lease=replace(HELD, at=at, still=still))}
    [found] = cell_statuses(record, kept, [] if phase is None else [seen(phase, (key,))])
    assert found.state is state
    assert found.detail.startswith(words)
    assert found.progress == HELD.progress


@pytest.mark.parametrize("code", ExitCode)
def test_what_may_be_tried_again_is_no_failure(code: ExitCode) -> None:
    """A cell that its worker never reached must not be called failed because the store was away."""
    own = {ExitCode.DONE: CellState.FINISHED, ExitCode.STOPPED: CellState.STOPPED}
    again = {ExitCode.TRY_AGAIN, ExitCode.STORE_AWAY}
    assert state_of(code) is own.get(code, CellState.AGAIN if code in again else CellState.FAILED)


def test_a_live_job_counts_before_one_that_ended(record: Record) -> None:
    key = next(iter(record.cells))
    old, new = seen(CellState.FAILED, (key,), name="old"), seen(CellState.PULLING, (key,), name="new")
    for views in ([old, new], [new, old]):
        assert cell_statuses(record, {key: StoredState()}, views)[0].job == "new"


def test_the_store_is_asked_about_each_cell(store: Store, record: Record) -> None:
    kept = read_stored_states(store, list(record.cells))
    counted = count_states(cell_statuses(record, kept, asked=False))
    assert counted == {"pending": 4, "finished": len(record.cells) - 6, "failed": 2}
    details = {
        each.detail for each in cell_statuses(record, kept, asked=False) if each.state is CellState.PENDING
    }
    assert details == {"not begun"}


def test_cells_are_narrowed_by_model_category_and_key(record: Record) -> None:
    some = record.narrowed(Narrowing(models=["padim"], categories=["grass"]))
    assert some
    assert {record.cells[key] for key in some} == {"grass"}
    assert record.narrowed(Narrowing(cells=[some[0][:8]])) == [some[0]]
    assert len(record.narrowed(WHOLE)) == len(record.cells)
    for names in ({"models": ["glas"]}, {"categories": ["gras"]}, {"cells": ["zz"]}):
        with pytest.raises(UsageError, match=r"glas|gras|zz"):
            record.narrowed(Narrowing(**names))


def test_a_sweep_that_never_ran_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no sweep 'study'"):
        read_record(DirectoryStore(tmp_path), "study")
