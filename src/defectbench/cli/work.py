"""``defectbench job``: the worker, the same in a local process and in a pod."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from defectbench.cli.options import cache_option, device_option, store_option, tracking_option
from defectbench.util.shutdown import Stop

if TYPE_CHECKING:
    from defectbench.execution.events import Event


@click.command()
@store_option
@click.option("--cell", "cells", multiple=True, required=True, metavar="KEY", help="May be given again.")
@cache_option
@device_option
@tracking_option
@click.option(
    "--checkpoint-every",
    envvar="DEFECTBENCH_CHECKPOINT_SECONDS",
    type=click.FloatRange(min=0),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Save a fit so often, and at SIGTERM; what can be resumed then is.  "
    "[env: DEFECTBENCH_CHECKPOINT_SECONDS]",
)
@click.option(
    "--store-patience",
    envvar="DEFECTBENCH_STORE_PATIENCE",
    type=click.FloatRange(min=0),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long for a store that is away, at each request; then end with 74, which counts as no "
    "failure.  [env: DEFECTBENCH_STORE_PATIENCE]",
)
@click.option(
    "--stuck-after",
    envvar="DEFECTBENCH_STUCK_SECONDS",
    type=click.FloatRange(min=0),
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    help="End this process where a cell has made no step for so long; the cell begins anew from its "
    "checkpoint.  [env: DEFECTBENCH_STUCK_SECONDS]",
)
@click.option("--events", is_flag=True, help="Print what happens as JSON lines on standard output.")
def job(
    store: str,
    cells: tuple[str, ...],
    cache: Path | None,
    device: str,
    tracking_uri: str | None,
    checkpoint_every: float,
    store_patience: float,
    stuck_after: float,
    events: bool,
) -> None:
    """Run cells whose specs lie in the store, one after the other, and write their results there.

    A cell that another worker holds is left for last, then waited for. SIGTERM stops after saving (143).
    """
    # Before anything slow is imported: a pod may be stopped while torch is still loading.
    stop = Stop()
    stop.listen()
    if not events:
        logging.getLogger().handlers[0].setLevel(logging.INFO)
    from defectbench.execution.watchdog import Watchdog, alive_file

    watchdog = Watchdog(stuck_after, alive_file())
    from defectbench.cli.options import cache_or_default, open_store
    from defectbench.execution.worker import Worker
    from defectbench.stores.patient import PatientStore

    worker = Worker(
        store=PatientStore(open_store(store), stop, store_patience),
        cache=cache_or_default(cache),
        device=device,
        tracking_uri=tracking_uri,
        stop=stop,
        on_event=_print_event if events else _print_line,
        checkpoint_every=checkpoint_every,
        watchdog=watchdog,
    )
    raise click.exceptions.Exit(worker.run(cells))


def _print_event(event: Event) -> None:
    """Print an event as a line of JSON on standard output."""
    click.echo(event.to_line())
    sys.stdout.flush()


def _print_line(event: Event) -> None:
    """Print for people, on standard error, how a cell ended."""
    from defectbench.records.state import CellState

    if event.state is not CellState.RUNNING or event.phase == "":
        click.echo(f"{event.cell} {event.state} {event.message}".rstrip(), err=True)
