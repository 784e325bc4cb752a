"""The test cluster of ``make cluster``, as tests use it: real kubectl, real kubelet, nothing of a user's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from parts import ROOT
from waiting import wait_until

VARIABLE = "DEFECTBENCH_TEST_KUBECONFIG"
RIGHTS = ROOT / "docs" / "kubernetes-rbac.yaml"
KUBECTL = ROOT / ".parts" / "bin" / "kubectl"
BUSYBOX = "defectbench.test/busybox:1"
"""An image that the node has from the start; it runs as user 65532."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster: ``admin`` and ``submitter`` are kubeconfigs, ``host`` is us as pods see us."""

    admin: Path
    submitter: Path
    kubelet: bool
    node: str
    host: str

    def kubectl(self, *words: str, user: str = "admin", text: str | None = None) -> str:
        """What kubectl prints; a failure fails the test with its message."""
        done = self.try_kubectl(*words, user=user, text=text)
        if done.returncode:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr}")
        return done.stdout.strip()

    def try_kubectl(
        self, *words: str, user: str = "admin", text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """kubectl's exit code and output."""
        config = {"admin": self.admin, "submitter": self.submitter}[user]
        cache = self.admin.with_name("kubectl-cache")
        command = [str(KUBECTL), f"--kubeconfig={config}", f"--cache-dir={cache}", *words]
        return subprocess.run(command, input=text, capture_output=True, text=True)

    def get(self, *words: str) -> Any:
        """An object or a list, as the API gives it."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def apply(self, *objects: dict[str, Any], user: str = "admin") -> None:
        """Create or change objects."""
        many = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "--filename=-", user=user, text=json.dumps(many))

    def pods(self, namespace: str, job: str) -> list[dict[str, Any]]:
        """The pods of a Job."""
        pods: list[dict[str, Any]] = self.get(
            "pods", f"--namespace={namespace}", f"--selector=job-name={job}"
        )["items"]
        return pods

    def restart_kubelet(self) -> None:
        """Kill the kubelet; return when the next one has the node ready."""
        self.tool("restart-kubelet")

    def import_image(self, archive: Path) -> None:
        """Bring a Docker or OCI archive's images onto the node."""
        self.tool("import", str(archive))

    def tool(self, *words: str) -> str:
        """What ``tools/cluster`` prints."""
        command = [sys.executable, str(ROOT / "tools" / "cluster"), *words]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise AssertionError(f"tools/cluster {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def signal(self, pod: dict[str, Any], sign: signal.Signals) -> None:
        """Send a signal to every process of a pod's first container."""
        identity = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
        for pid in container_processes(identity):
            os.kill(pid, sign)


def container_processes(identity: str) -> list[int]:
    """A container's processes, as this machine numbers them: those whose cgroup is named after it."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            inside = identity in file.read_text()
        except OSError:
            continue
        if inside:
            found.append(int(file.parent.name))
    return found


def find_cluster() -> Cluster:
    """Return the cluster that the environment names; without one, skip the test."""
    named = os.environ.get(VARIABLE)
    if not named:
        pytest.skip("no test cluster; run: make cluster")
    admin = Path(named)
    facts = admin.with_name("cluster.json")
    if not facts.is_file():
        pytest.skip(f"{VARIABLE} is not a kubeconfig of make cluster: {admin}")
    return Cluster(admin, admin.with_name("submitter.kubeconfig"), **json.loads(facts.read_text()))


def namespace_objects(name: str) -> list[dict[str, Any]]:
    """A namespace in which the submitter has the rights of the docs' own file."""
    documents = list(yaml.safe_load_all(RIGHTS.read_text()))
    made = [d for d in documents if d["kind"] in ("Namespace", "Role", "RoleBinding")]
    for document in made:
        where = "name" if document["kind"] == "Namespace" else "namespace"
        document["metadata"][where] = name
    return made


def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace with the submitter's rights; all in it goes when the generator is resumed."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    cluster.apply(*namespace_objects(name))
    account = ("get", "serviceaccount", "default", f"--namespace={name}")
    wait_until(lambda: cluster.try_kubectl(*account).returncode == 0, 0.5)
    yield name
    # Pods first and at once: their GPUs are the next test's.
    cluster.kubectl("delete", "jobs,pods", "--all", f"--namespace={name}", "--grace-period=1")
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def restricted_job(name: str, namespace: str, script: str, **container: Any) -> dict[str, Any]:
    """A Job of a busybox pod, allowed under restricted Pod Security; ``container`` adds to its container."""
    security = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    main = {"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], "securityContext": security}
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [main | container],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
