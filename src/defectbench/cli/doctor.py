"""``defectbench doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from defectbench.cli.options import (
    format_option,
    kube_context_option,
    namespace_option,
    print_json,
    print_table,
    set_option,
    store_option,
    tracking_option,
)


@click.command()
@click.argument("sweep", metavar="[SWEEP]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@store_option
@tracking_option
@namespace_option
@kube_context_option
@set_option
@format_option
def doctor(
    sweep: Path | None,
    store: str,
    tracking_uri: str | None,
    namespace: str | None,
    kube_context: str | None,
    overrides: tuple[str, ...],
    form: str,
) -> int:
    """Say what works from here: store, tracker, cluster, GPU, weights; for SWEEP also its data and weights.

    What is not there but optional (a cluster, a GPU) is said and is no error. Ends with 0, else with the code
    of the first thing that fails. An object is written into the store and removed again.
    """
    from defectbench.doctor import Target, diagnose, exit_code
    from defectbench.sweeps.config import read_sweep

    wanted = read_sweep(sweep, overrides) if sweep else None
    findings = list(diagnose(Target(store, tracking_uri, kube_context, namespace, wanted)))
    if form == "json":
        print_json(
            [{"what": one.what, "state": one.state, "says": one.says, "code": one.code} for one in findings]
        )
    else:
        print_table(("", "state", ""), [(one.what, one.state, one.says) for one in findings])
    return exit_code(findings)
