"""``defectbench render``: the Kubernetes manifests of a sweep; neither a cluster nor an image is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from defectbench.cli.options import (
    ChartOptions,
    kubernetes_options,
    narrowing_options,
    open_store,
    print_yaml,
    set_option,
    specs_option,
    store_option,
)
from defectbench.cli.planning import make_plan, make_values, prepare, sweep_argument

if TYPE_CHECKING:
    from defectbench.records.sweep_record import Narrowing


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
    narrowing: Narrowing,
    overrides: tuple[str, ...],
    chart_options: ChartOptions,
    namespace: str | None,
    write_specs: bool,
) -> None:
    """Print the Kubernetes Jobs of a sweep as YAML, for reading and for other tools; start nothing.

    Jobs are the same whatever is finished. Pods read their cells' specs from the store: submit and run write
    them there, and so does --write-specs.
    """
    from defectbench.runners.chart import chart

    place = open_store(store)
    planned = make_plan(sweep, place, overrides)
    cells = planned.narrowed(narrowing)
    values = make_values(planned, place, cells, chart_options)
    manifests = chart.render(values, namespace)
    prepare(planned, place, cells, values, write_specs)
    print_yaml(manifests)
