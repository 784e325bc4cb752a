"""The packages in examples/, installed into an environment of their own, run there and tested there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

from defectbench.stores.directory import DirectoryStore
from fakes import put_category

ROOT = Path(__file__).resolve().parents[1]
MODEL, PROTOCOL = "defectbench-example-model", "defectbench-example-protocol"
SWEEP = """\
name: examples
data: {dataset: parts}
models:
  - filterbank-logreg
  - {name: thumbnail-knn, thumbnail: 8, image_size: 32}
  - {name: filterbank-knn, image_size: 32}
image_size: 32
weights: none
seeds: [0]
protocols:
  detection: {folds: 3}
  few_goods: {goods: [3, 5, 99]}
"""


@dataclass(frozen=True)
class Environment:
    """A fresh environment with defectbench, its libraries, and the two packages."""

    python: Path
    sources: Path

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(self.python), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=plain_environment())

    def defectbench(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "defectbench", *words)


def plain_environment() -> dict[str, str]:
    left_out = ("PYTHONPATH", "PIP_", "MLFLOW_", "DEFECTBENCH_")
    return {name: value for name, value in os.environ.items() if not name.startswith(left_out)}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The libraries come from this environment by a .pth file; pip builds the packages, offline."""
    pytest.importorskip("setuptools", reason="no setuptools here, which builds the examples")
    folder = tmp_path_factory.mktemp("examples")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    [packages] = (folder / "env" / "lib").glob("python3*/site-packages")
    here = sysconfig.get_paths()["purelib"]
    (packages / "outer.pth").write_text(f"{ROOT / 'src'}\n{here}\n")
    # A build writes beside the sources: those of the repository stay as they are.
    sources = folder / "examples"
    shutil.copytree(ROOT / "examples", sources)
    made = Environment(python, sources)
    # Until Python 3.11 a new environment has a setuptools of its own, too old for these.
    made.run("-m", "pip", "uninstall", "--yes", "--quiet", "setuptools")
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check")
    done = made.run("-m", "pip", "install", *offline, str(sources / MODEL), str(sources / PROTOCOL))
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("store") / "bench"
    put_category(DirectoryStore(path), "parts", "bolt", 8, 6, 6, ("crack", "stain"), True)
    return str(path)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("sweep") / "examples.yaml"
    file.write_text(SWEEP)
    return str(file)


@pytest.fixture(scope="module")
def ran(environment: Environment, store: str, sweep: str) -> str:
    """The sweep, run in the environment; returns the store."""
    done = environment.defectbench("run", sweep, "--store", store, "--no-track", "--cache", f"{store}-cache")
    assert done.returncode == 0, done.stderr
    return store


def test_models_of_another_package_are_marked(environment: Environment) -> None:
    table = environment.defectbench("models", "list").stdout
    assert [line for line in table.splitlines() if "thumbnail-knn" in line and f"{MODEL} 0.1.0" in line]
    entries = json.loads(environment.defectbench("models", "list", "--format", "json").stdout)
    marked = {each["name"]: (each["package"], each["version"]) for each in entries if each["package"]}
    assert marked == {"thumbnail-knn": (MODEL, "0.1.0")}
    shown = json.loads(environment.defectbench("models", "show", "thumbnail-knn", "--format", "json").stdout)
    assert shown["package"] == MODEL
    assert shown["allowed"]["thumbnail"] == "a whole number from 4 to 64"


def test_settings_of_another_package_keep_its_rules(environment: Environment, store: str, sweep: str) -> None:
    words = ("plan", sweep, "--store", store, "--set", "models.1.thumbnail=3")
    refused = environment.defectbench(*words)
    assert refused.returncode == 64
    assert "expected a whole number from 4 to 64 (the catalog's is 16), got 3" in refused.stderr


def test_sweep_of_another_packages_model_and_protocol_runs(
    environment: Environment, ran: str, sweep: str
) -> None:
    planned = environment.defectbench("plan", sweep, "--store", ran, "--format", "json")
    found = json.loads(planned.stdout)
    assert found["finished"] == found["fits"] > 0
    assert any("goods=99 dropped: there are" in note for note in found["notes"])
    specs = [json.loads(path.read_bytes()) for path in Path(ran).glob("cells/*/spec.json")]
    packages = {spec["fit"]["model"]: spec["fit"].get("package") for spec in specs}
    assert packages["thumbnail-knn"] == f"{MODEL}==0.1.0"
    assert packages["filterbank-knn"] is None
    results = [json.loads(path.read_bytes()) for path in Path(ran).glob("cells/*/result.json")]
    versions = [each["versions"].get(MODEL) for each in results if each["model"] == "thumbnail-knn"]
    assert set(versions) == {"0.1.0"}


def test_report_has_the_protocols_table(environment: Environment, ran: str, tmp_path: Path) -> None:
    done = environment.defectbench("report", "examples", "--store", ran, "--out", str(tmp_path / "report"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Both families learn from n good pictures alone" in page
    lines = (tmp_path / "report" / "tables" / "conditions.csv").read_text().splitlines()
    conditions = {tuple(line.split(",")[:5:2]) for line in lines[1:]}
    assert ("few_goods", "thumbnail-knn", "goods=3") in conditions


@pytest.mark.parametrize("package", [MODEL, PROTOCOL])
def test_example_keeps_its_contract(environment: Environment, package: str) -> None:
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "tests")
    done = environment.run(*words, cwd=environment.sources / package)
    assert done.returncode == 0, done.stdout


def without(store: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command where the packages are not installed."""
    command = [sys.executable, "-m", "defectbench", *words, "--store", store]
    return subprocess.run(command, capture_output=True, text=True)


def test_worker_without_the_package_names_it(ran: str, tmp_path: Path) -> None:
    spec = next(path for path in Path(ran).glob("cells/*/spec.json") if b"thumbnail-knn" in path.read_bytes())
    fresh = tmp_path / "fresh"
    copied = fresh / spec.relative_to(ran)
    copied.parent.mkdir(parents=True)
    shutil.copy(spec, copied)
    done = without(str(fresh), "job", "--cell", spec.parent.name, "--cache", str(tmp_path / "cache"))
    assert done.returncode == 69, done.stderr
    failure = json.loads((copied.parent / "failure.json").read_bytes())
    assert (
        f"the model 'thumbnail-knn' needs the package {MODEL}==0.1.0, which does not register it here"
        in str(failure["message"])
    )


def test_report_without_the_packages_is_made_of_what_ran(ran: str, tmp_path: Path) -> None:
    done = without(ran, "report", "examples", "--out", str(tmp_path / "report"))
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"of the package {MODEL}==0.1.0, which is not installed here" in page
    assert "A protocol of a package that is not installed here: few_goods." in page


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("models=[thumbnail-knn]", "unknown model 'thumbnail-knn'"),
        ("protocols={few_goods: {}}", "unknown key 'few_goods'"),
    ],
)
def test_sweep_without_the_package_is_refused(ran: str, sweep: str, change: str, told: str) -> None:
    done = without(ran, "plan", sweep, "--set", "models=[filterbank-knn]", "--set", change)
    assert done.returncode == 64
    assert told in done.stderr
