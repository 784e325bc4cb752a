"""A planned sweep on this machine: what the command line and the Python API do alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from defectbench.execution.events import thread_variables
from defectbench.models.pictures.images import default_cache
from defectbench.records.result import finished_cells, forget_failures
from defectbench.runners.local import LocalRunner
from defectbench.stores.base import Store
from defectbench.sweeps.networks import check_networks
from defectbench.sweeps.plan import Plan, write_plan


def write_unfinished(plan: Plan, store: Store, cells: Sequence[str], replace: bool = False) -> list[str]:
    """Prepare those of ``cells`` that have no result to run: write their specs and forget their failures.

    Args:
        replace: as :func:`defectbench.sweeps.plan.write_plan` has it.

    Returns:
        Their keys, in order.

    Raises:
        MissingWeightsError: names every model whose weights are missing.
        SweepError: a network that timm does not have, with its line.
        ConfigurationError: the store has another sweep of this name.
    """
    done = finished_cells(store, cells)
    keys = [key for key in cells if key not in done]
    plan.need_weights(keys)
    check_networks(plan.sweep, {plan.labels[key] for key in keys})
    write_plan(plan, store, keys, replace)
    forget_failures(store, keys)
    return keys


def local_runner(
    plan: Plan,
    store: str,
    workers: int,
    *,
    cache: Path | None = None,
    device: str = "auto",
    tracking_uri: str | None = None,
) -> LocalRunner:
    """Return a runner of the plan's cells in ``workers`` processes.

    Args:
        store: URL.
        cache: folder for unpacked images and features; default: as ``DEFECTBENCH_CACHE`` says.
        tracking_uri: MLflow's; None or empty for none.
    """
    return LocalRunner(
        store=store,
        workers=workers,
        extra=["--cache", str(cache or default_cache()), "--device", device],
        environment=_environment(plan, tracking_uri),
    )


def cell_titles(plan: Plan, cells: Sequence[str]) -> Mapping[str, str]:
    """Return cell -> its model and category, for people."""
    return {key: f"{plan.labels[key]} {plan.cells[key].category}" for key in cells}


def _environment(plan: Plan, tracking_uri: str | None) -> dict[str, str]:
    """Return the workers' variables. Threads are set before a library makes its pools."""
    # The URI may hold a password: it goes by the environment, never by an argument list.
    return {**thread_variables(plan.sweep.threads), "MLFLOW_TRACKING_URI": tracking_uri or ""}
