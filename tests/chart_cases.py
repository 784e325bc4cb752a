"""The chart's golden cases. ``python tests/chart_cases.py`` writes tests/runners/chart/golden/ anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from defectbench.runners.chart import chart
from defectbench.runners.chart.values import Values, split_image
from defectbench.sweeps.config import Resources, Sweep, parse_sweep
from defectbench.sweeps.locations import SourceLines

GOLDEN = Path(__file__).parent / "runners" / "chart" / "golden"
URL = "s3://bench/study"
GPU = Resources(gpu=1, cpu=8, memory="32Gi", shm="8Gi", deadline="6h")


def sweep(**keys: Any) -> Sweep:
    document = {
        "name": "study",
        "data": {"dataset": "parts"},
        "models": ["padim", "filterbank-logreg"],
        "seeds": [0],
        "weights": "none",
        "threads": 4,
        "protocols": {"detection": {}},
    }
    return parse_sweep(document | keys, SourceLines("made-up.yaml", {}))


def job(
    cells: int = 2,
    resources: Resources | None = None,
    model: str = "padim",
    category: str = "metal_nut",
    first: int = 0,
) -> chart.JobEntry:
    keys = tuple(f"{number:020x}" for number in range(first, first + cells))
    name = chart.name_of("study", model, category, keys)
    return chart.JobEntry(name, model, category, keys, resources or Resources())


def values(jobs: Sequence[chart.JobEntry], given: Mapping[str, Any] = {}, store: str = URL) -> Values:
    return chart.values(sweep(), jobs, store, given)


EXTRAS: Values = {
    "image": split_image("registry.example:5000/bench/defectbench:1.2@sha256:" + "0123456789abcdef" * 4)
    | {"pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "store": {
        "endpoint": "http://s3.storage.svc:7070",
        "region": "eu-central-1",
        "secret": "credentials",
        "credentialsKey": "aws",
        "patienceSeconds": 90,
    },
    "tracker": {"uri": "http://mlflow.tracking.svc:5000", "secret": "mlflow"},
    "gpuResource": "amd.com/gpu",
    "cpuLimit": True,
    "ephemeralStorage": {"request": "10Gi", "limit": "40Gi"},
    "tmp": {"sizeLimit": "1Gi"},
    "cache": {
        "sizeLimit": "10Gi",
        "volume": {
            "ephemeral": {
                "volumeClaimTemplate": {
                    "spec": {
                        "storageClassName": "local",
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": "10Gi"}},
                    }
                }
            }
        },
    },
    "user": 1000680000,
    "group": 1000680000,
    "serviceAccountName": "worker",
    "jobDeadline": "36h",
    "ttlSecondsAfterFinished": 2000000,
    "backoffLimit": 3,
    "terminationGracePeriodSeconds": 15,
    "checkpointSeconds": 90.5,
    "stuckSeconds": 0,
    "queueName": "gpus",
    "priorityClassName": "low",
    "runtimeClassName": "nvidia",
    "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
                ]
            }
        }
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "defectbench"}},
        }
    ],
    "jobLabels": {"team": "vision"},
    "jobAnnotations": {"note": 'says "padim" and: {{ .Values }}', "cost/centre": "0042"},
    "podLabels": {"network": "storage"},
    "podAnnotations": {"sidecar.istio.io/inject": "false"},
    "extraArgs": ["--device", "cuda"],
    "extraEnv": [
        {"name": "AWS_CA_BUNDLE", "value": "/etc/ca/ca.crt"},
        {"name": "MLFLOW_TRACKING_TOKEN", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "token"}}},
    ],
    "extraEnvFrom": [{"configMapRef": {"name": "proxies"}}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
}
"""Every value that a user may set, other than its default."""

CASES: dict[str, Values] = {
    "no_gpu": values([job()]),
    "gpu": values(
        [job(resources=GPU), job(model="filterbank-logreg", first=2)],
        {
            "store": {"endpoint": "http://s3.storage.svc:7070"},
            "tracker": {"uri": "http://mlflow.tracking:5000"},
        },
    ),
    "kueue": values([job(resources=GPU)], {"queueName": "gpus"}),
    "volume_store": values(
        [job()], {"store": {"volume": {"persistentVolumeClaim": {"claimName": "bench"}}}}, "/mnt/bench"
    ),
    "directory_store": values([job()], {}, "bench"),
    "openshift": values([job()], {"user": None, "group": None, "store": {"secret": ""}}),
    "one_cell": values([job(cells=1)]),
    "many_cells": values([job(cells=40), job(cells=3, category="hazelnut", first=40)]),
    "all_extras": values([job(resources=GPU)], EXTRAS),
}


def render(case: str) -> str:
    """Return a case's manifests as YAML."""
    manifests = list(chart.render(CASES[case], "factory"))
    return yaml.safe_dump_all(manifests, sort_keys=False, width=110)


if __name__ == "__main__":
    for case in CASES:
        (GOLDEN / f"{case}.yaml").write_text(render(case))
