"""The slim image of `make image-slim`, run without any cluster: by buildah, as root on Linux."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts import ROOT

PYTHON = "/opt/defectbench/bin/python"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"docker.io/library/defectbench:{VERSION}-slim"

SWEEP = """\
name: inside
data: {dataset: synth, categories: [grass]}
models: [filterbank-logreg, filterbank-knn]
weights: none
seeds: [0]
image_size: 96
threads: 1
protocols: {detection: {folds: 3}}
"""


def buildah(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["buildah", *words], capture_output=True, text=True)


@pytest.fixture(scope="session")
def image() -> str:
    """The slim image's name; without it, skip."""
    if not shutil.which("buildah") or os.geteuid() != 0:
        pytest.skip("running the image needs buildah and root on Linux; run: make parts")
    if buildah("inspect", "--type", "image", IMAGE).returncode:
        pytest.skip("no slim image here; run: make image-slim")
    return IMAGE


@pytest.fixture(scope="session")
def container(image: str) -> Iterator[str]:
    """A container of the slim image, not running."""
    made = buildah("from", image)
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()
    yield name
    buildah("rm", name)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder that the image's user may write."""
    folder = tmp_path / "work"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def run(container: str, *command: str, volume: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command as the image's own user."""
    mounts = [] if volume is None else ["--volume", f"{volume}:/work"]
    return buildah("run", "--isolation", "chroot", *mounts, container, "--", *command)


def entrypoint(image: str) -> list[str]:
    found: list[str] = json.loads(buildah("inspect", "--type", "image", image).stdout)["OCIv1"]["config"][
        "Entrypoint"
    ]
    return found


def test_image_is_labelled(image: str) -> None:
    labels = json.loads(buildah("inspect", "--type", "image", image).stdout)["OCIv1"]["config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "defectbench"
    assert labels["org.opencontainers.image.version"] == VERSION


def test_image_remembers_no_network(image: str) -> None:
    text = buildah("inspect", "--type", "image", image).stdout
    assert "/run/secrets" not in text
    assert "CERT_FILE" not in text


def test_image_tells_its_version(image: str, container: str) -> None:
    done = run(container, *entrypoint(image), "--version")
    assert done.stdout.split()[-1] == VERSION, done.stderr


def test_image_helps(image: str, container: str) -> None:
    done = run(container, *entrypoint(image), "--help")
    assert done.returncode == 0
    assert "job" in done.stdout


def test_image_user_may_write_in_its_places_alone(container: str) -> None:
    done = run(container, "sh", "-c", "id -u; touch /tmp/a /cache/a && touch /opt/defectbench/a")
    assert done.stdout.strip() == "10001"
    assert "/opt/defectbench/a" in done.stderr
    assert "/cache" not in done.stderr


def test_image_modules_are_compiled(container: str) -> None:
    names = "numpy", "defectbench.execution.run_cell"
    code = f"import importlib as i; print(*(i.import_module(name).__cached__ for name in {names}))"
    files = run(container, PYTHON, "-c", code).stdout.split()
    assert len(files) == 2
    assert run(container, "ls", *files).returncode == 0


def test_image_has_its_libraries_and_no_torch(container: str) -> None:
    assert run(container, PYTHON, "-c", "import boto3, mlflow.server").returncode == 0
    assert "No module named 'torch'" in run(container, PYTHON, "-c", "import torch").stderr


def test_image_runs_cells_of_both_baselines(image: str, container: str, work: Path) -> None:
    (work / "sweep.yaml").write_text(SWEEP)
    door = entrypoint(image)[0]
    script = f"""
        set -e
        cd /work
        {door} data synth pictures --category grass --size 96 --train-good 20 --test-good 9 --defects 3
        {door} data import pictures --name synth --store store
        {door} run sweep.yaml --store store --no-track
        {door} plan sweep.yaml --store store --format json > plan.json
    """
    done = run(container, "sh", "-c", script, volume=work)
    assert done.returncode == 0, done.stderr
    plan = json.loads((work / "plan.json").read_text())
    assert plan["finished"] == plan["fits"] > 1
