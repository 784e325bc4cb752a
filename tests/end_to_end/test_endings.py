"""Pods that end before their work does, by codes, deletion, eviction, signals; and what comes after."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from attempts import arrays, assert_same, document, finish, prepared, put_pictures, steps
from chart_cases import job as entry
from chart_cases import values
from cluster import BUSYBOX, Cluster, fresh_namespace
from defectbench.catalog import registry
from defectbench.errors import PERMANENT
from defectbench.runners.chart import chart
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps.config import Resources, parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.plan import make_plan
from parts import BUCKET, ROOT, S3Server, find_helm
from resumable_classifier import NAME, planted
from shell import VERSION, environment
from waiting import wait_until

Manifest = dict[str, Any]

STEPPER = ROOT / "tests" / "resumable_classifier.py"
STEP, INTERVAL = 0.4, 2.0
"""Seconds of a step of the stepper's 40, and between two checkpoints."""

EARLY = 7
"""Steps after which a fit is disturbed: it has a checkpoint, and its end is some way off."""

SITE = """\
from defectbench.catalog import registry
from defectbench.execution import lease
from resumable_classifier import planted

registry.by_name().update(planted())
lease.Lease.beating.__defaults__ = (3.0,)
lease.take_lease.__kwdefaults__["patience"] = 12.0
"""
"""Makes a pod's Python know the stepper, and give a silent lease up after 12 s instead of 90."""

SWEEP = document(
    NAME,
    seeds=[0, 1],
    cellsPerJob=1,
    resources={"cpu": 0.1, "memory": "1Gi"},
)
"""Six cells, six Jobs."""


@pytest.fixture(scope="module")
def space(node: Cluster, pods_s3: S3Server) -> Iterator[str]:
    """The namespace of this module's pods, with the S3 server's Secret."""
    for name in fresh_namespace(node):
        node.apply(pods_s3.secret(name))
        yield name


def delete(cluster: Cluster, namespace: str, pod: Manifest) -> None:
    name = pod["metadata"]["name"]
    cluster.kubectl("delete", "pod", name, f"--namespace={namespace}", "--wait=false")


def drain(cluster: Cluster, namespace: str, pod: Manifest) -> None:
    """As a node's upgrade does, but for one Job's pods: evict, no new ones; later, new ones again."""
    chosen = f"--pod-selector=job-name={pod['metadata']['labels']['job-name']}"
    cluster.kubectl("drain", cluster.node, chosen, "--delete-emptydir-data", "--timeout=60s")
    cluster.kubectl("uncordon", cluster.node)


def kill(cluster: Cluster, namespace: str, pod: Manifest) -> None:
    cluster.signal(pod, signal.SIGKILL)


def tell(cluster: Cluster, namespace: str, pod: Manifest) -> None:
    cluster.signal(pod, signal.SIGTERM)


def restart_kubelet(cluster: Cluster, namespace: str, pod: Manifest) -> None:
    cluster.restart_kubelet()


def suspend(cluster: Cluster, namespace: str, pod: Manifest) -> None:
    """As Kueue does, and lets it go on when its pods are gone."""
    job = pod["metadata"]["labels"]["job-name"]

    def put(wish: bool) -> None:
        patch = json.dumps({"spec": {"suspend": wish}})
        cluster.kubectl("patch", "job", job, f"--namespace={namespace}", f"--patch={patch}")

    put(True)
    wait_until(lambda: not cluster.pods(namespace, job), 0.5)
    put(False)


DISTURBANCES: tuple[Callable[[Cluster, str, Manifest], None], ...] = (
    kill,
    restart_kubelet,
    delete,
    tell,
    suspend,
    drain,
)
TOLD = (delete, drain, suspend, tell)
"""Those that send SIGTERM."""


@dataclass(frozen=True)
class Disturbed:
    """The stepper's cells, each disturbed in its own way while it learnt; and the same cells undisturbed."""

    cluster: Cluster
    namespace: str
    store: Store
    whole: Store
    cells: dict[str, str]

    def job(self, how: str) -> Manifest:
        chosen = f"--selector=defectbench.dev/cell={self.cells[how]}"
        (found,) = self.cluster.get("jobs", f"--namespace={self.namespace}", chosen)["items"]
        return dict(found)

    def pods(self, how: str) -> list[Manifest]:
        return self.cluster.pods(self.namespace, self.job(how)["metadata"]["name"])

    def log(self, how: str, attempt: int) -> str:
        """What an attempt kept of its log in the store."""
        return self.store.get(f"cells/{self.cells[how]}/{attempt}/log.txt").data.decode()


@pytest.fixture(scope="module")
def disturbed(node: Cluster, space: str, pods_s3: S3Server, tmp_path_factory: Any) -> Iterator[Disturbed]:
    """Submit the sweep and disturb each of its cells once; nobody waits for their ends yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.by_name(), NAME, planted()[NAME])
        for name, value in pods_s3.environment.items():
            patch.setenv(name, value)
        folder = tmp_path_factory.mktemp("disturbed")
        store, whole = open_store(f"s3://{BUCKET}/disturbed"), DirectoryStore(folder / "whole")
        put_pictures(store)
        plan = make_plan(parse_sweep(SWEEP, SourceLines("small.yaml", {})), store)
        cells = dict(zip((each.__name__ for each in DISTURBANCES), plan.cells, strict=True))
        found = Disturbed(node, space, store, whole, cells)
        submit(folder, found, pods_s3)
        with ThreadPoolExecutor(len(DISTURBANCES)) as pool:
            list(pool.map(partial(disturb, found), DISTURBANCES))
        for key in prepared(whole, NAME, seeds=[0, 1]):
            finish(whole, key, folder / "cache")
        yield found


def submit(folder: Path, disturbed: Disturbed, s3: S3Server) -> None:
    """`defectbench submit`, which knows the stepper, with pods that know it too."""
    files = {"resumable_classifier.py": STEPPER.read_text(), "sitecustomize.py": SITE}
    metadata = {"name": "stepper", "namespace": disturbed.namespace}
    disturbed.cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files})
    given = {
        "image": {"tag": f"{VERSION}-slim"},
        "store": {"endpoint": s3.endpoint},
        "checkpointSeconds": INTERVAL,
        "extraEnv": [
            {"name": "PYTHONPATH", "value": "/stepper"},
            {"name": "STEP_SECONDS", "value": str(STEP)},
        ],
        "extraVolumes": [{"name": "stepper", "configMap": {"name": "stepper"}}],
        "extraVolumeMounts": [{"name": "stepper", "mountPath": "/stepper"}],
    }
    (folder / "values.yaml").write_text(yaml.safe_dump(given))
    (folder / "small.yaml").write_text(yaml.safe_dump(SWEEP))
    words = ["--store", disturbed.store.url, "-f", "values.yaml", "--namespace", disturbed.namespace]
    done = subprocess.run(
        [sys.executable, str(STEPPER), "submit", "small.yaml", *words],
        env={**environment(disturbed.cluster.submitter), **s3.environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def disturb(disturbed: Disturbed, act: Callable[[Cluster, str, Manifest], None]) -> None:
    """Do it to the cell's pod in the middle of its fit."""
    how = act.__name__
    wait_until(lambda: steps(disturbed.store, disturbed.cells[how]) >= EARLY, 0.5)
    (pod,) = disturbed.pods(how)
    act(disturbed.cluster, disturbed.namespace, pod)


@pytest.fixture(scope="module")
def exits(node: Cluster, space: str) -> dict[int, str]:
    """Jobs of the chart whose containers end with a code, all at once; code -> name."""
    once = {code: entry(cells=1, resources=TINY, first=code) for code in (*PERMANENT, *COUNTED)}
    never = {143: entry(cells=1, resources=TINY, first=143)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEFECTBENCH_HELM", find_helm())
        for entries, limit in ((once, 1), (never, 0)):
            given = {"backoffLimit": limit, "ephemeralStorage": {"request": "1Mi"}}
            made = chart.render(values(list(entries.values()), given), space)
            node.apply(*map(exiting, entries, made))
    return {code: each.name for code, each in (once | never).items()}


TINY = Resources(cpu=0.01, memory="32Mi", shm="1Mi")
COUNTED = (1, 75, 137, 139)
"""Codes of what may go well the next time: a tool's failure, ours to try again, SIGKILL, a crash."""


def exiting(code: int, manifest: Manifest) -> Manifest:
    """The Job with a shell in place of the worker."""
    (worker,) = manifest["spec"]["template"]["spec"]["containers"]
    worker |= {"image": BUSYBOX, "command": ["sh", "-c", f"exit {code}"]}
    return manifest


def ending(cluster: Cluster, namespace: str, job: str) -> tuple[str, str]:
    """How the Job ended, once it has: the condition and its reason."""
    found: list[tuple[str, str]] = []

    def ended() -> bool:
        status = cluster.get("job", job, f"--namespace={namespace}")["status"]
        conditions = [each for each in status.get("conditions", ()) if each["status"] == "True"]
        found[:] = [(c["type"], c["reason"]) for c in conditions if c["type"] in ("Failed", "Complete")]
        return bool(found)

    wait_until(ended, 0.5)
    return found[0]


# The disturbed cells first: while a killed one's lease is waited for, the Jobs of the exit codes run.
@pytest.mark.usefixtures("disturbed")
@pytest.mark.parametrize("code", sorted(PERMANENT))
def test_a_code_that_no_retry_mends_fails_the_job_at_once(
    node: Cluster, space: str, exits: dict[int, str], code: int
) -> None:
    assert ending(node, space, exits[code]) == ("Failed", "PodFailurePolicy")
    assert exit_codes(node.pods(space, exits[code])) == [code]


@pytest.mark.parametrize("code", COUNTED)
def test_a_code_that_may_pass_is_tried_again_until_the_limit(
    node: Cluster, space: str, exits: dict[int, str], code: int
) -> None:
    assert ending(node, space, exits[code]) == ("Failed", "BackoffLimitExceeded")
    assert exit_codes(node.pods(space, exits[code])) == [code, code]


def test_a_stop_is_neither_a_failure_nor_a_success(node: Cluster, space: str, exits: dict[int, str]) -> None:
    wait_until(lambda: len(exit_codes(node.pods(space, exits[143]))) >= 2, 0.5)
    status = node.get("job", exits[143], f"--namespace={space}")["status"]
    assert not {"failed", "succeeded", "conditions"} & set(status)


def exit_codes(pods: list[Manifest]) -> list[int]:
    """The codes of the pods that have ended."""
    states = [pod["status"].get("containerStatuses", [{"state": {}}])[0]["state"] for pod in pods]
    return [state["terminated"]["exitCode"] for state in states if "terminated" in state]


@pytest.mark.parametrize("how", [each.__name__ for each in DISTURBANCES])
def test_a_disturbed_cell_ends_as_if_undisturbed(disturbed: Disturbed, how: str) -> None:
    job = disturbed.job(how)["metadata"]["name"]
    assert ending(disturbed.cluster, disturbed.namespace, job)[0] == "Complete"
    # The image's Python brings a zlib of its own.
    assert_same(disturbed.store, disturbed.whole, disturbed.cells[how], arrays)
    assert [code for code in exit_codes(disturbed.pods(how)) if code not in (0, 137, 143)] == []
    status = disturbed.job(how)["status"]
    assert (status["succeeded"], status.get("failed", 0)) == (1, int(how == "kill"))


@pytest.mark.parametrize("how", [each.__name__ for each in TOLD])
def test_a_pod_that_is_told_to_go_loses_nothing(disturbed: Disturbed, how: str) -> None:
    wait_until(lambda: "goes on from" in disturbed.log(how, 2), 0.5)
    assert resumed(disturbed.log(how, 2)) == last_step(disturbed.log(how, 1)) >= EARLY


def test_a_killed_pod_loses_one_interval_at_most(disturbed: Disturbed) -> None:
    killed, _ = sorted(disturbed.pods("kill"), key=lambda pod: pod["metadata"]["creationTimestamp"])
    assert exit_codes([killed]) == [137]
    name = killed["metadata"]["name"]
    said = disturbed.cluster.kubectl("logs", name, f"--namespace={disturbed.namespace}")
    went_on = resumed(disturbed.log("kill", 2))
    assert went_on >= EARLY
    assert (last_step(said) - went_on - 1) * STEP <= INTERVAL


def test_a_pod_that_saved_is_not_taken_for_one_that_finished(disturbed: Disturbed) -> None:
    pods = sorted(disturbed.pods("tell"), key=lambda pod: pod["metadata"]["creationTimestamp"])
    assert [pod["status"]["phase"] for pod in pods] == ["Failed", "Succeeded"]
    assert exit_codes(pods) == [143, 0]


def test_a_restarted_kubelet_leaves_its_pods_alone(disturbed: Disturbed) -> None:
    assert len(disturbed.pods("restart_kubelet")) == 1
    assert "goes on from" not in disturbed.log("restart_kubelet", 1)


def last_step(log: str) -> int:
    return int(re.findall(r"step ([0-9]+)$", log, re.MULTILINE)[-1])


def resumed(log: str) -> int:
    """The step from which an attempt went on."""
    found = re.search(r"the fit goes on from .* step ([0-9]+)", log)
    assert found, log
    return int(found[1])
