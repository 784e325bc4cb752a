"""Thousands of Jobs submitted, watched and finished on simulated nodes; against three other ways.

    make cluster parts-bench
    DEFECTBENCH_TEST_KUBECONFIG=.parts/cluster/admin.kubeconfig python benchmarks/submission.py [--jobs 5000]

kwok plays 200 nodes of 8 GPUs each behind a real API server, scheduler and Job controller. Rates are taken in
turns, a block of the bare POST loop (same number of connections, bodies made before) and one of `submit` (all
but Helm's own second), so that a busy moment meets both. Then the whole command, Helm included, runs in a
process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from defectbench.runners.chart import chart
from defectbench.runners.chart.chart import JobEntry
from defectbench.runners.kubernetes.api import Cluster, connect
from defectbench.runners.kubernetes.submit import CONCURRENCY, Submission
from defectbench.sweeps.config import Resources, Sweep, parse_sweep
from defectbench.sweeps.locations import SourceLines

RUN = os.environ.setdefault("DEFECTBENCH_BENCHMARK_RUN", secrets.token_hex(3))
"""Names this run's namespaces: those of the last one may still be on their way out."""

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".parts" / "bin"
LABEL = {"defectbench.dev/benchmark": "kwok"}
SWEEP = {
    "name": "bench",
    "data": {"dataset": "parts"},
    "models": ["filterbank-logreg"],
    "seeds": [0],
    "weights": "none",
    "threads": 1,
    "cellsPerJob": 1,
    "protocols": {"detection": {"folds": 4}},
    "resources": {"gpu": 1, "cpu": 1, "memory": "1Gi"},
}
VALUES = {
    "image": {"repository": "registry.test/defectbench", "tag": "1"},
    "nodeSelector": LABEL,
    "tolerations": [{"key": "kwok", "operator": "Exists"}],
    "store": {"secret": ""},
}


def main() -> None:
    """Measure and print a line of JSON for each figure."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--jobs", type=int, default=5000)
    options.add_argument("--nodes", type=int, default=200)
    options.add_argument("--blocks", type=int, default=4)
    options.add_argument("--block", type=int, default=500)
    options.add_argument("--processes", type=int, default=15, help="of kubectl and helm each")
    options.add_argument("--whole", metavar="FOLDER", help=argparse.SUPPRESS)
    given = options.parse_args()
    if "DEFECTBENCH_TEST_KUBECONFIG" not in os.environ:
        print("no cluster: see the first lines of this script")
        return
    os.environ["KUBECONFIG"] = os.environ["DEFECTBENCH_TEST_KUBECONFIG"]
    os.environ.setdefault("DEFECTBENCH_HELM", str(BIN / "helm"))
    if given.whole:
        whole(Path(given.whole))
        return
    with tempfile.TemporaryDirectory() as folder, simulated(given.nodes, Path(folder)):
        rates(given)
        with namespace(f"bench-{RUN}-whole"):
            command = [sys.executable, __file__, "--whole", folder, "--jobs", str(given.jobs)]
            make_store(Path(folder), given.jobs)
            subprocess.run(command, check=True)


def rates(given: argparse.Namespace) -> None:
    """Compare the ways of making a Job; a namespace for each block, so that none finds another's Jobs."""
    bare, ours = [], []
    for number in range(given.blocks):
        with namespace(f"bench-{RUN}-bare{number}") as place:
            bare.append(given.block / bare_loop(place, given.block))
        with namespace(f"bench-{RUN}-ours{number}") as place:
            rendered = manifests(place, given.block)  # Helm has run; they are read one by one below
            begin = time.perf_counter()
            placed = Submission(connect(namespace=place), set(), window=10**6).run(rendered)
            ours.append(given.block / (time.perf_counter() - begin))
            assert all(each.outcome == "created" for each in placed.values())
    with namespace(f"bench-{RUN}-processes") as place:
        kubectl = given.processes / processes(place, "kubectl", given.processes)
        helm = given.processes / processes(place, "helm", given.processes)
    rate = statistics.median(ours)
    say(
        "jobs a second, median of blocks",
        bare=statistics.median(bare),
        submit=rate,
        kubectl_create=kubectl,
        helm_install=helm,
    )
    say(
        "submit against",
        bare=statistics.median(o / b for o, b in zip(ours, bare, strict=True)),
        kubectl_create=rate / kubectl,
        helm_install=rate / helm,
    )


def bare_loop(place: str, count: int) -> float:
    """Return the seconds that a bare POST loop takes, its bodies made before."""
    cluster = connect(namespace=place)
    bodies = [json.dumps(each).encode() for each in manifests(place, count)]
    url = cluster.host + cluster.path("jobs")
    headers = {"Content-Type": "application/json", **cluster.authorize()}

    def post(body: bytes) -> int:
        return cluster.pool.request("POST", url, body=body, headers=headers).status

    begin = time.perf_counter()
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        statuses = set(pool.map(post, bodies))
    assert statuses == {201}, statuses
    return time.perf_counter() - begin


def processes(place: str, way: str, count: int) -> float:
    """Return the seconds that a process for each Job takes, one after the other."""
    kubeconfig = ["--kubeconfig", os.environ["KUBECONFIG"], "--namespace", place]
    begin = 0.0
    if way == "kubectl":
        bodies = [json.dumps(each) for each in manifests(place, count)]
        begin = time.perf_counter()
        for body in bodies:
            command = [str(BIN / "kubectl"), "create", "--filename=-", *kubeconfig]
            subprocess.run(command, input=body, text=True, check=True, capture_output=True)
        return time.perf_counter() - begin
    chart_folder = str(chart.find_chart())
    values = [json.dumps(values_of(f"helm{number}", 1)) for number in range(count)]
    begin = time.perf_counter()
    for number, text in enumerate(values):
        command = [str(BIN / "helm"), "install", f"r{number}", chart_folder, "--values=-", *kubeconfig]
        subprocess.run(command, input=text, text=True, check=True, capture_output=True)
    return time.perf_counter() - begin


def sweep() -> Sweep:
    return parse_sweep(SWEEP, SourceLines("bench.yaml", {}))


def values_of(name: str, count: int) -> dict[str, Any]:
    resources = Resources.model_validate(SWEEP["resources"])
    entries = [
        # A cell of its own for each: `submit` leaves out what another live Job holds.
        JobEntry(f"{name}-{number}", "filterbank-logreg", "bolt", (key(f"{name}-{number}"),), resources)
        for number in range(count)
    ]
    return dict(chart.values(sweep(), entries, "s3://bench", VALUES))


def key(text: str) -> str:
    """Return what looks like a cell's key."""
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def manifests(place: str, count: int) -> Iterator[dict[str, Any]]:
    return chart.render(values_of(place, count), place)


def make_store(folder: Path, jobs: int) -> None:
    """Write a data set and a sweep of so many cells."""
    sys.path.insert(0, str(ROOT / "tests"))
    from defectbench.stores.directory import DirectoryStore
    from fakes import put_category

    put_category(DirectoryStore(folder / "store"), "parts", "bolt", 10, 8, 8)
    seeds = list(range(-(-jobs // 4)))
    (folder / "bench.yaml").write_text(json.dumps({**SWEEP, "seeds": seeds}))


def whole(folder: Path) -> None:
    """Plan, submit and watch as the commands do, in this process; say how long and how much memory."""
    from defectbench.runners.kubernetes.submission import SubmitRequest, load_sweep, prepare, submit_sweeps
    from defectbench.runners.kubernetes.watch import Follower
    from defectbench.stores.directory import DirectoryStore

    store = DirectoryStore(folder / "store")
    volume = {"volume": {"persistentVolumeClaim": {"claimName": "bench"}}, "secret": ""}
    # A claim that is not there would hold the pods back: simulated nodes mount nothing.
    order = SubmitRequest(store, connect(namespace=f"bench-{RUN}-whole"), {**VALUES, "store": volume})
    make_claim(order.cluster)
    begin = time.perf_counter()
    ready = prepare(order, load_sweep(store, str(folder / "bench.yaml")))
    planned = time.perf_counter()
    placed = submit_sweeps(ready, lambda each: None)
    submitted = time.perf_counter()
    say(
        f"{len(placed)} Jobs by the whole command",
        plan_seconds=planned - begin,
        submit_seconds=submitted - planned,
        jobs_a_second=len(placed) / (submitted - planned),
        peak_mb=peak(),
    )
    follower = Follower(order.cluster, store, ready.plan.record(), list(ready.plan.cells), grace=5.0)
    last = follower.follow(lambda picture: None)
    phases = {each.phase.value for each in last.views}
    say(
        f"{len(last.views)} Jobs watched to their end: {', '.join(sorted(phases))}",
        seconds_since_submission=time.perf_counter() - submitted,
        peak_mb=peak(),
    )


def make_claim(cluster: Cluster) -> None:
    """Bind a claim to a volume, both of names only."""
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "hostPath": {"path": "/nowhere"},
    }
    claim = {"claimRef": {"namespace": f"bench-{RUN}-whole", "name": "bench"}, "storageClassName": "none"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "bench"},
        "spec": spec | claim,
    }
    cluster.call("POST", "/api/v1/persistentvolumes", body=volume, allow=(409,))
    wanted = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "none",
        "volumeName": "bench",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    document = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "bench"},
        "spec": wanted,
    }
    cluster.call("POST", cluster.path("persistentvolumeclaims"), body=document, allow=(409,))


def peak() -> float:
    """Return this process's highest memory in MB."""
    scale = 1e6 if sys.platform == "darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


@contextmanager
def simulated(nodes: int, folder: Path) -> Iterator[None]:
    """Have kwok play nodes, and take them away in the end."""
    cluster = connect()
    for number in range(nodes):
        cluster.call("POST", "/api/v1/nodes", body=node(number), allow=(409,))
    with (folder / "kwok.log").open("wb") as log:
        flags = [f"--config={file}" for file in stages()]
        flags += [f"--kubeconfig={os.environ['KUBECONFIG']}", "--manage-nodes-with-label-selector=type=kwok"]
        process = subprocess.Popen([str(BIN / "kwok"), *flags], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()
            for number in range(nodes):
                cluster.call("DELETE", f"/api/v1/nodes/kwok-{number}", allow=(404,))
            cluster.call("DELETE", "/api/v1/persistentvolumes/bench", allow=(404,))


def stages() -> list[Path]:
    """Return kwok's own descriptions of how pods and nodes behave."""
    listed = ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"]
    home = subprocess.run(listed, cwd=ROOT / "tools" / "kwok", capture_output=True, text=True, check=True)
    stage = Path(home.stdout.strip()) / "kustomize" / "stage"
    folders: Sequence[str] = ("pod/fast", "node/fast", "node/heartbeat-with-lease")
    return [
        file
        for folder in folders
        for file in sorted((stage / folder).glob("*.yaml"))
        if file.name != "kustomization.yaml"
    ]


def node(number: int) -> dict[str, Any]:
    name = f"kwok-{number}"
    amounts = {
        "cpu": "64",
        "memory": "256Gi",
        "pods": "110",
        "ephemeral-storage": "2Ti",
        "nvidia.com/gpu": "8",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"type": "kwok", "kubernetes.io/hostname": name, **LABEL},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "kwok", "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": amounts, "allocatable": amounts},
    }


@contextmanager
def namespace(name: str) -> Iterator[str]:
    """Make a namespace and give its name; delete it with all that is in it."""
    cluster = connect()
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    cluster.call("POST", "/api/v1/namespaces", body=document)
    while (
        cluster.call("GET", f"/api/v1/namespaces/{name}/serviceaccounts/default", allow=(404,)).status == 404
    ):
        time.sleep(0.2)
    try:
        yield name
    finally:
        cluster.call("DELETE", f"/api/v1/namespaces/{name}", allow=(404,))


def say(what: str, **figures: float) -> None:
    print(
        json.dumps({"what": what, **{name: round(value, 2) for name, value in figures.items()}}), flush=True
    )


if __name__ == "__main__":
    main()
