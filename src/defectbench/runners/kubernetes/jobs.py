"""What a Job and its pods say, read from plain objects without asking anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from defectbench.errors import describe_exit_code
from defectbench.records.state import CellState
from defectbench.runners.chart.chart import CATEGORY, CONTAINER, DIGEST, MODEL, SWEEP, cells_of
from defectbench.runners.job_view import JobView

Document = Mapping[str, Any]

OURS = "app.kubernetes.io/name=defectbench"
"""Selects the Jobs and pods of every sweep."""

QUEUE = "kueue.x-k8s.io/queue-name"


IMAGE_TROUBLE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
DOOM = IMAGE_TROUBLE | {"CreateContainerConfigError", "CreateContainerError", "ImageInspectError"}
"""Reasons of a waiting container that never become Failed (kubernetes#141713)."""


@dataclass(frozen=True, slots=True)
class ContainerExit:
    """How a container ended."""

    code: int
    reason: str = ""


def read_job(job: Document, pods: Sequence[Document] = ()) -> JobView:
    """Read a Job and its pods."""
    metadata, labels = job["metadata"], job["metadata"].get("labels", {})
    last = latest(pods)
    ended = next((found for pod in _by_age(pods) if (found := ending(pod)) is not None), None)
    phase, reason = _phase(job, last)
    code = ended.code if ended else _code_in_words(job)
    return JobView(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        sweep=labels.get(SWEEP, ""),
        model=labels.get(MODEL, ""),
        category=labels.get(CATEGORY, ""),
        cells=cells_of(dict(job)),
        digest=metadata.get("annotations", {}).get(DIGEST, ""),
        phase=phase,
        reason=reason,
        code=code,
        killed=ended.reason if ended else "",
        pod=last["metadata"]["name"] if last else "",
        node=last.get("spec", {}).get("nodeName", "") if last else "",
        leaving="deletionTimestamp" in metadata,
    )


def asked(job: Document) -> dict[str, str]:
    """Return what each pod of the Job asks for: resource -> amount; limits where both are given."""
    resources = _container(job).get("resources", {})
    amounts = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    return {name: str(amount) for name, amount in amounts.items()}


def gpus_of(job: Document) -> int:
    """Return how many GPUs each pod of the Job asks for: the resources that a vendor names."""
    return sum(int(amount) for name, amount in asked(job).items() if "/" in name)


def quantity(text: str) -> float:
    """Read an amount as Kubernetes writes it.

    >>> quantity("1500m"), quantity("2Gi"), quantity("8")
    (1.5, 2147483648.0, 8.0)
    """
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)", text.strip())
    if not found:
        return 0.0
    return float(found[1]) * _UNITS.get(found[2], 1.0)


def condition(thing: Document, kind: str) -> Document | None:
    """Return the object's condition of this kind where it holds."""
    for each in thing.get("status", {}).get("conditions") or ():
        if each["type"] == kind and each["status"] == "True":
            return dict(each)
    return None


def latest(pods: Sequence[Document]) -> Document | None:
    """Return the youngest pod."""
    return next(iter(_by_age(pods)), None)


def ending(pod: Document) -> ContainerExit | None:
    """Return how the pod's container ended; None while it has not."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        for state in ("state", "lastState"):
            ended = status.get(state, {}).get("terminated")
            if ended:
                return ContainerExit(int(ended["exitCode"]), ended.get("reason", ""))
    return None


def waiting(pod: Document) -> Document:
    """Return why the pod's containers wait (``reason``, ``message``); empty where none does."""
    status = pod.get("status", {})
    for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
        found = each.get("state", {}).get("waiting")
        if found:
            return dict(found)
    return {}


def unschedulable(pod: Document) -> str:
    """Return the scheduler's words where it found no node; empty otherwise."""
    for each in pod.get("status", {}).get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return str(each.get("message") or each.get("reason") or "no node yet")
    return ""


_UNITS = {
    "m": 1e-3,
    **{unit: 1000.0**power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)},
}


def slim(document: dict[str, Any]) -> dict[str, Any]:
    """Drop from a Job or pod what nothing here reads: thousands of them are kept while watching."""
    metadata = document["metadata"]
    metadata.pop("managedFields", None)
    spec = document.get("spec", {})
    pod_spec = spec.get("template", {}).get("spec", spec)
    for name in ("volumes", "affinity", "tolerations", "securityContext", "initContainers"):
        pod_spec.pop(name, None)
    for container in pod_spec.get("containers", ()):
        for name in set(container) - {"name", "image", "command", "args", "resources"}:
            del container[name]
    return document


def _phase(job: Document, pod: Document | None) -> tuple[CellState, str]:
    failed = condition(job, "Failed") or condition(job, "FailureTarget")
    if failed:
        return CellState.FAILED, f"{failed.get('reason', '')}: {failed.get('message', '')}".strip(": ")
    if condition(job, "Complete") or condition(job, "SuccessCriteriaMet"):
        return CellState.FINISHED, ""
    if job.get("spec", {}).get("suspend"):
        queue = job["metadata"].get("labels", {}).get(QUEUE)
        return CellState.QUEUED, f"in queue {queue}" if queue else "suspended"
    if pod is None or pod.get("status", {}).get("phase") in ("Failed", "Succeeded"):
        return CellState.PENDING, _between(job, pod)
    return _pod_phase(pod)


def _between(job: Document, pod: Document | None) -> str:
    """Say why a Job without a live pod has none."""
    if pod is None:
        return "no pod yet"
    ended = ending(pod)
    tries = job.get("status", {}).get("failed", 0)
    return (
        f"{describe_exit_code(ended.code, ended.reason)}; the next try comes (failed {tries} so far)"
        if ended
        else ""
    )


def _pod_phase(pod: Document) -> tuple[CellState, str]:
    wait = waiting(pod)
    if wait.get("reason") in DOOM:
        return CellState.DOOMED, f"{wait['reason']}: {wait.get('message', '')}".rstrip(": ")
    if pod["metadata"].get("deletionTimestamp"):
        return CellState.PENDING, "its pod is leaving"
    if pod.get("status", {}).get("phase") == "Running":
        return CellState.RUNNING, ""
    if not pod.get("spec", {}).get("nodeName"):
        return CellState.PENDING, unschedulable(pod) or "waits for a node"
    return CellState.PULLING, ""


def _container(job: Document) -> Document:
    containers = job.get("spec", {}).get("template", {}).get("spec", {}).get("containers", ())
    return next((each for each in containers if each["name"] == CONTAINER), {})


def _by_age(pods: Sequence[Document]) -> list[Document]:
    """Return the pods, the youngest first."""
    return sorted(pods, key=lambda pod: pod["metadata"].get("creationTimestamp", ""), reverse=True)


def _code_in_words(job: Document) -> int | None:
    """Return the exit code that the Job's own condition tells, where its pods are gone."""
    failed = condition(job, "Failed") or condition(job, "FailureTarget")
    found = re.search(r"failed with exit code (\d+)", failed.get("message", "")) if failed else None
    return int(found[1]) if found else None
