"""What the live table shows, and what a log gets instead."""

from __future__ import annotations

import io

from rich.console import Console

from defectbench.cli.cluster_board import ClusterBoard
from defectbench.records.state import CellState
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.watch import Snapshot
from defectbench.runners.status import CellStatus


def seen(name: str, phase: CellState, reason: str = "") -> JobView:
    return JobView(name, f"uid-{name}", "study", "glass", "bottle", (f"cell-{name}",), "d", phase, reason)


def picture(*views: JobView, trouble: str = "") -> Snapshot:
    cells = [
        CellStatus(each.cells[0], each.category, each.model, each.phase, each.name, each.reason)
        for each in views
    ]
    return Snapshot(views, cells, trouble)


VIEWS = (
    seen("a", CellState.FINISHED),
    seen("b", CellState.RUNNING, "fitting 3/20, 1:15 left"),
    seen("c", CellState.FAILED, "exit code 65 [red]"),
    seen("d", CellState.DOOMED, "ErrImagePull: x"),
)


def board(terminal: bool, height: int = 40) -> tuple[ClusterBoard, io.StringIO]:
    file = io.StringIO()
    return ClusterBoard("study", Console(file=file, force_terminal=terminal, width=100, height=height)), file


def test_the_table_shows_first_what_needs_a_person() -> None:
    shown, _ = board(True)
    console = Console(file=io.StringIO(), width=200)
    console.print(shown.render(picture(*VIEWS, trouble="no cluster answers")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert lines[:6] == ["study:", "job", "d", "c", "b", "a"]
    assert "fitting 3/20, 1:15 left" in text
    assert "[red]" in text
    assert "Jobs: 1 running, 1 finished, 1 failed, 1 doomed" in text
    assert "no cluster answers" in text


def test_the_table_has_as_many_lines_as_the_screen() -> None:
    shown, _ = board(True, height=12)
    console = Console(file=io.StringIO(), width=100)
    console.print(shown.render(picture(*(seen(f"j{n:02}", CellState.RUNNING) for n in range(30)))))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "... and 23 more" in text
    assert len(text.splitlines()) <= 12


def test_a_log_gets_a_line_for_each_job_that_ended_once() -> None:
    shown, file = board(False)
    with shown:
        shown.show(picture(*VIEWS))
        shown.show(picture(*VIEWS))
    lines = file.getvalue().splitlines()
    assert [line.rpartition("; ")[2].split(": ")[1] for line in lines] == [
        *("a finished", "c failed exit code 65 [red]", "d doomed ErrImagePull"),
    ]
