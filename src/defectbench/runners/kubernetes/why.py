"""Why a cell is where it is: one sentence, and what it rests on. Pure: nobody is asked anything here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from defectbench.errors import describe_exit_code
from defectbench.execution.events import clock
from defectbench.records.lease import LeaseRecord
from defectbench.records.result import Failure
from defectbench.records.state import CellState
from defectbench.runners.chart.chart import image_of
from defectbench.runners.job_view import JobView
from defectbench.runners.kubernetes.jobs import (
    IMAGE_TROUBLE,
    QUEUE,
    asked,
    condition,
    ending,
    latest,
    quantity,
    read_job,
    waiting,
)
from defectbench.runners.kubernetes.kueue import QueueState, Wait

Document = Mapping[str, Any]


class Urgency(StrEnum):
    """What a person must know first."""

    FINISHED = "finished"
    RUNNING = "running"
    SLOW = "slow"
    """It waits, and will go on by itself."""
    STUCK = "stuck"
    """It waits for something that somebody must do."""
    DOOMED = "doomed"
    """As it is, it can never start."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One sentence, and the messages of the cluster, the store or the scheduler that it rests on."""

    verdict: Urgency
    sentence: str
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """What is known.

    Attributes:
        cell: its key; empty when a whole Job is asked about.
        finished: the store has a verified result.
        damage: what of the cell in the store is not as it was written; empty for nothing.
        silence: how the lease's holder shows that it hangs; empty where it does not.
        job, pods, events: of the Job that holds it.
        nodes, queue: None where the rights do not allow to look; ``queue`` are the names of the Jobs that
            wait in the same queue before this one.
        kueue: what Kueue says of a Job that waits in its queue.
        unasked: why the cluster was not asked; empty when it was.
    """

    cell: str = ""
    finished: bool = False
    failure: Failure | None = None
    lease: LeaseRecord | None = None
    damage: str = ""
    silence: str = ""
    job: Document | None = None
    pods: Sequence[Document] = ()
    events: Sequence[Document] = ()
    nodes: Sequence[Document] | None = None
    queue: Sequence[str] | None = None
    kueue: QueueState | None = None
    unasked: str = ""


def explain(facts: Facts) -> Diagnosis:
    """Return why the cell, or the Job, is where it is.

    >>> explain(Facts(cell="ab12", finished=True)).sentence
    'cell ab12 is finished: its result is in the store and verified'
    """
    if facts.finished:
        return Diagnosis(
            Urgency.FINISHED, f"cell {facts.cell} is finished: its result is in the store and verified"
        )
    if facts.damage:
        return Diagnosis(
            Urgency.FAILED,
            f"cell {facts.cell} is damaged in the store: {facts.damage}",
            ("`defectbench retry`, or `run` on this machine, runs it again",),
        )
    if facts.failure is not None:
        return _recorded(facts, facts.failure)
    if facts.job is None:
        return _without_job(facts)
    seen = read_job(facts.job, facts.pods)
    if seen.leaving:
        return Diagnosis(
            Urgency.STUCK, f"Job {seen.name} is being deleted: submit it again when its pods have left"
        )
    return _BY_PHASE[seen.phase](facts, seen)


def _recorded(facts: Facts, failure: Failure) -> Diagnosis:
    """Explain a cell with a permanent failure."""
    words = describe_exit_code(failure.code)
    first = failure.message.splitlines()[0] if failure.message else ""
    return Diagnosis(
        Urgency.FAILED,
        f"cell {facts.cell} failed for good with {words}: {first}",
        (f"failure.json of attempt {failure.attempt}; `defectbench logs {facts.cell}` shows its log",),
    )


def _without_job(facts: Facts) -> Diagnosis:
    """Explain a cell that no Job holds."""
    lease = facts.lease
    if lease is not None and not lease.released:
        if facts.silence:
            return Diagnosis(
                Urgency.STUCK,
                f"cell {facts.cell} is stuck with {lease.owner}: {facts.silence}; `run` or `submit` goes "
                "on with it when that worker is gone or silent",
                _beat(lease),
            )
        return Diagnosis(
            Urgency.RUNNING, f"cell {facts.cell} is with {lease.owner}{_progress(lease)}", _beat(lease)
        )
    if facts.unasked:
        return Diagnosis(
            Urgency.STUCK,
            f"cell {facts.cell} is not finished and no worker holds it; the cluster was not asked",
            (facts.unasked,),
        )
    begun = f"; attempt {lease.fence} ended before it was done" if lease else ""
    return Diagnosis(
        Urgency.STUCK, f"no Job holds cell {facts.cell}{begun}: `defectbench submit` makes one", _beat(lease)
    )


def _complete(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a Job that is complete."""
    if not facts.cell:
        return Diagnosis(Urgency.FINISHED, f"Job {seen.name} is complete")
    return Diagnosis(
        Urgency.STUCK,
        f"Job {seen.name} is complete, yet cell {facts.cell} has no verified result: "
        "`defectbench retry --only all` runs it again",
    )


def _failed(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a Job that failed."""
    failed = condition(facts.job or {}, "Failed") or condition(facts.job or {}, "FailureTarget") or {}
    evidence = (seen.reason, *_endings(facts.pods))
    if failed.get("reason") == "DeadlineExceeded":
        return Diagnosis(
            Urgency.FAILED,
            f"Job {seen.name} failed: its backstop (jobDeadline, waiting counted) passed",
            evidence,
        )
    if seen.code is None:
        return Diagnosis(Urgency.FAILED, f"Job {seen.name} failed: {seen.reason}", evidence)
    words = describe_exit_code(seen.code, seen.killed)
    tries = int((facts.job or {}).get("status", {}).get("failed", 0))
    often = f", the last of {tries} tries" if tries > 1 else ""
    return Diagnosis(
        Urgency.FAILED, f"Job {seen.name} failed{often}: {words}{_remedy(facts, seen)}", evidence
    )


def _remedy(facts: Facts, seen: JobView) -> str:
    """Say what to do about an ending that settings can mend."""
    if seen.killed == "OOMKilled":
        limit = asked(facts.job or {}).get("memory", "")
        return f"; its limit is {limit}: raise resources.memory, or lower batch_size" if limit else ""
    return ""


def _queued(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a suspended Job."""
    queue = (facts.job or {})["metadata"].get("labels", {}).get(QUEUE)
    if not queue:
        return Diagnosis(
            Urgency.STUCK,
            f"somebody suspended Job {seen.name}: it waits until it is resumed",
            ("spec.suspend is true and no queue is named",),
        )
    place = f" with {len(facts.queue)} Jobs before it" if facts.queue is not None else ""
    told = _event(facts.events, "QuotaReserved", "Pending", "Stopped", "Preempted", "Evicted")
    if facts.kueue is None:
        return Diagnosis(Urgency.SLOW, f"Job {seen.name} waits in queue {queue}{place}", told)
    urgency, words = _KUEUE[facts.kueue.wait]
    evidence = tuple(dict.fromkeys((facts.kueue.message, *told)))
    return Diagnosis(urgency, words.format(job=seen.name, queue=queue, place=place), evidence)


_KUEUE = {
    Wait.QUOTA: (Urgency.SLOW, "Job {job} waits in queue {queue}{place} for quota that others hold"),
    Wait.TOO_LARGE: (
        Urgency.DOOMED,
        "Job {job} asks for more than queue {queue} can ever give: lower its resources, or raise the quota",
    ),
    Wait.NO_QUEUE: (
        Urgency.DOOMED,
        "there is no queue {queue} for Job {job}, or none behind it: it goes on by itself when it is made",
    ),
    Wait.STOPPED: (
        Urgency.STUCK,
        "somebody stopped queue {queue}: Job {job} waits until it is started again",
    ),
    Wait.MISCONFIGURED: (
        Urgency.DOOMED,
        "queue {queue} is not set up for what Job {job} asks for: its ClusterQueue must cover it",
    ),
    Wait.CHECKS: (Urgency.SLOW, "Job {job} has its quota in queue {queue} and waits for an admission check"),
    Wait.UNKNOWN: (Urgency.SLOW, "Job {job} waits in queue {queue}{place}"),
}


def _pending(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a Job without a running pod."""
    pod = latest(facts.pods)
    if pod is not None and pod.get("status", {}).get("phase") == "Pending":
        return _unscheduled(facts, seen, pod)
    refused = _event(facts.events, "FailedCreate")
    if refused and pod is None:
        return _no_pod(seen, refused)
    disrupted = condition(pod, "DisruptionTarget") if pod is not None else None
    if pod is not None and (disrupted or pod.get("status", {}).get("reason") == "Evicted"):
        message = (disrupted or {}).get("message") or pod.get("status", {}).get("message", "")
        return Diagnosis(
            Urgency.SLOW, f"the pod of Job {seen.name} was evicted; the next one goes on for it", (message,)
        )
    if seen.code is not None:
        words = describe_exit_code(seen.code, seen.killed)
        return Diagnosis(
            Urgency.SLOW,
            f"Job {seen.name} waits before its next try; the last ended: {words}{_remedy(facts, seen)}",
            (seen.reason, *_endings(facts.pods)),
        )
    return Diagnosis(Urgency.SLOW, f"Job {seen.name} was just made and has no pod yet", refused)


def _no_pod(seen: JobView, refused: tuple[str, ...]) -> Diagnosis:
    """Return why the Job controller may not make the pod."""
    message = refused[0]
    # Kubernetes names the amounts nowhere but in the message of its quota admission.
    quota = re.search(
        r"exceeded quota: ([^,]+), requested: (\S+?), used: (\S+?), limited: (\S+?)(?:[,;]?\s|$)",
        message + " ",
    )
    if quota:
        return _quota(seen, quota, refused)
    demand = re.search(r"failed quota: ([^:]+): must specify (.+)", message)
    if demand:
        return Diagnosis(
            Urgency.DOOMED,
            f"quota {demand[1]} takes no pod of Job {seen.name}: it demands {demand[2]}",
            refused,
        )
    return Diagnosis(Urgency.STUCK, f"no pod can be made for Job {seen.name}: {message}", refused)


def _quota(seen: JobView, found: re.Match[str], refused: tuple[str, ...]) -> Diagnosis:
    """Explain a quota that refuses the pod: used up now, or too small for ever."""
    name, *amounts = found.groups()
    requested, used, limited = (_amounts(each) for each in amounts)
    short = next(
        (key for key in requested if used.get(key, 0) + requested[key] > limited.get(key, 0)),
        next(iter(requested)),
    )
    lines = (
        f"{short}: {used.get(short, 0):g} of {limited.get(short, 0):g} used, {requested[short]:g} asked for"
    )
    if requested[short] > limited.get(short, 0):
        return Diagnosis(Urgency.DOOMED, f"Job {seen.name} never fits quota {name} ({lines})", refused)
    return Diagnosis(
        Urgency.STUCK, f"quota {name} is used up ({lines}): Job {seen.name} waits for others to end", refused
    )


def _amounts(text: str) -> dict[str, float]:
    """Read ``pods=1,requests.cpu=2``."""
    return {key: quantity(value) for key, _, value in (part.partition("=") for part in text.split(","))}


def _unscheduled(facts: Facts, seen: JobView, pod: Document) -> Diagnosis:
    """Explain a pod that no node takes."""
    short = re.findall(r"Insufficient ([\w./-]+\w)", seen.reason)
    # The GPU is what people ask about; memory and CPU are short only beside it.
    for resource in sorted(short, key=lambda name: "/" not in name):
        found = _short_of(facts, seen, resource)
        if found is not None:
            return found
    verdict = Urgency.STUCK if seen.reason != "waits for a node" else Urgency.SLOW
    return Diagnosis(
        verdict, f"no node takes the pod of Job {seen.name}: {seen.reason}", (pod["metadata"]["name"],)
    )


def _short_of(facts: Facts, seen: JobView, resource: str) -> Diagnosis | None:
    """Explain a resource that nodes are short of; the largest node decides whether waiting helps."""
    wanted = asked(facts.job or {}).get(resource, "0")
    evidence = (seen.reason,)
    if facts.nodes is None:
        return Diagnosis(
            Urgency.STUCK,
            f"no node has {wanted} {resource} free for Job {seen.name}; whether any ever will is not known, "
            "for these credentials may not list nodes",
            evidence,
        )
    offered = [node.get("status", {}).get("allocatable", {}).get(resource, "0") for node in facts.nodes]
    most = max(offered, key=quantity, default="0")
    if quantity(most) == 0:
        return Diagnosis(
            Urgency.STUCK,
            f"no node of the cluster offers {resource}, and Job {seen.name} asks for {wanted}: it starts "
            "only when such a node joins",
            (*evidence, f"{len(facts.nodes)} nodes, {resource} allocatable on none"),
        )
    if quantity(most) < quantity(wanted):
        return Diagnosis(
            Urgency.DOOMED,
            f"Job {seen.name} asks for {wanted} {resource}, and no node has more than {most}",
            evidence,
        )
    return Diagnosis(
        Urgency.SLOW,
        f"Job {seen.name} waits for {wanted} {resource}: others hold it on every node that is large enough "
        f"({len([each for each in offered if quantity(each) >= quantity(wanted)])} nodes)",
        evidence,
    )


def _pulling(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a pod that is on a node and has not started."""
    mounts = _event(facts.events, "FailedMount", "FailedAttachVolume")
    if any("not found" in each for each in mounts):
        return Diagnosis(
            Urgency.DOOMED, f"a volume of Job {seen.name} cannot be mounted: {mounts[0]}", mounts
        )
    if mounts:
        return Diagnosis(Urgency.SLOW, f"a volume of Job {seen.name} is not mounted yet: {mounts[0]}", mounts)
    return Diagnosis(
        Urgency.SLOW,
        f"node {seen.node} is fetching the image of Job {seen.name} or mounting its volumes",
        _event(facts.events, "Pulling", "Pulled", "Scheduled"),
    )


def _doomed(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a container that can never start as it is."""
    pod = latest(facts.pods) or {}
    wait = waiting(pod)
    message = str(wait.get("message", ""))
    if wait.get("reason") in IMAGE_TROUBLE:
        image = image_of(dict(facts.job or {}))
        evidence = _event(facts.events, "Failed", "InspectFailed", "BackOff") or (seen.reason,)
        return Diagnosis(
            Urgency.DOOMED,
            f"the image {image} of Job {seen.name} cannot be pulled on node {seen.node}",
            evidence,
        )
    missing = re.search(r'(secret|configmap) "([^"]+)" not found', message)
    if missing:
        kind = {"secret": "Secret", "configmap": "ConfigMap"}[missing[1]]
        return Diagnosis(
            Urgency.DOOMED,
            f"the {kind} {missing[2]} is missing: Job {seen.name} starts by itself when it is made",
            (seen.reason,),
        )
    key = re.search(r"couldn't find key (\S+) in (Secret|ConfigMap) (\S+)", message)
    if key:
        return Diagnosis(
            Urgency.DOOMED,
            f"the {key[2]} {key[3]} has no key {key[1]}, which Job {seen.name} needs",
            (seen.reason,),
        )
    return Diagnosis(
        Urgency.DOOMED, f"the container of Job {seen.name} cannot start: {message}", (seen.reason,)
    )


def _running(facts: Facts, seen: JobView) -> Diagnosis:
    """Explain a Job whose pod runs, and whether the cell is under way in it."""
    evidence = (*_beat(facts.lease), *_endings(facts.pods))
    lease = facts.lease
    if not facts.cell:
        return Diagnosis(Urgency.RUNNING, f"Job {seen.name} runs on node {seen.node}", evidence)
    if lease is not None and not lease.released:
        if facts.silence:
            return Diagnosis(
                Urgency.STUCK,
                f"cell {facts.cell} is stuck in Job {seen.name}: {facts.silence}. Its worker ends itself "
                "after stuckSeconds; `defectbench retry --only stuck` makes the Job anew at once",
                evidence,
            )
        return Diagnosis(
            Urgency.RUNNING, f"cell {facts.cell} runs in Job {seen.name}{_progress(lease)}", evidence
        )
    place = seen.cells.index(facts.cell) + 1 if facts.cell in seen.cells else 0
    return Diagnosis(
        Urgency.SLOW,
        f"Job {seen.name} runs on node {seen.node} and has not come to cell {facts.cell}, number {place} "
        f"of its {len(seen.cells)}",
        evidence,
    )


_BY_PHASE = {
    CellState.QUEUED: _queued,
    CellState.PENDING: _pending,
    CellState.PULLING: _pulling,
    CellState.RUNNING: _running,
    CellState.FINISHED: _complete,
    CellState.FAILED: _failed,
    CellState.DOOMED: _doomed,
}


def _progress(lease: LeaseRecord) -> str:
    """Return the holder's last report of its progress, as the end of a sentence."""
    progress = lease.progress
    if not progress.get("phase"):
        return ""
    left = f", {clock(progress['left'])} left" if progress.get("left") is not None else ""
    return f", {progress['phase']} {progress.get('done', 0)} of {progress.get('total', 0)}{left}"


def _beat(lease: LeaseRecord | None) -> tuple[str, ...]:
    """Return the lease as evidence."""
    if lease is None:
        return ()
    state = "released" if lease.released else "held"
    return (f"lease of attempt {lease.fence} {state} by {lease.owner}, last beat {lease.at}",)


def _endings(pods: Sequence[Document]) -> tuple[str, ...]:
    """Return how earlier pods ended."""
    found = ((pod["metadata"]["name"], ending(pod)) for pod in pods)
    return tuple(
        f"pod {name}: {describe_exit_code(end.code, end.reason)}" for name, end in found if end is not None
    )


def _event(events: Sequence[Document], *reasons: str) -> tuple[str, ...]:
    """Return the messages of the events with these reasons, the latest first, each once."""
    mine = [each for each in events if each.get("reason") in reasons]
    mine.sort(key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "", reverse=True)
    return tuple(dict.fromkeys(str(each.get("message", "")) for each in mine))
