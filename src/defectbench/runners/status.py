"""Where the cells of a sweep are: what the store knows counts first, then the Jobs that hold them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectbench.errors import DataError, ExitCode, MissingInputError, describe_exit_code
from defectbench.execution.events import clock
from defectbench.records.cell import Cell
from defectbench.records.lease import LeaseRecord, describe_silence, read_lease
from defectbench.records.result import Failure, find_failure, read_verified
from defectbench.records.state import CellState
from defectbench.records.sweep_record import Record, models_of
from defectbench.runners.job_view import JobView
from defectbench.stores.base import Store
from defectbench.stores.layout import spec_key
from defectbench.tables.collect import CellChecks


@dataclass(frozen=True, slots=True)
class StoredState:
    """What the store knows of a cell.

    Attributes:
        damage: which of its documents or files is not what was written, and how; empty for none.
    """

    finished: bool = False
    failure: Failure | None = None
    lease: LeaseRecord | None = None
    damage: str = ""


@dataclass(frozen=True, slots=True)
class CellStatus:
    """Where a cell is.

    Attributes:
        model: the sweep's label for it.
        job: that holds it; empty for none.
        detail: for people.
        code: exit code where it failed.
    """

    cell: str
    category: str
    model: str
    state: CellState
    job: str = ""
    detail: str = ""
    code: int | None = None
    progress: Mapping[str, Any] | None = None


def read_stored_states(
    store: Store, keys: Sequence[str], record: Record | None = None
) -> dict[str, StoredState]:
    """Ask the store about cells: results verified as the report does, else failure and lease.

    What is damaged is one cell's trouble and named in its state.

    Args:
        record: of the sweep whose splits read the cells, to check that they can.
    """
    checks = None if record is None else CellChecks(record)

    def one(key: str) -> StoredState:
        try:
            if (found := read_verified(store, key)) is not None:
                fault = checks.of_file(key, *found) if checks is not None else ""
                return StoredState(finished=not fault, damage=fault)
            failure = find_failure(store, key)
            if failure is None and (spec := store.find(spec_key(key))) is not None:
                Cell.from_json(spec.data)
            return StoredState(failure=failure, lease=read_lease(store, key))
        except (DataError, MissingInputError) as error:
            return StoredState(lease=read_lease(store, key), damage=str(error))

    return dict(zip(keys, store.each(one, keys), strict=True))


def cell_statuses(
    record: Record, kept: Mapping[str, StoredState], views: Iterable[JobView] = (), asked: bool = True
) -> list[CellStatus]:
    """Return where each cell of ``kept`` is.

    Args:
        views: the Jobs that are there, of any sweep: cells are shared.
        asked: whether the cluster was; without it, a cell that is not submitted looks like one that is.
    """
    holders: dict[str, JobView] = {}
    for each in views:
        for key in each.cells:
            # A live Job counts before one that ended.
            if key not in holders or each.live:
                holders[key] = each
    labels = models_of(record)
    return [
        _one(key, record.cells[key], labels[key], known, holders.get(key), asked)
        for key, known in kept.items()
    ]


def count_states(statuses: Iterable[CellStatus]) -> dict[str, int]:
    """Return how many cells are in each state, in the order of a cell's life, without zeros."""
    counted = Counter(each.state for each in statuses)
    return {state.value: counted[state] for state in CellState if counted[state]}


def _one(
    key: str, category: str, model: str, kept: StoredState, job: JobView | None, asked: bool
) -> CellStatus:
    """Return where one cell is."""
    state, detail, code = _state(kept, job, asked)
    progress = kept.lease.progress if kept.lease and state in (CellState.RUNNING, CellState.STUCK) else None
    return CellStatus(key, category, model, state, job.name if job else "", detail, code, progress)


def _state(kept: StoredState, job: JobView | None, asked: bool) -> tuple[CellState, str, int | None]:
    """Return a cell's state, a detail for people, and an exit code where it failed."""
    if kept.finished:
        return CellState.FINISHED, "", None
    if kept.failure is not None:
        message = kept.failure.message.splitlines()[0] if kept.failure.message else ""
        return CellState.FAILED, f"{describe_exit_code(kept.failure.code)}: {message}", int(kept.failure.code)
    # A silent lease counts as held: only a worker that waits for it can see that it does not move.
    held = kept.lease is not None and not kept.lease.released
    if kept.damage and not held:
        return CellState.DAMAGED, f"{kept.damage}; `defectbench retry` or `run` mends it", int(ExitCode.DATA)
    if job is None or job.leaving:
        if kept.lease is not None and held:
            words = f"{describe_progress(kept.lease)}, last beat {kept.lease.at}".lstrip(", ")
            return _at_work(kept.lease, words)
        return CellState.PENDING, _idle(kept, job, asked), None
    if job.phase is CellState.FAILED:
        words = describe_exit_code(job.code, job.killed) if job.code is not None else ""
        return CellState.FAILED, f"{words}; {job.reason}".strip("; "), job.code
    if job.phase is CellState.FINISHED:
        return CellState.PENDING, "its Job is complete without a verified result: retry --only all", None
    if job.phase is CellState.RUNNING:
        if kept.lease is not None and held:
            return _at_work(kept.lease, describe_progress(kept.lease))
        return CellState.PENDING, f"in line in Job {job.name}", None
    return job.phase, job.reason, job.code


def _at_work(lease: LeaseRecord, words: str) -> tuple[CellState, str, None]:
    """Return the state of a cell that somebody holds, told by ``words``: running, or stuck."""
    trouble = describe_silence(lease)
    return (CellState.STUCK, f"{trouble}; {words}", None) if trouble else (CellState.RUNNING, words, None)


def _idle(kept: StoredState, job: JobView | None, asked: bool) -> str:
    """Say why nobody works on a cell."""
    if job is not None:
        return "its Job is being deleted"
    if kept.lease is not None:
        return f"stopped in attempt {kept.lease.fence}; it goes on from its checkpoint"
    return "not submitted" if asked else "not begun"


def describe_progress(lease: LeaseRecord) -> str:
    """Return a holder's progress for people: phase, epoch, time left."""
    progress = lease.progress
    if not progress.get("phase"):
        return "beginning"
    left = progress.get("left")
    rest = f", {clock(left)} left" if left is not None else ""
    return f"{progress['phase']} {progress.get('done', 0)}/{progress.get('total', 0)}{rest}"
