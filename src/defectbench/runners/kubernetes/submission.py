"""Sweeps made ready for a cluster, submitted and tried again: where plan, chart and cluster meet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from defectbench.errors import (
    ConfigurationError,
    DefectbenchError,
    ExitCode,
    MissingWeightsError,
    NoRightsError,
    TryAgainError,
)
from defectbench.records.result import finished_cells, forget_failures
from defectbench.records.sweep_record import WHOLE, Narrowing, read_record
from defectbench.runners.chart import chart
from defectbench.runners.chart.chart import JobEntry, Manifest
from defectbench.runners.chart.values import Values
from defectbench.runners.kubernetes import control, find
from defectbench.runners.kubernetes.api import Cluster
from defectbench.runners.kubernetes.checks import check_namespace, check_needs
from defectbench.runners.kubernetes.control import RetryScope
from defectbench.runners.kubernetes.submit import WINDOW, JobOutcome, PlacedJob, Submission
from defectbench.runners.status import StoredState, read_stored_states
from defectbench.stores.base import Store
from defectbench.stores.layout import sweep_key
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import Sweep, parse_sweep, read_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.networks import check_networks
from defectbench.sweeps.overrides import lay_over
from defectbench.sweeps.plan import Plan


@dataclass(frozen=True)
class SubmitRequest:
    """What a user asks for, besides the sweep.

    Attributes:
        values: of the chart, as given.
        narrowing: which of its cells.
        window: Jobs that may be live.
        replace: take the place of another sweep of the same name in the store.
    """

    store: Store
    cluster: Cluster
    values: Values
    overrides: Sequence[str] = ()
    narrowing: Narrowing = WHOLE
    window: int = WINDOW
    replace: bool = False


@dataclass(frozen=True)
class SubmittableSweep:
    """A sweep that can be submitted: data, weights, Secrets and image were found.

    Attributes:
        entries: its Jobs.
        done: cells that are finished.
        todo: the others.
        warnings: what could not be looked at.
    """

    request: SubmitRequest
    plan: Plan
    entries: Sequence[JobEntry]
    done: frozenset[str]
    todo: Sequence[str]
    warnings: Sequence[str] = field(default=())

    @property
    def gpus(self) -> int:
        """GPUs that its unfinished Jobs ask for, all running at once."""
        return sum(entry.resources.gpu for entry in self.unfinished)

    @property
    def unfinished(self) -> list[JobEntry]:
        """The Jobs that have work left."""
        return [entry for entry in self.entries if not self.done.issuperset(entry.cells)]

    @property
    def summary(self) -> str:
        """One line: where, how many Jobs, how many GPUs."""
        cluster, jobs = self.request.cluster, self.unfinished
        each = max((entry.resources.gpu for entry in jobs), default=0)
        gpus = f"GPU limit {each} a Job, {self.gpus} in all" if each else "no GPU"
        return (
            f"{self.plan.sweep.name}: context {cluster.context}, namespace {cluster.namespace}, "
            f"{len(jobs)} Jobs for {len(self.todo)} cells, {gpus}; {len(self.done)} cells are finished"
        )

    def manifests(self) -> Iterator[Manifest]:
        """Render its Jobs, one by one."""
        return _render(self.request, self.plan.sweep, self.entries)


def load_sweep(store: Store, sweep: str, overrides: Sequence[str] = ()) -> Sweep:
    """Return a sweep by its file, or by the name under which it was submitted before.

    Raises:
        MissingInputError: no such file, or no such sweep in the store.
        SweepError: it is wrong.
    """
    if Path(sweep).suffix in (".yaml", ".yml"):
        return read_sweep(Path(sweep), overrides)
    document = _as_written(read_record(store, sweep).document)
    laid = frozenset(lay_over(document, overrides))
    return parse_sweep(document, SourceLines(sweep_key(sweep), {}, laid))


def _as_written(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's document as a file has it: without what nobody set, overrides beside the name."""
    plain = _without_none(document)
    models = [{**model.pop("overrides", {}), **model} for model in plain["models"]]
    return {**plain, "models": models}


def _without_none(value: Any) -> Any:
    """Return the value without keys that are None, at every depth."""
    if isinstance(value, Mapping):
        return {key: _without_none(each) for key, each in value.items() if each is not None}
    return [_without_none(each) for each in value] if isinstance(value, list) else value


def prepare(request: SubmitRequest, sweep: Sweep) -> SubmittableSweep:
    """Look for all that a sweep needs; submit nothing.

    Raises:
        DefectbenchError: what is missing: data (66), weights or the image (69), a Secret or a volume (78)...
    """
    plan = plans.make_plan(sweep, request.store)
    if not request.replace:
        plans.check_record(plan, request.store)
    wanted = plan.narrowed(request.narrowing)
    done = frozenset(finished_cells(request.store, list(wanted)))
    todo = [key for key in wanted if key not in done]
    plan.need_weights(todo)
    check_networks(sweep, {plan.labels[key] for key in todo})
    entries = chart.group(sweep, plan.cells, plan.labels, wanted=wanted)
    values = chart.values(sweep, entries, request.store.url, request.values)
    if lacking := chart.missing_packages([plan.cells[key] for key in todo], values):
        raise MissingWeightsError(lacking)
    if request.store.local_path is not None and not chart.has_store_volume(values):
        raise ConfigurationError(
            f"pods cannot reach the directory {request.store.url}: give --store s3://..., or the volume that "
            "holds it: --set-values store.volume.persistentVolumeClaim.claimName=NAME"
        )
    warnings = chart.warnings(sweep, values, os.environ)
    first = next(_render(request, sweep, entries[:1]), None) if todo else None
    if first is not None:
        warnings += check_needs(request.cluster, first)
    return SubmittableSweep(request, plan, entries, done, todo, warnings)


def prepare_all(
    request: SubmitRequest, sweeps: Sequence[str]
) -> tuple[list[SubmittableSweep], dict[str, DefectbenchError]]:
    """Prepare several sweeps, given by file or name: those that are ready, and what each of the others lacks.

    Raises:
        TryAgainError, NoRightsError: store or cluster cannot be asked, so nothing is known of any sweep.
    """
    check_namespace(request.cluster)
    ready, lacking = [], {}
    for name in sweeps:
        try:
            ready.append(prepare(request, load_sweep(request.store, name, request.overrides)))
        except (TryAgainError, NoRightsError):
            raise
        except DefectbenchError as error:
            lacking[name] = error
    return ready, lacking


def submit_sweeps(ready: SubmittableSweep, on_placed: Callable[[PlacedJob], None]) -> Mapping[str, PlacedJob]:
    """Write the specs, then bring the Jobs into the cluster. Failures of the past stay: `retry` forgets them.

    What a Job that is there has made from other settings works on is not touched.

    Raises:
        StoppedError, DefectbenchError: as :meth:`Submission.run`.
    """
    work = Submission(ready.request.cluster, ready.done, ready.request.window, on_placed)
    theirs = work.cells_of_others(ready.manifests())
    mine = [key for key in ready.todo if key not in theirs]
    if mine or not theirs:
        plans.write_plan(ready.plan, ready.request.store, mine, ready.request.replace)
    return work.run(ready.manifests())


def retry_sweep(
    ready: SubmittableSweep, only: RetryScope, on_placed: Callable[[PlacedJob], None]
) -> Mapping[str, PlacedJob]:
    """Make Jobs anew: delete by UID, wait until gone, forget permanent failures, create. Live ones stay.

    Safe to repeat at any point: what was deleted and not made again is pending, and `submit` makes it.
    """
    request = ready.request
    there = {each.view.name: each for each in find.jobs(request.cluster)}
    known = read_stored_states(request.store, ready.todo)
    chosen = []
    for entry in ready.unfinished:
        reason = control.may_retry(there.get(entry.name), _cells(entry, known), only)
        if reason:
            on_placed(PlacedJob(entry.name, JobOutcome.LEFT, f"left alone: {reason}"))
        else:
            chosen.append(entry)
    old = [there[entry.name].view for entry in chosen if entry.name in there]
    control.delete_all(request.cluster, old)
    control.wait_gone(request.cluster, old)
    keys = [key for entry in chosen for key in entry.cells if key in known]
    plans.write_plan(ready.plan, request.store, keys, request.replace)
    forget_failures(
        request.store, [key for key in keys if known[key].failure is not None or known[key].damage]
    )
    work = Submission(request.cluster, ready.done, request.window, on_placed)
    return work.run(_render(request, ready.plan.sweep, chosen)) if chosen else {}


def closing_code(placed: Mapping[str, PlacedJob]) -> ExitCode:
    """Return what a submission ends with: 78 where another Job has a name, 1 where Jobs failed before."""
    outcomes = {each.outcome for each in placed.values()}
    if JobOutcome.DIFFERENT in outcomes:
        return ExitCode.CONFIGURATION
    return ExitCode.SOME_FAILED if JobOutcome.FAILED in outcomes else ExitCode.DONE


def _cells(entry: JobEntry, known: Mapping[str, StoredState]) -> list[StoredState]:
    """Return what the store knows of a Job's cells; those that were not asked about are finished."""
    return [known.get(key, StoredState(finished=True)) for key in entry.cells]


def _render(request: SubmitRequest, sweep: Sweep, entries: Sequence[JobEntry]) -> Iterator[Manifest]:
    """Render Jobs for the cluster's own version."""
    values = chart.values(sweep, entries, request.store.url, request.values)
    return chart.render(values, request.cluster.namespace, request.cluster.version())
