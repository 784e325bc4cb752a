"""The chart's manifests against a real API server, its restricted Pod Security, and a real kubelet."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from chart_cases import CASES, GOLDEN, job, values
from cluster import BUSYBOX, Cluster
from defectbench.runners.chart import chart
from defectbench.sweeps.config import Resources
from parts import find_helm
from waiting import wait_until

Manifest = dict[str, Any]

ELSEWHERE = ("priorityClassName", "runtimeClassName", "serviceAccountName")
"""What a pod may name and this cluster does not have; a Job is taken without them, a pod is not."""


def golden(case: str, namespace: str) -> list[Manifest]:
    manifests = list(yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text()))
    for manifest in manifests:
        manifest["metadata"]["namespace"] = namespace
    return manifests


def create(cluster: Cluster, manifest: Manifest, user: str) -> Manifest:
    """What the API server would keep, with nothing to warn of."""
    words = ("create", "--filename=-", "--dry-run=server", "--validate=strict", "--output=json")
    done = cluster.try_kubectl(*words, user=user, text=json.dumps(manifest))
    assert (done.returncode, done.stderr) == (0, "")
    kept: Manifest = json.loads(done.stdout)
    return kept


def within(part: Any, whole: Any) -> bool:
    """Whether all of ``part`` is in ``whole``, which may hold defaults beside it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and within(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(within, part, whole))
    return bool(part == whole)


@pytest.mark.parametrize("case", CASES)
def test_api_server_takes_every_job_as_it_is(cluster: Cluster, namespace: str, case: str) -> None:
    for manifest in golden(case, namespace):
        kept = create(cluster, manifest, "submitter")
        assert within(manifest["spec"]["podFailurePolicy"], kept["spec"]["podFailurePolicy"])
        assert within(manifest["spec"]["template"], kept["spec"]["template"])
        assert within(manifest["metadata"], kept["metadata"])


@pytest.mark.parametrize("case", CASES)
def test_restricted_pod_security_takes_every_pod(cluster: Cluster, namespace: str, case: str) -> None:
    for manifest in golden(case, namespace):
        template = manifest["spec"]["template"]
        spec = {key: value for key, value in template["spec"].items() if key not in ELSEWHERE}
        metadata = {"name": "one", "namespace": namespace, "labels": template["metadata"]["labels"]}
        create(cluster, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, "admin")


SCRIPT = """\
id -u
for place in /tmp /cache /dev/shm $HOME; do touch $place/file || exit 9; done
touch /file 2>/dev/null && exit 8
test -e /var/run/secrets/kubernetes.io && exit 7
df -m /dev/shm | awk 'END {print $2}'
echo $OMP_NUM_THREADS $TORCH_HOME $AWS_ACCESS_KEY_ID
exit 143
"""


def stand_in(manifest: Manifest) -> Manifest:
    """The Job with a shell in place of the worker."""
    (worker,) = manifest["spec"]["template"]["spec"]["containers"]
    worker |= {"image": BUSYBOX, "command": ["sh", "-c", SCRIPT]}
    return manifest


def test_pod_writes_to_its_volumes_alone_and_143_is_no_failure(
    cluster_with_node: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFECTBENCH_HELM", find_helm())
    secret = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "a-secret-of-tests"}
    cluster_with_node.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "defectbench-s3", "namespace": namespace},
            "stringData": secret,
        }
    )
    entry = job(cells=1, resources=Resources(cpu=0.1, memory="64Mi", shm="16Mi"))
    given = {"backoffLimit": 0, "ephemeralStorage": {"request": "1Mi"}}
    (manifest,) = chart.render(values([entry], given), namespace)
    cluster_with_node.apply(stand_in(manifest), user="admin")

    def ended() -> list[Manifest]:
        pods = cluster_with_node.pods(namespace, entry.name)
        return [pod for pod in pods if pod["status"]["phase"] == "Failed"]

    wait_until(lambda: len(ended()) >= 1, 0.5)
    state = ended()[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    name = ended()[0]["metadata"]["name"]
    said = cluster_with_node.kubectl("logs", name, f"--namespace={namespace}").splitlines()
    assert state["exitCode"] == 143, said
    assert said == ["10001", "16", "4 /cache/torch tester"]
    # With a backoffLimit of 0 one counted failure would have failed the Job.
    wait_until(lambda: len(cluster_with_node.pods(namespace, entry.name)) >= 2, 0.5)
    status = cluster_with_node.get("job", entry.name, f"--namespace={namespace}")["status"]
    assert "failed" not in [condition["type"].lower() for condition in status.get("conditions", [])]
