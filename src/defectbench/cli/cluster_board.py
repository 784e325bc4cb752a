"""The live table of a sweep on a cluster; a line for each Job that changes where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from defectbench.cli.local_board import LiveBoard
from defectbench.execution.events import clock
from defectbench.records.state import CellState
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.watch import Snapshot
from defectbench.runners.status import CellStatus, count_states

_ORDER = (
    CellState.DOOMED,
    CellState.FAILED,
    CellState.DAMAGED,
    CellState.STUCK,
    CellState.RUNNING,
    CellState.PULLING,
    CellState.PENDING,
    CellState.QUEUED,
    CellState.FINISHED,
)
"""What a person must see first."""

_AT_WORK = (CellState.STUCK, CellState.RUNNING)

_REPORTED = frozenset({CellState.DOOMED, CellState.FAILED, CellState.FINISHED})


class ClusterBoard(LiveBoard):
    """Shows snapshots of a sweep, on standard error.

    Attributes:
        title: of the table.
    """

    def __init__(self, title: str, console: Console | None = None) -> None:
        super().__init__(console)
        self.title = title
        self._reported: dict[str, CellState] = {}

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot; without a terminal, print Jobs that ended or are doomed."""
        if self._console.is_terminal:
            self._live.update(self.render(snapshot))
            return
        for each in snapshot.views:
            if each.phase in _REPORTED and self._reported.get(each.uid) is not each.phase:
                self._reported[each.uid] = each.phase
                self._console.print(
                    Text(f"{self.summary(snapshot)}: {each.name} {each.phase} {each.reason}".rstrip()),
                    soft_wrap=True,
                )

    def render(self, snapshot: Snapshot) -> Group:
        """Return the table: what needs a person first, what is done last, as many lines as the screen has."""
        cells: dict[str, list[CellStatus]] = {}
        for each in snapshot.statuses:
            cells.setdefault(each.job, []).append(each)
        lines = max(5, self._console.size.height - 5)
        views = sorted(snapshot.views, key=lambda view: (_ORDER.index(view.phase), view.name))
        table = Table(box=None, pad_edge=False)
        for name in ("job", "state", "cells", "now"):
            table.add_column(name, overflow="ellipsis", no_wrap=True)
        for view in views[:lines]:
            table.add_row(*map(Text, _row(view, cells.get(view.name, []))))
        more = [Text(f"... and {len(views) - lines} more")] if len(views) > lines else []
        trouble = [Text(snapshot.trouble, style="yellow")] if snapshot.trouble else []
        return Group(Text(self.summary(snapshot), style="bold"), table, *more, *trouble)

    def summary(self, snapshot: Snapshot) -> str:
        """Return one line: how many Jobs and cells are where."""
        jobs = Counter(view.phase for view in snapshot.views)
        phases = ", ".join(f"{jobs[phase]} {phase}" for phase in CellState if jobs[phase]) or "none"
        cells = ", ".join(f"{number} {state}" for state, number in count_states(snapshot.statuses).items())
        return f"{self.title}: Jobs: {phases}; cells: {cells}; {clock(time.monotonic() - self._started)}"


def _row(view: JobView, cells: list[CellStatus]) -> tuple[str, str, str, str]:
    """Return a Job's line of the table."""
    done = sum(each.state is CellState.FINISHED for each in cells)
    now = next((each.detail for each in cells if each.state in _AT_WORK), "")
    return view.name, view.phase.value, f"{done}/{len(cells)}", now or view.reason
