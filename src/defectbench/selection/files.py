"""A choice from a table as files: selection.json, selection.csv, selection.svg."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from defectbench.errors import UsageError
from defectbench.report.canvas import Drawing, finish, ink, new_figure
from defectbench.report.label_placement import Label, place_labels
from defectbench.selection.leaderboard import LeaderboardRow
from defectbench.selection.rule import SIDE, Choice, Line, Selection, Third
from defectbench.tables.files import to_csv
from defectbench.util.files import disk_errors, written_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME = "selection"
_DIGITS = 9
"""Decimal places of residuals: more would differ between machines."""


@dataclass(frozen=True, slots=True)
class SelectionRow:
    """A row of selection.csv.

    Attributes:
        line: in the table that was read.
        size: its column 3, a size or a popularity.
        status: ``chosen``, ``candidate`` or ``excluded``.
        residual: distance above the line in units of accuracy, negative below it; None for an excluded row.
        entry: the model's name in the catalog, or None.
        check: whether it was shown to take 512 x 512.
        reason: why it is excluded, or what decided for the chosen one.
    """

    line: int
    model: str
    accuracy: float
    size: float
    status: str
    residual: float | None
    entry: str | None
    check: str
    reason: str


def write_selection(selection: Selection, out: Path, table: Path) -> Drawing:
    """Write the three files into ``out``, each whole, over older ones; return the figure.

    Args:
        table: the file that was read; it is never written over.

    Raises:
        UsageError: ``out`` is a file, or an output would replace the table.
        TryAgainError: the disk is full or read-only.
    """
    drawing = draw(selection)
    files = {
        f"{_NAME}.json": to_json(selection),
        f"{_NAME}.csv": to_csv(rows(selection), SelectionRow),
        f"{_NAME}.svg": drawing.file(),
    }
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out}: is a file; name a folder")
    if table.resolve() in [(out / name).resolve() for name in files]:
        raise UsageError(f"--out {out}: {table.name} there is the table itself; name another folder")
    for name, text in files.items():
        with disk_errors(out / name), written_whole(out / name) as file:
            file.write(text.encode())
    return drawing


def rows(selection: Selection) -> list[SelectionRow]:
    """Return a row for each of the table's, in its order."""
    choice = selection.choice
    reasons = {one.row.model: one.reason for one in choice.excluded} | {choice.chosen.model: choice.decided}
    residuals = {one.row.model: round(one.residual, _DIGITS) + 0.0 for one in choice.candidates}
    return [
        SelectionRow(
            row.line,
            row.model,
            row.accuracy,
            row.size,
            _status(row.model, choice, residuals),
            residuals.get(row.model),
            selection.entries.get(row.model),
            selection.checks[row.model],
            reasons.get(row.model, ""),
        )
        for row in selection.board.rows
    ]


def _status(model: str, choice: Choice, residuals: Mapping[str, float]) -> str:
    if model == choice.chosen.model:
        return "chosen"
    return "candidate" if model in residuals else "excluded"


def to_json(selection: Selection) -> str:
    """Return selection.json."""
    return json.dumps(document(selection), indent=1, ensure_ascii=False) + "\n"


def document(selection: Selection) -> dict[str, Any]:
    """Return what selection.json holds."""
    board, choice = selection.board, selection.choice
    names = dict(zip(("model", "accuracy", "size"), board.columns, strict=True))
    return {
        "schema": 1,
        "kind": selection.kind,
        "table": {"file": board.file, "sha256": board.sha256, "rows": len(board.rows), "columns": names},
        "filters": dict(board.filters),
        "third": {
            "column": board.columns[2],
            "better": selection.third.better,
            "declared": selection.declared,
        },
        "prefer": selection.prefer,
        "chosen": choice.chosen.model,
        **_known(selection, choice.chosen.model),
        **_choice(choice, partial(_known, selection)),
        "by_parameters": _by_parameters(selection),
    }


def _choice(choice: Choice, more: Callable[[str], Mapping[str, Any]]) -> dict[str, Any]:
    """Return a choice as plain data; ``more`` adds to each row."""
    line = choice.line
    trend = line and {"over": "ln(size)", "slope": _short(line.slope), "intercept": _short(line.intercept)}
    return {
        "decided": choice.decided,
        "trend": trend,
        "farthest_above_the_line": choice.farthest.row.model,
        "candidates": [
            {**_row(one.row), "residual": _short(one.residual), **more(one.row.model)}
            for one in choice.candidates
        ],
        "excluded": [
            {**_row(one.row), "reason": one.reason, **more(one.row.model)} for one in choice.excluded
        ],
    }


def _known(selection: Selection, model: str) -> dict[str, Any]:
    return {"entry": selection.entries.get(model), "check": selection.checks[model]}


def _row(row: LeaderboardRow) -> dict[str, Any]:
    return {"line": row.line, "model": row.model, "accuracy": row.accuracy, "size": row.size}


def _short(value: float) -> float:
    return round(value, _DIGITS) + 0.0  # -0.0 is 0.0 then


def _by_parameters(selection: Selection) -> dict[str, Any] | None:
    measured = selection.measured
    if measured is None:
        return None
    choice = measured.choice
    return {
        "size": f"millions of parameters, counted at {SIDE} x {SIDE}",
        "chosen": choice and choice.chosen.model,
        "same": choice is not None and choice.chosen.model == selection.choice.chosen.model,
        **(_choice(choice, lambda model: {}) if choice else {}),
        "missing": [{"model": model, "reason": reason} for model, reason in measured.missing.items()],
        "words": measured.words,
    }


def draw(selection: Selection) -> Drawing:
    """Draw accuracy over the logarithm of size: candidates, excluded rows, the line and the choice."""
    board, choice = selection.board, selection.choice
    excluded = [one.row for one in choice.excluded]
    colour = ink(selection.kind.removesuffix("s"))
    with new_figure(6.2, 3.9) as (figure, axes), warnings.catch_warnings():
        # Whether the viewer's font has a character is not for ours to say.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        _scale(axes, board.rows, board.columns, selection.third)
        if choice.line is not None:
            _draw_line(axes, choice.line, [one.row.size for one in choice.candidates])
        _dots(axes, excluded, "o", 22, ink("paper"), ink("muted"), "excluded")
        farthest = choice.farthest.row
        others = [one.row for one in choice.candidates[1:] if one.row != farthest]
        _dots(axes, others, "o", 26, ink("ink"), ink("ink"), "candidate")
        if farthest != choice.chosen:
            _dots(axes, [farthest], "D", 60, ink("paper"), colour, "the line's choice")
        _dots(axes, [choice.chosen], "D", 60, colour, colour, "chosen")
        if choice.line is not None:
            _draw_distance(axes, farthest, choice.line, colour)
        engine: Any = figure.get_layout_engine()
        engine.set(w_pad=0.08, h_pad=0.08)
        title = f"Chosen of {len(board.rows)} {selection.kind}: {choice.chosen.model}"
        axes.set_title(title, loc="left", color=ink("ink"), fontsize=9)
        figure.legend(loc="outside lower center", ncols=5, frameon=False, labelcolor=ink("muted"))
        _name_dots(axes, board.rows, choice, colour)
        return finish(figure, _NAME, _text(selection), paper=True)


def _scale(axes: Axes, all_rows: Sequence[LeaderboardRow], columns: Sequence[str], third: Third) -> None:
    """Set the axes: sizes on a logarithmic scale with round numbers, and room for the names."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sizes, heights = [row.size for row in all_rows], [row.accuracy for row in all_rows]
    axes.set_xscale("log")
    spread = max(max(sizes) / min(sizes), 2.0)
    room = 0.12 * (max(heights) - min(heights)) or 0.01 * max(heights) or 1.0
    axes.set_xlim(min(sizes) / spread**0.25, max(sizes) * spread**0.4)  # most names stand to the right
    axes.set_ylim(min(heights) - room, max(heights) + room)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    name = third.column.replace("_", " ")
    axes.set_xlabel(f"{name} (logarithmic; {third.better} is better)", color=ink("muted"))
    axes.set_ylabel(columns[1].replace("_", " "), color=ink("muted"))
    axes.grid(color=ink("band"), linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(which="minor", color=ink("rule"))


def _draw_line(axes: Axes, line: Line, sizes: Sequence[float]) -> None:
    ends = np.array([min(sizes), max(sizes)])
    heights = [line.at(float(size)) for size in ends]
    axes.plot(ends, heights, color=ink("muted"), linewidth=1.2, linestyle=(0, (5, 3)), label="trend line")


def _draw_distance(axes: Axes, farthest: LeaderboardRow, line: Line, colour: str) -> None:
    axes.plot([farthest.size] * 2, [line.at(farthest.size), farthest.accuracy], color=colour, linewidth=1.2)


def _dots(
    axes: Axes, group: Sequence[LeaderboardRow], marker: str, area: float, face: str, edge: str, label: str
) -> None:
    if group:
        sizes, heights = [row.size for row in group], [row.accuracy for row in group]
        style: Any = {
            "s": area,
            "marker": marker,
            "color": face,
            "edgecolor": edge,
            "linewidth": 1,
            "zorder": 3,
        }
        axes.scatter(sizes, heights, label=label, **style)


def _name_dots(axes: Axes, all_rows: Sequence[LeaderboardRow], choice: Choice, colour: str) -> None:
    """Write each model's name beside its dot, the chosen one's first and in its colour."""
    colours = {one.row.model: ink("ink") for one in choice.candidates} | {choice.chosen.model: colour}
    ordered = sorted(all_rows, key=lambda row: (row.model != choice.chosen.model, row.model not in colours))
    tags = [
        Label(
            row.model,
            (row.size, row.accuracy),
            colours.get(row.model, ink("muted")),
            bold=row is ordered[0],
        )
        for row in ordered
    ]
    line = choice.line
    sizes = [one.row.size for one in choice.candidates]
    path = np.geomspace(min(sizes), max(sizes), 60) if line is not None else np.zeros(0)
    place_labels(
        axes, tags, [(float(size), line.at(float(size))) for size in path] if line is not None else []
    )


def _text(selection: Selection) -> str:
    """Say what the figure shows."""
    board, choice = selection.board, selection.choice
    shown = [f"{one.row.model} {one.residual + 0.0:+.3f}" for one in choice.candidates]
    parts = [
        f"{board.columns[1]} over {board.columns[2]} of {len(board.rows)} {selection.kind}; "
        f"{selection.third.better} of the latter is better.",
        f"Chosen: {choice.chosen.model}, {choice.decided}.",
        f"Candidates and their distance above the line: {', '.join(shown)}."
        if choice.line is not None
        else "No trend line: there is one candidate.",
    ]
    if choice.excluded:
        parts.append(f"Excluded: {', '.join(one.row.model for one in choice.excluded)}.")
    return " ".join(parts)
