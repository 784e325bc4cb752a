"""``defectbench render``: the Kubernetes manifests of a sweep; neither a cluster nor an image is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from defectbench.cli.options import (
    kubernetes_options,
    narrowing_options,
    note,
    open_store,
    say_yaml,
    set_option,
    specs_option,
    store_option,
)
from defectbench.cli.sweeps import make_plan, sweep_argument

if TYPE_CHECKING:
    from defectbench.cell import Cell
    from defectbench.plan import Plan
    from defectbench.stores.base import Store

Given = tuple[Sequence[Path], Sequence[str], str | None]
"""What -f, --set-values and --image say."""


@click.command()
@sweep_argument
@store_option
@narrowing_options
@set_option
@kubernetes_options
@specs_option
def render(
    sweep: Path,
    store: str,
    only_model: tuple[str, ...],
    only_category: tuple[str, ...],
    only_cell: tuple[str, ...],
    overrides: tuple[str, ...],
    values_files: tuple[Path, ...],
    value_overrides: tuple[str, ...],
    image: str | None,
    namespace: str | None,
    write_specs: bool,
) -> None:
    """Print the Kubernetes Jobs of a sweep as YAML, for reading and for other tools; start nothing.

    Jobs are the same whatever is finished. Pods read their cells' specs from the store: submit and run write
    them there, and so does --write-specs.
    """
    from defectbench.runners import chart

    place = open_store(store)
    planned = make_plan(sweep, place, overrides)
    cells = planned.narrowed(only_model, only_category, only_cell)
    values = make_values(planned, place, cells, (values_files, value_overrides, image))
    manifests = chart.render(values, namespace)
    prepare(planned, place, cells, values, write_specs)
    say_yaml(manifests)


def make_values(planned: Plan, place: Store, cells: Mapping[str, Cell], given: Given) -> dict[str, Any]:
    """Return the chart's values for ``cells``."""
    from defectbench.runners import chart
    from defectbench.runners.values import read_values

    jobs = chart.group(planned.sweep, planned.cells, planned.labels, cells)
    return chart.values(planned.sweep, jobs, place.url, read_values(*given))


def prepare(
    planned: Plan, place: Store, cells: Mapping[str, Cell], values: Mapping[str, Any], write_specs: bool
) -> None:
    """Say what pods will not find, and write what they read if that is wanted."""
    from defectbench.plan import write
    from defectbench.runners import chart

    for text in chart.warnings(planned.sweep, values, os.environ):
        note(f"note: {text}")
    if write_specs:
        planned.need_weights(list(cells))
        write(planned, place, list(cells))
