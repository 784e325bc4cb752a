"""`make submit-all` on the real cluster: a sweep in pods of our image ends as the same sweep run here."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster
from defectbench.records.result import find_verified_result
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.sweeps.config import read_sweep
from defectbench.sweeps.plan import make_plan
from parts import BUCKET, MlflowServer, S3Server
from shell import VERSION, Shell, checkout, runs

SWEEP = """\
name: whole
data: {dataset: whole}
models: [filterbank-logreg, filterbank-knn]
weights: none
seeds: [0]
image_size: 96
threads: 1
protocols: {detection: {folds: 3}}
resources: {gpu: 1, cpu: 0.2, memory: 1Gi}
"""
CELLS, JOBS = 8, 4
"""Of each of two categories three fits of the classifier and one of the detector; a Job for each model."""

COSTS = ("costs.csv", "tradeoffs.csv", "cells.csv")
"""Tables of seconds and bytes, which no two runs have alike."""

SCRIPT = """
defectbench data synth pictures --category grass --category brick --size 96 \
    --train-good 20 --test-good 9 --defects 3
for store in local {store}; do defectbench data import pictures --name whole --store $store; done
for shell in one two; do make submit-all {where} > $shell 2>&1 & shells="${{shells-}} $!"; done
for shell in $shells; do wait $shell; done
defectbench run jobs/whole.yaml --store local --workers 1 --no-track &
defectbench watch whole --store {store} --namespace {namespace}
wait $!
defectbench report whole --store local --out report-local
defectbench report whole --store {store} --out report-pods
"""


@dataclass(frozen=True)
class Submitted:
    """What the script left."""

    folder: Path
    namespace: str
    store: Store
    cells: list[str]
    runs: list[dict[str, Any]]

    def tables(self, report: str) -> dict[str, list[dict[str, str]]]:
        """The tables of a report, less the costs."""
        files = (self.folder / report / "tables").glob("*.csv")
        return {
            file.name: list(csv.DictReader(file.read_text().splitlines()))
            for file in files
            if file.name not in COSTS
        }


@pytest.fixture
def submitted(
    node: Cluster,
    namespace: str,
    pods_s3: S3Server,
    pods_mlflow: MlflowServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Submitted:
    """The sweep, submitted by two shells at the same moment, watched to its end, and run here as well."""
    for name, value in pods_s3.environment.items():
        monkeypatch.setenv(name, value)
    folder = prepared(tmp_path, node, namespace, pods_s3, pods_mlflow)
    store = f"s3://{BUCKET}/whole"
    where = f"NAMESPACE={namespace} STORE={store} VALUES=values.json"
    shell = Shell(folder, namespace, pods_s3.environment)
    print(shell.run(SCRIPT.format(store=store, where=where, namespace=namespace)))
    print((folder / "one").read_text(), (folder / "two").read_text())
    kept = open_store(store)
    cells = list(make_plan(read_sweep(folder / "jobs" / "whole.yaml"), kept).cells)
    return Submitted(folder, namespace, kept, cells, runs(pods_mlflow.uri, "whole"))


def prepared(folder: Path, cluster: Cluster, namespace: str, s3: S3Server, mlflow: MlflowServer) -> Path:
    """A checkout with one sweep in jobs/, values, the submitter's kubeconfig; and the Secret made."""
    checkout(folder)
    (folder / "jobs").unlink()
    (folder / "jobs").mkdir()
    (folder / "jobs" / "whole.yaml").write_text(SWEEP)
    (folder / "kubeconfig").write_text(cluster.submitter.read_text())
    values = {
        "image": {"tag": f"{VERSION}-slim"},
        "store": {"endpoint": s3.endpoint},
        "tracker": {"uri": mlflow.uri},
    }
    (folder / "values.json").write_text(json.dumps(values))
    cluster.apply(s3.secret(namespace))
    return folder


def test_submit_all_ends_as_a_local_run(node: Cluster, submitted: Submitted) -> None:
    assert_each_job_and_cell_once(node, submitted)
    assert_in_mlflow(submitted)
    pods, here = submitted.tables("report-pods"), submitted.tables("report-local")
    assert len(pods["models.csv"]) == 2
    assert len(pods["scores.csv"]) == JOBS
    assert pods == here


def assert_each_job_and_cell_once(cluster: Cluster, submitted: Submitted) -> None:
    """One Job of one pod for each model and category, on a GPU; one attempt at each cell."""
    jobs = cluster.get("jobs", f"--namespace={submitted.namespace}")["items"]
    assert [job["status"].get("succeeded") for job in jobs] == [1] * JOBS
    pods = cluster.get("pods", f"--namespace={submitted.namespace}")["items"]
    assert len(pods) == JOBS
    for pod in pods:
        assert pod["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert len(submitted.cells) == CELLS
    for cell in submitted.cells:
        result = find_verified_result(submitted.store, cell)
        assert result is not None
        assert {file.partition("/")[0] for file in result.files} == {"1"}


def assert_in_mlflow(submitted: Submitted) -> None:
    """Every cell has a finished run, and the parents their tables' figures."""
    assert {run["status"] for run in submitted.runs} == {"FINISHED"}
    cells = [run for run in submitted.runs if run["tags"]["level"] == "cell"]
    assert sorted(run["tags"]["cell"] for run in cells) == sorted(submitted.cells)
    parents = [run for run in submitted.runs if run["tags"]["level"] == "parent"]
    assert len(parents) == JOBS
    assert {"image_auroc", "f1"} <= set.intersection(*(set(run["metrics"]) for run in parents))
