"""The live board of what runs on this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from defectbench.execution.events import Event, clock
from defectbench.records.state import ENDED, CellState


class LiveBoard:
    """Draws over itself on standard error while the block runs, where that is a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._started = time.monotonic()
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()


class LocalBoard(LiveBoard):
    """A live table on a terminal; a line for each cell that ends elsewhere. Both on standard error.

    Attributes:
        titles: cell -> what people call it.
    """

    def __init__(self, titles: Mapping[str, str], console: Console | None = None) -> None:
        super().__init__(console)
        self.titles = titles
        self._last: dict[str, Event] = {}

    def hear(self, event: Event) -> None:
        """Note an event and show it."""
        before = self._last.get(event.cell)
        if before is not None and before.state in ENDED and event.state not in (CellState.RUNNING,):
            return
        self._last[event.cell] = event
        if self._console.is_terminal:
            self._live.update(self._render())
        elif event.state in ENDED:
            click.echo(f"{self._summary()}: {self._title(event)} {event.state}", err=True)

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False)
        for event in self._last.values():
            if event.state is CellState.RUNNING:
                count = f"{event.done}/{event.total}" if event.total else ""
                table.add_row(Text(self._title(event)), event.phase, count, clock(event.left))
        return Group(Text(self._summary(), style="bold"), table)

    def _summary(self) -> str:
        states = Counter(event.state for event in self._last.values())
        ended = sum(states[state] for state in ENDED)
        text = f"{states[CellState.FINISHED]}/{len(self.titles)} finished"
        if states[CellState.FAILED]:
            text += f", {states[CellState.FAILED]} failed"
        spent = time.monotonic() - self._started
        left = spent / ended * (len(self.titles) - ended) if ended else None
        return f"{text}, {clock(spent)} so far" + (f", about {clock(left)} left" if left else "")

    def _title(self, event: Event) -> str:
        return f"{self.titles.get(event.cell, '')} {event.cell}".strip()
