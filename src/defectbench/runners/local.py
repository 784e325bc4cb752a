"""Cells on this machine: worker processes that share one list by the cells' leases."""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from defectbench.errors import ExitCode, StoppedError
from defectbench.execution.events import Event, terminable, worker_command
from defectbench.records.state import ENDED, CellState, state_of

log = logging.getLogger(__name__)

_GRACE = 60.0
"""Seconds that a stopped worker has to save and leave."""
_DEATHS = 2
"""How many workers a cell may kill before it is given up."""
_KNOWN = frozenset(map(int, ExitCode))

Watch = Callable[[Event], None]


@dataclass
class _Worker:
    """One process and the cell that it is at."""

    process: subprocess.Popen[str]
    cells: Sequence[str]
    current: str | None = None
    reader: threading.Thread | None = None


@dataclass
class _WorkerLine:
    """A line of a worker's output; event None means that its output ended."""

    worker: _Worker
    event: Event | None


@dataclass
class LocalRunner:
    """Runs cells in ``workers`` processes of this machine.

    Every worker is given the whole list, each beginning at another place: whichever reaches a cell first
    takes its lease, so no split of the work is needed, and a slow cell holds nobody up.

    Attributes:
        store: URL.
        extra: further arguments of ``defectbench job``.
        environment: further variables of the workers.
        program: what is started with the worker's arguments.
        ended: cell -> how it ended.
    """

    store: str
    workers: int
    extra: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Sequence[str] = (sys.executable, "-m", "defectbench")
    ended: dict[str, Event] = field(default_factory=dict)
    _lines: queue.Queue[_WorkerLine] = field(default_factory=queue.Queue)
    _deaths: Counter[str] = field(default_factory=Counter)
    _last_code: int = 0

    def run(self, cells: Sequence[str], watch: Watch) -> Mapping[str, Event]:
        """Run all cells to their end and return how each ended. ``watch`` is called with every event.

        Raises:
            StoppedError: SIGTERM or Ctrl-C; the workers have saved and left.
        """
        count = max(1, min(self.workers, len(cells)))
        alive: list[_Worker] = []
        with terminable():
            try:
                for index in range(count):
                    start = index * len(cells) // count
                    alive.append(self._start([*cells[start:], *cells[:start]]))
                while alive:
                    self._take_line(alive, watch)
                self._report_left_over(cells, watch)
            except KeyboardInterrupt:
                raise StoppedError("stopped; the same command goes on where it ended") from None
            finally:
                _stop(alive)
        return self.ended

    def _report_left_over(self, cells: Sequence[str], watch: Watch) -> None:
        """Give every cell that no worker reached an event: a run may not look done when it is not."""
        known = self._last_code in _KNOWN and self._last_code != ExitCode.DONE
        code = ExitCode(self._last_code) if known else ExitCode.BUG
        for key in cells:
            if key not in self.ended:
                message = f"its worker ended with exit code {self._last_code} before it reached this cell"
                event = Event(key, state_of(code), code=code, message=message)
                self.ended[key] = event
                watch(event)

    def _start(self, cells: Sequence[str]) -> _Worker:
        """Start a worker on these cells, and a thread that reads its events."""
        process = subprocess.Popen(
            [*self.program, *worker_command(self.store, cells), *self.extra, "--events"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.environment},
            # Ctrl-C in the terminal is ours alone; we pass it on as SIGTERM.
            start_new_session=True,
        )
        worker = _Worker(process, cells)
        # A thread for each: a full pipe would stop a worker, and reading one would block on the others.
        worker.reader = threading.Thread(target=self._read, args=(worker,), daemon=True)
        worker.reader.start()
        return worker

    def _read(self, worker: _Worker) -> None:
        """Pass a worker's lines on until its output ends. Runs in a thread of its own."""
        assert worker.process.stdout is not None
        with worker.process.stdout as lines:
            for line in lines:
                try:
                    self._lines.put(_WorkerLine(worker, Event.from_line(line)))
                except (ValueError, TypeError):
                    log.warning("worker said: %s", line.rstrip())
        self._lines.put(_WorkerLine(worker, None))

    def _take_line(self, alive: list[_Worker], watch: Watch) -> None:
        """Take one line: note the event, or see why the worker ended."""
        line = self._lines.get()
        if line.event is None:
            alive.remove(line.worker)
            self._after(line.worker, alive, watch)
            return
        event, worker = line.event, line.worker
        if event.state is CellState.RUNNING:
            worker.current = event.cell
        elif event.cell == worker.current:
            worker.current = None
        before = self.ended.get(event.cell)
        # A cell that one worker finished may come up again with another, who finds it done or gone.
        if event.state in ENDED and (before is None or before.state is not CellState.FINISHED):
            self.ended[event.cell] = event
        watch(event)

    def _after(self, worker: _Worker, alive: list[_Worker], watch: Watch) -> None:
        """Replace a worker that was killed, without the cell that kills workers."""
        code = self._last_code = worker.process.wait()
        if code in _KNOWN:
            return
        reason = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if worker.current is not None:
            self._deaths[worker.current] += 1
            if self._deaths[worker.current] >= _DEATHS:
                event = Event(
                    worker.current,
                    CellState.FAILED,
                    code=ExitCode.SOME_FAILED,
                    message=f"its worker ended by {reason} twice; with SIGKILL mostly for want of memory: "
                    f"fewer --workers, a smaller batch_size or image_size",
                )
                self.ended[event.cell] = event
                watch(event)
        left = [key for key in worker.cells if key not in self.ended]
        if worker.current is None and left and not self._may_restart(worker):
            for key in left:
                self.ended[key] = Event(
                    key, CellState.AGAIN, code=ExitCode.TRY_AGAIN, message=f"worker: {reason}"
                )
            return
        if left:
            log.warning("a worker ended by %s; another takes its place", reason)
            alive.append(self._start(left))

    def _may_restart(self, worker: _Worker) -> bool:
        """Whether a worker that died outside any cell may be replaced: not for ever."""
        self._deaths[""] += 1
        return self._deaths[""] < _DEATHS * self.workers


def _stop(workers: Sequence[_Worker]) -> None:
    """End what still runs: SIGTERM, and SIGKILL to those that do not leave."""
    for worker in workers:
        worker.process.terminate()
    for worker in workers:
        try:
            # After all were told to stop: they save at the same time, not one after the other.
            worker.process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    for worker in workers:
        if worker.reader is not None:
            worker.reader.join()
