"""The test cluster itself: what later tests rely on it for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import KUBECTL, Cluster, restricted_job
from parts import ROOT
from waiting import wait_until

GPU = {"resources": {"limits": {"cpu": "100m", "memory": "64Mi", "nvidia.com/gpu": "1"}}}
SHARED_MEMORY = {"volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}]}


class Greeter(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(b"hello from the host\n")


@pytest.fixture
def greeter(cluster_with_node: Cluster) -> Iterator[str]:
    """``ADDRESS PORT`` of a TCP server on this machine, as pods reach it."""
    with socketserver.ThreadingTCPServer((cluster_with_node.host, 0), Greeter) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{cluster_with_node.host} {server.server_address[1]}"
        server.shutdown()


def finished(cluster: Cluster, namespace: str, job: str) -> str:
    """Complete or Failed once a Job is, else nothing."""
    conditions = cluster.get("job", job, f"--namespace={namespace}")["status"].get("conditions", [])
    ends = [c["type"] for c in conditions if c["type"] in ("Complete", "Failed") and c["status"] == "True"]
    return ends[0] if ends else ""


def start(cluster: Cluster, namespace: str, name: str) -> dict[str, Any]:
    """A Job that waits; its pod, once it runs."""
    cluster.apply(restricted_job(name, namespace, "sleep 600", **GPU))

    def runs() -> bool:
        return [pod["status"]["phase"] for pod in cluster.pods(namespace, name)] == ["Running"]

    wait_until(runs, 0.5)
    return cluster.pods(namespace, name)[0]


def test_job_with_gpu_and_shared_memory_reaches_this_machine(
    cluster_with_node: Cluster, namespace: str, greeter: str
) -> None:
    script = (
        f"id -u; head -c 4194304 /dev/zero > /dev/shm/a; grep -c ' /dev/shm tmpfs' /proc/mounts; nc {greeter}"
    )
    job = restricted_job("whole", namespace, script, **GPU, **SHARED_MEMORY)
    cluster_with_node.apply(job, user="submitter")
    wait_until(lambda: bool(finished(cluster_with_node, namespace, "whole")), 0.5)
    logs = cluster_with_node.kubectl("logs", "job/whole", f"--namespace={namespace}", user="submitter")
    assert finished(cluster_with_node, namespace, "whole") == "Complete", logs
    assert logs.splitlines() == ["65532", "1", "hello from the host"]


def test_job_for_more_gpus_than_the_node_has_is_unschedulable(
    cluster_with_node: Cluster, namespace: str
) -> None:
    job = restricted_job("greedy", namespace, "true", resources={"limits": {"nvidia.com/gpu": "3"}})
    cluster_with_node.apply(job)

    def reasons() -> list[str]:
        pods = cluster_with_node.pods(namespace, "greedy")
        return [c.get("message", "") for pod in pods for c in pod["status"].get("conditions", [])]

    wait_until(lambda: any("Insufficient nvidia.com/gpu" in reason for reason in reasons()), 0.5)


def test_killed_process_is_reported_with_its_signal(cluster_with_node: Cluster, namespace: str) -> None:
    pod = start(cluster_with_node, namespace, "victim")
    cluster_with_node.signal(pod, signal.SIGKILL)
    wait_until(lambda: finished(cluster_with_node, namespace, "victim") == "Failed", 0.5)
    state = cluster_with_node.pods(namespace, "victim")[0]["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 137


def test_memory_limit_kills_with_its_reason(cluster_with_node: Cluster, namespace: str) -> None:
    script = "dd if=/dev/zero of=/dev/shm/a bs=1M count=15"
    limits = {"resources": {"limits": {"memory": "8Mi"}}}
    cluster_with_node.apply(restricted_job("hungry", namespace, script, **limits, **SHARED_MEMORY))
    wait_until(lambda: finished(cluster_with_node, namespace, "hungry") == "Failed", 0.5)
    state = cluster_with_node.pods(namespace, "hungry")[0]["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["reason"] == "OOMKilled"


def test_restarted_kubelet_keeps_pods_and_gpus(cluster_with_node: Cluster, namespace: str) -> None:
    before = start(cluster_with_node, namespace, "steady")
    cluster_with_node.restart_kubelet()
    after = cluster_with_node.pods(namespace, "steady")[0]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert (
        after["status"]["containerStatuses"][0]["containerID"]
        == before["status"]["containerStatuses"][0]["containerID"]
    )
    node = cluster_with_node.get("node", cluster_with_node.node)
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "2"


def test_second_start_restarts_what_died_and_nothing_else(cluster: Cluster) -> None:
    pid = int(cluster.admin.with_name("kube-scheduler.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    assert "started kube-scheduler in" in cluster.tool("up")
    assert "all of it runs" in cluster.tool("up")


def test_kubeconfig_of_the_user_is_never_found(cluster: Cluster) -> None:
    command = [str(KUBECTL), "config", "view", "--output=json"]
    view = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (view["clusters"], view["users"]) == (None, None)


def test_pod_outside_restricted_is_refused(cluster: Cluster, namespace: str) -> None:
    pod = restricted_job("root", namespace, "true")["spec"]["template"]
    pod |= {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": namespace}}
    del pod["spec"]["containers"][0]["securityContext"]["runAsNonRoot"]
    refused = cluster.try_kubectl("apply", "--filename=-", text=json.dumps(pod))
    assert refused.returncode == 1
    assert 'violates PodSecurity "restricted' in refused.stderr
    assert "runAsNonRoot" in refused.stderr


ALLOWED = {
    "create jobs.batch",
    "delete jobs.batch",
    "get jobs.batch",
    "list jobs.batch",
    "watch jobs.batch",
    "get pods",
    "list pods",
    "watch pods",
    "get pods/log",
    "list events",
    "watch events",
    "get secrets/defectbench-s3",
    "list nodes",
}
FORBIDDEN = {
    "patch jobs.batch",
    "create pods",
    "delete pods",
    "create pods/exec",
    "get secrets/another",
    "list secrets",
    "create secrets",
    "get configmaps",
    "delete nodes",
    "create serviceaccounts/token",
    "list namespaces",
}


@pytest.mark.parametrize("right", sorted(ALLOWED | FORBIDDEN))
def test_submitter_has_only_the_rights_it_needs(cluster: Cluster, right: str) -> None:
    asked = ("auth", "can-i", *right.split(" "), "--namespace=defectbench", "--quiet")
    assert (cluster.try_kubectl(*asked, user="submitter").returncode == 0) == (right in ALLOWED)


def test_submitter_may_not_read_other_namespaces(cluster: Cluster, namespace: str) -> None:
    cluster.apply(restricted_job("mine", namespace, "true"), user="submitter")
    for other, what in (("kube-system", "secrets"), ("kube-system", "pods"), ("default", "jobs")):
        refused = cluster.try_kubectl("get", what, f"--namespace={other}", user="submitter")
        assert refused.returncode == 1
        assert f'cannot list resource "{what}"' in refused.stderr


def test_bridge_keeps_its_address_as_pods_come_and_go(cluster_with_node: Cluster) -> None:
    set_by_us = "3"  # NET_ADDR_SET of the kernel: not taken from a pod
    (bridge,) = Path("/sys/class/net").glob("defectbench*")
    assert (bridge / "addr_assign_type").read_text().strip() == set_by_us


def test_second_cluster_on_one_machine_is_refused_before_anything_starts(
    cluster_with_node: Cluster, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / ".parts").mkdir()
    (tmp_path / ".parts" / "bin").symlink_to(ROOT / ".parts" / "bin")
    command = [sys.executable, str(tmp_path / "tools" / "cluster"), "up"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "another test cluster's node runs here: process " in done.stderr
    assert [path.name for path in (tmp_path / ".parts").iterdir()] == ["bin"]
    assert cluster_with_node.get("nodes")["items"]
