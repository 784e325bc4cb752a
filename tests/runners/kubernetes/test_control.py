"""Which Jobs may be made anew."""

from __future__ import annotations

from datetime import UTC, datetime

from defectbench.records.lease import STILL, LeaseRecord
from defectbench.runners.kubernetes.control import RetryScope, may_retry
from defectbench.runners.kubernetes.find import JobWithPods
from defectbench.runners.status import StoredState
from fake_kubernetes import job, pod


def held_for(still: float, released: bool = False) -> StoredState:
    """A cell whose holder has made no step for so long."""
    now = datetime.now(UTC).isoformat()
    return StoredState(lease=LeaseRecord("pod-a:1", "h", 1, at=now, still=still, released=released))


def test_only_a_job_that_hangs_is_made_anew_while_it_lives() -> None:
    document = job("study-glass-bottle-1", ("c1",))
    document["metadata"] |= {"uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    live = JobWithPods(document, [pod(document)])
    assert may_retry(live, [held_for(STILL)], RetryScope.STUCK) == ""
    for scope in set(RetryScope) - {RetryScope.STUCK}:
        assert "--only stuck" in may_retry(live, [held_for(STILL)], scope)
    for scope in RetryScope:
        assert "it is live" in may_retry(live, [held_for(0.0)], scope)
        assert "it is live" in may_retry(live, [held_for(STILL, released=True)], scope)
