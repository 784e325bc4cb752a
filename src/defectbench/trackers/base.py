"""The interface of a tracker: a place where people look at runs. The store stays the source of truth."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from defectbench.data.manifest import canonical_json
from defectbench.records.predictions import HistoryPoint

Status = Literal["running", "finished", "failed"]


@dataclass(frozen=True)
class RunAttachments:
    """What of a run is slow to read or to draw.

    Attributes:
        curves: learning curves.
        files: name -> contents.
    """

    curves: tuple[HistoryPoint, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrackedData:
    """The data that a run's figures are of.

    Attributes:
        digest: SHA-256 of the category's manifest.
        source: where it lies: the store's URL.
    """

    name: str
    digest: str
    source: str


@dataclass(frozen=True)
class TrackedRun:
    """A line of the tracker.

    Attributes:
        name: for people; need not be unique.
        seconds: how long the fits took.
        params, metrics: of a run that is ``running`` or ``failed`` only what cannot change any more.
        parent: id of the run that it lies below.
        data: what it was tested on; None where that is the parent's.
        colour: in charts, as ``#rrggbb``.
        note: a description for people, Markdown.
        sources: SHA-256 of what ``attach`` reads, by name: it decides whether the run must be written again.
        attach: reads the curves and makes the files; called only when the run is written.
    """

    name: str
    status: Status
    seconds: float
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    note: str = ""
    parent: str | None = None
    colour: str = ""
    data: TrackedData | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    attach: Callable[[], RunAttachments] = RunAttachments

    def basis(self) -> str:
        """Return the digest of what a tracker cannot change in a run once it is written."""
        return _digest({"name": self.name, "parent": self.parent, "params": dict(self.params)})

    def digest(self) -> str:
        """Return the digest of all that is written."""
        whole = {
            "basis": self.basis(),
            "status": self.status,
            "seconds": self.seconds,
            "tags": dict(self.tags),
            # repr, because NaN is no JSON and rounding would hide a changed figure.
            "metrics": {name: repr(value) for name, value in self.metrics.items()},
            "note": self.note,
            "colour": self.colour,
            "sources": dict(self.sources),
        }
        return _digest(whole)


class Tracker(ABC):
    """Runs in experiments. Run ids are the tracker's own: they cannot be chosen.

    Attributes:
        place: where it is, without credentials, for people.

    Every method raises:
        TryAgainError: the tracker is out of reach, locked or full; said within two minutes.
        NoRightsError: the credentials do not allow it.
    """

    place: str

    @abstractmethod
    def open(self, experiment: str) -> str:
        """Make the experiment where it is not there, and return a name of it that no other one ever has.

        The same by whatever address the tracker is reached; another one after it was removed and made again.

        Raises:
            ConfigurationError: it is there but deleted.
        """

    @abstractmethod
    def create(self, experiment: str, run: TrackedRun, started: int, claim: str) -> str:
        """Create a run with its name and tags and return its id.

        Args:
            started: milliseconds since 1970.
            claim: a mark by which :meth:`find` finds it.
        """

    @abstractmethod
    def find(self, experiment: str, claim: str) -> tuple[str, ...]:
        """Return the ids of the runs created under this claim, oldest first."""

    @abstractmethod
    def write(self, run_id: str, run: TrackedRun, started: int) -> None:
        """Write all of ``run``. The same run written twice, with the same ``started``, is written once.

        Raises:
            MissingInputError: the tracker has no such run any more.
        """

    @abstractmethod
    def delete(self, run_id: str) -> None:
        """Remove the run; nothing happens where there is none."""


def _digest(document: object) -> str:
    """Return the SHA-256 of a document's canonical JSON."""
    return hashlib.sha256(canonical_json(document)).hexdigest()
