"""``defectbench select``: which model a study takes from a table of published ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from defectbench.cli.options import format_option, note, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from defectbench.models.checks.size_check import SizeCheckResult
    from defectbench.selection.files import SelectionRow
    from defectbench.selection.leaderboard import Kind
    from defectbench.selection.rule import Better, Prefer, Selection


@click.command()
@click.argument("kind", type=click.Choice(["classifiers", "detectors"]))
@click.option(
    "--table",
    required=True,
    metavar="CSV",
    type=click.Path(path_type=Path),
    help="Column 1 the model, 2 its accuracy, 3 its size or popularity.",
)
@click.option(
    "--third",
    type=click.Choice(["less", "more"]),
    help="Whether less or more of column 3 is better. Default: less; a column of stars needs it said.",
)
@click.option(
    "--prefer",
    type=click.Choice(["line", "accuracy"]),
    default="line",
    show_default=True,
    help="Of the candidates take the one farthest above the trend line, or the most accurate one.",
)
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where selection.json, selection.csv and selection.svg go.",
)
@format_option
def select(kind: Kind, table: Path, third: Better | None, prefer: Prefer, out: Path, form: str) -> None:
    """Choose a model from a table of published ones: the one farthest above the trend line.

    A row stays a candidate when no other is strictly better both in accuracy and in column 3; the line is
    that of accuracy over the logarithm of column 3. Rows with rank above 300 (detectors: 100),
    params_millions above 100, stars below 20 or code empty are left out, where the table has such a column.
    What is chosen must take 512 x 512 pixels: a model of the catalog shows it by a forward pass, with random
    weights.
    """
    from defectbench.selection.files import document, rows, write_selection
    from defectbench.selection.leaderboard import read_leaderboard
    from defectbench.selection.rule import select_model

    selection = select_model(read_leaderboard(table, kind), kind, _ask, better=third, prefer=prefer)
    write_selection(selection, out, table)
    if form == "json":
        print_json(document(selection))
    else:
        columns = ("model", *selection.board.columns[1:], "status", "above the line", "512 x 512", "why")
        print_table(columns, [_words(row) for row in rows(selection)])
    note(_direction(selection))
    note(f"chosen: {selection.choice.chosen.model} ({selection.choice.decided}); {out / 'selection.svg'}")
    if selection.measured is not None:
        note(selection.measured.words)


def _ask(names: Sequence[str]) -> Mapping[str, SizeCheckResult]:
    """Ask models whether they take the size, in a process of its own."""
    from defectbench.models.checks.size_check import size_check
    from defectbench.selection.rule import SIDE

    note(f"a picture of {SIDE} x {SIDE} goes through {', '.join(names)}; a minute or two for each")
    return size_check(names, SIDE)


def _direction(selection: Selection) -> str:
    """Return which way column 3 counted, and whether that was the default."""
    how = "as --third says" if selection.declared else "the default; --third more reverses it"
    return f"{selection.third.better} {selection.third.column} is better ({how})"


def _words(row: SelectionRow) -> tuple[object, ...]:
    """Return a row of the selection for the table."""
    above = "" if row.residual is None else f"{row.residual:+.3f}"
    check = row.check.removeprefix("512: ")
    return row.model, row.accuracy, row.size, row.status, above, check, row.reason
