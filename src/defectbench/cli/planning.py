"""A sweep's file made into a plan and into the chart's values: what several commands begin with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from defectbench.cli.options import ChartOptions, note

if TYPE_CHECKING:
    from defectbench.records.cell import Cell
    from defectbench.stores.base import Store
    from defectbench.sweeps.plan import Plan

sweep_argument = click.argument("sweep", metavar="SWEEP", type=click.Path(dir_okay=False, path_type=Path))


def make_plan(sweep: Path, store: Store, overrides: tuple[str, ...]) -> Plan:
    """Read a sweep and expand it over the store's data."""
    from defectbench.sweeps.config import read_sweep
    from defectbench.sweeps.plan import make_plan

    return make_plan(read_sweep(sweep, overrides), store)


def make_values(
    planned: Plan, place: Store, cells: Mapping[str, Cell], chart_options: ChartOptions
) -> dict[str, Any]:
    """Return the chart's values for ``cells``."""
    from defectbench.runners.chart import chart

    jobs = chart.group(planned.sweep, planned.cells, planned.labels, cells)
    return chart.values(planned.sweep, jobs, place.url, chart_options.read())


def prepare(
    planned: Plan, place: Store, cells: Mapping[str, Cell], values: Mapping[str, Any], write_specs: bool
) -> None:
    """Print what pods will not find, and write what they read if that is wanted."""
    from defectbench.runners.chart import chart
    from defectbench.sweeps.plan import write_plan

    for text in chart.warnings(planned.sweep, values, os.environ):
        note(f"note: {text}")
    if lacking := chart.missing_packages(cells.values(), values):
        note(f"note: {lacking}")
    if write_specs:
        planned.need_weights(list(cells))
        write_plan(planned, place, list(cells))
