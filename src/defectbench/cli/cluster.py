"""``defectbench submit | cancel | retry``: a sweep's Jobs on Kubernetes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from defectbench.cli.options import (
    ChartOptions,
    kube_context_option,
    kubernetes_options,
    namespace_option,
    narrowing_options,
    note,
    open_store,
    progress_bar,
    replace_option,
    set_option,
    store_option,
    sweep_name,
)

if TYPE_CHECKING:
    from defectbench.records.sweep_record import Narrowing
    from defectbench.runners.kubernetes.submission import SubmitRequest, SubmittableSweep
    from defectbench.runners.kubernetes.submit import PlacedJob

_MENTIONED = 20
"""Jobs of one kind that are named; the rest is counted."""

_NAMED = frozenset({"held", "failed", "different", "left alone"})

window_option = click.option(
    "--window",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Jobs that may be live at once; beyond it, stay and top up.",
)


@click.command()
@click.argument("sweeps", metavar="SWEEP...", nargs=-1, required=True)
@store_option
@kubernetes_options
@kube_context_option
@narrowing_options
@set_option
@window_option
@replace_option
def submit(
    sweeps: tuple[str, ...],
    store: str,
    chart_options: ChartOptions,
    namespace: str | None,
    kube_context: str | None,
    narrowing: Narrowing,
    overrides: tuple[str, ...],
    window: int,
    replace: bool,
) -> None:
    """Submit sweeps to Kubernetes, a Job for each model and category. Safe to repeat.

    Cells that are finished, and Jobs that are there already, are left alone. Data, weights, Secrets and image
    are looked for first: of several sweeps, those that are ready are submitted, and what the others lack is
    named. Returns when all Jobs fit into the window, else stays and tops up.
    """
    cluster = kube_context, namespace
    request = _request(store, cluster, chart_options, narrowing, overrides, window, replace)
    from defectbench.runners.kubernetes.submission import prepare_all

    ready, lacking = prepare_all(request, sweeps)
    if lacking and len(sweeps) == 1:
        raise next(iter(lacking.values()))
    for each in ready:
        _announce(each)
    codes = [_submit(each) for each in ready]
    for name, error in lacking.items():
        note(f"not submitted: {name}: {error}")
    raise click.exceptions.Exit(_join(codes, len(sweeps)))


@click.command()
@click.argument("sweep", metavar="SWEEP")
@click.option(
    "--only",
    type=click.Choice(["failed", "preempted", "stuck", "all"]),
    default="failed",
    show_default=True,
    help="Jobs that failed or cannot start; those that were taken away; those whose worker hangs; failed, "
    "taken away and never made ones.",
)
@store_option
@kubernetes_options
@kube_context_option
@narrowing_options
@set_option
@window_option
def retry(
    sweep: str,
    only: str,
    store: str,
    chart_options: ChartOptions,
    namespace: str | None,
    kube_context: str | None,
    narrowing: Narrowing,
    overrides: tuple[str, ...],
    window: int,
) -> None:
    """Make Jobs anew that did not finish their cells; forget permanent failures. Safe to repeat.

    SWEEP is the sweep's file, or its name: then as it was last submitted. Live Jobs are never touched; give
    the same -f, --set-values and --image as to `submit`, or mended ones.
    """
    cluster = kube_context, namespace
    request = _request(store, cluster, chart_options, narrowing, overrides, window)
    from defectbench.runners.kubernetes.control import RetryScope
    from defectbench.runners.kubernetes.submission import closing_code, load_sweep, prepare, retry_sweep

    ready = prepare(request, load_sweep(request.store, sweep, overrides))
    _announce(ready)
    with _reporting(len(ready.unfinished)) as on_placed:
        placed = retry_sweep(ready, RetryScope(only), on_placed)
    raise click.exceptions.Exit(closing_code(placed))


@click.command()
@click.argument("sweep", metavar="SWEEP")
@namespace_option
@kube_context_option
@narrowing_options
def cancel(
    sweep: str,
    namespace: str | None,
    kube_context: str | None,
    narrowing: Narrowing,
) -> None:
    """End a sweep's live Jobs. Their pods save and leave; `submit` goes on later. Safe to repeat."""
    from defectbench.runners.kubernetes.choose import open_cluster

    cluster = open_cluster(kube_context, namespace)
    from defectbench.runners.kubernetes.checks import check_namespace
    from defectbench.runners.kubernetes.control import cancel_jobs

    check_namespace(cluster)
    ended = cancel_jobs(cluster, sweep_name(sweep), narrowing)
    note(f"{len(ended)} Jobs end in context {cluster.context}, namespace {cluster.namespace}")


def _request(
    store: str,
    cluster: tuple[str | None, str | None],
    chart_options: ChartOptions,
    narrowing: Narrowing,
    overrides: Sequence[str],
    window: int,
    replace: bool = False,
) -> SubmitRequest:
    """Return what the options ask for, in one piece."""
    from defectbench.runners.kubernetes.choose import open_cluster

    values = chart_options.read()
    found = open_cluster(*cluster)
    from defectbench.runners.kubernetes.submission import SubmitRequest

    return SubmitRequest(open_store(store), found, values, overrides, narrowing, window, replace)


def _announce(ready: SubmittableSweep) -> None:
    """Print what will be submitted, and the warnings."""
    note(ready.summary)
    for warning in ready.warnings:
        note(f"warning: {warning}")


def _submit(ready: SubmittableSweep) -> int:
    """Submit a sweep and return the exit code that it alone would have."""
    from defectbench.runners.kubernetes.submission import closing_code, submit_sweeps

    with _reporting(len(ready.entries)) as on_placed:
        placed = submit_sweeps(ready, on_placed)
    return closing_code(placed)


@contextmanager
def _reporting(total: int) -> Iterator[Callable[[PlacedJob], None]]:
    """Count the Jobs as they are placed, name those that need a person, and sum up at the end."""
    counted: Counter[str] = Counter()
    with progress_bar() as step:

        def on_placed(placed: PlacedJob) -> None:
            counted[placed.outcome] += 1
            step("Jobs", counted.total(), total)
            if placed.outcome in _NAMED and counted[placed.outcome] <= _MENTIONED:
                note(f"{placed.name}: {placed.detail}")

        yield on_placed
    note(f"Jobs: {_sum(counted)}")


def _sum(counted: Mapping[str, int]) -> str:
    """Return the counts in words."""
    return ", ".join(f"{number} {verdict}" for verdict, number in counted.items()) or "none"


def _join(codes: Sequence[int], asked: int) -> int:
    """Return the exit code of several sweeps: 1 where any is not whole; a single one has its own."""
    if asked == 1:
        return codes[0]
    return 1 if any(codes) or len(codes) < asked else 0
