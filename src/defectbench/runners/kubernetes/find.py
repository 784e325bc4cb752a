"""What a cluster knows of a sweep, a Job or a cell: its Jobs, pods, events, nodes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from defectbench.errors import MissingInputError, NoRightsError
from defectbench.runners.chart.chart import SWEEP, cells_of, label_value
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.api import Cluster, Document
from defectbench.runners.kubernetes.jobs import OURS, QUEUE, read_job

JOB_NAME = "batch.kubernetes.io/job-name"
"""The label by which the Job controller marks its pods."""


@dataclass(frozen=True)
class JobWithPods:
    """A Job and its pods."""

    job: Document
    pods: Sequence[Document]

    @property
    def view(self) -> JobView:
        """Both, read."""
        return read_job(self.job, self.pods)


def selector(sweep: str | None = None) -> str:
    """Return the selector of a sweep's Jobs and pods, or of every sweep's."""
    return f"{OURS},{SWEEP}={label_value(sweep)}" if sweep else OURS


def jobs(cluster: Cluster, sweep: str | None = None) -> list[JobWithPods]:
    """Return the Jobs of a sweep, or of all, each with its pods."""
    query = {"labelSelector": selector(sweep)}
    pods: dict[str, list[Document]] = defaultdict(list)
    for pod in cluster.items(cluster.path("pods"), query=query):
        pods[owner(pod)].append(pod)
    return [
        JobWithPods(job, pods.get(job["metadata"]["uid"], ()))
        for job in cluster.items(cluster.path("jobs"), query=query)
    ]


def owner(pod: Document) -> str:
    """Return the uid of the Job that made a pod: one made anew under the same name does not own it."""
    owners = pod["metadata"].get("ownerReferences") or [{}]
    return str(owners[0].get("uid", ""))


def job(cluster: Cluster, name: str) -> JobWithPods:
    """Return the Job ``name`` with its pods.

    Raises:
        MissingInputError: there is none.
    """
    answer = cluster.call("GET", cluster.path("jobs", name), allow=(404,))
    if answer.status == 404:
        raise MissingInputError(
            f"no cell and no Job {name!r} in namespace {cluster.namespace}: "
            "`defectbench status SWEEP` lists both"
        )
    return _with_pods(cluster, answer.document)


def holder(cluster: Cluster, cell: str) -> JobWithPods | None:
    """Return the Job that holds a cell, a live one before one that ended; None where there is none."""
    found = [
        each
        for each in cluster.items(cluster.path("jobs"), query={"labelSelector": OURS})
        if cell in cells_of(each)
    ]
    found.sort(key=lambda each: read_job(each).live)
    return _with_pods(cluster, found[-1]) if found else None


def holding(cluster: Cluster, cells: Iterable[str]) -> list[JobView]:
    """Return the Jobs, of any sweep, that hold any of the cells."""
    wanted = set(cells)
    return [each.view for each in jobs(cluster) if not wanted.isdisjoint(cells_of(each.job))]


def events(cluster: Cluster, held: JobWithPods) -> list[Document]:
    """Return what happened to the Job and its latest pods; nothing where the rights do not allow to look."""
    names = [held.job["metadata"]["name"], *(pod["metadata"]["name"] for pod in held.pods)]
    try:
        return [event for name in names[:4] for event in _events(cluster, name)]
    except NoRightsError:
        return []


def nodes(cluster: Cluster) -> list[Document] | None:
    """Return the nodes; None where the rights do not allow to look."""
    try:
        return list(cluster.items("/api/v1/nodes"))
    except NoRightsError:
        return None


def queue_before(cluster: Cluster, job: Document) -> list[str] | None:
    """Return the older Jobs that wait in the same queue: an estimate, for priorities are the queue's."""
    queue = job["metadata"].get("labels", {}).get(QUEUE)
    if not queue:
        return None
    mine = (job["metadata"]["creationTimestamp"], job["metadata"]["name"])
    return [
        each["metadata"]["name"]
        for each in cluster.items(cluster.path("jobs"), query={"labelSelector": f"{QUEUE}={queue}"})
        if each["spec"].get("suspend")
        and (each["metadata"]["creationTimestamp"], each["metadata"]["name"]) < mine
    ]


def _with_pods(cluster: Cluster, document: Document) -> JobWithPods:
    uid, name = document["metadata"]["uid"], document["metadata"]["name"]
    query = {"labelSelector": f"{JOB_NAME}={name}"}
    pods = [pod for pod in cluster.items(cluster.path("pods"), query=query) if owner(pod) == uid]
    pods.sort(key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)
    return JobWithPods(document, pods)


def _events(cluster: Cluster, name: str) -> Iterator[Document]:
    return cluster.items(cluster.path("events"), query={"fieldSelector": f"involvedObject.name={name}"})
