"""Fixtures that many tests share: the stores, a real S3 server, a small disk, a real Kubernetes."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Cluster, find_cluster, fresh_namespace
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from parts import BUCKET, S3Server, find_gateway, mounted


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep what shares the one cluster, or the image store, on one worker: a test may restart a kubelet."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "cluster" in names or item.path.parent.name in ("end_to_end", "docker"):
            item.add_marker(pytest.mark.xdist_group("cluster"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse a pytest under which xdist's groups are lost: their tests would disturb one another."""
    if getattr(session.config.option, "loadgroup", False):
        for item in session.items:
            if item.get_closest_marker("xdist_group") and not item.nodeid.endswith("@cluster"):
                raise pytest.UsageError(f"pytest {pytest.__version__}: xdist does not group {item.nodeid}")


@pytest.fixture(scope="session", autouse=True)
def no_kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody's own cluster is ever found: KUBECONFIG goes before ~/.kube/config, and names no file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(tmp_path_factory.mktemp("nobody") / "no-such-kubeconfig"))
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running S3 server with an empty bucket ``bench``, shared by a process's tests: do not kill it."""
    server = S3Server(find_gateway(), tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def own_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """An S3 server of the test's own, to be killed; the environment points to it."""
    server = S3Server(find_gateway(), tmp_path)
    server.start()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.kill()


@pytest.fixture
def s3_url(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a fresh, empty S3 store; the environment (child processes' too) points to its server."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["directory", pytest.param("s3", marks=pytest.mark.s3)])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh, empty store: the test runs over each kind."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3_url"))
    return str(tmp_path / "store")


@pytest.fixture
def store(store_url: str) -> Store:
    """A fresh, empty store: the test runs over each kind."""
    return open_store(store_url)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with all its tables and nothing in them."""
    pytest.importorskip("mlflow")
    from defectbench.trackers.choose import open_tracker

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    open_tracker(str(path)).delete("0" * 32)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty disk of 1 MiB."""
    with mounted(tmp_path / "disk", "size=1m") as path:
        yield path


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of ``make cluster``, shared: what a test makes there it makes in :func:`namespace`."""
    return find_cluster()


@pytest.fixture
def cluster_with_node(cluster: Cluster) -> Cluster:
    """The cluster, where pods run too."""
    if not cluster.kubelet:
        pytest.skip(
            "the test cluster has no node: containerd and kubelet need Linux and root; run: make cluster"
        )
    return cluster


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace under restricted Pod Security where the submitter has its rights; all in it goes."""
    yield from fresh_namespace(cluster)
