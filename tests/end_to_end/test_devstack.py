"""The dev stack's chart: what it renders, what it refuses, and what a cluster would make of it."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import Cluster
from parts import ROOT

CHART = ROOT / "charts" / "devstack"
GOLDEN = Path(__file__).parent / "golden"
CASES = {
    "devstack-own-secret": ["s3.existingSecret=vision-s3"],
    "devstack-without-volumes": [
        "s3.existingSecret=vision-s3",
        "s3.persistence.enabled=false",
        "mlflow.persistence.enabled=false",
        "mlflow.allowedHosts={mlflow.example.com}",
        "image.repository=registry.example.com/vision/defectbench",
        "image.tag=1.2.3",
        "imagePullSecrets[0].name=registry",
        "nodeSelector.disk=large",
    ],
}
"""Golden file -> the values that are not default. Anew: run the command that a failing test names."""


def find_helm() -> str:
    """Return helm's path; without it, skip the test."""
    built = ROOT / ".parts" / "bin" / "helm"
    found = str(built) if built.is_file() else shutil.which("helm")
    if found is None:
        pytest.skip("no helm here; run: make parts")
    return found


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run helm without any cluster."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    return subprocess.run([find_helm(), *words], capture_output=True, text=True, env=environment, cwd=ROOT)


def template(*settings: str) -> str:
    words = [word for each in settings for word in ("--set", each)]
    done = helm("template", "devstack", "charts/devstack", "--namespace", "bench", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(*settings: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(kind, name) -> object."""
    objects = [each for each in yaml.safe_load_all(template(*settings)) if each]
    return {(each["kind"], each["metadata"]["name"]): each for each in objects}


def pods(*settings: str) -> list[dict[str, Any]]:
    return [
        each["spec"]["template"] for (kind, _), each in rendered(*settings).items() if kind == "Deployment"
    ]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]


@pytest.mark.parametrize("case", CASES)
def test_chart_renders_as_golden(case: str) -> None:
    words = " ".join(f"--set '{each}'" for each in CASES[case])
    again = f"helm template devstack charts/devstack -n bench {words} > tests/end_to_end/golden/{case}.yaml"
    assert template(*CASES[case]) == (GOLDEN / f"{case}.yaml").read_text(), again


def test_chart_is_clean_to_lint() -> None:
    done = helm("lint", "--strict", "charts/devstack")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("case", CASES)
def test_binding_renders_the_same(case: str) -> None:
    binding = pytest.importorskip("helm_python", reason="the extra helm is not installed; run: make sync")
    values = binding.parse_set_string(",".join(CASES[case]))
    with binding.Chart.load(CHART) as chart:
        files = chart.render(values=values, name="devstack", namespace="bench")
    texts = [text for name, text in files.items() if name.endswith(".yaml")]
    found = [each for text in texts for each in yaml.safe_load_all(text) if each]
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert by_name == rendered(*CASES[case])


def test_secret_is_random_and_whole() -> None:
    first, second = (rendered()["Secret", "defectbench-s3"]["data"] for _ in range(2))
    assert set(first) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert len(base64.b64decode(first["AWS_SECRET_ACCESS_KEY"])) == 40
    assert first["AWS_SECRET_ACCESS_KEY"] != second["AWS_SECRET_ACCESS_KEY"]


def test_no_value_can_hold_a_credential() -> None:
    text = (CHART / "values.yaml").read_text() + (CHART / "values.schema.json").read_text()
    for word in ("password", "accessKey", "secretKey", "token"):
        assert word not in text


def test_own_secret_replaces_the_made_one() -> None:
    assert not [name for kind, name in rendered("s3.existingSecret=vision-s3") if kind == "Secret"]


def test_pods_keep_to_the_restricted_level() -> None:
    for pod in pods():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_containers_have_requests_limits_and_probes() -> None:
    for pod in pods():
        assert all(set(each["resources"]) == {"requests", "limits"} for each in containers(pod))
        assert all({"readinessProbe", "livenessProbe"} <= set(each) for each in pod["spec"]["containers"])


def test_deployments_never_run_twice_over_one_volume() -> None:
    for (kind, _), each in rendered().items():
        if kind == "Deployment":
            assert each["spec"]["replicas"] == 1
            assert each["spec"]["strategy"] == {"type": "Recreate"}


def test_volumes_outlive_the_release() -> None:
    claims = [each for (kind, _), each in rendered().items() if kind == "PersistentVolumeClaim"]
    assert len(claims) == 2
    assert all(each["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for each in claims)


def test_mlflow_answers_to_its_service_names() -> None:
    (server,) = rendered()["Deployment", "devstack-mlflow"]["spec"]["template"]["spec"]["containers"]
    (hosts,) = (each for each in server["command"] if each.startswith("--allowed-hosts="))
    names = hosts.removeprefix("--allowed-hosts=").split(",")
    assert {"devstack-mlflow", "devstack-mlflow:*", "devstack-mlflow.bench.svc:*", "localhost:*"} <= set(
        names
    )
    assert "*" not in names


def test_mlflow_serves_its_page_at_further_names() -> None:
    """A browser names the page's address with what the page asks for, and MLflow looks at that, too."""
    made = rendered("mlflow.allowedHosts={mlflow.example.com}")["Deployment", "devstack-mlflow"]
    (server,) = made["spec"]["template"]["spec"]["containers"]
    (origins,) = (each for each in server["command"] if each.startswith("--cors-allowed-origins="))
    assert {"https://mlflow.example.com", "http://mlflow.example.com:*"} <= set(
        origins.partition("=")[2].split(",")
    )


def test_parts_can_be_left_out() -> None:
    names = {name for _, name in rendered("mlflow.enabled=false")}
    assert names == {"devstack-s3", "defectbench-s3"}
    assert {name for _, name in rendered("s3.enabled=false")} == {"devstack-mlflow"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("s3.bukket=x", "bukket"),
        ("s3.bucket=No_Bucket", "/s3/bucket"),
        ("mlflow.port=80", "/mlflow/port"),
        ("user=0", "/user"),
        ("s3.persistence.size=much", "/s3/persistence/size"),
    ],
)
def test_wrong_value_is_refused_by_name(setting: str, said: str) -> None:
    done = helm("template", "devstack", "charts/devstack", "--set", setting)
    assert done.returncode != 0
    assert said in done.stderr


def test_versions_are_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project


@pytest.mark.parametrize("settings", [[], CASES["devstack-without-volumes"]], ids=["default", "set"])
def test_api_server_takes_every_object(cluster: Cluster, namespace: str, settings: list[str]) -> None:
    """Kubernetes' own schema, strictly, under the restricted level."""
    objects = list(rendered(*settings).values())
    many = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    where = ("--dry-run=server", "--validate=strict", f"--namespace={namespace}", "--filename=-")
    done = cluster.try_kubectl("create", *where, text=many)
    assert done.returncode == 0, done.stderr
    assert "would violate PodSecurity" not in done.stderr
    assert done.stdout.count("created (server dry run)") == len(objects)


def installed(cluster: Cluster, namespace: str, action: str, *settings: str) -> None:
    """Run a helm action on the release ``devstack`` of a namespace; nobody waits for its pods."""
    words = [word for each in settings for word in ("--set", each)]
    chart = [] if action == "uninstall" else ["charts/devstack"]
    where = ["--namespace", namespace, "--kubeconfig", str(cluster.admin)]
    done = helm(action, "devstack", *chart, *where, *words)
    assert done.returncode == 0, done.stderr


def made_secret(cluster: Cluster, namespace: str) -> dict[str, str]:
    data: dict[str, str] = cluster.get("secret", "defectbench-s3", f"--namespace={namespace}")["data"]
    return data


def test_upgrade_keeps_the_made_secret(cluster: Cluster, namespace: str) -> None:
    installed(cluster, namespace, "install", "s3.persistence.enabled=false", "mlflow.enabled=false")
    before = made_secret(cluster, namespace)
    installed(
        cluster, namespace, "upgrade", "s3.persistence.enabled=false", "mlflow.enabled=false", "user=10002"
    )
    assert made_secret(cluster, namespace) == before


def test_uninstalled_release_leaves_its_volumes_to_the_next(cluster: Cluster, namespace: str) -> None:
    installed(cluster, namespace, "install")
    claim = ("persistentvolumeclaim", "devstack-s3", f"--namespace={namespace}")
    before = cluster.get(*claim)["metadata"]["uid"]
    installed(cluster, namespace, "uninstall")
    assert cluster.get(*claim)["metadata"]["uid"] == before
    installed(cluster, namespace, "install")
    assert cluster.get(*claim)["metadata"]["uid"] == before
    installed(cluster, namespace, "uninstall")
