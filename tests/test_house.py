"""The house rules: what may import what, and what the door must not load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from defectbench import catalog
from defectbench.stores.directory import DirectoryStore
from fakes import put_category
from parts import find_helm

SOURCE = Path(__file__).resolve().parents[1] / "src" / "defectbench"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("files", "schema", "memory", "decoding", "pictures", "overlays", "cache", "stop"),
    ("stores",),
    (
        "manifest",
        "catalog",
        "leaderboard",
        "metrics",
        "pixels",
        "predictions",
        "stats",
        "sample",
        "crossover",
        "novelty",
        "sample",
    ),
    ("cell", "lease", "weights", "weight_files", "hub", "data", "protocols", "inspectors"),
    ("record", "results", "fitting", "checkpoints", "trial"),
    ("runners", "trackers", "sweep"),
    ("plan", "collect", "select", "job"),
    ("track", "submission", "export", "estimate", "doctor"),
    ("worker", "report"),
    ("cli",),
    ("__main__",),
)
"""From the ground up; a room may import its own floor and those below."""

HEAVY = {
    "torch": "inspectors",
    "torchvision": "inspectors",
    "timm": "inspectors",
    "anomalib": "inspectors",
    "pytorch_grad_cam": "inspectors",
    "onnx": "inspectors/onnx_graph.py",
    "onnxruntime": "inspectors/onnx_graph.py",
    "onnxscript": "inspectors/onnx_graph.py",
    "boto3": "stores/s3.py",
    "botocore": "stores/s3.py",
    "mlflow": "trackers/mlflow.py",
    "kubernetes": "runners/kubernetes/api.py",
    "helm_python": "runners/helm.py",
    "click": ("cli", "__main__.py", "worker.py", "runners/progress.py"),
    "pandas": (),
}
"""Library -> where alone it may be imported."""


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports, at the top or inside functions, type checking apart."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def floor(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_room_has_a_floor() -> None:
    assert {room(path) for path in modules()} - {"__init__"} == {name for rooms in FLOORS for name in rooms}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_only(path: Path) -> None:
    if room(path) == "__init__":
        return
    for name in imported(path):
        parts = name.split(".")
        if (
            parts[0] == "defectbench"
            and len(parts) > 1
            and parts[1] in {r for rooms in FLOORS for r in rooms}
        ):
            assert floor(parts[1]) <= floor(room(path)), f"{path.name} imports {name}, which stands above it"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    where = path.relative_to(SOURCE).as_posix()
    for name in imported(path):
        allowed = HEAVY.get(name.split(".")[0], where)
        assert where.startswith(allowed), f"{where} imports {name}"


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


def test_the_door_loads_nothing_slow() -> None:
    assert not loaded("import defectbench.cli") & (SLOW | {"numpy", "pydantic", "rich", "yaml"})


def test_running_loads_no_model_library_before_its_workers() -> None:
    rooms = "plan, sweep, record, runners.local, runners.progress, trackers.choose"
    code = "; ".join(f"import defectbench.{name}" for name in rooms.split(", "))
    assert not loaded(code) & {"torch", "timm", "anomalib", "lightning", "mlflow", "pandas"}


def test_submitting_and_watching_load_no_model_library() -> None:
    rooms = ("submission", *(f"runners.kubernetes.{name}" for name in ("board", "gather", "logs", "watch")))
    found = loaded("; ".join(f"import defectbench.{name}" for name in rooms))
    assert "kubernetes" in found
    assert not found & (SLOW - {"boto3"})


EVERY_MODEL = """\
name: whole
data: {dataset: parts}
models: [%s]
weights: none
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
