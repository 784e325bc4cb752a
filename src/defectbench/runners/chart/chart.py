"""From cells to Kubernetes Jobs, purely: cells -> jobs -> values -> manifests. No cluster is touched."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from defectbench.data.manifest import canonical_json
from defectbench.errors import ConfigurationError, SweepError
from defectbench.execution.events import thread_variables
from defectbench.records.cell import Cell
from defectbench.runners.chart import helm
from defectbench.runners.chart.documents import Reader
from defectbench.runners.chart.values import Values, at, merge
from defectbench.stores.choose import scheme_of
from defectbench.sweeps.config import Resources, Sweep, resolve_models

Manifest = dict[str, Any]

SWEEP = "defectbench.dev/sweep"
MODEL = "defectbench.dev/model"
CATEGORY = "defectbench.dev/category"
CELL = "defectbench.dev/cell"
DIGEST = "defectbench.dev/digest"
CONTAINER = "worker"

MOST_CELLS = 2000
"""A Job's cells at most: 64 kB of arguments. Linux, kubelet and `kubectl apply` take no endless lists."""

# A pod's name is its Job's and up to 11 characters more, and has 63 at most.
_LONGEST_NAME = 52
_LONGEST_LABEL = 63
_HASH = 10
_BYTES = {
    **{"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12},
    **{"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40},
}


@dataclass(frozen=True)
class JobEntry:
    """One Job: cells of one model and one category.

    Attributes:
        name: the same for the same cells of the same sweep; a DNS label of at most 52 characters.
        model: the label that the sweep gives it.
    """

    name: str
    model: str
    category: str
    cells: tuple[str, ...]
    resources: Resources


def group(
    sweep: Sweep, cells: Mapping[str, Cell], labels: Mapping[str, str], wanted: Collection[str] | None = None
) -> tuple[JobEntry, ...]:
    """Return the sweep's Jobs, in the order of its cells.

    Grouping is over the whole sweep, so that names depend neither on what is finished nor on who asks.

    Args:
        cells: all of the plan's, key -> cell.
        labels: key -> the model's label.
        wanted: leave out all other cells, after grouping; None for all.

    Raises:
        SweepError: resources whose shared memory is not below their memory.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for key, cell in cells.items():
        groups.setdefault((labels[key], cell.category), []).append(key)
    most = min(sweep.cellsPerJob or MOST_CELLS, MOST_CELLS)
    resources = _resources(sweep)
    entries = []
    for (model, category), keys in groups.items():
        for start in range(0, len(keys), most):
            chunk = tuple(key for key in keys[start : start + most] if wanted is None or key in wanted)
            if chunk:
                name = name_of(sweep.name, model, category, chunk)
                entries.append(JobEntry(name, model, category, chunk, resources[model]))
    return tuple(entries)


def name_of(sweep: str, model: str, category: str, cells: Sequence[str]) -> str:
    """Return a Job's name: what people read, shortened fairly, and a hash of all that it is made from.

    >>> name_of("study", "glass", "metal_nut", ["0123456789abcdef0123"])
    'study-glass-metal-nut-9f20939804'
    """
    end = hashlib.sha256(canonical_json([sweep, model, category, list(cells)])).hexdigest()[:_HASH]
    parts = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in (sweep, model, category)]
    longest_start = _LONGEST_NAME - len(end) - 1
    while len(start := "-".join(filter(None, parts))) > longest_start:
        longest = max(range(len(parts)), key=lambda place: len(parts[place]))
        # A letter at a time from the longest part, so that no part vanishes before the others are short.
        parts[longest] = parts[longest][:-1].rstrip("-")
    return f"{start or 'job'}-{end}"


def label_value(text: str) -> str:
    """Return ``text`` as a Kubernetes label may hold it; a changed one ends in a hash and stays unique.

    >>> label_value("metal_nut"), label_value("zwei Wörter")
    ('metal_nut', 'zwei_W_rter-6435307941')
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")
    if text and plain == text and len(text) <= _LONGEST_LABEL:
        return text
    end = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    return f"{plain[: _LONGEST_LABEL - _HASH - 1] or 'x'}-{end}"


def values(sweep: Sweep, jobs: Sequence[JobEntry], store: str, given: Mapping[str, Any]) -> Values:
    """Return the chart's values for these Jobs: what ``plan --format values`` prints.

    Args:
        store: URL of the store.
        given: the user's values, as :func:`defectbench.runners.chart.values.read_values` returns them.
    """
    own = {
        "sweep": label_value(sweep.name),
        "environment": thread_variables(sweep.threads),
        "store": {"url": store},
        "jobs": [_entry(job) for job in jobs],
    }
    return merge(given, own)


def _entry(job: JobEntry) -> Values:
    """Return a Job as the chart's values have it."""
    resources = job.resources
    wanted = {"gpu": resources.gpu, "cpu": _number(resources.cpu), "memory": resources.memory}
    return {
        "name": job.name,
        "model": label_value(job.model),
        "category": label_value(job.category),
        "resources": wanted if resources.shm is None else {**wanted, "shm": resources.shm},
        "cells": list(job.cells),
    }


def render(
    values: Mapping[str, Any], namespace: str | None = None, kube_version: str | None = None
) -> Iterator[Manifest]:
    """Return the Jobs of ``values``, each annotated with its digest.

    Helm has run when this returns; the Jobs are read one by one, so that thousands need little memory.

    Args:
        namespace: None leaves it to whoever applies them.
        kube_version: the cluster's, such as 1.31.2.

    Raises:
        ConfigurationError: no Helm here, values that break the chart's schema, a cluster that is too old, a
            namespace that there cannot be.
    """
    if namespace is not None and not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", namespace):
        raise ConfigurationError(
            f"namespace {namespace!r}: expected 1 to 63 small letters, digits or '-', no '-' at either end"
        )
    chart = find_chart()
    oldest = _oldest_kubernetes(chart)
    if kube_version is not None and _version(kube_version) < _version(oldest):
        raise ConfigurationError(
            f"the cluster is Kubernetes {kube_version}; Jobs here need {oldest} or later"
        )
    documents = helm.template(chart, values, namespace or "default", oldest)
    reader = Reader(values["jobs"])
    return (_finish(reader.read(document), namespace) for document in documents)


def _finish(manifest: Manifest, namespace: str | None) -> Manifest:
    """Annotate a rendered Job with its digest."""
    if namespace is None:
        del manifest["metadata"]["namespace"]
    manifest["metadata"].setdefault("annotations", {})[DIGEST] = digest(manifest)
    return manifest


def digest(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest, whatever namespace and digest it states."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "namespace"}
    metadata["annotations"] = {k: v for k, v in metadata.get("annotations", {}).items() if k != DIGEST}
    return hashlib.sha256(canonical_json({**manifest, "metadata": metadata})).hexdigest()


def digest_of(manifest: Manifest) -> str:
    """Return the digest that a manifest states."""
    return str(manifest["metadata"]["annotations"][DIGEST])


def cells_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the keys of a Job's cells, from its container's arguments."""
    arguments = _worker(manifest)["args"]
    places = [place for place, word in enumerate(arguments) if word == "--cell"]
    return tuple(arguments[place + 1] for place in places)


def image_of(manifest: Manifest) -> str:
    """Return the image that a Job's pods run."""
    return str(_worker(manifest)["image"])


def secrets_of(manifest: Manifest) -> tuple[str, ...]:
    """Return the names of the Secrets without which a Job's container does not start."""
    worker = _worker(manifest)
    places = [item.get("valueFrom", {}).get("secretKeyRef") for item in worker.get("env", ())]
    places += [item.get("secretRef") for item in worker.get("envFrom", ())]
    names = [place["name"] for place in places if place and not place.get("optional")]
    volumes = manifest["spec"]["template"]["spec"].get("volumes", ())
    mounted = [volume["secret"] for volume in volumes if "secret" in volume]
    names += [each["secretName"] for each in mounted if not each.get("optional")]
    return tuple(dict.fromkeys(names))


def _worker(manifest: Manifest) -> Mapping[str, Any]:
    """Return the worker's container of a Job."""
    containers = manifest["spec"]["template"]["spec"]["containers"]
    return next(container for container in containers if container["name"] == CONTAINER)


def is_directory(store: str) -> bool:
    """Whether a store's URL names a directory."""
    return scheme_of(store) == "file"


def has_store_volume(values: Mapping[str, Any]) -> bool:
    """Whether pods find a directory store, because a volume is given for it."""
    return bool(at(values, ("store", "volume")))


def warnings(sweep: Sweep, values: Mapping[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Return what the user should know before these Jobs start.

    Args:
        environment: the caller's, whose S3 server pods may not have.
    """
    url = str(at(values, ("store", "url")))
    endpoint, tracker = at(values, ("store", "endpoint")), at(values, ("tracker", "uri"))
    full = any(len(job["cells"]) == MOST_CELLS for job in values["jobs"])
    findings = (
        (
            is_directory(url) and not has_store_volume(values),
            f"{url} is a directory, which pods do not see: take an s3:// store, or name the volume that "
            "holds it: --set-values store.volume.persistentVolumeClaim.claimName=NAME",
        ),
        (
            scheme_of(url) == "s3" and not endpoint and bool(environment.get("AWS_ENDPOINT_URL_S3")),
            "AWS_ENDPOINT_URL_S3 is yours alone and pods will ask AWS: give the S3 server as pods reach it: "
            "--set-values store.endpoint=URL",
        ),
        (
            not tracker,
            "pods will not write to MLflow (--set-values tracker.uri=URL); `defectbench track` does it later",
        ),
        (
            full and sweep.cellsPerJob != MOST_CELLS,
            f"a Job holds at most {MOST_CELLS} cells: a larger group is cut into several Jobs",
        ),
    )
    return [text for true, text in findings if true]


def missing_packages(cells: Iterable[Cell], values: Mapping[str, Any]) -> str:
    """Say which packages models come from that the values do not state the image to hold; empty for none."""
    held = set(at(values, ("image", "packages")) or ())
    models: dict[str, list[str]] = {}
    for cell in cells:
        if cell.fit.package and cell.fit.package not in held:
            models.setdefault(cell.fit.package, []).append(cell.fit.model)
    missing = [
        f"the package {package}, of the model {', '.join(dict.fromkeys(names))}"
        for package, names in models.items()
    ]
    if not missing:
        return ""
    stated = f"; they state {', '.join(sorted(held))}" if held else ""
    return (
        f"the values do not state that the pods' image holds {'; '.join(missing)}{stated}: build an image "
        "with it (docs/extending.md), and state it: "
        f"--set-values 'image.packages=[{', '.join(sorted({*held, *models}))}]'"
    )


def find_chart() -> Path:
    """Return the chart's directory: inside the installed package, else in the checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "charts" / "defectbench"
    return inside if inside.is_dir() else package.parents[1] / "charts" / "defectbench"


def _oldest_kubernetes(chart: Path) -> str:
    """Return the lowest version of Kubernetes that the chart asks for."""
    document = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    return str(document["kubeVersion"]).removeprefix(">=").removesuffix("-0")


def _version(text: str) -> tuple[int, ...]:
    """Return major and minor of a version such as ``v1.31.2-gke.100``."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", text)[:2])


def _resources(sweep: Sweep) -> dict[str, Resources]:
    """Return each model's resources."""
    found = {}
    for position, model in enumerate(resolve_models(sweep)):
        wanted = model.resources
        if wanted.shm is not None and _bytes(wanted.shm) >= _bytes(wanted.memory):
            place = sweep.line("models", position, "resources", "shm")
            raise SweepError(
                f"{place}: {model.label}: shm {wanted.shm} counts into the memory, {wanted.memory}: "
                "give less shm, or more memory"
            )
        found[model.label] = wanted
    return found


def _bytes(amount: str) -> float:
    """Return an amount such as 8Gi in bytes."""
    number = re.match(r"[0-9.]+", amount)
    assert number is not None, amount
    return float(number[0]) * _BYTES[amount[number.end() :]]


def _number(value: float) -> int | float:
    """Return 2.0 as 2, as people write it."""
    return int(value) if value == int(value) else value
