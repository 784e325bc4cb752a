"""The commands against a real API server, scheduler and kubelet, with no more than the rights of the docs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import BUSYBOX, Cluster
from defectbench.stores.choose import open_store
from defectbench.sweeps.config import read_sweep
from defectbench.sweeps.plan import make_plan
from defectbench.sweeps.plan import write_plan as write_plan
from fake_kubernetes import Document
from fakes import put_category
from parts import find_helm
from processes import finish
from waiting import wait_until

pytest.importorskip("kubernetes", reason="no kubernetes client here; run: uv sync --extra kubernetes")

from defectbench.runners.kubernetes.api import connect
from defectbench.runners.kubernetes.submit import Submission

SWEEP = """\
name: real
data: {dataset: parts}
models: [filterbank-knn, filterbank-logreg]
weights: none
threads: 1
seeds: [0, 1]
cellsPerJob: 1
protocols: {detection: {folds: 3}}
resources: {gpu: 1, cpu: 0.1, memory: 64Mi}
"""
"""8 cells, 8 Jobs: two of the first model, six of the second."""

MINE = ("--image", "registry.test/defectbench:1")


@pytest.fixture
def bench(
    cluster: Cluster, namespace: str, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A directory with a sweep over data in S3; commands are the submitter's, in a namespace of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(cluster.submitter, namespace, tmp_path / "config")))
    monkeypatch.setenv("DEFECTBENCH_HELM", find_helm())
    monkeypatch.setenv("DEFECTBENCH_STORE", s3_url)
    put_category(open_store(s3_url), "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    cluster.apply(secret(namespace))
    (tmp_path / "real.yaml").write_text(SWEEP)
    return tmp_path


def kubeconfig(given: Path, namespace: str, file: Path) -> Path:
    """Write the kubeconfig with another namespace in its contexts."""
    document = yaml.safe_load(given.read_text())
    for each in document["contexts"]:
        each["context"]["namespace"] = namespace
    file.write_text(yaml.safe_dump(document))
    return file


def secret(namespace: str) -> Document:
    keys = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests"}
    metadata = {"name": "defectbench-s3", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": keys}


def start(*words: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "defectbench", *map(str, words)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        stdout=pipe,
        stderr=pipe,
        text=True,
        env={**os.environ, "PYTHONFAULTHANDLER": "1", **(environment or {})},
    )


def call(*words: object, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in a process of its own and return what it said."""
    process = start(*words, environment=environment)
    out, err = finish(process)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out + err


def read_out(*words: object) -> str:
    """Run a command and return what it printed on standard output alone."""
    out, err = finish(process := start(*words))
    assert process.returncode == 0, err
    return out


def why(subject: str) -> tuple[str, str]:
    """Return the verdict and the sentence."""
    found = json.loads(read_out("why", subject, "--format", "json"))
    return found["verdict"], found["sentence"]


def becomes(subject: str, verdict: str, words: str) -> None:
    """Wait until `why` gives this verdict and these words; print what it gave before."""
    while (found := why(subject))[0] != verdict or words not in found[1]:
        print(found)
        time.sleep(1)


def jobs(cluster: Cluster, namespace: str) -> list[Document]:
    found: list[Document] = cluster.get("jobs", f"--namespace={namespace}")["items"]
    return found


def script_job(name: str, script: str, *, image: str = BUSYBOX, cell: str = "", **spec: Any) -> Document:
    """A Job of ours whose container runs a shell script; its further arguments look like the worker's."""
    labels = {
        "app.kubernetes.io/name": "defectbench",
        "defectbench.dev/sweep": "real",
        "defectbench.dev/model": "filterbank-knn",
        "defectbench.dev/category": "bolt",
    }
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "worker",
        "image": image,
        "command": ["sh", "-c", script],
        "args": ["job", "--cell", cell or name],
        "resources": {"limits": {"memory": "32Mi", "cpu": "100m"}},
        "securityContext": security,
        **spec.pop("container", {}),
    }
    rules = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": "worker",
                "operator": "In",
                "values": [64, 65, 66, 69, 70, 77, 78, 124],
            },
        }
    ]
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels, "annotations": {"defectbench.dev/digest": "d"}},
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": rules},
            **spec,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def test_two_shells_at_the_same_moment_make_each_job_once(
    cluster: Cluster, namespace: str, bench: Path
) -> None:
    both = [start("submit", "real.yaml", *MINE) for _ in range(2)]
    said = [finish(process)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(jobs(cluster, namespace)) == 8
    counts = [
        {
            what: number
            for number, what in (each.split(" ") for each in text.rpartition("Jobs: ")[2].strip().split(", "))
        }
        for text in said
    ]
    assert sum(int(each.get("created", 0)) for each in counts) == 8
    assert sum(int(each.get("adopted", 0)) for each in counts) == 8


def test_submit_status_cancel_and_submit_again(cluster: Cluster, namespace: str, bench: Path) -> None:
    said = call("submit", "real.yaml", *MINE)
    assert f"namespace {namespace}, 8 Jobs for 8 cells, GPU limit 1 a Job, 8 in all" in said
    found = json.loads(read_out("status", "real", "--format", "json"))
    assert len(found["cells"]) == len(found["jobs"]) == 8
    assert set(found["states"]) <= {"pending", "pulling", "doomed"}
    assert "2 Jobs end" in call("cancel", "real", "--model", "filterbank-knn")
    wait_until(lambda: len(jobs(cluster, namespace)) == 6, 0.5)
    call("cancel", "real")
    wait_until(lambda: not jobs(cluster, namespace), 0.5)
    assert "0 Jobs end" in call("cancel", "real")
    assert "8 created" in call("submit", "real.yaml", *MINE)
    assert "8 different" in call("submit", "real.yaml", "--image", "registry.test/defectbench:2", code=78)


def test_submit_right_after_cancel_waits_for_the_old_jobs(
    cluster: Cluster, namespace: str, bench: Path
) -> None:
    words = ("--model", "filterbank-knn")
    call("submit", "real.yaml", *MINE, *words)
    before = {each["metadata"]["uid"] for each in jobs(cluster, namespace)}
    call("cancel", "real")
    assert "2 created" in call("submit", "real.yaml", *MINE, *words)
    after = {each["metadata"]["uid"] for each in jobs(cluster, namespace)}
    assert len(after) == 2
    assert not before & after


def test_rights_names_and_reach_have_their_exit_codes(cluster: Cluster, namespace: str, bench: Path) -> None:
    assert "no rights" in call("submit", "real.yaml", *MINE, "--namespace", "default", code=77)
    assert "no context 'kind'" in call("submit", "real.yaml", *MINE, "--kube-context", "kind", code=78)
    admin = {"KUBECONFIG": str(cluster.admin)}
    words = ("submit", "real.yaml", *MINE, "--namespace", "not-there")
    assert "no namespace 'not-there'" in call(*words, code=78, environment=admin)
    text = (bench / "config").read_text()
    (bench / "dead").write_text(
        text.replace(text.partition("server: ")[2].partition("\n")[0], "https://127.0.0.1:1")
    )
    dead = {"KUBECONFIG": str(bench / "dead")}
    assert "no cluster answers at https://127.0.0.1:1" in call("cancel", "real", code=75, environment=dead)
    (bench / "stranger").write_text(
        text.partition("token: ")[0] + "token: wrong\n" if "token: " in text else ""
    )
    stranger = {"KUBECONFIG": str(bench / "stranger")}
    assert "does not know these credentials" in call("cancel", "real", code=77, environment=stranger)


def test_a_missing_secret_is_found_before_submitting(cluster: Cluster, namespace: str, bench: Path) -> None:
    cluster.kubectl("delete", "secret", "defectbench-s3", f"--namespace={namespace}")
    said = call("submit", "real.yaml", *MINE, code=78)
    assert f"namespace {namespace} has no Secret defectbench-s3" in said
    assert not jobs(cluster, namespace)


def test_the_local_image_is_looked_for_on_nodes(
    cluster_with_node: Cluster, namespace: str, bench: Path
) -> None:
    said = call("submit", "real.yaml", code=69)
    assert "has the image defectbench:" in said


def test_a_sweep_without_gpus_in_the_cluster_is_explained(
    cluster_with_node: Cluster, namespace: str, bench: Path
) -> None:
    words = ("--cell", first_cell(bench))
    call("submit", "real.yaml", *MINE, *words, "--set", "resources.gpu=16")
    becomes(first_cell(bench), "doomed", "asks for 16 nvidia.com/gpu, and no node has more than 2")
    call("cancel", "real")
    wait_until(lambda: not jobs(cluster_with_node, namespace), 0.5)
    values = ("--set-values", "gpuResource=example.com/gpu")
    call("submit", "real.yaml", *MINE, *words, *values)
    becomes(first_cell(bench), "stuck", "no node of the cluster offers example.com/gpu")


def first_cell(bench: Path) -> str:
    store = open_store(os.environ["DEFECTBENCH_STORE"])
    return next(iter(make_plan(read_sweep(bench / "real.yaml"), store).cells))


def test_a_used_up_quota_is_explained(cluster: Cluster, namespace: str, bench: Path) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "gpus", "namespace": namespace},
        "spec": {"hard": {"requests.nvidia.com/gpu": "1"}},
    }
    cluster.apply(quota)
    where = f"--namespace={namespace}"
    wait_until(lambda: bool(cluster.get("resourcequota", "gpus", where).get("status", {}).get("used")), 0.5)
    call("submit", "real.yaml", *MINE, "--model", "filterbank-knn")

    def told() -> bool:
        found = json.loads(read_out("status", "real", "--model", "filterbank-knn", "--format", "json"))
        verdicts = [why(each["cell"]) for each in found["cells"]]
        return (
            sum(
                "quota gpus is used up (requests.nvidia.com/gpu: 1 of 1 used" in words
                for _, words in verdicts
            )
            == 1
        )

    wait_until(told, 0.5)


def test_doomed_pods_are_explained_and_not_waited_for(
    cluster_with_node: Cluster, namespace: str, bench: Path
) -> None:
    place = connect()
    missing = {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "absent", "key": "X"}}}]}
    made = [
        script_job("no-image", "true", image="127.0.0.1:1/defectbench:1"),
        script_job("no-secret", "true", container=missing),
    ]
    Submission(place, set()).run(made)
    becomes(
        "no-image", "doomed", "the image 127.0.0.1:1/defectbench:1 of Job no-image cannot be pulled on node"
    )
    becomes("no-secret", "doomed", "the Secret absent is missing")


ENDINGS: tuple[tuple[str, str, Mapping[str, Any], str, str], ...] = (
    ("data", "exit 65", {}, "failed", "exit code 65 (the images are wrong)"),
    ("deadline", "exit 124", {}, "failed", "exit code 124 (the deadline passed)"),
    (
        "memory",
        "exec tail /dev/zero",
        {},
        "failed",
        "killed for want of memory (exit code 137); its limit is 32Mi",
    ),
    ("late", "sleep 60", {"activeDeadlineSeconds": 3}, "failed", "its backstop (jobDeadline"),
    ("done", "exit 0", {}, "finished", "is complete"),
    ("paused", "exit 0", {"suspend": True}, "stuck", "somebody suspended Job paused"),
    ("works", "sleep 600", {}, "running", "runs on node defectbench-node"),
)


def test_endings_are_explained(cluster_with_node: Cluster, namespace: str, bench: Path) -> None:
    place = connect()
    made = [script_job(name, script, **spec) for name, script, spec, _, _ in ENDINGS]
    Submission(place, set()).run(made)
    for name, _, _, verdict, words in ENDINGS:
        becomes(name, verdict, words)


def test_the_window_is_topped_up_as_jobs_end(cluster_with_node: Cluster, namespace: str, bench: Path) -> None:
    place = connect()
    most: list[int] = []

    def look(placed: object) -> None:
        live = [
            each for each in jobs(cluster_with_node, namespace) if each["status"].get("conditions") is None
        ]
        most.append(len(live))

    made = [script_job(f"j{number}", "exit 0") for number in range(9)]
    placed = Submission(place, set(), window=3, on_placed=look).run(made)
    assert [each.outcome.value for each in placed.values()] == ["created"] * 9
    assert max(most) <= 3


def watched(words: tuple[object, ...], work: Callable[[], object], code: int) -> str:
    """Run `watch`, do some work meanwhile, and return what it said at its end."""
    process = start("watch", *words)
    work()
    out, err = finish(process)
    assert process.returncode == code, err
    return out + err


def test_watch_follows_pods_to_their_end(cluster_with_node: Cluster, namespace: str, bench: Path) -> None:
    store = open_store(os.environ["DEFECTBENCH_STORE"])
    plan = make_plan(read_sweep(bench / "real.yaml"), store)
    keys = [key for key, label in plan.labels.items() if label == "filterbank-logreg"]
    write_plan(plan, store, keys)
    scripts = ["sleep 5; exit 65", "exit 0", "exit 70", "sleep 2; exit 78", "exit 66", "exit 124"]
    made = [
        script_job(f"j{n}", script, cell=key)
        for n, (script, key) in enumerate(zip(scripts, keys, strict=True))
    ]
    said = watched(
        ("real", "--model", "filterbank-logreg"), lambda: Submission(connect(), set()).run(made), 1
    )
    assert "1 finished, 5 failed; cells: 1 pending, 5 failed" in said
    found = json.loads(read_out("status", "real", "--model", "filterbank-logreg", "--format", "json"))
    assert sorted(each["code"] or 0 for each in found["cells"]) == [0, 65, 66, 70, 78, 124]


def test_retry_makes_failed_jobs_anew(cluster_with_node: Cluster, namespace: str, bench: Path) -> None:
    cell = first_cell(bench)
    # No node is such: what is made anew stays live.
    words = ("--cell", cell, "--set", "resources.gpu=0", "--set-values", "nodeSelector={nowhere: 'true'}")
    manifest = yaml.safe_load(
        read_out("render", "real.yaml", *MINE, *words, "--write-specs").rpartition("---\n")[2]
    )
    name = manifest["metadata"]["name"]
    Submission(connect(), set()).run([script_job(name, "exit 66", cell=cell)])
    before = jobs(cluster_with_node, namespace)[0]["metadata"]["uid"]
    becomes(cell, "failed", "exit code 66 (a data set or cell is missing)")
    assert "failed:" in call("submit", "real.yaml", *MINE, *words, code=1)
    assert "left alone: it failed" in call("retry", "real.yaml", *MINE, *words, "--only", "preempted")
    both = [start("retry", "real.yaml", *MINE, *words) for _ in range(2)]
    said = [finish(process)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    after = jobs(cluster_with_node, namespace)
    assert [each["metadata"]["name"] for each in after] == [name]
    assert after[0]["metadata"]["uid"] != before
    assert "1 left alone" in call("retry", "real.yaml", *MINE, *words)


KUEUE = "kueue.x-k8s.io"


def kueue_kind(plural: str, kind: str) -> Document:
    """A kind of Kueue's as the API server serves it, its fields unchecked."""
    schema = {
        "openAPIV3Schema": {
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": True,
        }
    }
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": schema}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{KUEUE}",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/kueue/pull/1"},
        },
        "spec": {
            "group": KUEUE,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [version],
        },
    }


def kueue_object(kind: str, namespace: str, name: str, **more: object) -> Document:
    metadata = {"name": name, "namespace": namespace, **more.pop("metadata", {})}  # type: ignore[dict-item]
    return {"apiVersion": f"{KUEUE}/v1beta1", "kind": kind, "metadata": metadata, **more}


def test_kueue_is_asked_why_a_job_waits(cluster: Cluster, namespace: str, bench: Path) -> None:
    """Without its controller: objects of its schema, as it writes them, under the rights of the docs."""
    queued = (*MINE, "--set-values", "queueName=gpus", "--model", "filterbank-knn", "--set", "seeds=[0]")
    if cluster.try_kubectl("get", "crd", f"localqueues.{KUEUE}").returncode:
        assert "has no Kueue" in call("submit", "real.yaml", *queued, code=78)
    cluster.apply(kueue_kind("workloads", "Workload"), kueue_kind("localqueues", "LocalQueue"))
    wait_until(
        lambda: cluster.try_kubectl("get", "localqueues", f"--namespace={namespace}").returncode == 0, 0.5
    )
    assert "no LocalQueue 'gpus'" in call("submit", "real.yaml", *queued, code=78)
    assert not jobs(cluster, namespace)
    cluster.apply(kueue_object("LocalQueue", namespace, "gpus", spec={"clusterQueue": "all"}))
    assert "1 created" in call("submit", "real.yaml", *queued)
    [job] = jobs(cluster, namespace)
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    patch = json.dumps({"spec": {"suspend": True}})
    cluster.kubectl("patch", "job", name, f"--namespace={namespace}", f"--patch={patch}")
    for message, words in (
        ("LocalQueue gpus doesn't exist", "doomed"),
        ("couldn't assign flavors to pod set main: insufficient unused quota for cpu, 1 more needed", "slow"),
        ("couldn't assign flavors to pod set main: resource cpu unavailable in ClusterQueue", "doomed"),
    ):
        reserved = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
        labels = {"labels": {f"{KUEUE}/job-uid": uid}}
        cluster.apply(
            kueue_object("Workload", namespace, "w", metadata=labels, status={"conditions": [reserved]})
        )
        assert why(name)[0] == words
        assert message in read_out("why", name)
