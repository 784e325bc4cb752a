"""The commands for a cluster, against a double of its API: what they do, say and end with."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from defectbench.__main__ import run
from defectbench.errors import ExitCode
from defectbench.records.lease import LeaseRecord
from defectbench.records.result import Failure
from defectbench.runners.chart.chart import cells_of, image_of
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import cell_key, lease_key
from defectbench.sweeps.config import read_sweep
from defectbench.sweeps.plan import Plan, make_plan
from fake_kubernetes import NAMESPACE, Document, FakeApi, Fault, fake_api, job, pod
from fakes import finish, put_category
from parts import find_helm

pytest.importorskip("kubernetes", reason="no kubernetes client here; run: uv sync --extra kubernetes")

from defectbench.runners.kubernetes.api import connect
from defectbench.runners.kubernetes.watch import Follower

SWEEP = """\
name: small
data: {dataset: parts}
models: [filterbank-knn, filterbank-logreg]
weights: none
seeds: [0]
threads: 1
protocols: {detection: {folds: 3}}
resources: {gpu: 1, memory: 4Gi}
"""
VOLUME = "store.volume.persistentVolumeClaim.claimName=bench"
MINE = ("--set-values", VOLUME, "--image", "registry.test/defectbench:1")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as server:
        yield server


@pytest.fixture
def bench(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a store, a sweep of two Jobs (1 and 3 cells), a cluster; the process stands in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
    monkeypatch.setenv("DEFECTBENCH_HELM", find_helm())
    monkeypatch.delenv("DEFECTBENCH_STORE", raising=False)
    put_category(DirectoryStore(tmp_path / "bench"), "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    (tmp_path / "small.yaml").write_text(SWEEP)
    return tmp_path


def call(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run a command and return what it printed on both streams."""
    status = run([str(word) for word in words])
    out, err = capfd.readouterr()
    assert status == code, err
    assert "Traceback" not in err
    return out, err


def planned(bench: Path) -> tuple[DirectoryStore, Plan]:
    store = DirectoryStore(bench / "bench")
    return store, make_plan(read_sweep(bench / "small.yaml"), store)


def end(api: FakeApi, name: str, how: str = "Complete", message: str = "") -> None:
    conditions = [{"type": how, "status": "True", "reason": "PodFailurePolicy", "message": message}]
    api.change("jobs", name, status={"conditions": conditions})


def names(api: FakeApi) -> list[str]:
    return [each["metadata"]["name"] for each in api.of("jobs")]


def holding(api: FakeApi, count: int) -> Document:
    """The Job with so many cells."""
    return next(each for each in api.of("jobs") if len(cells_of(each)) == count)


def test_submit_makes_the_jobs_and_says_where(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, err = call(capfd, "submit", "small.yaml", *MINE)
    assert "small: context fake, namespace team, 2 Jobs for 4 cells, GPU limit 1 a Job, 2 in all" in err
    assert "Jobs: 2 created" in err
    assert {image_of(each) for each in api.of("jobs")} == {"registry.test/defectbench:1"}
    store, plan = planned(bench)
    assert {key for each in api.of("jobs") for key in cells_of(each)} == set(plan.cells)
    assert all(store.find(cell_key(key, "spec.json")) for key in plan.cells)
    assert store.find("sweeps/small.json")
    assert "2 adopted" in call(capfd, "submit", "small.yaml", *MINE)[1]
    assert api.count("POST") == 2


def test_submit_leaves_out_what_is_finished(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store, plan = planned(bench)
    for cell in plan.cells.values():
        if cell.fit.model == "filterbank-logreg":
            finish(store, plan, cell, {})
    _, err = call(capfd, "submit", "small.yaml", *MINE)
    assert "1 Jobs for 1 cells" in err
    assert "1 finished" in err
    assert len(api.of("jobs")) == 1


def test_submit_takes_a_single_job(api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--model", "filterbank-knn", "--category", "bolt", "--set", "resources.gpu=0")
    assert "no GPU" in call(capfd, "submit", "small.yaml", *MINE, *words)[1]
    assert len(api.of("jobs")) == 1


def test_submit_names_a_job_that_failed_and_retry_makes_it_anew(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    store, _ = planned(bench)
    failed = holding(api, 3)
    name, key = failed["metadata"]["name"], cells_of(failed)[0]
    end(api, name, "Failed", "Container worker for pod x failed with exit code 65")
    store.put(cell_key(key, "failure.json"), Failure(ExitCode.DATA, "wrong", "", 1).to_json())
    _, err = call(capfd, "submit", "small.yaml", *MINE, code=1)
    assert f"{name}: failed:" in err
    assert store.find(cell_key(key, "failure.json")), "submit forgets no failures"
    _, err = call(capfd, "retry", "small.yaml", *MINE)
    assert "1 created" in err
    assert "left alone: it is live (pending)" in err
    assert store.find(cell_key(key, "failure.json")) is None
    assert holding(api, 3)["metadata"]["uid"] != failed["metadata"]["uid"]
    _, err = call(capfd, "retry", "small.yaml", *MINE)
    assert "2 left alone" in err
    assert len(api.of("jobs")) == 2


def test_retry_takes_a_sweep_by_its_name_and_mended_values(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    end(api, holding(api, 1)["metadata"]["name"], "Failed")
    (bench / "small.yaml").unlink()
    call(capfd, "retry", "small", "--set-values", VOLUME, "--image", "registry.test/defectbench:2")
    assert image_of(holding(api, 1)) == "registry.test/defectbench:2"
    assert image_of(holding(api, 3)) == "registry.test/defectbench:1"


def test_retry_tells_failed_from_preempted(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    lost, wrong = holding(api, 1), holding(api, 3)
    for each, code in ((lost, 143), (wrong, 65)):
        state = {"terminated": {"exitCode": code, "reason": "Error"}}
        api.put("pods", pod(each, phase="Failed", containerStatuses=[{"name": "worker", "state": state}]))
        end(api, each["metadata"]["name"], "Failed")
    _, err = call(capfd, "retry", "small.yaml", *MINE, "--only", "preempted")
    assert f"{wrong['metadata']['name']}: left alone: it failed" in err
    assert holding(api, 1)["metadata"]["uid"] != lost["metadata"]["uid"]
    assert holding(api, 3)["metadata"]["uid"] == wrong["metadata"]["uid"]
    call(capfd, "retry", "small.yaml", *MINE, "--only", "all")
    assert holding(api, 3)["metadata"]["uid"] != wrong["metadata"]["uid"]


def test_submit_refuses_another_digest(api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    words = ("--set-values", VOLUME, "--image", "registry.test/defectbench:2")
    _, err = call(capfd, "submit", "small.yaml", *words, code=78)
    assert "made from other settings" in err
    assert "2 different" in err
    assert "2 Jobs end" in call(capfd, "cancel", "small.yaml")[1]
    assert "2 created" in call(capfd, "submit", "small.yaml", *words)[1]


def test_a_refused_submit_touches_nothing(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither another sweep of the same name, nor Jobs made from other settings: specs and record stay."""
    call(capfd, "submit", "small.yaml", *MINE)
    store = DirectoryStore(bench / "bench")
    before, jobs = {key: store.get(key).data for key in sorted(store.keys())}, names(api)
    for words in (
        ("--set", "models=[filterbank-knn]"),
        ("--set", "image_size=32"),
        ("--set", "resources.deadline=5m", "--set-values", "checkpointSeconds=7"),
    ):
        call(capfd, "submit", "small.yaml", *MINE, *words, code=78)
        assert {key: store.get(key).data for key in sorted(store.keys())} == before
        assert names(api) == jobs
    assert "--replace" in call(capfd, "submit", "small.yaml", *MINE, "--set", "image_size=32", code=78)[1]
    said = call(capfd, "submit", "small.yaml", *MINE, "--set", "image_size=32", "--replace")[1]
    assert "2 created" in said


def test_cancel_ends_live_jobs_only_and_may_be_repeated(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    api.put("jobs", job("foreign", sweep="another"))
    end(api, holding(api, 3)["metadata"]["name"])
    cell = cells_of(holding(api, 3))[0]
    assert "0 Jobs end" in call(capfd, "cancel", "small", "--cell", cell)[1]
    assert "0 Jobs end" in call(capfd, "cancel", "small", "--model", "filterbank-logreg")[1]
    assert "1 Jobs end in context fake, namespace team" in call(capfd, "cancel", "small")[1]
    assert "0 Jobs end" in call(capfd, "cancel", "small")[1]
    assert len(names(api)) == 2
    assert "foreign" in names(api)


def test_submit_of_several_sweeps_names_what_others_lack(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (bench / "data.yaml").write_text(SWEEP.replace("parts", "nuts").replace("small", "data"))
    text = SWEEP.replace("filterbank-knn", "padim").replace("weights: none", "weights: pretrained")
    (bench / "weights.yaml").write_text(text.replace("small", "heavy"))
    _, err = call(capfd, "submit", "data.yaml", "small.yaml", "weights.yaml", *MINE, code=1)
    assert "not submitted: data.yaml: " in err
    assert "nuts" in err
    assert "not submitted: weights.yaml: " in err
    assert "resnet18.tv_in1k" in err
    assert len(api.of("jobs")) == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("submit", "small.yaml"), 78, "pods cannot reach the directory"),
        (("submit", "small.yaml", *MINE, "--kube-context", "kind"), 78, "no context 'kind'"),
        (
            ("submit", "small.yaml", *MINE, "-n", "tean"),
            78,
            "no namespace 'tean' in the cluster of context fake",
        ),
        (("submit", "small.yaml", *MINE, "--kube-context", "dead"), 75, "no cluster answers at"),
        (("submit", "small.yaml", *MINE, "--set-values", "nodeselector={}"), 78, "nodeSelector"),
        (("submit", "small.yaml", *MINE, "--model", "glass"), 64, "unknown model 'glass'"),
        (("submit", "nowhere.yaml", *MINE), 66, "nowhere.yaml"),
        (("submit", "small.yaml", *MINE, "--set", "data.dataset=nuts"), 66, "nuts"),
        (("submit",), 64, "Missing argument"),
        (("cancel", "small", "-n", "tean"), 78, "no namespace 'tean'"),
        (("why", "abc", "-n", "tean"), 78, "no namespace 'tean'"),
        (("retry", "unknown", *MINE), 66, "no sweep 'unknown'"),
        (("status", "unknown"), 66, "no sweep 'unknown'"),
        (("watch", "unknown"), 66, "no sweep 'unknown'"),
        (("why", "unknown"), 66, "no cell and no Job 'unknown'"),
        (("logs", "unknown"), 66, "no cell 'unknown'"),
        (("why", "unknown", "--kube-context", "dead"), 75, "no cluster answers at"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    bench: Path, words: tuple[str, ...], code: int, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said in call(capfd, *words, code=code)[1]


def test_a_missing_secret_is_found_before_anything_is_submitted(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("submit", "small.yaml", *MINE, "--set-values", "extraEnvFrom=[{secretRef: {name: own}}]")
    assert "has no Secret own" in call(capfd, *words, code=78)[1]
    assert not api.of("jobs")
    api.faults.append(Fault(403, part="secrets/own"))
    assert "Secret own was not looked for" in call(capfd, *words)[1]
    api.put("secrets", {"metadata": {"name": "own"}})
    assert "2 adopted" in call(capfd, *words)[1]


def test_the_local_image_must_be_on_a_node(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ("submit", "small.yaml", "--set-values", VOLUME)
    _, err = call(capfd, *words, code=69)
    assert "no node of context fake has the image defectbench:" in err
    api.faults.append(Fault(403, part="/nodes"))
    assert "may not list nodes" in call(capfd, *words)[1]
    image = image_of(api.of("jobs")[0])
    api.put(
        "nodes",
        {"metadata": {"name": "n"}, "status": {"images": [{"names": [f"docker.io/library/{image}"]}]}},
    )
    assert "2 adopted" in call(capfd, *words)[1]


def test_no_rights_end_with_77(api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refusal = 'jobs.batch is forbidden: User "x" cannot create resource "jobs"'
    api.faults.append(Fault(403, times=99, part="/jobs", message=refusal))
    _, err = call(capfd, "submit", "small.yaml", *MINE, code=77)
    assert err.count(refusal) == 1
    call(capfd, "cancel", "small", code=77)


@pytest.mark.parametrize("words", [("submit", "small.yaml", *MINE), ("cancel", "small"), ("watch", "small")])
def test_without_the_client_its_extra_is_named(bench: Path, words: tuple[str, ...]) -> None:
    script = (
        "import sys; sys.modules['kubernetes'] = None; from defectbench.__main__ import run; "
        f"sys.exit(run({list(words)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == ExitCode.CONFIGURATION, done.stderr
    assert "uv sync --extra kubernetes" in done.stderr
    assert "Traceback" not in done.stderr


def test_status_of_a_sweep_that_ran_here_needs_no_cluster(
    bench: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(bench / "nowhere"))
    store, plan = planned(bench)
    from defectbench.sweeps.plan import write_plan

    write_plan(plan, store, list(plan.cells))
    keys = list(plan.cells)
    finish(store, plan, plan.cells[keys[0]], {})
    store.put(cell_key(keys[1], "failure.json"), Failure(ExitCode.DATA, "wrong", "", 1).to_json())
    record = LeaseRecord("here:1", "h", 1, {"phase": "fitting", "done": 1, "total": 4, "left": 9.0}, at="now")
    store.put(lease_key(keys[2]), record.to_json())
    out, err = call(capfd, "status", "small")
    assert "only the store was read: no cluster is configured" in err
    assert "4 cells: 1 pending, 1 running, 1 finished, 1 failed" in err
    assert "bolt" in out
    found = json.loads(call(capfd, "status", "small", "--format", "json")[0])
    assert found["cluster"] is None
    assert [each["state"] for each in found["cells"]] == ["finished", "failed", "running", "pending"]
    assert found["cells"][1]["code"] == 65
    assert "fitting 1/4" in found["cells"][2]["detail"]
    assert call(capfd, "why", keys[1][:8])[0].startswith("failed: cell")
    assert call(capfd, "why", keys[0])[0].startswith("finished: ")
    assert "the cluster was not asked" in call(capfd, "why", keys[3])[0]


def test_status_tells_where_each_cell_is(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    store, plan = planned(bench)
    one, three = holding(api, 1), holding(api, 3)
    finish(store, plan, plan.cells[cells_of(three)[0]], {})
    record = LeaseRecord("pod:1", "h", 1, {"phase": "fitting", "done": 1, "total": 4, "left": 9.0})
    store.put(lease_key(cells_of(three)[1]), record.to_json())
    api.put("pods", pod(three))
    waits = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}
    api.put("pods", pod(one, phase="Pending", containerStatuses=[{"name": "worker", "state": waits}]))
    found = json.loads(call(capfd, "status", "small", "--format", "json")[0])
    states = {each["cell"]: each["state"] for each in found["cells"]}
    assert [states[key] for key in cells_of(three)] == ["finished", "running", "pending"]
    assert [states[key] for key in cells_of(one)] == ["doomed"]
    assert {each["phase"] for each in found["jobs"]} == {"running", "doomed"}
    out, _ = call(capfd, "status", "small.yaml", "--cells")
    assert "in line in Job" in out
    assert "ImagePullBackOff" in out
    verdict = json.loads(call(capfd, "why", cells_of(one)[0], "--format", "json")[0])
    assert (verdict["verdict"], verdict["sentence"].startswith("the image")) == ("doomed", True)
    assert call(capfd, "why", one["metadata"]["name"])[0].startswith("doomed: ")


def test_watch_ends_with_0_when_all_is_finished(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    store, plan = planned(bench)

    def work() -> None:
        for each in api.of("jobs"):
            api.put("pods", pod(each))
            api.hang_up()
            for key in cells_of(each):
                finish(store, plan, plan.cells[key], {})
            end(api, each["metadata"]["name"])

    threading.Timer(1.0, work).start()
    _, err = call(capfd, "watch", "small")
    assert "Jobs: 2 finished; cells: 4 finished" in err


def test_watch_ends_with_1_where_a_job_failed(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    store, plan = planned(bench)
    one, three = holding(api, 1), holding(api, 3)
    finish(store, plan, plan.cells[cells_of(one)[0]], {})
    end(api, one["metadata"]["name"])
    end(api, three["metadata"]["name"], "Failed", "Container worker failed with exit code 78")
    _, err = call(capfd, "watch", "small", code=1)
    assert "cells: 1 finished, 3 failed" in err
    assert f"{three['metadata']['name']} failed" in err
    assert "3 cells are failed: `defectbench why CELL`" in err


def test_watch_waits_for_no_doomed_job_and_none_that_was_never_made(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE, "--model", "filterbank-knn")
    one = api.of("jobs")[0]
    waits = {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}
    api.put("pods", pod(one, phase="Pending", containerStatuses=[{"name": "worker", "state": waits}]))
    store, plan = planned(bench)
    follower = Follower(
        connect(), store, plan.record(), list(plan.cells), poll=0.2, doom_patience=0.5, grace=0.5
    )
    last = follower.follow(lambda picture: None, every=0.1)
    assert last.code == ExitCode.SOME_FAILED
    assert [each.partition(":")[0] for each in last.advice] == ["1 cells are doomed", "3 cells are pending"]


def test_logs_come_from_the_store_then_from_the_pod(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    store, _ = planned(bench)
    held = holding(api, 1)
    key = cells_of(held)[0]
    assert "no pod has begun on it" in call(capfd, "logs", key, code=66)[1]
    api.put("pods", {**pod(held), "log": "from the pod\n"})
    assert call(capfd, "logs", key[:10])[0] == "from the pod\n"
    store.put(cell_key(key, "1", "log.txt"), b"first\n")
    store.put(cell_key(key, "10", "log.txt"), b"tenth\n")
    store.put(cell_key(key, "2", "log.txt"), b"second\n")
    assert call(capfd, "logs", key)[0] == "tenth\n"
    assert call(capfd, "logs", key, "--attempt", 2)[0] == "second\n"
    assert "attempts with a log: 1, 2, 10" in call(capfd, "logs", key, "--attempt", 3, code=66)[1]


def test_logs_are_followed_until_the_cell_has_ended(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from defectbench.runners.kubernetes import logs

    store, plan = planned(bench)
    cell = next(iter(plan.cells.values()))
    store.put(cell_key(cell.key, "1", "log.txt"), b"one\n")
    steps: list[Callable[[], object]] = [
        lambda: store.put(cell_key(cell.key, "1", "log.txt"), b"one\ntwo\n"),
        lambda: store.put(cell_key(cell.key, "2", "log.txt"), b"three\n"),
        lambda: finish(store, plan, cell, {}),
    ]

    def sleep(seconds: float) -> None:
        steps.pop(0)()

    text = "".join(logs.follow(store, cell.key, sleep=sleep))
    assert text == "one\ntwo\nthree\n"


def test_a_namespace_is_the_context_s_own(
    api: FakeApi, bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    call(capfd, "submit", "small.yaml", *MINE)
    assert {each["metadata"]["namespace"] for each in api.of("jobs")} == {NAMESPACE}
