"""The layers: what may import what, and what the command line must not load."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from defectbench import catalog
from defectbench.stores.directory import DirectoryStore
from fakes import put_category
from imports import (
    Sources,
    all_imports,
    bases,
    cycles,
    package_cycles,
    package_of,
    read_sources,
    tops,
    upward,
)
from parts import find_helm

SOURCE = Path(__file__).resolve().parents[1] / "src" / "defectbench"
SOURCES = read_sources(SOURCE)

LAYERS = (
    "errors",
    "util",
    "metrics",
    "catalog",
    "stores",
    "weights",
    "data",
    "models",
    "protocols",
    "records",
    "tables",
    "sweeps",
    "report",
    "trackers",
    "execution",
    "selection",
    "export",
    "runners",
    "doctor",
    "upkeep",
    "testing",
    "api",
    "cli",
    "__main__",
)
"""From the ground up: a package may import itself and what stands above it in this list."""

LIBRARIES: dict[str, str | tuple[str, ...]] = {
    "torch": "models.",
    "torchvision": "models.",
    "timm": "models.",
    "anomalib": "models.",
    "pytorch_grad_cam": "models.",
    "onnx": "models.classifiers.onnx_graph",
    "onnxruntime": "models.classifiers.onnx_graph",
    "onnxscript": "models.classifiers.onnx_graph",
    "boto3": "stores.s3",
    "botocore": "stores.s3",
    "mlflow": ("trackers.mlflow", "trackers.database"),
    "kubernetes": "runners.kubernetes.api",
    "helm_python": "runners.chart.helm",
    "click": ("cli", "__main__"),
    "pandas": (),
    "pytest": "testing.",
}
"""Library -> where alone it may be imported: how the module's name begins."""

RULES: dict[str, Callable[[Sources], list[str]]] = {
    "imports go up the list of layers": lambda sources: upward(sources, LAYERS),
    "no module imports its package's top": tops,
    "no base imports its implementations": bases,
    "no cycle of modules": cycles,
    "no cycle of packages inside a package": package_cycles,
}


def test_every_package_has_a_layer() -> None:
    assert {package_of(name) for name in SOURCES} - {""} == set(LAYERS)


def test_architecture_page_lists_the_layers_in_order() -> None:
    page = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
    table = page.partition("| package |")[2].partition("\n\n")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == LAYERS


@pytest.mark.parametrize("rule", RULES)
def test_imports_keep_the_rule(rule: str) -> None:
    broken = RULES[rule](SOURCES)
    assert not broken, "\n".join(broken)


MUTANTS = {
    "weights.store": ("from defectbench.data import archive", "imports go up the list of layers"),
    "stores.base": ("from defectbench.stores.s3 import S3Store", "no base imports its implementations"),
    "report.evidence": ("from defectbench.report.page import build", "no cycle of modules"),
    "metrics.pixel": ("from defectbench.metrics import METRICS", "no module imports its package's top"),
    "models.features.device": (
        "from defectbench.models.detectors import draem",
        "no cycle of packages inside a package",
    ),
}
"""Module -> an import that does not belong there, and the rule that must refuse it."""


@pytest.mark.parametrize("hidden", ["{}", "def f() -> None:\n    {}", "if TYPE_CHECKING:\n    {}"])
@pytest.mark.parametrize("module", MUTANTS)
def test_import_that_breaks_a_rule_is_named(module: str, hidden: str) -> None:
    statement, rule = MUTANTS[module]
    assert module in SOURCES
    broken = RULES[rule]({**SOURCES, module: f"{SOURCES[module]}\n{hidden.format(statement)}\n"})
    assert any(line.startswith(f"{module} imports ") for line in broken), broken


@pytest.mark.parametrize("name", SOURCES)
def test_libraries_stay_in_their_modules(name: str) -> None:
    for found in all_imports(SOURCES[name]):
        allowed = LIBRARIES.get(found.partition(".")[0], name)
        assert f"{name}.".startswith(allowed), f"{name} imports {found}, which belongs in {allowed}"


def loaded(code: str) -> set[str]:
    """Top-level modules that are loaded after ``code`` ran in a fresh interpreter."""
    script = f"{code}\nimport sys; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


SLOW = {
    "torch",
    "timm",
    "anomalib",
    "lightning",
    "mlflow",
    "pandas",
    "sklearn",
    "skimage",
    "matplotlib",
    "boto3",
}


def test_command_line_loads_nothing_slow() -> None:
    assert not loaded("import defectbench.cli") & (SLOW | {"numpy", "pydantic", "rich", "yaml"})


def test_package_loads_nothing_of_its_own() -> None:
    light = loaded("import defectbench; defectbench.__version__; dir(defectbench)")
    assert not light & (SLOW | {"numpy", "pyarrow", "pydantic", "rich", "yaml", "click", "jinja2"})


def test_running_loads_no_model_library_before_its_workers() -> None:
    modules = (
        "sweeps.plan",
        "sweeps.config",
        "records.sweep_record",
        "runners.local",
        "cli.local_board",
        "trackers.choose",
    )
    code = "; ".join(f"import defectbench.{name}" for name in modules)
    assert not loaded(code) & {"torch", "timm", "anomalib", "lightning", "mlflow", "pandas"}


def test_submitting_and_watching_load_no_model_library() -> None:
    names = ("submission", "facts", "logs", "watch")
    modules = ("cli.cluster_board", *(f"runners.kubernetes.{name}" for name in names))
    found = loaded("; ".join(f"import defectbench.{name}" for name in modules))
    assert "kubernetes" in found
    assert not found & (SLOW - {"boto3"})


EVERY_MODEL = """\
name: whole
data: {dataset: parts}
models: [%s]
weights: none
seeds: [0]
protocols: {detection: {folds: 3}}
"""


@pytest.mark.parametrize(
    "words",
    [("plan",), ("plan", "--format", "json"), ("plan", "--format", "values"), ("render",)],
    ids=" ".join,
)
def test_planning_loads_no_model_library(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if "render" in words:
        monkeypatch.setenv("DEFECTBENCH_HELM", find_helm())
    put_category(DirectoryStore(tmp_path / "store"), "parts", "bolt", 6, 3, 4, ("crack", "stain"), True)
    file = tmp_path / "whole.yaml"
    file.write_text(EVERY_MODEL % ", ".join(entry.name for entry in catalog.ENTRIES))
    whole = [words[0], str(file), "--store", str(tmp_path / "store"), *words[1:]]
    found = loaded(f"from defectbench.__main__ import run; assert run({whole!r}) == 0")
    assert {"defectbench", "pydantic", "yaml"} <= found, "no plan was made"
    assert not found & {"torch", "timm", "anomalib", "lightning", "mlflow", "pandas"}
