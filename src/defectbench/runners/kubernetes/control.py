"""Jobs ended, and made anew: by their UID, so that repeating it never hits a newer Job of the same name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum

from defectbench.errors import PERMANENT, ExitCode, TryAgainError
from defectbench.records.lease import describe_silence
from defectbench.records.state import CellState
from defectbench.records.sweep_record import WHOLE, Narrowing
from defectbench.runners.chart.chart import label_value
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.api import Cluster
from defectbench.runners.kubernetes.find import JobWithPods
from defectbench.runners.kubernetes.find import jobs as find_jobs
from defectbench.runners.kubernetes.jobs import condition, ending
from defectbench.runners.kubernetes.submit import CONCURRENCY
from defectbench.runners.status import StoredState

_PERMANENT = frozenset(map(int, PERMANENT))

PATIENCE = 300.0
"""Seconds that pods have to save and leave."""


class RetryScope(StrEnum):
    """Which Jobs `retry` makes anew."""

    FAILED = "failed"
    PREEMPTED = "preempted"
    STUCK = "stuck"
    """Live, but the worker makes no step or sends no beat."""
    ALL = "all"


def delete(cluster: Cluster, view: JobView) -> bool:
    """Ask for a Job's end. Its pods get SIGTERM and save; the Job stays until they have left.

    Returns:
        False where it is gone already, or another Job has its name by now.
    """
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": "Foreground",
        "preconditions": {"uid": view.uid},
    }
    answer = cluster.call("DELETE", cluster.path("jobs", view.name), body=options, allow=(404, 409))
    return answer.status < 400


def delete_all(cluster: Cluster, views: Sequence[JobView]) -> list[JobView]:
    """Ask for the end of several Jobs, and return those that were still there."""
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        there = list(pool.map(lambda each: delete(cluster, each), views))
    return [each for each, was in zip(views, there, strict=True) if was]


def cancel_jobs(cluster: Cluster, sweep: str, narrowing: Narrowing = WHOLE) -> list[JobView]:
    """End the live Jobs of a sweep, or those of the cells that are meant.

    Returns:
        The Jobs that were asked to end. A Job that holds a named cell goes with all its cells.
    """
    labels = [set(map(label_value, names)) for names in (narrowing.models, narrowing.categories)]
    views = [each.view for each in find_jobs(cluster, sweep)]
    chosen = [
        each
        for each in views
        if each.live
        and (not narrowing.models or each.model in labels[0])
        and (not narrowing.categories or each.category in labels[1])
        and (not narrowing.cells or any(key.startswith(tuple(narrowing.cells)) for key in each.cells))
    ]
    return delete_all(cluster, chosen)


def wait_gone(
    cluster: Cluster,
    views: Sequence[JobView],
    patience: float = PATIENCE,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until the Jobs, and with them their pods, have gone.

    Raises:
        TryAgainError: they have not after ``patience`` seconds.
    """
    left = {each.name: each.uid for each in views}
    end = clock() + patience
    while True:
        for name, uid in list(left.items()):
            answer = cluster.call("GET", cluster.path("jobs", name), allow=(404,))
            if answer.status == 404 or answer.document["metadata"]["uid"] != uid:
                del left[name]
        if not left:
            return
        if clock() > end:
            raise TryAgainError(
                f"{len(left)} Jobs do not go away ({', '.join(sorted(left)[:3])}...): their pods do not "
                "leave; is their node down? The same command goes on"
            )
        cluster.sleep(1.0)


def may_retry(held: JobWithPods | None, kept: Iterable[StoredState], only: RetryScope) -> str:
    """Return why the Job of these unfinished cells is not made anew; empty when it is.

    Args:
        held: the Job that has their name, None where there is none.
        kept: what the store knows of each of its cells.
    """
    cells = [each for each in kept if not each.finished]
    if not cells:
        return "its cells are finished"
    if held is not None and held.view.leaving:
        return ""
    if held is not None and held.view.live and held.view.phase is not CellState.DOOMED:
        stuck = [each.lease for each in cells if each.lease is not None and not each.lease.released]
        if any(map(describe_silence, stuck)):
            return "" if only is RetryScope.STUCK else "it is stuck: --only stuck makes it anew"
        return f"it is live ({held.view.phase}): `defectbench cancel` ends it"
    kind = _kind(held, cells)
    if kind is None:
        return "it was never begun: `defectbench submit` makes it" if only is not RetryScope.ALL else ""
    return (
        ""
        if only in (kind, RetryScope.ALL)
        else f"it {'failed' if kind is RetryScope.FAILED else 'was preempted'}"
    )


def _kind(held: JobWithPods | None, cells: Sequence[StoredState]) -> RetryScope | None:
    """Return how the work on cells ended: by their own fault, or because their pod had to go."""
    if any(each.failure is not None or each.damage for each in cells):
        return RetryScope.FAILED
    if held is not None:
        return RetryScope.PREEMPTED if _disrupted(held) else RetryScope.FAILED
    return RetryScope.PREEMPTED if any(each.lease is not None for each in cells) else None


def _disrupted(held: JobWithPods) -> bool:
    """Whether the last pod was taken away, by the cluster or a lost node, rather than failed."""
    view = held.view
    if view.phase is CellState.DOOMED or view.killed == "OOMKilled" or view.code in _PERMANENT:
        return False
    ended = [
        pod for pod in held.pods if ending(pod) is not None or pod.get("status", {}).get("phase") == "Failed"
    ]
    taken = [pod for pod in ended if condition(pod, "DisruptionTarget") or _evicted(pod)]
    return bool(taken) or view.code in (ExitCode.STOPPED, 137)


def _evicted(pod: Mapping[str, object]) -> bool:
    """Whether the kubelet or the node's end removed the pod."""
    status = pod.get("status")
    return isinstance(status, dict) and status.get("reason") in (
        "Evicted",
        "NodeLost",
        "Shutdown",
        "Terminated",
    )
