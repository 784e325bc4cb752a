"""Jobs brought into a cluster: each once, whoever else submits, and no more live than the window allows."""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum

from defectbench.errors import StoppedError, TryAgainError
from defectbench.execution.events import terminable
from defectbench.records.state import CellState
from defectbench.runners.chart.chart import Manifest, cells_of, digest_of
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.api import Cluster
from defectbench.runners.kubernetes.informer import Informer
from defectbench.runners.kubernetes.jobs import OURS, read_job

log = logging.getLogger(__name__)

CONCURRENCY = 16
"""Requests under way at once."""

WINDOW = 2000
"""Jobs that may be live at once: beyond 3,000 to 5,000 Job controllers were seen to slow down."""

_LEAVING_PATIENCE = 300.0
"""Seconds that a Job of the same name which is being deleted is waited for: its pods save first."""

_LOOK_EVERY = 5.0


class JobOutcome(StrEnum):
    """What became of a Job."""

    CREATED = "created"
    ADOPTED = "adopted"
    """The same Job is there already, live or complete."""
    FINISHED = "finished"
    """All of its cells are: left out."""
    HELD = "held"
    """Other live Jobs hold all of its cells: left out."""
    FAILED = "failed"
    """The same Job is there and failed."""
    DIFFERENT = "different"
    """A Job of this name, made from another manifest, is there."""
    LEFT = "left alone"
    """By `retry`, which was not asked for such Jobs."""


@dataclass(frozen=True, slots=True)
class PlacedJob:
    """What became of one Job, and what a person should know of it."""

    name: str
    outcome: JobOutcome
    detail: str = ""


@dataclass
class Submission:
    """Brings Jobs into the cluster.

    Attributes:
        finished: cells that need no Job.
        window: live Jobs of defectbench that the namespace may have.
        on_placed: called with every Job, from this thread.
        placed: what became of those that were dealt with.
    """

    cluster: Cluster
    finished: Collection[str]
    window: int = WINDOW
    on_placed: Callable[[PlacedJob], None] = lambda placed: None
    concurrency: int = CONCURRENCY
    placed: dict[str, PlacedJob] = field(default_factory=dict)
    _there: dict[str, JobView] = field(default_factory=dict)
    _holders: dict[str, str] = field(default_factory=dict)
    _live: set[str] = field(default_factory=set)
    _seen: set[str] = field(default_factory=set)
    _again: deque[tuple[str, bytes]] = field(default_factory=deque)
    _in_flight: dict[Future[PlacedJob | None], tuple[str, bytes]] = field(default_factory=dict)
    _due: int = 0
    _informer: Informer | None = None

    def run(self, manifests: Iterable[Manifest]) -> Mapping[str, PlacedJob]:
        """Return when every Job is in the cluster or left out; waits where the window is full.

        Raises:
            StoppedError: SIGTERM or Ctrl-C. Nothing is lost: what was not submitted is pending.
            DefectbenchError: as :meth:`Cluster.call`, after the requests under way have ended.
        """
        with terminable(), ExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(self.concurrency))
            try:
                self._look()
                self._send(self._wanted(manifests), pool, stack)
            except KeyboardInterrupt:
                raise StoppedError(
                    "stopped; what is not submitted is pending, and the same command goes on"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)
        return self.placed

    def cells_of_others(self, manifests: Iterable[Manifest]) -> frozenset[str]:
        """Return the cells whose Jobs are there by name, but made from other settings; creates nothing."""
        self._look()
        found: set[str] = set()
        for manifest in manifests:
            name, cells = manifest["metadata"]["name"], cells_of(manifest)
            placed = self._without_asking(name, cells, digest_of(manifest))
            if placed is not None and placed.outcome is JobOutcome.DIFFERENT:
                found.update(cells)
        return frozenset(found)

    def _look(self) -> None:
        """See which Jobs are there, of every sweep: they share the window, and some share cells."""
        for document in self.cluster.items(self.cluster.path("jobs"), query={"labelSelector": OURS}):
            found = read_job(document)
            self._there[found.name] = found
            if found.live:
                self._hold(found.name, found.cells)

    def _hold(self, name: str, cells: Iterable[str]) -> None:
        """Count a Job as live, and note that it holds these cells."""
        self._live.add(name)
        for key in cells:
            self._holders.setdefault(key, name)

    def _wanted(self, manifests: Iterable[Manifest]) -> Iterator[tuple[str, bytes]]:
        """Yield name and JSON of the Jobs that must be created, and report the others."""
        for manifest in manifests:
            name, cells = manifest["metadata"]["name"], cells_of(manifest)
            placed = self._without_asking(name, cells, digest_of(manifest))
            if placed is not None:
                self._note(placed)
                continue
            self._hold(name, cells)
            yield name, json.dumps(manifest, separators=(",", ":")).encode()

    def _without_asking(self, name: str, cells: tuple[str, ...], digest: str) -> PlacedJob | None:
        """Return what becomes of a Job as far as is known already; None where it must be created."""
        unfinished = [key for key in cells if key not in self.finished]
        if not unfinished:
            return PlacedJob(name, JobOutcome.FINISHED, f"its {len(cells)} cells are finished")
        there = self._there.get(name)
        if there is not None and not there.leaving:
            return outcome_of_existing(there, digest)
        holders = {self._holders.get(key, name) for key in unfinished}
        if name in holders:
            return None
        return PlacedJob(name, JobOutcome.HELD, f"its cells are held by {', '.join(sorted(holders))}")

    def _send(self, wanted: Iterator[tuple[str, bytes]], pool: ThreadPoolExecutor, stack: ExitStack) -> None:
        """Send the Jobs; those that a quota refused are tried again when the others are sent."""
        while True:
            if self._again and not self._due:
                self._wait_for_quota(stack)
                self._due = len(self._again)
            item = self._again.popleft() if self._due else next(wanted, None)
            self._due = max(0, self._due - 1)
            if item is not None:
                self._live.add(item[0])
                while len(self._live) > self.window:
                    self._wait_for_change(stack)
                self._in_flight[pool.submit(self._create, *item)] = item
            elif not self._in_flight:
                return
            # A bounded number is under way: thousands of manifests are never in memory at once.
            if item is None or len(self._in_flight) >= 2 * self.concurrency:
                self._collect(_LOOK_EVERY)

    def _collect(self, patience: float) -> None:
        """Take in the requests that ended; those that a quota refused come up again."""
        done, _ = wait(self._in_flight, timeout=patience, return_when=FIRST_COMPLETED)
        for future in done:
            item = self._in_flight.pop(future)
            placed = future.result()
            if placed is None:
                self._live.discard(item[0])
                self._again.append(item)
            else:
                self._note(placed)

    def _note(self, placed: PlacedJob) -> None:
        """Keep and report what became of a Job."""
        self.placed[placed.name] = placed
        if placed.outcome in (JobOutcome.FAILED, JobOutcome.DIFFERENT):
            self._live.discard(placed.name)
        self.on_placed(placed)

    def _wait_for_quota(self, stack: ExitStack) -> None:
        """Wait before Jobs that a quota refused are sent again: when one of ours ends, one may fit."""
        while self._in_flight:
            self._collect(_LOOK_EVERY)
        if not self._live:
            raise TryAgainError(
                f"a quota of namespace {self.cluster.namespace} lets no Job in, and none of ours is live: "
                "free some of it (kubectl describe resourcequota), then run the same command again"
            )
        self._wait_for_change(stack)

    def _wait_for_change(self, stack: ExitStack) -> None:
        """Wait for news of the Jobs that are live, and count them anew."""
        if self._informer is None:
            log.info("%d Jobs are live: waiting until some end", len(self._live))
            self._informer = stack.enter_context(Informer(self.cluster, "jobs", OURS))
        self._collect(0.0)
        self._informer.changed.wait(_LOOK_EVERY)
        self._informer.changed.clear()
        self._drop_ended(self._informer)

    def _drop_ended(self, informer: Informer) -> None:
        """Count as live no longer what ended or went away."""
        views = {each.name: each for each in map(read_job, informer.objects())}
        # Remembered, because a Job that was just created may not be in the stream yet.
        self._seen |= views.keys()
        for name in list(self._live):
            # What the stream has not shown yet is not gone.
            ended = not views[name].live if name in views else name in self._seen
            if ended:
                self._live.discard(name)

    def _create(self, name: str, body: bytes) -> PlacedJob | None:
        """Create a Job, or find out what is there under its name. None: a quota refuses it for now."""
        end = time.monotonic() + _LEAVING_PATIENCE
        while True:
            answer = self.cluster.call("POST", self.cluster.path("jobs"), body=body, allow=(403, 409))
            if answer.status == 403:
                if "exceeded quota" in answer.message:
                    return None
                raise self.cluster.refused("POST", self.cluster.path("jobs"), answer)
            if answer.status != 409:
                return PlacedJob(name, JobOutcome.CREATED)
            there = self.cluster.call("GET", self.cluster.path("jobs", name), allow=(404,))
            if there.status != 404:
                found = read_job(there.document)
                if not found.leaving:
                    return outcome_of_existing(found, digest_of(json.loads(body)))
            if time.monotonic() > end:
                raise TryAgainError(
                    f"Job {name} is being deleted and does not go away: its pods do not leave"
                )
            self.cluster.sleep(1.0)


def outcome_of_existing(there: JobView, digest: str) -> PlacedJob:
    """Return what it means for a submission that a Job of this name is there."""
    if there.phase is CellState.FAILED:
        return PlacedJob(
            there.name, JobOutcome.FAILED, f"failed: {there.reason}; `defectbench retry` tries it again"
        )
    if there.digest != digest:
        way = (
            "`defectbench cancel` ends it, then submit again"
            if there.live
            else "`defectbench retry --only all` makes it anew where cells are not finished"
        )
        return PlacedJob(
            there.name,
            JobOutcome.DIFFERENT,
            f"{there.phase}, but made from other settings, values or cells; {way}",
        )
    return PlacedJob(there.name, JobOutcome.ADOPTED, str(there.phase))
