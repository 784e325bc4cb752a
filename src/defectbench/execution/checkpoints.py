"""A cell's checkpoints in the store: the blob first, then ``checkpoint.json``, which names it.

A blob lies below the fence of the attempt that wrote it. The pointer is changed by conditional puts only,
and every attempt that takes a cell up writes its own fence into it: a holder that lost the cell and does not
know it yet cannot move the pointer any more, nor does it remove what later attempts wrote.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from defectbench.errors import CheckpointError, ConflictError, DataError, DefectbenchError, MissingObjectError
from defectbench.execution.fitting import FitState, SavedFit
from defectbench.execution.lease import Lease
from defectbench.records.result import differing_versions, versions
from defectbench.stores.base import ABSENT, Store
from defectbench.stores.layout import CHECKPOINT, cell_key
from defectbench.util.documents import STRICT, read_document, typed, write_document
from defectbench.util.files import disk_errors, draft_path, remove_stale_drafts
from defectbench.weights.store import digest_of

EVERY = 300.0
"""Seconds between two checkpoints, unless a caller sets it."""

_AGAIN = 30.0
"""Seconds until the next try after one that failed."""

_FOLDER = "checkpoints"
_BLOB = re.compile(rf"([0-9]+)/{_FOLDER}/[0-9a-f]+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What ``checkpoint.json`` says.

    Attributes:
        attempt: fence number of the attempt that holds the cell.
        blob: path below the cell.
        sha256, size: of the blob; bytes.
        versions: of the libraries that made it: with others the fit would end with other bits.
        at: wall-clock time of the checkpoint, ISO 8601; for people.
        fit: how far it is.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    cell: str
    attempt: int
    blob: str
    sha256: str
    size: int
    versions: Mapping[str, str]
    at: str
    fit: FitState

    def to_json(self) -> bytes:
        """Return the text of ``checkpoint.json``."""
        document = asdict(self)
        document["fit"]["history"] = [[p.epoch, p.name, p.value] for p in self.fit.history]
        return write_document(document, finite=False)  # a curve may hold NaN

    @classmethod
    def from_json(cls, data: bytes) -> Pointer:
        """Read what :meth:`to_json` wrote.

        Raises:
            CheckpointError: it is something else, of another schema, or not as it was written.
        """
        try:
            document = read_document(data, CHECKPOINT, finite=False)
            if isinstance(fit := document.get("fit"), dict) and isinstance(fit.get("history"), list):
                document["fit"] = {**fit, "history": [_point(each) for each in fit["history"]]}
            pointer = typed(cls, document, CHECKPOINT)
        except DataError as error:
            raise CheckpointError(str(error)) from error
        if not _BLOB.fullmatch(pointer.blob):
            raise CheckpointError(f"{CHECKPOINT} names no checkpoint: {pointer.blob!r}")
        return pointer


def _point(each: Any) -> Any:
    """Return a point of the learning curve by its fields' names; anything else as it is."""
    return dict(zip(("epoch", "name", "value"), each, strict=False)) if isinstance(each, list) else each


class StoredCheckpoints:
    """A :class:`defectbench.execution.fitting.Checkpointer` for one attempt at a cell, in the store.

    Args:
        arrived: name of a file on this machine for what comes from the store. Its folder is for what goes
            there, too; what killed attempts left in it is removed.
        every: seconds between two checkpoints.
        clock: seconds, monotonic.

    Attributes:
        resumed: this attempt took up what an earlier one had saved.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        arrived: Path,
        every: float = EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.every = every
        self.resumed = False
        self._patient = store
        # What is saved on the way is a help, never a need: nobody waits for it.
        self._store = store.once
        self._lease = lease
        self._arrived = arrived
        self._clock = clock
        self._last = clock()
        self._seen = ABSENT
        # A first attempt has nothing to remove before it writes: one listing of the store less for each cell.
        self._dirty = lease.fence > 1

    def due(self) -> bool:
        """Whether the interval is over."""
        return self._clock() - self._last >= self.every

    def save(self, saved: FitState, write: Callable[[Path], None]) -> None:
        """Write a checkpoint and remove the one before. What goes wrong is logged: the fit can do without."""
        try:
            self._keep(saved, write)
            self._last = self._clock()
        except Exception as error:
            # A checkpoint is a help, never a need: whatever went wrong, the fit goes on.
            ours = isinstance(error, DefectbenchError)
            _log.warning("cell %s: no checkpoint: %s", self._lease.key, error, exc_info=not ours)
            self._last = self._clock() - self.every + min(self.every, _AGAIN)

    def _keep(self, saved: FitState, write: Callable[[Path], None]) -> None:
        """Write the blob, move the pointer to it, remove the blobs before."""
        self._lease.beat()
        with draft_path(self._folder()) as part:
            with disk_errors(part):
                # The file that the fit went on from is read by now: a small disk may not hold two.
                self._arrived.unlink(missing_ok=True)
                write(part)
                digest, size = digest_of(part), part.stat().st_size
            blob = f"{self._lease.fence}/{_FOLDER}/{digest[:20]}"
            self._dirty = True
            self._store.upload(self._key(blob), part)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        pointer = Pointer(self._lease.key, self._lease.fence, blob, digest, size, versions(), now, saved)
        self._point(pointer)
        _log.info("cell %s: checkpoint at %d of %d", self._lease.key, saved.done, saved.total)
        self._remove_blobs(but=blob)

    def _point(self, pointer: Pointer) -> None:
        """Move the pointer. A holder that lost the cell learns it here."""
        self._lease.beat()
        try:
            self._seen = self._put(pointer, self._seen)
        except ConflictError:
            # The cell is ours, says the next beat: so it was our own put, whose answer was lost, or that of
            # a holder before us who did not know better.
            self._lease.beat()
            found = self._store.find(self._key(CHECKPOINT))
            self._seen = self._put(pointer, found.version if found else ABSENT)

    def _put(self, pointer: Pointer, expected: str) -> str:
        """Write the pointer if it still has the version ``expected``."""
        return self._store.put(self._key(CHECKPOINT), pointer.to_json(), expected=expected)

    def find(self) -> SavedFit | None:
        """Bring the last checkpoint here; None where there is none that this attempt can go on with.

        Raises:
            TryAgainError: the disk here is out of reach now, or the store for longer than its patience.
        """
        try:
            pointer = self._adopt()
            if pointer is None:
                return None
            self._check(pointer)
            self._fetch(pointer)
        except (CheckpointError, MissingObjectError) as error:
            _log.warning("the checkpoint is of no use, the fit starts anew: %s", error)
            return None
        self.resumed = True
        return SavedFit(pointer.fit, self._arrived)

    def _adopt(self) -> Pointer | None:
        """Return the pointer, this attempt's fence written into it."""
        found = self._patient.find(self._key(CHECKPOINT))
        self._seen = found.version if found else ABSENT
        if found is None:
            return None
        pointer = replace(Pointer.from_json(found.data), attempt=self._lease.fence)
        try:
            self._seen = self._patient.put(self._key(CHECKPOINT), pointer.to_json(), expected=self._seen)
        except ConflictError:
            self._lease.confirm()
            return self._adopt()
        return pointer

    def _check(self, pointer: Pointer) -> None:
        """Raise CheckpointError where going on would not end with the bits of an undisturbed fit."""
        if pointer.cell != self._lease.key:
            raise CheckpointError(f"it is of cell {pointer.cell}")
        other = differing_versions(pointer.versions)
        if other:
            raise CheckpointError(f"it was made with {', '.join(other)}")

    def _fetch(self, pointer: Pointer) -> None:
        """Download the blob; CheckpointError unless it is the one that is meant."""
        self._folder()
        self._patient.download(self._key(pointer.blob), self._arrived)
        with disk_errors(self._arrived):
            got = digest_of(self._arrived)
        if got != pointer.sha256:
            raise CheckpointError(f"{pointer.blob} is damaged: {got[:12]}, not {pointer.sha256[:12]}")

    def clear(self) -> None:
        """Remove the cell's checkpoints; a store out of reach is only logged, for the cell is done."""
        if not self._dirty:
            return
        try:
            self._store.delete(self._key(CHECKPOINT))
        except DefectbenchError as error:
            _log.warning("cell %s: its checkpoint could not be removed: %s", self._lease.key, error)
        self._remove_blobs(but="")

    def _remove_blobs(self, but: str) -> None:
        """Remove what this attempt and those before it wrote, but for one blob."""
        try:
            for attempt, blob in _blobs(self._store, self._lease.key):
                if attempt <= self._lease.fence and blob != but:
                    self._store.delete(self._key(blob))
        except DefectbenchError as error:
            _log.warning("cell %s: old checkpoints could not be removed: %s", self._lease.key, error)

    def _folder(self) -> Path:
        """Return the folder for files on their way, made and swept."""
        folder = self._arrived.parent
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            remove_stale_drafts(folder)
        return folder

    def _key(self, *parts: str) -> str:
        """Return a key of this cell."""
        return cell_key(self._lease.key, *parts)


def remove_leftovers(store: Store, key: str) -> None:
    """Remove the checkpoints of a finished cell whose worker was killed before it could.

    A store out of reach is only logged, for the cell is done.
    """
    once = store.once
    try:
        for name in [CHECKPOINT, *(blob for _, blob in _blobs(once, key))]:
            once.delete(cell_key(key, name))
    except DefectbenchError as error:
        _log.warning("cell %s: its checkpoints could not be removed: %s", key, error)


def _blobs(store: Store, key: str) -> list[tuple[int, str]]:
    """Return the attempt and the path below the cell of each checkpoint blob that lies in the store."""
    start = cell_key(key)
    found = (_BLOB.fullmatch(name.removeprefix(start)) for name in store.keys(start))
    return [(int(blob[1]), blob[0]) for blob in found if blob]
