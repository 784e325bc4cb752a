"""``defectbench status | watch | why | logs``: where the cells of a sweep are, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from defectbench.cli.options import (
    format_option,
    kube_context_option,
    namespace_option,
    narrowing_options,
    note,
    open_store,
    print_json,
    print_table,
    store_option,
    sweep_name,
)

if TYPE_CHECKING:
    from defectbench.records.sweep_record import Narrowing
    from defectbench.runners.job_view import JobView
    from defectbench.runners.status import CellStatus


@click.command()
@click.argument("sweep", metavar="SWEEP")
@store_option
@namespace_option
@kube_context_option
@narrowing_options
@click.option("--cells", "by_cell", is_flag=True, help="A line for each cell.")
@format_option
def status(
    sweep: str,
    store: str,
    namespace: str | None,
    kube_context: str | None,
    narrowing: Narrowing,
    by_cell: bool,
    form: str,
) -> None:
    """Show where the cells of a sweep are: finished in the store counts first, then the Jobs.

    A sweep that ran on this machine needs no cluster: where none answers, the store alone is read.
    """
    from defectbench.records.sweep_record import read_record
    from defectbench.runners.kubernetes.choose import find_cluster
    from defectbench.runners.status import cell_statuses, count_states, read_stored_states

    place = open_store(store)
    record = read_record(place, sweep_name(sweep))
    keys = record.narrowed(narrowing)
    cluster, unasked = find_cluster(kube_context, namespace)
    views: list[JobView] = []
    if cluster is not None:
        from defectbench.runners.kubernetes.find import holding

        views = holding(cluster, keys)
    cells = cell_statuses(record, read_stored_states(place, keys, record), views, asked=cluster is not None)
    if form == "json":
        print_json(
            {
                "sweep": record.name,
                "cluster": {"context": cluster.context, "namespace": cluster.namespace} if cluster else None,
                "states": count_states(cells),
                "cells": [asdict(each) for each in cells],
                "jobs": [asdict(each) for each in views],
            }
        )
        return
    _show(cells, by_cell)
    note(f"{record.name}: {len(cells)} cells: {_words(count_states(cells))}")
    if unasked:
        note(f"only the store was read: {unasked}")


@click.command()
@click.argument("sweep", metavar="SWEEP")
@store_option
@namespace_option
@kube_context_option
@narrowing_options
def watch(
    sweep: str,
    store: str,
    namespace: str | None,
    kube_context: str | None,
    narrowing: Narrowing,
) -> None:
    """Follow a sweep's Jobs until all have ended: 0 when every cell is finished, else 1.

    Jobs that are doomed (no image, no Secret) are not waited for.
    """
    from defectbench.runners.kubernetes.choose import open_cluster

    cluster = open_cluster(kube_context, namespace)
    from defectbench.cli.cluster_board import ClusterBoard
    from defectbench.records.sweep_record import read_record
    from defectbench.runners.kubernetes.checks import check_namespace
    from defectbench.runners.kubernetes.watch import Follower

    check_namespace(cluster)
    place = open_store(store)
    record = read_record(place, sweep_name(sweep))
    keys = record.narrowed(narrowing)
    board = ClusterBoard(record.name)
    with board:
        last = Follower(cluster, place, record, keys).follow(board.show)
    note(board.summary(last))
    for each in last.advice:
        note(each)
    raise click.exceptions.Exit(last.code)


@click.command()
@click.argument("subject", metavar="CELL|JOB")
@store_option
@namespace_option
@kube_context_option
@format_option
def why(subject: str, store: str, namespace: str | None, kube_context: str | None, form: str) -> None:
    """Explain in one sentence, with evidence, why a cell (the start of its key) or a Job is where it is.

    The first word is finished, running, slow (it goes on by itself), stuck (somebody must do something),
    doomed (as it is, it can never start) or failed.
    """
    from defectbench.runners.kubernetes.choose import find_cluster

    cluster, unasked = find_cluster(kube_context, namespace)
    from defectbench.runners.kubernetes.facts import gather_facts
    from defectbench.runners.kubernetes.why import explain

    found = explain(gather_facts(open_store(store), subject, cluster, unasked))
    if form == "json":
        print_json({"subject": subject, **asdict(found)})
        return
    click.echo(f"{found.verdict}: {found.sentence}")
    for line in found.evidence:
        click.echo(f"  {line}")


@click.command()
@click.argument("cell", metavar="CELL")
@store_option
@namespace_option
@kube_context_option
@click.option("--attempt", type=click.IntRange(min=1), help="Default: the latest.")
@click.option("--follow", is_flag=True, help="Until the cell has ended.")
def logs(
    cell: str, store: str, namespace: str | None, kube_context: str | None, attempt: int | None, follow: bool
) -> None:
    """Print a cell's log: from the store, where it outlives the pod, or from its pod until that has one."""
    from defectbench.records.cell import find_cell
    from defectbench.runners.kubernetes import logs as kept

    place = open_store(store)
    key = find_cell(place, cell)
    if key is None:
        from defectbench.errors import MissingInputError

        raise MissingInputError(f"no cell {cell!r} in {place.url}: `defectbench status SWEEP` lists them")
    text = kept.read_log(place, key, attempt)
    if text is None:
        from defectbench.runners.kubernetes.choose import open_cluster

        note("the store has no log of it yet: this is its pod's")
        for line in kept.from_pod(open_cluster(kube_context, namespace), key, following=follow):
            click.echo(line, nl=False)
        return
    for part in kept.follow(place, key) if follow else [text]:
        click.echo(part, nl=False)


def _show(cells: Sequence[CellStatus], by_cell: bool) -> None:
    """Print a line for each cell, or for each Job."""
    if by_cell:
        rows: list[tuple[object, ...]] = [
            (each.cell, each.category, each.model, each.state, each.job, each.detail) for each in cells
        ]
        print_table(("cell", "category", "model", "state", "job", "detail"), rows)
        return
    groups: dict[tuple[str, str, str], list[CellStatus]] = {}
    for each in cells:
        groups.setdefault((each.category, each.model, each.job), []).append(each)
    print_table(
        ("category", "model", "job", "cells", "finished", "state", "detail"),
        [(*names, *_line(members)) for names, members in groups.items()],
    )


def _line(cells: Sequence[CellStatus]) -> tuple[object, ...]:
    """Sum up the cells of a Job: how many, how many finished, where the others are, and why."""
    from defectbench.records.state import CellState
    from defectbench.runners.status import count_states

    done = sum(each.state is CellState.FINISHED for each in cells)
    others = [each for each in cells if each.state is not CellState.FINISHED]
    # What needs a person is shown before what runs, and that before what waits.
    order = (CellState.DAMAGED, CellState.FAILED, CellState.DOOMED, CellState.STUCK, CellState.RUNNING)
    first = min(
        others, key=lambda each: order.index(each.state) if each.state in order else len(order), default=None
    )
    return len(cells), done, _words(count_states(others)) or "finished", first.detail if first else ""


def _words(counted: dict[str, Any]) -> str:
    """Return counts of states in words."""
    return ", ".join(f"{number} {state}" for state, number in counted.items())
