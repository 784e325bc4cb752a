"""A copy of a cluster's Jobs or pods that follows them: one list in pages, then one watch stream."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from defectbench.errors import TryAgainError
from defectbench.runners.kubernetes.api import Cluster, Document, GoneError
from defectbench.runners.kubernetes.jobs import slim

log = logging.getLogger(__name__)

_PAUSES = (0.5, 1.0, 2.0, 5.0, 10.0)
"""Seconds before the stream is opened again, longer each time that nothing was received."""


@dataclass
class Informer:
    """The objects of a list, by name, as the cluster last said.

    Survives closed streams, restarts of the API server (it goes on where it was) and versions that are no
    longer kept (410: it lists again). What went away meanwhile is found by the new list.

    Attributes:
        kind: ``jobs`` or ``pods``.
        selector: of labels.
        trouble: why nothing new is received; empty while all is well.
        lists: how often everything was listed: 1 unless versions were lost.
    """

    cluster: Cluster
    kind: str
    selector: str
    changed: threading.Event = field(default_factory=threading.Event)
    trouble: str = ""
    lists: int = 0
    _objects: dict[str, Document] = field(default_factory=dict)
    _version: str = ""
    _mutex: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _fatal: Exception | None = None

    def __enter__(self) -> Informer:
        """List everything once, then follow in a thread.

        Raises:
            DefectbenchError: as :meth:`Cluster.call`.
        """
        self._list()
        threading.Thread(target=self._follow, name=f"watch {self.kind}", daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        # The thread may sit in a read that only ends with the stream: it is a daemon and touches nothing.
        self._stop.set()

    def objects(self) -> list[Document]:
        """Return what is there now.

        Raises:
            DefectbenchError: the stream ended for good: rights were taken away.
        """
        with self._mutex:
            if self._fatal is not None:
                raise self._fatal
            return list(self._objects.values())

    def _list(self) -> None:
        """List everything, and remember from which version to watch."""
        fresh: dict[str, Document] = {}
        version = ""
        while not version:
            try:
                for page in self.cluster.pages(self._path, query=self._query):
                    for item in page.document.get("items", ()):
                        fresh[item["metadata"]["name"]] = slim(item)
                    version = page.document["metadata"]["resourceVersion"]
            except GoneError:
                fresh, version = {}, ""
        with self._mutex:
            self._objects, self._version = fresh, version
        self.lists += 1
        self.changed.set()

    def _follow(self) -> None:
        """Watch until the block ends; list again where a version was lost."""
        idle = 0
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                idle = 0 if self._read() else idle + 1
                self.trouble = ""
            except GoneError:
                self._version = ""
            except TryAgainError as error:
                self.trouble = str(error)
                log.info("watching %s: %s", self.kind, error)
                idle += 1
            except Exception as error:
                with self._mutex:
                    self._fatal = error
                self.changed.set()
                return
            if idle:
                self._stop.wait(_PAUSES[min(idle, len(_PAUSES)) - 1])

    def _read(self) -> bool:
        """Take in one stream to its end; return whether anything was received."""
        received = False
        for event in self._events():
            received = True
            self._take(event)
            if self._stop.is_set():
                break
        return received

    def _events(self) -> Iterator[Mapping[str, Any]]:
        """Open a stream from the last version seen."""
        return self.cluster.watch(self._path, self._version, query=self._query)

    def _take(self, event: Mapping[str, Any]) -> None:
        """Apply one event to the copy."""
        thing = event["object"]
        with self._mutex:
            # Bookmarks carry a version too: it is where a broken stream goes on.
            self._version = thing["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                return
            if event["type"] == "DELETED":
                self._objects.pop(thing["metadata"]["name"], None)
            else:
                self._objects[thing["metadata"]["name"]] = slim(thing)
        self.trouble = ""
        self.changed.set()

    @property
    def _path(self) -> str:
        """The address of the list."""
        return self.cluster.path(self.kind)

    @property
    def _query(self) -> dict[str, object]:
        """The list's selector."""
        return {"labelSelector": self.selector} if self.selector else {}
