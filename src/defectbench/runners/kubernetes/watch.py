"""A sweep followed to its end: two streams of the cluster, and a modest look at the store for progress."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from defectbench.errors import ExitCode
from defectbench.records.state import CellState
from defectbench.records.sweep_record import Record
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.api import Cluster, Document
from defectbench.runners.kubernetes.find import owner
from defectbench.runners.kubernetes.informer import Informer
from defectbench.runners.kubernetes.jobs import OURS, read_job
from defectbench.runners.status import (
    CellStatus,
    StoredState,
    cell_statuses,
    count_states,
    read_stored_states,
)
from defectbench.stores.base import Store

POLL = 15.0
"""Seconds between two looks at the leases of running cells; holders beat every 20."""

AT_ONCE = 64
"""Jobs whose progress is read in one look; with more running, they are read in rotation."""

DOOM_PATIENCE = 60.0
"""Seconds after which a doomed Job is no longer waited for: a registry may have been away for a moment."""

_OVER = frozenset({CellState.FINISHED, CellState.FAILED, CellState.DAMAGED})

GRACE = 20.0
"""Seconds without any live Job before cells that nobody holds are given up: `submit` may be topping up."""


@dataclass(frozen=True)
class Snapshot:
    """A moment of a sweep.

    Attributes:
        trouble: why the snapshot may be old; empty while the streams flow.
        over: nothing more will happen by itself.
    """

    views: Sequence[JobView]
    statuses: Sequence[CellStatus]
    trouble: str = ""
    over: bool = False

    @property
    def code(self) -> ExitCode:
        """0 when every cell is finished, else 1."""
        done = all(each.state is CellState.FINISHED for each in self.statuses)
        return ExitCode.DONE if done else ExitCode.SOME_FAILED

    @property
    def advice(self) -> list[str]:
        """What a person may do about the cells that are not finished."""
        states = count_states(self.statuses)
        return [
            f"{states[state]} cells are {state}: {action}"
            for state, action in (
                (CellState.DOOMED, "`defectbench why JOB` says what is missing"),
                (CellState.FAILED, "`defectbench why CELL` says why, `defectbench retry` tries again"),
                (CellState.DAMAGED, "`defectbench why CELL` says what is, `defectbench retry` mends them"),
                (CellState.PENDING, "no Job works on them; `defectbench submit` goes on"),
            )
            if state in states
        ]


@dataclass
class Follower:
    """Follows the cells ``keys`` of a sweep."""

    cluster: Cluster
    store: Store
    record: Record
    keys: Sequence[str]
    clock: Callable[[], float] = time.monotonic
    poll: float = POLL
    doom_patience: float = DOOM_PATIENCE
    grace: float = GRACE
    _kept: dict[str, StoredState] = field(default_factory=dict)
    _ended_jobs: set[str] = field(default_factory=set)
    _doomed: dict[str, float] = field(default_factory=dict)
    _polled: float = float("-inf")
    _next_job: int = 0
    _idle_since: float | None = None

    def follow(self, show: Callable[[Snapshot], None], every: float = 1.0) -> Snapshot:
        """Show a snapshot whenever something changed, at most each ``every`` seconds; return the last.

        Raises:
            DefectbenchError: the first look fails, or the rights are taken away meanwhile.
        """
        news = threading.Event()
        with ExitStack() as stack:
            jobs = stack.enter_context(Informer(self.cluster, "jobs", OURS, news))
            pods = stack.enter_context(Informer(self.cluster, "pods", OURS, news))
            self._kept = read_stored_states(self.store, self.keys, self.record)
            while True:
                news.clear()
                snapshot = self._snapshot(jobs, pods)
                show(snapshot)
                if snapshot.over:
                    return snapshot
                time.sleep(every)
                news.wait(max(0.0, min(self.poll, 5.0) - every))

    def _snapshot(self, jobs: Informer, pods: Informer) -> Snapshot:
        """Return the sweep as the streams and the store show it now."""
        views = self._views(jobs.objects(), pods.objects())
        self._read_ended(views)
        if self.clock() - self._polled >= self.poll:
            self._polled = self.clock()
            self._progress([each for each in views if each.phase is CellState.RUNNING])
        statuses = cell_statuses(self.record, self._kept, views)
        return Snapshot(views, statuses, jobs.trouble or pods.trouble, self._over(views, statuses))

    def _views(self, jobs: Iterable[Document], pods: Iterable[Document]) -> list[JobView]:
        """Return the Jobs that hold any of the cells."""
        of: dict[str, list[Document]] = defaultdict(list)
        for pod in pods:
            of[owner(pod)].append(pod)
        wanted = self._kept.keys()
        views = (read_job(job, of.get(job["metadata"]["uid"], ())) for job in jobs)
        return [each for each in views if not wanted.isdisjoint(each.cells)]

    def _read_ended(self, views: Sequence[JobView]) -> None:
        """Ask the store once about the cells of each Job that ended."""
        ended = [each for each in views if not each.live and each.uid not in self._ended_jobs]
        self._ended_jobs |= {each.uid for each in ended}
        keys = {
            key for each in ended for key in each.cells if key in self._kept and not self._kept[key].finished
        }
        self._kept |= read_stored_states(self.store, sorted(keys), self.record)

    def _progress(self, running: Sequence[JobView]) -> None:
        """Read how far running Jobs are, some at a time."""
        start = self._next_job % max(1, len(running))
        chosen = [*running[start:], *running[:start]][:AT_ONCE]
        self._next_job = start + len(chosen)
        for _ in self.store.each(self._progress_of, chosen):
            pass

    def _progress_of(self, running: JobView) -> None:
        """Read on through a Job's cells, in the worker's order, to the one that it is at."""
        for key in running.cells:
            known = self._kept.get(key)
            if known is None or known.finished or known.failure is not None:
                continue
            now = read_stored_states(self.store, [key], self.record)[key]
            self._kept[key] = now
            if not now.finished and now.failure is None:
                return

    def _over(self, views: Sequence[JobView], statuses: Sequence[CellStatus]) -> bool:
        """Whether waiting on is of no use."""
        now = self.clock()
        if all(each.state in _OVER for each in statuses):
            return not any(each.live for each in views if each.phase is not CellState.DOOMED)
        doomed = {each.uid for each in views if each.phase is CellState.DOOMED}
        self._doomed = {uid: self._doomed.get(uid, now) for uid in doomed}
        hopeless = {uid for uid, since in self._doomed.items() if now - since >= self.doom_patience}
        if any(each.live and each.uid not in hopeless for each in views):
            self._idle_since = None
            return False
        self._idle_since = now if self._idle_since is None else self._idle_since
        return now - self._idle_since >= self.grace
