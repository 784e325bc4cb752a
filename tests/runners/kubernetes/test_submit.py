"""Jobs brought into a cluster: each once, none too many, none lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from defectbench.errors import ConfigurationError, NoRightsError, StoppedError, TryAgainError
from fake_kubernetes import NAMESPACE, Document, FakeApi, Fault, fake_api, job

pytest.importorskip("kubernetes", reason="no kubernetes client here; run: uv sync --extra kubernetes")

from defectbench.runners.kubernetes import submit as module
from defectbench.runners.kubernetes.api import Cluster, connect
from defectbench.runners.kubernetes.submit import PlacedJob, Submission


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


@pytest.fixture
def cluster(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.1)
    made = connect()
    made.sleep = lambda seconds: time.sleep(min(seconds, 0.05))
    return made


def many(count: int) -> list[Document]:
    return [job(f"j{number:03}", (f"c{number}",)) for number in range(count)]


def verdicts(placed: dict[str, PlacedJob] | object) -> dict[str, str]:
    assert isinstance(placed, dict)
    return {name: each.verdict.value for name, each in placed.items()}


def end(api: FakeApi, name: str, how: str = "Complete") -> None:
    """Do what the Job controller does when a Job has ended."""
    conditions = [{"type": how, "status": "True", "reason": "BackoffLimitExceeded", "message": "too often"}]
    api.change("jobs", name, status={"conditions": conditions})


def test_every_job_is_created_once(api: FakeApi, cluster: Cluster) -> None:
    heard: list[PlacedJob] = []
    placed = Submission(cluster, set(), hear=heard.append).run(many(50))
    assert set(verdicts(placed).values()) == {"created"}
    assert len(api.of("jobs")) == len(heard) == len(placed) == 50


def test_a_second_submission_adopts_what_is_there(api: FakeApi, cluster: Cluster) -> None:
    Submission(cluster, set()).run(many(3))
    end(api, "j000")
    assert set(verdicts(Submission(cluster, set()).run(many(4))).values()) == {"adopted", "created"}
    assert api.count("POST") == 4


def test_submitters_at_the_same_moment_make_each_job_once(api: FakeApi, cluster: Cluster) -> None:
    answers: list[object] = []

    def go() -> None:
        answers.append(Submission(cluster, set()).run(many(60)))

    threads = [threading.Thread(target=go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(api.of("jobs")) == 60
    made = [each for answer in answers for each in verdicts(answer).values()]
    assert made.count("created") == 60
    assert made.count("adopted") == 120


def test_an_answer_that_was_lost_makes_no_second_job(
    api: FakeApi, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(made: Document) -> None:
        api.on_create = lambda thing: None
        raise ConnectionResetError  # the server's thread ends, and with it the connection

    monkeypatch.setattr("socketserver.BaseServer.handle_error", lambda *arguments: None)
    api.on_create = lose
    placed = Submission(cluster, set()).run(many(1))
    assert verdicts(placed) == {"j000": "adopted"}
    assert len(api.of("jobs")) == 1


def test_finished_cells_need_no_job_and_cells_held_elsewhere_get_none(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("other", ("c3", "c4"), sweep="another"))
    manifests = [job("a", ("c1", "c2")), job("b", ("c3",)), job("c", ("c4", "c5"))]
    placed = Submission(cluster, {"c1", "c2"}).run(manifests)
    assert verdicts(placed) == {"a": "finished", "b": "held", "c": "created"}
    assert "held by other" in placed["b"].said


def test_cells_of_a_job_that_ended_are_held_by_nobody(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("other", ("c3",), sweep="another"))
    end(api, "other", "Failed")
    assert verdicts(Submission(cluster, set()).run([job("b", ("c3",))])) == {"b": "created"}


def test_a_failed_job_is_told_and_another_digest_refused(api: FakeApi, cluster: Cluster) -> None:
    for each in ("a", "b", "c"):
        api.put("jobs", job(each, (each,), digest="old"))
    end(api, "a", "Failed")
    end(api, "b")
    placed = Submission(cluster, set()).run([job(each, (each,), digest="new") for each in "abc"])
    assert verdicts(placed) == {"a": "failed", "b": "different", "c": "different"}
    assert "too often" in placed["a"].said
    assert "retry" in placed["a"].said
    assert "retry --only all" in placed["b"].said
    assert "cancel" in placed["c"].said
    assert api.count("POST") == 0


def test_the_window_is_kept_and_topped_up(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("foreign", ("x",), sweep="another"))
    most, running = 0, True

    def live() -> int:
        return sum("conditions" not in each.get("status", {}) for each in api.of("jobs"))

    def controller() -> None:
        nonlocal most
        while running:
            most = max(most, live())
            for each in api.of("jobs"):
                if each["metadata"]["name"] != "foreign" and "conditions" not in each.get("status", {}):
                    end(api, each["metadata"]["name"], "Failed" if most % 2 else "Complete")
                    break
            time.sleep(0.01)

    thread = threading.Thread(target=controller)
    thread.start()
    try:
        placed = Submission(cluster, set(), window=5).run(many(40))
    finally:
        running = False
        thread.join()
    assert set(verdicts(placed).values()) == {"created"}
    assert len(placed) == 40
    assert most <= 5


def test_a_submission_that_is_stopped_loses_nothing(api: FakeApi, cluster: Cluster) -> None:
    def stop() -> None:
        while len(api.of("jobs")) < 4:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedError, match="the same command goes on"):
        Submission(cluster, set(), window=4).run(many(10))
    thread.join()
    assert len(api.of("jobs")) == 4
    for each in api.of("jobs"):
        end(api, each["metadata"]["name"])
    placed = Submission(cluster, set(), window=6).run(many(10))
    assert list(verdicts(placed).values()).count("created") == 6
    assert len(api.of("jobs")) == 10


def test_a_job_that_is_being_deleted_is_waited_for(api: FakeApi, cluster: Cluster) -> None:
    api.put("jobs", job("a", digest="old"))
    api.change("jobs", "a", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    threading.Timer(0.3, api.remove, ("jobs", "a")).start()
    assert verdicts(Submission(cluster, set()).run([job("a", digest="new")])) == {"a": "created"}


def test_a_quota_of_jobs_is_waited_for_while_ours_run(api: FakeApi, cluster: Cluster) -> None:
    refusal = "jobs.batch is forbidden: exceeded quota: few, requested: count/jobs.batch=1"
    made: list[str] = []

    def finish_soon(thing: Document) -> None:
        made.append(thing["metadata"]["name"])
        if len(made) == 3:
            api.faults.append(Fault(403, times=5, method="POST", message=refusal))
        threading.Timer(0.2, end, (api, thing["metadata"]["name"])).start()

    api.on_create = finish_soon
    placed = Submission(cluster, set(), concurrency=2).run(many(8))
    assert list(verdicts(placed).values()) == ["created"] * 8


def test_a_quota_that_lets_nothing_in_ends_with_try_again(api: FakeApi, cluster: Cluster) -> None:
    api.faults.append(Fault(403, times=99, method="POST", message="exceeded quota: few"))
    with pytest.raises(TryAgainError, match=f"quota of namespace {NAMESPACE}"):
        Submission(cluster, set()).run(many(2))


@pytest.mark.parametrize(("status", "error"), [(403, NoRightsError), (422, ConfigurationError)])
def test_a_refusal_ends_the_submission(
    api: FakeApi, cluster: Cluster, status: int, error: type[Exception]
) -> None:
    api.faults.append(Fault(status, times=999, method="POST", message="jobs.batch is forbidden"))
    with pytest.raises(error, match="forbidden"):
        Submission(cluster, set()).run(many(100))
    assert not api.of("jobs")


def test_a_busy_server_is_given_its_time(api: FakeApi, cluster: Cluster) -> None:
    api.faults.append(Fault(429, times=20, method="POST", headers={"Retry-After": "1"}))
    assert set(verdicts(Submission(cluster, set()).run(many(30))).values()) == {"created"}
    assert len(api.of("jobs")) == 30
