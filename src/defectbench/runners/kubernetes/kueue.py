"""What Kueue says of a Job that waits in one of its queues, by its own object, the Workload.

The words are those of Kueue's sources, versions 0.5 to 0.19: a reason that a version does not know is told by
its message.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from defectbench.errors import ConfigurationError, NoRightsError
from defectbench.runners.kubernetes.api import Cluster

Document = Mapping[str, Any]

GROUP = "kueue.x-k8s.io"
_VERSIONS = ("v1beta2", "v1beta1")
_JOB_UID = "kueue.x-k8s.io/job-uid"


class Wait(StrEnum):
    """Why a Workload is not admitted."""

    QUOTA = "quota"
    """Others hold it; it goes on by itself."""
    TOO_LARGE = "too large"
    """It asks for more than its queue can ever give."""
    NO_QUEUE = "no queue"
    """There is no such LocalQueue, or no ClusterQueue behind it."""
    STOPPED = "stopped"
    """Somebody stopped the queue."""
    MISCONFIGURED = "misconfigured"
    """The queue does not cover what it asks for."""
    CHECKS = "checks"
    """Quota is reserved; an admission check is waited for."""
    UNKNOWN = "unknown"


_BY_MESSAGE: tuple[tuple[str, Wait], ...] = (
    (r"(Local|Cluster)Queue .* doesn't exist|is terminating or missing", Wait.NO_QUEUE),
    (r"Queue .* is (inactive|stopped)", Wait.STOPPED),
    (r"maximum capacity|exceeds the (maximum|largest)|> maximum", Wait.TOO_LARGE),
    (r"insufficient (unused )?quota|Pending the preemption|fit quota|Preempted", Wait.QUOTA),
    (
        r"unavailable in ClusterQueue|not found|doesn't match|no such flavor|untolerated|does not support",
        Wait.MISCONFIGURED,
    ),
)
_BY_REASON = {
    "Misconfigured": Wait.MISCONFIGURED,
    "Suspended": Wait.STOPPED,
    "ExceedsMaxQuota": Wait.TOO_LARGE,
    "WaitingForQuota": Wait.QUOTA,
    "WaitingForPreemptedWorkloads": Wait.QUOTA,
}


@dataclass(frozen=True, slots=True)
class QueueState:
    """Why Kueue lets a Job wait, and in its own words."""

    wait: Wait
    message: str


def read_workload(workload: Document) -> QueueState | None:
    """Return why a Workload waits; None where it is admitted, or nothing is said yet."""
    if _true(workload, "Admitted"):
        return None
    if _true(workload, "QuotaReserved"):
        states = workload.get("status", {}).get("admissionChecks") or []
        waiting = [f"{each.get('name')}: {each.get('message') or each.get('state')}" for each in states]
        return QueueState(Wait.CHECKS, "; ".join(waiting) or "no admission check has answered")
    found = _condition(workload, "QuotaReserved")
    if not found:
        return None
    message, reason = str(found.get("message", "")), str(found.get("reason", ""))
    for pattern, wait in _BY_MESSAGE:
        if re.search(pattern, message):
            return QueueState(wait, message)
    return QueueState(_BY_REASON.get(reason, Wait.UNKNOWN), message or reason)


def _true(workload: Document, kind: str) -> bool:
    """Whether the condition is there and holds."""
    return _condition(workload, kind).get("status") == "True"


def _condition(workload: Document, kind: str) -> Document:
    """Return the condition, whether it holds or not; empty where it is not there."""
    found = workload.get("status", {}).get("conditions") or ()
    return next((each for each in found if each.get("type") == kind), {})


def find_state(cluster: Cluster, job: Document) -> QueueState | None:
    """Return why Kueue lets this Job wait; None where it says nothing, or the rights do not allow to look."""
    query = {"labelSelector": f"{_JOB_UID}={job['metadata']['uid']}"}
    try:
        for path in _paths(cluster, "workloads"):
            answer = cluster.call("GET", path, query=query, allow=(404,))
            if answer.status == 404:
                continue
            items = sorted(answer.document.get("items", ()), key=_age)
            return read_workload(items[-1]) if items else None
    except NoRightsError:
        return None
    return None


def check_queue(cluster: Cluster, name: str) -> list[str]:
    """Look for the LocalQueue that Jobs are to wait in.

    Returns:
        What could not be looked at, for people.

    Raises:
        ConfigurationError: there is no such queue, or no Kueue at all: Jobs would start past every queue.
    """
    served = False
    for path in _paths(cluster, "localqueues"):
        try:
            answer = cluster.call("GET", f"{path}/{name}", allow=(404,))
        except NoRightsError:
            return [f"LocalQueue {name} was not looked for: these credentials may not read it"]
        if answer.status != 404:
            return []
        # Where the kind is not served, the refusal names no object.
        served = served or bool(answer.document.get("details", {}).get("name"))
    where = f"namespace {cluster.namespace} of context {cluster.context}"
    if served:
        raise ConfigurationError(
            f"no LocalQueue {name!r} in {where}, and Jobs would wait for it for ever; "
            f"kubectl get localqueues -n {cluster.namespace} lists those that are there (queueName in the "
            "values)"
        )
    raise ConfigurationError(
        f"queueName is {name!r}, but the cluster of context {cluster.context} has no Kueue: Jobs would start "
        "at once, past every quota. Install Kueue, or leave queueName empty"
    )


def _paths(cluster: Cluster, kind: str) -> Iterator[str]:
    """Yield the address of Kueue's objects in the namespace, in its versions, the newest first."""
    for version in _VERSIONS:
        yield f"/apis/{GROUP}/{version}/namespaces/{cluster.namespace}/{kind}"


def _age(document: Document) -> str:
    """Return when an object was made, as text that sorts."""
    return str(document["metadata"].get("creationTimestamp", ""))
