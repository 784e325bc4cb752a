"""What works from here: store, tracker, cluster, GPU, weights. Looks, and changes nothing that stays."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Literal
from urllib.error import HTTPError, URLError

from defectbench.catalog import entries
from defectbench.data.archive import list_datasets
from defectbench.errors import (
    DefectbenchError,
    ExitCode,
    MissingWeightsError,
    TryAgainError,
)
from defectbench.runners.chart.helm import find_program
from defectbench.runners.kubernetes.choose import find_cluster
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.stores.layout import WEIGHTS, second_part
from defectbench.sweeps.config import Sweep, resolve_models
from defectbench.trackers.choose import open_tracker, tracking_uri
from defectbench.weights import store as weights
from defectbench.weights.packaged import packaged_file

State = Literal["works", "not there", "fails"]

EXTRAS = {
    "train": "torch",
    "s3": "boto3",
    "kubernetes": "kubernetes",
    "mlflow": "mlflow",
    "helm": "helm_python",
    "export": "onnxruntime",
}
"""Extra of this package -> a module that it brings."""

_TEST_OBJECT = "doctor/write"
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: its name.
        state: ``works``; ``not there``, which is no error; ``fails``.
        says: what was found, or what to do.
        code: that the command ends with, if it fails.
    """

    what: str
    state: State
    says: str
    code: ExitCode = ExitCode.DONE


@dataclass(frozen=True)
class Target:
    """What is looked at.

    Attributes:
        store: URL or path.
        tracking: URI of the tracker, or None for the store's own.
        context, namespace: of the cluster; where one is named, none is an error.
        sweep: whose weights and data must be there, or None.
    """

    store: str
    tracking: str | None = None
    context: str | None = None
    namespace: str | None = None
    sweep: Sweep | None = None


def diagnose(target: Target) -> Iterator[Finding]:
    """Yield what works and what does not, one thing after the other; never raises an error of ours."""
    yield _package()
    place, finding = _store(target)
    yield finding
    yield _checked("tracker", lambda: _tracker(target, place))
    yield _checked("cluster", lambda: _cluster(target))
    yield _checked("helm", _helm)
    yield _checked("device", _device)
    if place is not None:
        yield _checked("weights", lambda: _weights(place))
        if target.sweep is not None:
            yield from _sweep(target.sweep, place)


def exit_code(findings: Iterable[Finding]) -> ExitCode:
    """Return the first code of what fails, else 0."""
    return next((one.code for one in findings if one.state == "fails"), ExitCode.DONE)


def _checked(what: str, look: Callable[[], Finding]) -> Finding:
    """Return what a check found; an error of ours becomes a finding."""
    try:
        return look()
    except DefectbenchError as error:
        return Finding(what, "fails", str(error), error.code)


def _package() -> Finding:
    """Return the version and which extras are installed."""
    there = [extra for extra, module in EXTRAS.items() if find_spec(module) is not None]
    lacking = [extra for extra in EXTRAS if extra not in there]
    says = f"defectbench {_version()}; extras: {', '.join(there) or 'none'}"
    if lacking:
        says += f"; not installed: {', '.join(lacking)} (uv sync --extra NAME)"
    return Finding("package", "works", says)


def _version() -> str:
    """Return the installed version."""
    try:
        return version("defectbench")
    except PackageNotFoundError:
        return "from its sources"


def _store(target: Target) -> tuple[Store | None, Finding]:
    """Open the store, write and remove an object, and count its data sets."""
    try:
        place = open_store(target.store)
        # Reading alone would not show a store without the right to write.
        place.put(_TEST_OBJECT, b"doctor")
        place.delete(_TEST_OBJECT)
        names = list_datasets(place)
    except DefectbenchError as error:
        return None, Finding("store", "fails", f"{target.store}: {error}", error.code)
    return place, Finding("store", "works", f"{place.url}: data sets: {', '.join(names) or 'none yet'}")


def _tracker(target: Target, place: Store | None) -> Finding:
    """Return whether the tracker answers."""
    named = target.tracking or os.environ.get("MLFLOW_TRACKING_URI")
    uri = named if place is None else tracking_uri(place, target.tracking)
    if uri is None:
        return Finding("tracker", "not there", "this store has none of its own; name one by --tracking-uri")
    if find_spec("mlflow") is None and not named:
        return Finding("tracker", "not there", "the extra mlflow is not installed; results are in the store")
    tracker = open_tracker(uri)
    if uri.startswith(("http://", "https://")):
        _ask(f"{uri.rstrip('/')}/health", tracker.place)
    return Finding("tracker", "works", tracker.place)


def _ask(url: str, place: str) -> None:
    """Raise TryAgainError unless the server is well; missing rights show with the first run."""
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE):
            return
    except HTTPError as error:
        if error.code not in (401, 403):
            raise TryAgainError(f"tracker {place} answers {error.code} on /health") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise TryAgainError(f"tracker {place} is out of reach") from error


def _cluster(target: Target) -> Finding:
    """Return whether a cluster answers."""
    cluster, why = find_cluster(target.context, target.namespace)
    if cluster is None:
        return Finding("cluster", "not there", f"{why} (only submit needs one)")
    return Finding("cluster", "works", f"context {cluster.context}, namespace {cluster.namespace}")


def _helm() -> Finding:
    """Return which Helm would render."""
    if program := find_program():
        return Finding("helm", "works", program)
    if find_spec("helm_python") is not None:
        return Finding("helm", "works", "its Python binding")
    return Finding(
        "helm", "not there", "neither its program nor its binding (only render and submit need it)"
    )


def _device() -> Finding:
    """Return what ``auto`` would take."""
    if find_spec("torch") is None:
        return Finding("device", "not there", "torch is not installed: the baselines alone run here")
    from defectbench.models.features.device import describe  # imports torch: seconds

    return Finding("device", "works", describe())


def _weights(place: Store) -> Finding:
    """Return how many of the catalog's weights the store has."""
    there = {second_part(key) for key in place.keys(WEIGHTS)}
    known = {item.name for entry in entries() for item in entry.weights}
    installed = {item.name for entry in entries() for item in entry.weights if packaged_file(item)}
    have = sorted(known & (there | installed))
    says = f"{len(have)} of the catalog's {len(known)}: {', '.join(have) or 'none'}"
    if not have:
        says += "; bring them with `defectbench weights push --sweep SWEEP`"
    return Finding("weights", "works" if have else "not there", says)


def _sweep(sweep: Sweep, place: Store) -> Iterator[Finding]:
    """Yield whether the sweep's data and each model's weights are there."""
    names = list_datasets(place)
    if sweep.data.dataset in names:
        yield Finding("data", "works", f"{sweep.data.dataset} is in {place.url}")
    else:
        says = f"{sweep.data.dataset} is not in {place.url}; run: defectbench data import"
        yield Finding("data", "fails", says, ExitCode.MISSING_INPUT)
    for model in resolve_models(sweep):
        what = f"weights of {model.label}"
        try:
            found = weights.resolve(model.entry, model.settings, model.weights, place)
        except MissingWeightsError as error:
            yield Finding(what, "fails", str(error), error.code)
        else:
            yield Finding(what, "works", ", ".join(found) or "none needed")
