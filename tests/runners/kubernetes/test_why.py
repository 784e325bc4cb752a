"""Why a cell is where it is, from plain objects as API servers, schedulers and kubelets write them."""

from __future__ import annotations

from typing import Any

import pytest

from defectbench.errors import ExitCode, describe_exit_code
from defectbench.records.lease import LeaseRecord
from defectbench.records.result import Failure
from defectbench.records.state import CellState
from defectbench.runners.kubernetes.jobs import quantity, read_job
from defectbench.runners.kubernetes.kueue import QueueState, Wait
from defectbench.runners.kubernetes.why import Facts, Urgency, explain
from fake_kubernetes import Document, job, pod

CELL = "c1"


def made(**parts: Any) -> Document:
    """A Job that is in the cluster, with parts laid over its status or spec."""
    found = job("study-glass-bottle-1", (CELL, "c2"))
    found["metadata"] |= {"uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    for name, value in parts.items():
        found[name] = {**found.get(name, {}), **value}
    return found


def failed(reason: str, message: str, tries: int = 1) -> Document:
    conditions = [{"type": "Failed", "status": "True", "reason": reason, "message": message}]
    return made(status={"conditions": conditions, "failed": tries})


def ended(code: int, reason: str = "Error", number: int = 1, **status: Any) -> Document:
    state = {"terminated": {"exitCode": code, "reason": reason}}
    containers = [{"name": "worker", "state": state}]
    return pod(made(), number, **{"phase": "Failed", "containerStatuses": containers, **status})


def waits(reason: str, message: str = "") -> Document:
    containers = [{"name": "worker", "state": {"waiting": {"reason": reason, "message": message}}}]
    return pod(made(), phase="Pending", containerStatuses=containers)


def homeless(message: str) -> Document:
    conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]
    found = pod(made(), phase="Pending", conditions=conditions)
    del found["spec"]["nodeName"]
    return found


def event(reason: str, message: str, when: str = "2026-01-01T00:00:00Z") -> Document:
    return {"reason": reason, "message": message, "lastTimestamp": when}


def node(gpus: int) -> Document:
    amounts = {"cpu": "4", "memory": "16Gi", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    return {"metadata": {"name": "n"}, "status": {"allocatable": amounts}}


def record_of(**parts: Any) -> LeaseRecord:
    return LeaseRecord(
        **{"owner": "pod-a:1", "holder": "h", "fence": 2, "at": "2026-01-01T00:00:09Z", **parts}
    )


NO_GPU = homeless(
    "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available."
)
QUOTA = (
    'Error creating: pods "study-1" is forbidden: exceeded quota: gpus, requested: '
    "requests.nvidia.com/gpu={asked}, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
)
SECRET = 'secret "defectbench-s3" not found'
PULL = 'Failed to pull image "registry.test/defectbench:1": rpc error: not found'
QUEUED = made(spec={"suspend": True}, metadata={"labels": {"kueue.x-k8s.io/queue-name": "gpus"}})
PROGRESS = {"phase": "fitting", "done": 3, "total": 20, "left": 75.0}

CASES: dict[str, tuple[Facts, Urgency, str]] = {
    "finished": (Facts(CELL, finished=True, job=made()), Urgency.FINISHED, "its result is in the store"),
    "data error": (
        Facts(CELL, failure=Failure(ExitCode.DATA, "bolt/3.png is broken\nmore", "", 1)),
        Urgency.FAILED,
        "exit code 65 (the images are wrong): bolt/3.png is broken",
    ),
    "deadline": (
        Facts(CELL, failure=Failure(ExitCode.DEADLINE, "has run for 61 s, its deadline is 60 s", "", 1)),
        Urgency.FAILED,
        "exit code 124 (the deadline passed): has run for 61 s",
    ),
    "no job": (Facts(CELL), Urgency.STUCK, "no Job holds cell c1: `defectbench submit` makes one"),
    "interrupted": (
        Facts(CELL, lease=record_of(released=True)),
        Urgency.STUCK,
        "attempt 2 ended before it was done",
    ),
    "local run": (
        Facts(CELL, lease=record_of(progress=PROGRESS)),
        Urgency.RUNNING,
        "is with pod-a:1, fitting 3 of 20, 1:15 left",
    ),
    "local run that hangs": (
        Facts(CELL, lease=record_of(progress=PROGRESS), silence="no beat since 10:00"),
        Urgency.STUCK,
        "is stuck with pod-a:1: no beat since 10:00; `run` or `submit` goes on",
    ),
    "cluster not asked": (Facts(CELL, unasked="no kubeconfig"), Urgency.STUCK, "the cluster was not asked"),
    "leaving": (
        Facts(CELL, job=made(metadata={**made()["metadata"], "deletionTimestamp": "x"})),
        Urgency.STUCK,
        "is being deleted",
    ),
    "queue": (
        Facts(
            CELL,
            job={**made(), **QUEUED, "metadata": {**made()["metadata"], **QUEUED["metadata"]}},
            queue=("a", "b"),
        ),
        Urgency.SLOW,
        "waits in queue gpus with 2 Jobs before it",
    ),
    **{
        f"queue: {state.wait}": (
            Facts(
                CELL,
                job={**made(), **QUEUED, "metadata": {**made()["metadata"], **QUEUED["metadata"]}},
                queue=("a", "b"),
                kueue=state,
            ),
            urgency,
            words,
        )
        for state, urgency, words in (
            (
                QueueState(Wait.QUOTA, "2 more needed"),
                Urgency.SLOW,
                "waits in queue gpus with 2 Jobs before it for quota",
            ),
            (
                QueueState(Wait.TOO_LARGE, "4 > 2"),
                Urgency.DOOMED,
                "asks for more than queue gpus can ever give",
            ),
            (QueueState(Wait.NO_QUEUE, "doesn't exist"), Urgency.DOOMED, "there is no queue gpus for Job"),
            (QueueState(Wait.STOPPED, "inactive"), Urgency.STUCK, "somebody stopped queue gpus"),
            (QueueState(Wait.MISCONFIGURED, "unavailable"), Urgency.DOOMED, "queue gpus is not set up for"),
            (QueueState(Wait.CHECKS, "prov: Pending"), Urgency.SLOW, "waits for an admission check"),
            (QueueState(Wait.UNKNOWN, "?"), Urgency.SLOW, "waits in queue gpus with 2 Jobs before it"),
        )
    },
    "suspended": (Facts(CELL, job=made(spec={"suspend": True})), Urgency.STUCK, "somebody suspended Job"),
    "no GPU in the cluster": (
        Facts(CELL, job=made(), pods=[NO_GPU], nodes=[node(0), node(0)]),
        Urgency.STUCK,
        "no node of the cluster offers nvidia.com/gpu",
    ),
    "all GPUs taken": (
        Facts(CELL, job=made(), pods=[NO_GPU], nodes=[node(2), node(0)]),
        Urgency.SLOW,
        "waits for 1 nvidia.com/gpu: others hold it on every node that is large enough (1 nodes)",
    ),
    "nodes unknown": (
        Facts(CELL, job=made(), pods=[NO_GPU]),
        Urgency.STUCK,
        "these credentials may not list nodes",
    ),
    "memory too small": (
        Facts(
            CELL,
            job=made(),
            pods=[homeless("0/1 nodes are available: 1 Insufficient memory.")],
            nodes=[{"metadata": {"name": "n"}, "status": {"allocatable": {"memory": "4Gi"}}}],
        ),
        Urgency.DOOMED,
        "asks for 8Gi memory, and no node has more than 4Gi",
    ),
    "taint": (
        Facts(
            CELL, job=made(), pods=[homeless("0/1 nodes are available: 1 node(s) had untolerated taint(s).")]
        ),
        Urgency.STUCK,
        "no node takes the pod of Job study-glass-bottle-1: 0/1 nodes are available: 1 node(s) had",
    ),
    "quota used up": (
        Facts(CELL, job=made(), events=[event("FailedCreate", QUOTA.format(asked=1))]),
        Urgency.STUCK,
        "quota gpus is used up (requests.nvidia.com/gpu: 2 of 2 used, 1 asked for)",
    ),
    "quota too small": (
        Facts(CELL, job=made(), events=[event("FailedCreate", QUOTA.format(asked=4))]),
        Urgency.DOOMED,
        "never fits quota gpus",
    ),
    "quota demands limits": (
        Facts(
            CELL,
            job=made(),
            events=[
                event(
                    "FailedCreate",
                    'pods "x" is forbidden: failed quota: cpus: must specify limits.cpu for: worker',
                )
            ],
        ),
        Urgency.DOOMED,
        "quota cpus takes no pod of Job study-glass-bottle-1: it demands limits.cpu for: worker",
    ),
    "pod security": (
        Facts(CELL, job=made(), events=[event("FailedCreate", "violates PodSecurity restricted")]),
        Urgency.STUCK,
        "no pod can be made",
    ),
    "image missing": (
        Facts(CELL, job=made(), pods=[waits("ImagePullBackOff", "Back-off")], events=[event("Failed", PULL)]),
        Urgency.DOOMED,
        "the image registry.test/defectbench:1 of Job study-glass-bottle-1 cannot be pulled on node node-1",
    ),
    "image never pulled": (
        Facts(CELL, job=made(), pods=[waits("ErrImageNeverPull")]),
        Urgency.DOOMED,
        "cannot be pulled",
    ),
    "secret missing": (
        Facts(CELL, job=made(), pods=[waits("CreateContainerConfigError", SECRET)]),
        Urgency.DOOMED,
        "the Secret defectbench-s3 is missing",
    ),
    "key missing": (
        Facts(
            CELL,
            job=made(),
            pods=[
                waits(
                    "CreateContainerConfigError",
                    "couldn't find key AWS_ACCESS_KEY_ID in Secret team/defectbench-s3",
                )
            ],
        ),
        Urgency.DOOMED,
        "the Secret team/defectbench-s3 has no key AWS_ACCESS_KEY_ID",
    ),
    "command missing": (
        Facts(CELL, job=made(), pods=[waits("CreateContainerError", "no command specified")]),
        Urgency.DOOMED,
        "cannot start: no command specified",
    ),
    "volume missing": (
        Facts(
            CELL,
            job=made(),
            pods=[waits("ContainerCreating")],
            events=[event("FailedMount", 'MountVolume.SetUp failed for volume "x": secret "x" not found')],
        ),
        Urgency.DOOMED,
        "cannot be mounted",
    ),
    "pulling": (
        Facts(
            CELL, job=made(), pods=[waits("ContainerCreating")], events=[event("Pulling", "Pulling image")]
        ),
        Urgency.SLOW,
        "node node-1 is fetching the image",
    ),
    "out of memory": (
        Facts(
            CELL,
            job=failed("BackoffLimitExceeded", "Job has reached the limit", 7),
            pods=[ended(137, "OOMKilled", 2), ended(75, number=1)],
        ),
        Urgency.FAILED,
        "the last of 7 tries: killed for want of memory (exit code 137); its limit is 8Gi",
    ),
    "out of memory, tries left": (
        Facts(CELL, job=made(status={"failed": 1}), pods=[ended(137, "OOMKilled")]),
        Urgency.SLOW,
        "waits before its next try; the last ended: killed for want of memory",
    ),
    "evicted": (
        Facts(
            CELL,
            job=made(),
            pods=[
                pod(made(), phase="Failed", reason="Evicted", message="The node was low on resource: memory.")
            ],
        ),
        Urgency.SLOW,
        "was evicted",
    ),
    "failed at once": (
        Facts(
            CELL,
            job=failed(
                "PodFailurePolicy",
                "Container worker for pod t/p failed with exit code 78 matching FailJob rule at index 2",
            ),
        ),
        Urgency.FAILED,
        "exit code 78 (the configuration is wrong)",
    ),
    "backstop": (
        Facts(CELL, job=failed("DeadlineExceeded", "Job was active longer than specified deadline")),
        Urgency.FAILED,
        "its backstop (jobDeadline, waiting counted) passed",
    ),
    "complete without a result": (
        Facts(CELL, job=made(status={"conditions": [{"type": "Complete", "status": "True"}]})),
        Urgency.STUCK,
        "yet cell c1 has no verified result",
    ),
    "job complete": (
        Facts(job=made(status={"conditions": [{"type": "Complete", "status": "True"}]})),
        Urgency.FINISHED,
        "Job study-glass-bottle-1 is complete",
    ),
    "running": (
        Facts(CELL, job=made(), pods=[pod(made())], lease=record_of(progress=PROGRESS)),
        Urgency.RUNNING,
        "cell c1 runs in Job study-glass-bottle-1, fitting 3 of 20, 1:15 left",
    ),
    "hung": (
        Facts(CELL, job=made(), pods=[pod(made())], lease=record_of(), silence="no step for 12 min"),
        Urgency.STUCK,
        "cell c1 is stuck in Job study-glass-bottle-1: no step for 12 min. Its worker ends itself",
    ),
    "in line": (
        Facts("c2", job=made(), pods=[pod(made())]),
        Urgency.SLOW,
        "has not come to cell c2, number 2 of its 2",
    ),
    "just made": (Facts(CELL, job=made()), Urgency.SLOW, "was just made and has no pod yet"),
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_explanations_name_the_cause(case: str) -> None:
    facts, verdict, words = CASES[case]
    found = explain(facts)
    assert words in found.sentence
    assert found.verdict is verdict
    assert "\n" not in found.sentence


def test_every_verdict_is_explained_by_a_case() -> None:
    assert {verdict for _, verdict, _ in CASES.values()} == set(Urgency)


def test_evidence_is_what_others_said() -> None:
    assert PULL in explain(CASES["image missing"][0]).evidence
    assert any("Insufficient" in line for line in explain(CASES["no GPU in the cluster"][0]).evidence)
    assert any("pod study-glass-bottle-1-2" in line for line in explain(CASES["out of memory"][0]).evidence)


@pytest.mark.parametrize(
    ("found", "pods", "phase"),
    [
        (made(), [], CellState.PENDING),
        (made(spec={"suspend": True}), [], CellState.QUEUED),
        (made(), [NO_GPU], CellState.PENDING),
        (made(), [waits("ContainerCreating")], CellState.PULLING),
        (made(), [waits("ErrImagePull")], CellState.DOOMED),
        (made(), [pod(made())], CellState.RUNNING),
        (made(), [ended(75)], CellState.PENDING),
        (made(), [ended(75, number=1), pod(made(), 2)], CellState.RUNNING),
        (failed("BackoffLimitExceeded", ""), [ended(1)], CellState.FAILED),
        (made(status={"conditions": [{"type": "Complete", "status": "True"}]}), [], CellState.FINISHED),
        (made(status={"conditions": [{"type": "Complete", "status": "False"}]}), [], CellState.PENDING),
    ],
)
def test_a_job_has_a_phase(found: Document, pods: list[Document], phase: CellState) -> None:
    assert read_job(found, pods).phase is phase


def test_a_view_reads_the_last_ending() -> None:
    found = read_job(made(), [ended(75, number=1), ended(137, "OOMKilled", 3), pod(made(), 4)])
    assert (found.code, found.killed, found.pod) == (137, "OOMKilled", "study-glass-bottle-1-4")


def test_every_exit_code_has_words() -> None:
    for code in ExitCode:
        assert describe_exit_code(code) != f"exit code {code}"
    assert describe_exit_code(134) == "exit code 134 (killed by signal 6)"
    assert describe_exit_code(3) == "exit code 3"


def test_amounts_are_read_as_kubernetes_writes_them() -> None:
    texts = ("2", "100m", "8Gi", "1k", "1.5", "1e3", "none")
    assert [quantity(text) for text in texts] == [2, 0.1, 8 * 2**30, 1000, 1.5, 1000, 0]
