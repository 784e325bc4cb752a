"""docs/kubernetes.md, walked on the real kubelet: the shell blocks of its steps 2 to 7, as they stand.

What the test cluster lacks is replaced, nothing else: Service addresses by pods' own, volumes by emptyDirs,
images by those of ``make image-slim``; and the namespace is a fresh one, the local ports are free ones, the
pictures are fewer.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster
from parts import ROOT, free_port
from shell import VERSION, Shell, checkout, runs

S3_IMAGE = "defectbench.test/versitygw"
STEPS = range(2, 7)


def blocks(step: int) -> list[str]:
    """The shell blocks of a step of the docs' first walk."""
    text = (ROOT / "docs" / "kubernetes.md").read_text()
    found = re.search(rf"^### {step}\. .*?$(.*?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/kubernetes.md has no step {step}"
    return re.findall(r"^```\n(.*?)^```$", found[1], re.MULTILINE | re.DOTALL)


def in_namespace(text: str, namespace: str) -> str:
    """The same commands for another namespace."""
    return re.sub(r"(-n |--namespace |NAMESPACE=)defectbench\b", rf"\g<1>{namespace}", text)


def at_pods(text: str) -> str:
    """Service names replaced by their pods' addresses: the test cluster resolves no names."""
    return re.sub(r"http://devstack-(s3|mlflow):", r"http://$(address \1):", text)


def at_free_ports(text: str) -> str:
    """The same port-forwards, by ports of this machine that nobody has."""
    for port in ("7070", "5000"):
        mine = str(free_port())
        text = re.sub(rf"(port-forward svc/\S+ ){port}\b", rf"\g<1>{mine}:{port}", text)
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{mine}")
    return text


def with_fewer_pictures(text: str) -> str:
    """The same data set, of one category."""
    few = "--category grass --train-good 20 --test-good 10 --defects 3"
    return re.sub(r"(data synth demo-data --size 160) --defects 12", rf"\g<1> {few}", text)


def walk(namespace: str) -> str:
    """The script of all steps but the first and the last."""
    lines = [at_pods(in_namespace(block, namespace)) for step in STEPS for block in blocks(step)]
    where = next(place for place, block in enumerate(lines) if "cat > devstack-values.yaml" in block)
    lines.insert(where + 1, f"echo 'image: {{tag: {VERSION}-slim}}' >> devstack-values.yaml\n")
    return with_fewer_pictures(at_free_ports("".join(lines)))


def overrides(s3_tag: str, host: str) -> dict[str, Any]:
    """What the dev stack is told beyond the docs."""
    pods = f"{host.rpartition('.')[0]}.*"
    return {
        "image": {"tag": f"{VERSION}-slim"},
        "s3": {"image": {"repository": S3_IMAGE, "tag": s3_tag}, "persistence": {"enabled": False}},
        "mlflow": {"persistence": {"enabled": False}, "allowedHosts": [pods]},
    }


@pytest.fixture(scope="module")
def s3_tag(node: Cluster) -> str:
    """The tag of the S3 server's image; without it, skip."""
    listed = node.tool("ctr", "images", "ls", "-q").split()
    tags = [name.rpartition(":")[2] for name in listed if name.startswith(f"{S3_IMAGE}:")]
    if not tags:
        pytest.skip("the test cluster's node has no S3 server of ours; run: make image-slim")
    return tags[-1]


@dataclass(frozen=True)
class Walked:
    """What the walk left: its folder, its output, and MLflow's address."""

    folder: Path
    output: str
    namespace: str
    mlflow: str


@pytest.fixture
def walked(cluster_with_node: Cluster, s3_tag: str, namespace: str, tmp_path: Path) -> Iterator[Walked]:
    """The walk, gone to its last step but one; the last follows after the test."""
    shell = Shell(checkout(tmp_path), namespace)
    (tmp_path / "overrides.json").write_text(json.dumps(overrides(s3_tag, cluster_with_node.host)))
    (tmp_path / "kubeconfig").write_text(cluster_with_node.admin.read_text())
    output = shell.run(walk(namespace))
    mlflow = address(cluster_with_node, namespace, "mlflow")
    yield Walked(tmp_path, output, namespace, f"http://{mlflow}:5000")
    shell.run(in_namespace(blocks(7)[0].splitlines()[0], namespace))


def address(cluster: Cluster, namespace: str, name: str) -> str:
    pods = cluster.get("pods", f"--namespace={namespace}", f"--selector=app.kubernetes.io/name={name}")
    return str(pods["items"][0]["status"]["podIP"])


def assert_tracked(uri: str) -> None:
    parents = [each for each in runs(uri, "demo") if each["tags"].get("level") == "parent"]
    finished = [each for each in parents if each["metrics"]]
    assert sorted(each["tags"]["seed"] for each in finished) == ["0", "1", "2"]
    for parent in finished:
        assert parent["status"] == "FINISHED"
        assert (parent["tags"]["model"], parent["tags"]["category"]) == ("filterbank-knn", "grass")
        assert 0.5 < parent["metrics"]["image_auroc"] <= 1


def assert_kept_secret(cluster: Cluster, walked: Walked) -> None:
    """The store's key is in no manifest, no output of a command and no run."""
    where = f"--namespace={walked.namespace}"
    secret = cluster.get("secret", "defectbench-s3", where)["data"]["AWS_SECRET_ACCESS_KEY"]
    key = base64.b64decode(secret).decode()
    manifests = cluster.kubectl("get", "deployments,jobs,pods", where, "--output=yaml")
    for text in (manifests, walked.output, json.dumps(runs(walked.mlflow, "demo"))):
        assert key not in text


def test_walk_ends_with_a_finished_job_and_its_runs(cluster_with_node: Cluster, walked: Walked) -> None:
    ours = (f"--namespace={walked.namespace}", "--selector=app.kubernetes.io/name=defectbench")
    jobs = cluster_with_node.get("jobs", *ours)["items"]
    assert [job["status"].get("succeeded") for job in jobs] == [1]
    assert (walked.folder / "report" / "index.html").is_file()
    assert_tracked(walked.mlflow)
    assert_kept_secret(cluster_with_node, walked)
