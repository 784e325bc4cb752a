"""What pods reach on this machine: an S3 server and MLflow; and the image that they run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import Cluster
from parts import MlflowServer, S3Server, find_gateway
from shell import SLIM


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Cluster:
    """The cluster, whose node has our slim image; without a node or the image, skip."""
    if not cluster.kubelet:
        pytest.skip("the test cluster has no node, so no images; run: make cluster, as root on Linux")
    if SLIM not in cluster.tool("ctr", "images", "ls", "-q").split():
        pytest.skip("the test cluster's node has no image of ours; run: make image-slim")
    return cluster


@pytest.fixture(scope="module")
def pods_s3(node: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server that pods reach, too."""
    server = S3Server(find_gateway(), tmp_path_factory.mktemp("s3"), node.host)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pods_mlflow(
    node: Cluster, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    """An MLflow server that pods reach, too."""
    directory = tmp_path_factory.mktemp("mlflow")
    shutil.copy(empty_database, directory / "mlflow.db")
    server = MlflowServer(directory, node.host)
    server.start()
    yield server
    server.kill()
