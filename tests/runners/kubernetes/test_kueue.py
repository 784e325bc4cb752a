"""Kueue's words, as its versions have written them."""

from __future__ import annotations

from typing import Any

import pytest

from defectbench.runners.kubernetes.kueue import QueueState, Wait, read_workload


def workload(*conditions: dict[str, str], checks: list[dict[str, str]] | None = None) -> dict[str, Any]:
    return {
        "metadata": {"name": "job-a"},
        "status": {"conditions": list(conditions), "admissionChecks": checks or []},
    }


def reserved(status: str, reason: str = "Pending", message: str = "") -> dict[str, str]:
    return {"type": "QuotaReserved", "status": status, "reason": reason, "message": message}


FLAVORS = "couldn't assign flavors to pod set main: "


@pytest.mark.parametrize(
    ("reason", "message", "wait"),
    [
        ("Inadmissible", "LocalQueue gpus doesn't exist", Wait.NO_QUEUE),
        ("Misconfigured", "LocalQueue gpus doesn't exist", Wait.NO_QUEUE),
        ("Inadmissible", "ClusterQueue all doesn't exist", Wait.NO_QUEUE),
        ("Inadmissible", "LocalQueue gpus is terminating or missing", Wait.NO_QUEUE),
        ("Inadmissible", "ClusterQueue all is inactive", Wait.STOPPED),
        ("Suspended", "LocalQueue gpus is inactive", Wait.STOPPED),
        (
            "Pending",
            FLAVORS + "insufficient unused quota for nvidia.com/gpu in flavor default, 2 more needed",
            Wait.QUOTA,
        ),
        ("Pending", FLAVORS + "insufficient quota for cpu in flavor default in ClusterQueue", Wait.QUOTA),
        ("WaitingForPreemptedWorkloads", "Pending the preemption of 1 workload(s)", Wait.QUOTA),
        (
            "Pending",
            FLAVORS + "insufficient quota for cpu in flavor default, previously considered podsets requests "
            "(0) + current podset request (4) > maximum capacity (2)",
            Wait.TOO_LARGE,
        ),
        ("Pending", FLAVORS + "resource nvidia.com/gpu unavailable in ClusterQueue", Wait.MISCONFIGURED),
        ("Pending", FLAVORS + "flavor a100 not found", Wait.MISCONFIGURED),
        ("Pending", FLAVORS + "untolerated taint {gpu true NoSchedule} in flavor a100", Wait.MISCONFIGURED),
        ("WaitingForQuota", "in other words", Wait.QUOTA),
        ("SomethingNew", "in other words", Wait.UNKNOWN),
    ],
)
def test_a_workload_that_waits_says_why(reason: str, message: str, wait: Wait) -> None:
    assert read_workload(workload(reserved("False", reason, message))) == QueueState(wait, message)


def test_one_that_was_evicted_waits_for_quota_again() -> None:
    evicted = {"type": "Evicted", "status": "True", "reason": "Preempted", "message": "higher priority"}
    message = "Preempted to accommodate a workload (UID: 1) due to prioritization in the ClusterQueue"
    state = read_workload(workload(evicted, reserved("False", "Pending", message)))
    assert state is not None
    assert state.wait is Wait.QUOTA


def test_admission_checks_come_after_the_quota() -> None:
    checks = [{"name": "provision", "state": "Pending", "message": "no nodes yet"}]
    state = read_workload(workload(reserved("True"), checks=checks))
    assert state == QueueState(Wait.CHECKS, "provision: no nodes yet")
    admitted = {"type": "Admitted", "status": "True", "reason": "Admitted", "message": ""}
    assert read_workload(workload(reserved("True"), admitted, checks=checks)) is None


def test_nothing_said_is_nothing_known() -> None:
    assert read_workload(workload()) is None
    assert read_workload({"metadata": {"name": "a"}}) is None
