"""``tracking/<sweep>/<run>.json``: which run of the tracker is which of ours, exact under racing writers.

A tracker chooses run ids itself, so searching first and creating then would race. Whoever wants to create
a run first puts a *claim* into the store by conditional put, then creates the run under that claim, then
puts its id beside it. A claim whose owner died is taken over, and the run that it may have left in the
tracker is found by the claim and adopted.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

from defectbench.errors import ConflictError, DataError, MissingInputError, TryAgainError
from defectbench.stores.base import ABSENT, Store
from defectbench.stores.layout import tracking_key
from defectbench.trackers.base import TrackedRun, Tracker
from defectbench.util.documents import STRICT, read_document, typed, write_document

_POLL = 0.2


@dataclass(frozen=True, slots=True)
class RunRef:
    """What is known of one run in one tracker.

    Attributes:
        claim: under which it is created.
        started: milliseconds since 1970: the time of all that is written, so that a retry writes the same.
        run_id: empty until it is created.
        released: its claimer has given up; take it over at once.
        turn: how often it was taken over.
        basis, written: :meth:`TrackedRun.basis` and :meth:`TrackedRun.digest` of what was written last.
        finished: what was written last was finished: figures are in it.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    claim: str
    started: int
    run_id: str = ""
    released: bool = False
    turn: int = 0
    basis: str = ""
    written: str = ""
    finished: bool = False

    def outdated(self, run: TrackedRun) -> bool:
        """Whether the run can no longer become ``run``: params and figures cannot be changed.

        A writer that saw less than the one who finished the run changes nothing.
        """
        changed = bool(self.basis) and self.basis != run.basis()
        return changed or (self.finished and run.status == "finished" and self.written != run.digest())


_Page = dict[str, RunRef]


@dataclass(frozen=True)
class RunRegistry:
    """The runs of one sweep in one tracker.

    Attributes:
        experiment: what :meth:`Tracker.open` returned.
        patience: seconds after which a claim that does not move is taken over.
    """

    store: Store
    sweep: str
    tracker: Tracker
    experiment: str
    patience: float = 30.0

    @property
    def _prefix(self) -> str:
        """Where the references of this sweep lie in the store."""
        return tracking_key(self.sweep)

    def hold(self, name: str, run: TrackedRun) -> RunRef:
        """Return the reference of ``name``, its run created if nobody has yet."""
        # As in a lease: only a claim that this caller itself saw unchanged for the patience is taken over.
        mine, seen, since = "", "", 0.0
        while True:
            page, version = self._read(name)
            ref = page.get(self.experiment)
            if ref is not None and ref.run_id:
                if ref.outdated(run):
                    self._forget(name, page, version)
                    continue
                # Somebody else's run won the race: ours would be a double.
                if mine and mine != ref.run_id:
                    self.tracker.delete(mine)
                return ref
            if ref is not None and not ref.released:
                if version != seen:
                    seen, since = version, time.monotonic()
                if time.monotonic() - since < self.patience:
                    time.sleep(_POLL)
                    continue
            mine = self._claim(name, page, version, run) or mine

    def update(self, name: str, run: TrackedRun) -> bool:
        """Write ``run`` unless that was done before; returns whether it was written."""
        for _ in range(3):
            ref = self.hold(name, run)
            digest = run.digest()
            if ref.written == digest or (ref.finished and run.status != "finished"):
                return False
            try:
                self.tracker.write(ref.run_id, run, ref.started)
            except MissingInputError:  # removed by hand in the tracker: make it again
                self._forget(name, *self._read(name))
                continue
            self._note(name, ref, basis=run.basis(), written=digest, finished=run.status == "finished")
            return True
        raise TryAgainError(
            f"{self.tracker.place}: {name} is removed as often as it is made; try again later"
        )

    def prune(self, names: set[str]) -> None:
        """Remove the runs that the sweep no longer has."""
        for key in list(self.store.keys(self._prefix)):
            name = key.removeprefix(self._prefix).removesuffix(".json")
            if name not in names:
                self._forget(name, *self._read(name))
                if not self._read(name)[0]:
                    self.store.delete(key)

    def _claim(self, name: str, page: _Page, version: str, run: TrackedRun) -> str:
        """Create the run under a claim and return its id; empty when somebody else was quicker."""
        old = page.get(self.experiment)
        ref = _new(run) if old is None else replace(old, turn=old.turn + 1, released=False)
        try:
            version = self._put(name, page | {self.experiment: ref}, version)
        except ConflictError:
            return ""
        try:
            run_id = self._create(ref, run)
        except BaseException:
            with contextlib.suppress(Exception):
                self._put(name, page | {self.experiment: replace(ref, released=True)}, version)
            raise
        with contextlib.suppress(ConflictError):  # taken over meanwhile: hold() finds out by whom
            self._put(name, page | {self.experiment: replace(ref, run_id=run_id)}, version)
        return run_id

    def _create(self, ref: RunRef, run: TrackedRun) -> str:
        """Create the run, or adopt what an earlier owner of the claim created."""
        # A first claim's mark is new: nothing can be found under it.
        found = self.tracker.find(self.experiment, ref.claim) if ref.turn else ()
        for double in found[1:]:
            self.tracker.delete(double)
        return found[0] if found else self.tracker.create(self.experiment, run, ref.started, ref.claim)

    def _forget(self, name: str, page: _Page, version: str) -> None:
        """Take the reference out and remove its run, unless somebody else just wrote the page."""
        ref = page.get(self.experiment)
        if ref is None:
            return
        with contextlib.suppress(ConflictError):
            self._put(name, {key: value for key, value in page.items() if key != self.experiment}, version)
            if ref.run_id:
                self.tracker.delete(ref.run_id)

    def _note(self, name: str, ref: RunRef, *, basis: str, written: str, finished: bool) -> None:
        """Note in the reference what was written; one of another run is left alone."""
        while True:
            page, version = self._read(name)
            now = page.get(self.experiment)
            if now is None or now.run_id != ref.run_id or (now.finished and not finished):
                return
            noted = replace(now, basis=basis, written=written, finished=finished)
            with contextlib.suppress(ConflictError):
                self._put(name, page | {self.experiment: noted}, version)
                return

    def _read(self, name: str) -> tuple[_Page, str]:
        """Return all trackers' references of a run, and the version to write against."""
        blob = self.store.find(f"{self._prefix}{name}.json")
        if blob is None:
            return {}, ABSENT
        return _parsed(blob.data, f"{self._prefix}{name}.json"), blob.version

    def _put(self, name: str, page: Mapping[str, RunRef], version: str) -> str:
        """Write the references of a run, if nobody else has meanwhile."""
        text = write_document(
            {"runs": {tracker: asdict(ref) for tracker, ref in page.items()}}, sort_keys=True
        )
        return self.store.put(f"{self._prefix}{name}.json", text, expected=version)


def read_references(store: Store, key: str) -> Mapping[str, RunRef]:
    """Return all trackers' references of the run at a key; DataError where they are damaged."""
    return _parsed(store.get(key).data, key)


def _parsed(data: bytes, place: str) -> dict[str, RunRef]:
    """Read the references of a run."""
    try:
        return typed(dict[str, RunRef], read_document(data, place).get("runs"), place)
    except DataError as error:
        raise DataError(f"{error}: remove it, then track again") from error


def _new(run: TrackedRun) -> RunRef:
    """Return a claim of a run that ends now, if its fits are done."""
    return RunRef(claim=uuid.uuid4().hex, started=round((time.time() - run.seconds) * 1000))
