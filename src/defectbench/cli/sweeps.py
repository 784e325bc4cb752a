"""``defectbench plan | run | report | verdict | track``: what is done with a sweep on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from defectbench.cli.options import (
    ChartOptions,
    cache_option,
    cache_or_default,
    device_option,
    format_option,
    narrowing_options,
    note,
    open_store,
    print_json,
    print_table,
    print_yaml,
    replace_option,
    set_option,
    specs_option,
    store_option,
    sweep_name,
    tracking_option,
    values_options,
)
from defectbench.cli.planning import make_plan, make_values, prepare, sweep_argument

if TYPE_CHECKING:
    from defectbench.execution.events import Event
    from defectbench.records.cell import Cell
    from defectbench.records.sweep_record import Narrowing
    from defectbench.stores.base import Store
    from defectbench.sweeps.estimate import ModelHours
    from defectbench.sweeps.plan import Plan

name_argument = click.argument("sweep", metavar="SWEEP")
"""A sweep that ran: its file, or the name in it."""


@click.command()
@sweep_argument
@store_option
@tracking_option
@narrowing_options
@set_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "values"]),
    default="table",
    show_default=True,
    help="A table for people, JSON for pipes, the chart's values for Helm.",
)
@click.option(
    "--hours", is_flag=True, help="Estimate the hours of what is to run, from cells measured in the store."
)
@values_options
@specs_option
def plan(
    sweep: Path,
    store: str,
    tracking_uri: str | None,
    narrowing: Narrowing,
    overrides: tuple[str, ...],
    form: str,
    hours: bool,
    chart_options: ChartOptions,
    write_specs: bool,
) -> None:
    """Show what a sweep comes to: its distinct fits, what is finished and what is missing; start nothing."""
    if form == "values" and hours:
        raise click.UsageError("--hours belongs to a table or --format json")
    if form != "values":
        _refuse_chart_options(chart_options, write_specs)
    place = open_store(store)
    planned = make_plan(sweep, place, overrides)
    cells = planned.narrowed(narrowing)
    if form == "values":
        values = make_values(planned, place, cells, chart_options)
        prepare(planned, place, cells, values, write_specs)
        print_yaml([values])
    else:
        _print_plan(planned, place, cells, tracking_uri, form, hours)


def _print_plan(
    planned: Plan, place: Store, cells: Mapping[str, Cell], tracking_uri: str | None, form: str, hours: bool
) -> None:
    """Print a plan: its cells, what is missing, and the hours if asked for."""
    from defectbench.records.result import finished_cells
    from defectbench.util.secrets import redact_uri

    done = finished_cells(place, list(cells))
    guessed = _hours(planned, place, [key for key in cells if key not in done]) if hours else ()
    if form == "json":
        print_json(
            {
                "sweep": planned.sweep.name,
                "fits": len(cells),
                "entries": sum(reading.cell in cells for reading in planned.readings),
                "finished": len(done),
                "missing_weights": dict(planned.missing),
                "notes": list(planned.notes),
                "any_orientation": list(planned.rotated),
                **({"hours": [asdict(each) for each in guessed]} if hours else {}),
                "cells": [_cell(planned, key, key in done) for key in cells],
            }
        )
        return
    print_table(("category", "model", "family", "weights", "fits", "finished"), _lines(planned, cells, done))
    note(_sum(planned, cells, done))
    uri = _tracker(place, tracking_uri)
    shown = redact_uri(uri) if uri else "none; this store has none of its own, see --tracking-uri"
    note(f"tracker: {shown}")
    rotated = ", ".join(planned.rotated) or "none"
    note(f"parts in any orientation, rotated and mirrored in training: {rotated}")
    for each in guessed:
        note(f"hours: {_hours_text(each)}")
    for reason in planned.missing.values():
        note(f"missing: {reason}")
    for text in planned.notes:
        note(f"note: {text}")


def _hours(planned: Plan, place: Store, keys: list[str]) -> tuple[ModelHours, ...]:
    """Return the estimates of the cells that are to run."""
    from defectbench.sweeps.estimate import estimate_hours

    return estimate_hours(planned, keys, place)


def _hours_text(of: ModelHours) -> str:
    """Say what one model's cells will take.

    >>> from defectbench.sweeps.estimate import ModelHours
    >>> _hours_text(ModelHours("padim", 4, 1.234, "cpu", 256, "2 cells measured at 256 px on cpu"))
    'padim: about 1.2 for 4 fits (2 cells measured at 256 px on cpu)'
    """
    amount = "?" if of.hours is None else f"about {of.hours:,.{0 if of.hours >= 10 else 1}f}"
    return f"{of.label}: {amount} for {of.cells} fit{'s' * (of.cells != 1)} ({of.basis})"


def _refuse_chart_options(*given: object) -> None:
    """Refuse what would be read by nobody."""
    from defectbench.errors import UsageError

    if any(given):
        raise UsageError("-f, --set-values, --image and --write-specs belong to --format values")


@click.command()
@sweep_argument
@store_option
@tracking_option
@cache_option
@device_option
@narrowing_options
@set_option
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256), help="Processes.")
@replace_option
@click.option("--no-track", is_flag=True, help="Leave MLflow alone; `defectbench track` fills it later.")
def run(
    sweep: Path,
    store: str,
    tracking_uri: str | None,
    cache: Path | None,
    device: str,
    narrowing: Narrowing,
    overrides: tuple[str, ...],
    workers: int,
    replace: bool,
    no_track: bool,
) -> None:
    """Run a sweep here. What is finished is skipped; what failed before is tried again."""
    from defectbench.cli.local_board import LocalBoard
    from defectbench.runners.local_sweep import cell_titles, local_runner, write_unfinished

    place = open_store(store)
    planned = make_plan(sweep, place, overrides)
    cells = planned.narrowed(narrowing)
    todo = write_unfinished(planned, place, list(cells), replace)
    note(_sum(planned, cells, set(cells) - set(todo)))
    if not todo:
        note("all of them are finished: nothing to run")
        return
    uri = None if no_track else _tracker(place, tracking_uri)
    runner = local_runner(planned, store, workers, cache=cache, device=device, tracking_uri=uri)
    titles = cell_titles(planned, todo)
    with LocalBoard(titles) as board:
        ended = runner.run(todo, board.on_event)
    raise click.exceptions.Exit(_close(ended, titles))


@click.command()
@name_argument
@store_option
@cache_option
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write."
)
def report(sweep: str, store: str, cache: Path | None, out: Path) -> None:
    """Write the comparison as one page, OUT/index.html, with its tables and figures as files."""
    from defectbench.report.page import write_report

    page = write_report(open_store(store), sweep_name(sweep), out, cache_or_default(cache))
    note(f"wrote {page}")


@click.command()
@name_argument
@store_option
@format_option
def verdict(sweep: str, store: str, form: str) -> None:
    """Say which family each category needs, what passes and what is stopped, and what to do next.

    The report's answer, in words. The threshold is set on good parts that no fit saw.
    """
    from defectbench.tables.answers import answers
    from defectbench.tables.collect import collect
    from defectbench.tables.plain_words import sentences
    from defectbench.tables.tables import Tables

    tables = Tables(collect(open_store(store), sweep_name(sweep)))
    found = answers(tables)
    said = {one.category: list(sentences(one, tables.defect_rate, tables.requirement)) for one in found}
    if form == "json":
        print_json([{**asdict(one), "says": said[one.category]} for one in found])
        return
    for category, lines in said.items():
        click.echo("\n".join([category, *(f"  {line}" for line in lines)]))
    for category in tables.collected.record.categories:
        if category not in said:
            note(f"{category}: no fold has a result of both contenders yet")


@click.command()
@name_argument
@store_option
@tracking_option
@cache_option
def track(sweep: str, store: str, tracking_uri: str | None, cache: Path | None) -> None:
    """Bring MLflow up to date from the store, cells finished in another sweep included."""
    from defectbench.errors import StoppedError, UsageError
    from defectbench.execution.events import terminable
    from defectbench.trackers.choose import open_tracker
    from defectbench.trackers.choose import tracking_uri as choose
    from defectbench.trackers.sync import sync_sweep

    place = open_store(store)
    uri = choose(place, tracking_uri)
    if uri is None:
        raise UsageError("this store has no tracker of its own: give --tracking-uri or MLFLOW_TRACKING_URI")
    try:
        with terminable():
            found = sync_sweep(place, sweep_name(sweep), open_tracker(uri), cache=cache_or_default(cache))
    except KeyboardInterrupt:
        raise StoppedError("stopped; the same command goes on where it ended") from None
    note(f"{found.written} runs written, {found.skipped} were up to date, {found.incomplete} are incomplete")


def _tracker(store: Store, uri: str | None) -> str | None:
    """Return the tracker's URI, or None."""
    from defectbench.trackers.choose import tracking_uri

    return tracking_uri(store, uri)


def _lines(planned: Plan, cells: Mapping[str, Any], done: set[str]) -> list[tuple[object, ...]]:
    """Return a line for each category and model: how many fits, how many finished."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, cell in cells.items():
        groups.setdefault((cell.category, planned.labels[key]), []).append(key)
    return [
        (
            category,
            label,
            cells[keys[0]].family,
            cells[keys[0]].weights_kind,
            len(keys),
            len(done & set(keys)),
        )
        for (category, label), keys in groups.items()
    ]


def _sum(planned: Plan, cells: Mapping[str, Any], done: set[str]) -> str:
    """Return one line: how many fits, how many of them finished."""
    entries = sum(reading.cell in cells for reading in planned.readings)
    return (
        f"{planned.sweep.name}: {len(cells)} fits for {entries} table entries (sharing saves "
        f"{entries - len(cells)}); {len(done)} finished, {len(cells) - len(done)} to run"
    )


def _cell(planned: Plan, key: str, finished: bool) -> dict[str, object]:
    """Return a cell of the plan as plain data."""
    cell = planned.cells[key]
    return {
        "cell": key,
        "model": planned.labels[key],
        "family": cell.family,
        "category": cell.category,
        "seed": cell.fit.seed,
        "train": len(cell.fit.train),
        "tune": len(cell.fit.tune),
        "finished": finished,
    }


def _close(ended: Mapping[str, Event], titles: Mapping[str, str]) -> int:
    """Print what failed and return the exit code of the whole run."""
    from defectbench.errors import ExitCode
    from defectbench.records.state import CellState

    states = [event.state for event in ended.values()]
    for key, event in ended.items():
        if event.state is not CellState.FINISHED:
            note(f"{titles[key]} {key}: {event.state} ({event.code}): {event.message}")
    note(
        f"{states.count(CellState.FINISHED)} of {len(titles)} finished, "
        f"{states.count(CellState.FAILED)} failed"
    )
    for state, code in ((CellState.STOPPED, ExitCode.STOPPED), (CellState.AGAIN, ExitCode.TRY_AGAIN)):
        if state in states:
            return code
    return ExitCode.DONE if states.count(CellState.FINISHED) == len(titles) else ExitCode.SOME_FAILED
