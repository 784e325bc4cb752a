"""One cell, end to end: data and weights fetched, fitted, scored, its result written last."""

from __future__ import annotations

import errno
import hashlib
import io
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from defectbench import catalog
from defectbench.data.manifest import Manifest
from defectbench.data.unpacked import unpack
from defectbench.errors import (
    PERMANENT,
    DeadlineError,
    DefectbenchError,
    ExitCode,
    MissingInputError,
    StoppedError,
    StoreAwayError,
    TryAgainError,
)
from defectbench.execution import fit_and_score, unpublished
from defectbench.execution.checkpoints import EVERY, StoredCheckpoints
from defectbench.execution.events import Event
from defectbench.execution.fit_and_score import CellOutcome, CellProgress
from defectbench.execution.lease import Lease
from defectbench.execution.unpublished import Unpublished
from defectbench.execution.watchdog import Watchdog
from defectbench.models.choose import load_class
from defectbench.models.pictures.images import ImageSet
from defectbench.records.cell import Cell
from defectbench.records.lease import LeaseRecord
from defectbench.records.predictions import history_to_parquet
from defectbench.records.result import PREDICTIONS, Failure, Result, versions
from defectbench.records.state import CellState
from defectbench.stores.base import ABSENT, Store
from defectbench.stores.layout import LOG, cell_key, failure_key, result_key, spec_key
from defectbench.util.files import draft_path
from defectbench.util.memory import ran_out
from defectbench.util.shutdown import Stop
from defectbench.weights import store as weights

log = logging.getLogger(__name__)

LOG_EVERY = 30.0
"""Seconds between two writes of an attempt's log: S3 cannot append, so it is written anew each time."""

_REPORT_EVERY = 0.5
_OUT_OF_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM})
_OF_THE_FIT = frozenset({ExitCode.BUG, ExitCode.DATA})


@dataclass(frozen=True)
class WorkerContext:
    """Where a worker works.

    Attributes:
        cache: unpacked pictures, decoded pictures, features, weights and checkpoints on this machine.
        device: as asked for: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        stop: set when the process is to end.
        on_event: called with every event.
        checkpoint_every: seconds between two checkpoints of a fit.
        watchdog: ends the process where a cell hangs.
    """

    store: Store
    cache: Path
    device: str
    stop: Stop
    on_event: Callable[[Event], None]
    checkpoint_every: float = EVERY
    watchdog: Watchdog = field(default_factory=Watchdog)


def read_cell(store: Store, key: str) -> Cell:
    """Return the cell whose spec lies in the store.

    Raises:
        MissingInputError: there is none.
    """
    blob = store.find(spec_key(key))
    if blob is None:
        raise MissingInputError(f"no cell {key} in {store.url}: `defectbench run SWEEP` writes the specs")
    return Cell.from_json(blob.data)


def run_cell(cell: Cell, place: WorkerContext, lease: Lease, before: LeaseRecord | None) -> Result:
    """Run a cell under its lease and write its result; go on with the checkpoint of an earlier attempt.

    Args:
        before: what the lease said of the last attempt, for the running time that is used up.

    Raises:
        DefectbenchError: as the cell ended; a permanent one is recorded in ``failure.json``.
    """
    spent = float(before.progress.get("spent", 0.0)) if before else 0.0
    watch = _ProgressWatch(cell, place, lease, spent)
    with (
        lease.beating(),
        _attempt_log(place.store, lease) as write_log,
        place.watchdog.watching(watch.overdue, _Ending(place.store, lease, write_log)),
        draft_path(place.cache / "checkpoints") as arrived,
    ):
        checkpointer = StoredCheckpoints(place.store, lease, arrived, place.checkpoint_every)
        try:
            work = unpublished.find(place.cache, cell.key)
            if work is None:
                work = _described(cell, lease.fence, _perform(cell, place, watch, checkpointer))
                unpublished.keep(place.cache, work)
            result = _publish(cell, place.store, lease, work)
            unpublished.remove(place.cache, cell.key)
        except Exception as error:
            _record_failure(place.store, lease, error)
            if checkpointer.resumed and code_of(error) in _OF_THE_FIT:
                checkpointer.clear()  # a retry must not begin with what may be the cause
            raise
        checkpointer.clear()
        return result


def _perform(
    cell: Cell, place: WorkerContext, watch: _ProgressWatch, checkpointer: StoredCheckpoints
) -> CellOutcome:
    """Fetch data and weights, then fit and score."""
    log.info("cell %s: %s on %s, seed %d", cell.key, cell.fit.model, cell.category, cell.fit.seed)
    with place.stop.at_once():  # nothing to save yet
        entry = catalog.find_of(cell.fit.model, cell.fit.package)
        root = unpack(place.store, cell.dataset, cell.category, cell.fit.data_digest, place.cache)
        manifest = Manifest.from_json((root / "manifest.json").read_bytes())
        files = weights.fetch(place.store, cell.fit.weights, place.cache)
        watch.check()
        images = ImageSet(manifest, root, cell.fit.image_size, place.cache, cell.fit.threads)
        images.prepare()
        # Seconds of imports: done while a stop may still end the process at once.
        load_class(entry)
    return fit_and_score.fit_and_score(cell, images, files, place.device, watch.on_progress, checkpointer)


@dataclass
class _ProgressWatch:
    """Follows a cell's steps: reports them to the caller and the lease, and ends the cell when due."""

    cell: Cell
    place: WorkerContext
    lease: Lease
    spent: float
    started: float = field(default_factory=time.monotonic)
    waited_before: float = field(init=False)
    phase: str = ""
    phase_started: float = 0.0
    phase_first: int = 0
    reported: float = 0.0

    def __post_init__(self) -> None:
        self.waited_before = self.place.store.waited

    @property
    def used(self) -> float:
        """Running time of all attempts, seconds: not what was waited for a store that was away."""
        waited = self.place.store.waited - self.waited_before
        return self.spent + time.monotonic() - self.started - waited

    def overdue(self) -> DefectbenchError | None:
        """Return why the process must end, though no step says so: it hangs. Called by another thread."""
        watchdog, used, deadline = self.place.watchdog, self.used, self.cell.deadline
        if deadline is not None and used > deadline + watchdog.grace:
            return DeadlineError(
                f"cell {self.cell.key} has run for {used:.0f} s, its deadline is {deadline:.0f} s, "
                f"and its last step was {watchdog.still:.0f} s ago"
            )
        if watchdog.stuck:
            return TryAgainError(f"cell {self.cell.key} is stuck: no step for {watchdog.still:.0f} s")
        return None

    def check(self) -> None:
        """Raise what ends the cell: a stop, a lost lease, the deadline."""
        self.place.watchdog.note_step()
        if self.place.stop.is_set():
            raise StoppedError(f"cell {self.cell.key} was stopped; the same command starts it again")
        self.lease.check()
        if self.cell.deadline is not None and self.used > self.cell.deadline:
            raise DeadlineError(
                f"cell {self.cell.key} has run for {self.used:.0f} s, "
                f"its deadline is {self.cell.deadline:.0f} s"
            )

    def on_progress(self, step: CellProgress) -> None:
        """Pass a step on, twice a second at most."""
        self.check()
        now = time.monotonic()
        if step.phase != self.phase:
            self.phase, self.phase_started, self.phase_first, self.reported = step.phase, now, step.done, 0.0
        if now - self.reported < _REPORT_EVERY:
            return
        self.reported = now
        done = step.done - self.phase_first  # since this attempt began: it may have resumed
        left = (now - self.phase_started) / done * (step.total - step.done) if done else None
        self.lease.progress = {
            "phase": step.phase,
            "done": step.done,
            "total": step.total,
            "left": left,
            "spent": self.used,
        }
        self.place.on_event(
            Event(
                self.cell.key,
                CellState.RUNNING,
                phase=step.phase,
                done=step.done,
                total=step.total,
                left=left,
            )
        )


def _described(cell: Cell, fence: int, outcome: CellOutcome) -> Unpublished:
    """Return what is to be published: the files by their names, and the result that speaks of them."""
    contents = {
        PREDICTIONS: outcome.predictions.to_parquet(),
        "history.parquet": history_to_parquet(outcome.history),
    }
    if outcome.heat_maps is not None:
        contents["heatmaps.npz"] = outcome.heat_maps
    files = {f"{fence}/{name}": hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    return Unpublished(contents, _result(cell, outcome, files))


def _publish(cell: Cell, store: Store, lease: Lease, work: Unpublished) -> Result:
    """Write the attempt's files below its fence, and the result last and once."""
    for name, data in work.contents.items():
        store.put(cell_key(cell.key, str(lease.fence), name), data)
    made = work.result.files.items()
    files = {f"{lease.fence}/{place.rpartition('/')[2]}": digest for place, digest in made}
    result = replace(work.result, files=files)
    # A holder that lost the cell learns it here, before the result and not after.
    lease.confirm()
    seen = store.find(result_key(cell.key))
    store.put(result_key(cell.key), result.to_json(), expected=seen.version if seen else ABSENT)
    log.info("cell %s: done, %s", cell.key, dict(result.metrics))
    return result


def _result(cell: Cell, outcome: CellOutcome, files: dict[str, str]) -> Result:
    """Return ``result.json``'s document; the calibration threshold of no goods is None."""
    threshold = outcome.calibration_threshold
    return Result(
        cell=cell.key,
        model=cell.fit.model,
        family=cell.family,
        dataset=cell.dataset,
        category=cell.category,
        seed=cell.fit.seed,
        image_size=cell.fit.image_size,
        weights={"kind": cell.weights_kind, "sha256": dict(cell.fit.weights)},
        threads=cell.fit.threads,
        data_digest=cell.fit.data_digest,
        metrics=outcome.metrics,
        cost=outcome.cost,
        calibration_threshold=threshold if threshold == threshold else None,
        versions=versions([cell.fit.package.partition("==")[0]] if cell.fit.package else ()),
        device=outcome.device,
        files=files,
    )


def _record_failure(store: Store, lease: Lease, error: Exception) -> None:
    """Keep the traceback in the log; keep a permanent failure as ``failure.json``, if the lease holds."""
    code = code_of(error)
    if code is ExitCode.STOPPED:
        return
    # A traceback only where somebody has to look for the cause in code, ours or a library's.
    trace = error if code is ExitCode.BUG else None
    log.error("attempt %d of cell %s failed (%d): %s", lease.fence, lease.key, code, error, exc_info=trace)
    # What may pass is not recorded: the next attempt tries again.
    if code not in PERMANENT or lease.lost:
        return
    text = "".join(traceback.format_exception(error))
    failure = Failure(code, str(error) or type(error).__name__, text, lease.fence)
    try:
        store.put(failure_key(lease.key), failure.to_json())
    except DefectbenchError as second:
        log.error("the failure of cell %s could not be recorded: %s", lease.key, second)


def code_of(error: BaseException) -> ExitCode:
    """Return the exit code of an error; what we did not raise on purpose is a bug (70).

    Want of memory may pass on another machine or beside fewer workers, and a full disk when there is space
    again: both are tried again (75). A store that was away for longer than a worker waits is none of the
    cell's failures (74).
    """
    if isinstance(error, StoreAwayError):
        return ExitCode.STORE_AWAY
    if isinstance(error, DefectbenchError):
        return error.code
    return ExitCode.TRY_AGAIN if _ran_short(error) else ExitCode.BUG


def _ran_short(error: BaseException) -> bool:
    """Whether memory or disk ran out."""
    return error.errno in _OUT_OF_SPACE if isinstance(error, OSError) else ran_out(error)


@dataclass(frozen=True)
class _Ending:
    """What is written before a process that hangs ends itself."""

    store: Store
    lease: Lease
    write_log: Callable[[], None]

    def __call__(self, error: DefectbenchError) -> None:
        """Keep the reason, for good where a second try cannot mend it, and give the cell back."""
        _record_failure(self.store.once, self.lease, error)
        self.write_log()
        self.lease.release()


@contextmanager
def _attempt_log(store: Store, lease: Lease) -> Iterator[Callable[[], None]]:
    """Keep what is logged meanwhile in ``log.txt``, written every :data:`LOG_EVERY` s and at the end.

    Yields:
        What writes it at once.
    """
    # Whole in memory, and written whole: an object store cannot append.
    buffer = io.StringIO()
    handler = logging.StreamHandler(buffer)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root, ours = logging.getLogger(), logging.getLogger("defectbench")
    level = ours.level
    root.addHandler(handler)
    ours.setLevel(logging.INFO)
    ended = threading.Event()

    def write() -> None:
        try:
            store.once.put(lease.prefix + LOG, buffer.getvalue().encode())
        except DefectbenchError as error:
            log.debug("the log of cell %s could not be written: %s", lease.key, error)

    def keep() -> None:
        while not ended.wait(LOG_EVERY):
            write()

    thread = threading.Thread(target=keep, name=f"log {lease.key}", daemon=True)
    thread.start()
    try:
        yield write
    finally:
        ended.set()
        thread.join()
        root.removeHandler(handler)
        ours.setLevel(level)
        write()
