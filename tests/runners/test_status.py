"""Where cells are, from what the store and the Jobs say."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.errors import ExitCode, MissingInputError, UsageError
from defectbench.execution.lease import Standing
from defectbench.records.result import Failure
from defectbench.records.sweep_record import Record
from defectbench.runners.kubernetes.jobs import Phase, View
from defectbench.runners.status import Kept, count, keep, narrowed, read_record, stand
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from fakes import made_up_sweep


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return DirectoryStore(tmp_path_factory.mktemp("status") / "store")


@pytest.fixture(scope="module")
def record(store: Store) -> Record:
    return made_up_sweep(store, unfinished=4, failed=2)


def seen(phase: Phase, cells: tuple[str, ...], **parts: object) -> View:
    values = {"name": "job-1", "uid": "u1", "sweep": "madeup", "model": "m", "category": "c", "digest": "d"}
    return View(**{**values, "cells": cells, "phase": phase, **parts})  # type: ignore[arg-type]


HELD = Standing("pod-a:1", "h", 2, {"phase": "fitting", "done": 3, "total": 20, "left": 75.0}, at="10:00")
GONE = Standing("pod-a:1", "h", 2, {}, released=True)
WRONG = Failure(ExitCode.DATA, "wrong\nmore", "", 1)


@pytest.mark.parametrize(
    ("kept", "phase", "parts", "state", "detail"),
    [
        (Kept(finished=True), Phase.RUNNING, {}, Phase.SUCCEEDED, ""),
        (Kept(failure=WRONG), Phase.RUNNING, {}, Phase.FAILED, "exit code 65 (the images are wrong): wrong"),
        (Kept(lease=HELD), Phase.RUNNING, {}, Phase.RUNNING, "fitting 3/20, 1:15 left"),
        (Kept(lease=GONE), Phase.RUNNING, {}, Phase.PENDING, "in line in Job job-1"),
        (Kept(), Phase.RUNNING, {}, Phase.PENDING, "in line in Job job-1"),
        (Kept(lease=HELD), None, {}, Phase.RUNNING, "fitting 3/20, 1:15 left, last beat 10:00"),
        (Kept(lease=GONE), None, {}, Phase.PENDING, "stopped in attempt 2; it goes on from its checkpoint"),
        (Kept(), None, {}, Phase.PENDING, "not submitted"),
        (Kept(), Phase.RUNNING, {"leaving": True}, Phase.PENDING, "its Job is being deleted"),
        (Kept(), Phase.QUEUED, {"reason": "in queue q"}, Phase.QUEUED, "in queue q"),
        (Kept(), Phase.DOOMED, {"reason": "ErrImagePull: x"}, Phase.DOOMED, "ErrImagePull: x"),
        (
            Kept(lease=HELD),
            Phase.FAILED,
            {"code": 137, "killed": "OOMKilled", "reason": "often"},
            Phase.FAILED,
            "killed for want of memory (exit code 137); often",
        ),
        (
            Kept(),
            Phase.SUCCEEDED,
            {},
            Phase.PENDING,
            "its Job is complete without a true result: retry --only all",
        ),
    ],
)
def test_a_cell_is_where_store_and_job_say(
    record: Record, kept: Kept, phase: Phase | None, parts: dict[str, object], state: Phase, detail: str
) -> None:
    key = next(iter(record.cells))
    views = [] if phase is None else [seen(phase, (key,), **parts)]
    found = stand(record, {key: kept}, views)[0]
    assert (found.state, found.detail) == (state, detail)
    assert (found.progress is not None) == (state is Phase.RUNNING)


def test_a_live_job_counts_before_one_that_ended(record: Record) -> None:
    key = next(iter(record.cells))
    old, new = seen(Phase.FAILED, (key,), name="old"), seen(Phase.PULLING, (key,), name="new")
    for views in ([old, new], [new, old]):
        assert stand(record, {key: Kept()}, views)[0].job == "new"


def test_the_store_is_asked_about_each_cell(store: Store, record: Record) -> None:
    kept = keep(store, list(record.cells))
    counted = count(stand(record, kept, asked=False))
    assert counted == {"pending": 4, "succeeded": len(record.cells) - 6, "failed": 2}
    details = {each.detail for each in stand(record, kept, asked=False) if each.state is Phase.PENDING}
    assert details == {"not begun"}


def test_cells_are_narrowed_by_model_category_and_key(record: Record) -> None:
    some = narrowed(record, models=["padim"], categories=["grass"])
    assert some
    assert {record.cells[key] for key in some} == {"grass"}
    assert narrowed(record, cells=[some[0][:8]]) == [some[0]]
    assert len(narrowed(record)) == len(record.cells)
    for names in ({"models": ["glas"]}, {"categories": ["gras"]}, {"cells": ["zz"]}):
        with pytest.raises(UsageError, match=r"glas|gras|zz"):
            narrowed(record, **names)


def test_a_sweep_that_never_ran_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no sweep 'study'"):
        read_record(DirectoryStore(tmp_path), "study")
