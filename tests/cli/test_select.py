"""``defectbench select`` from end to end, with the models' own forward passes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from defectbench.__main__ import run

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


@pytest.mark.torch
@pytest.mark.parametrize(
    ("kind", "options", "chosen"),
    [
        ("classifiers", [], "TinyViT-21M-512-distill"),
        ("detectors", ["--third", "more", "--prefer", "accuracy"], "GLASS"),
    ],
)
def test_select_takes_the_study_s_two(
    kind: str, options: list[str], chosen: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["select", kind, "--table", str(REFERENCE / f"{kind}.csv"), "--out", str(tmp_path)]
    assert run([*words, *options, "--format", "json"]) == 0
    out, err = capfd.readouterr()
    found = json.loads((tmp_path / "selection.json").read_text(encoding="utf-8"))
    assert json.loads(out) == found
    assert (found["chosen"], found["check"]) == (chosen, "512: passed")
    assert f"chosen: {chosen}" in err
    if kind == "detectors":
        measured = found["by_parameters"]
        assert measured["words"] in err
        assert "the line would have chosen PatchCore Large" in err
        assert "more code_repository_stars is better (as --third says)" in err
        assert all(row["size"] > 1 for row in measured["candidates"])
        told = {row["model"] for part in ("candidates", "excluded", "missing") for row in measured[part]}
        assert told == {row["model"] for part in ("candidates", "excluded") for row in found[part]}


UNKNOWN = "model,top1,size,code\nSmall,80,1,url\nOld,70,2,url\nSecret,99,3,\n"


def test_select_without_known_models_loads_no_library_of_theirs(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(UNKNOWN)
    words = ["select", "classifiers", "--table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")]
    script = (
        f"import sys; from defectbench.__main__ import run; assert run({words!r}) == 0; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "matplotlib" in loaded
    assert not loaded & {"torch", "timm", "anomalib", "lightning", "mlflow", "pandas"}
    assert "dominated by Small" in done.stdout
    assert "code is empty" in done.stdout
    assert "less size is better (the default; --third more turns it round)" in done.stderr
    assert "chosen: Small (the only candidate)" in done.stderr


@pytest.mark.parametrize(
    ("table", "kind", "code", "said"),
    [
        (None, "classifiers", 66, "cannot read the table t.csv: No such file"),
        ("model,top1\nA,1\n", "classifiers", 65, "t.csv:1: columns model, top1; at least 3 are needed"),
        ("model,top1,size\nA,high,1\n", "detectors", 65, "t.csv:2: top1: got 'high'"),
        ("model,top1,size,code\nA,1,1,\n", "detectors", 65, "t.csv:2: A: code is empty"),
        ("model,top1,size\nGLASS,1,1\n", "classifiers", 64, "t.csv:2: 'GLASS' is a detector"),
        (
            "model,top1,stars\nA,1,30\n",
            "detectors",
            64,
            "t.csv: column 3 is 'stars', which can count either way; say --third more",
        ),
        ("model,top1,repo_stars\nA,1,30\n", "classifiers", 64, "say --third more (better known counts"),
        (
            "model,top1,size,stars,rank\nA,1,1,19,101\n",
            "detectors",
            65,
            "A: rank 101 is above 100; stars 19 is below 20",
        ),
        ("model,top1,size\nA,1,1\n", "models", 64, "'models' is not one of 'classifiers', 'detectors'"),
    ],
)
def test_select_ends_with_the_code_of_what_is_wrong(
    table: str | None,
    kind: str,
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if table is not None:
        Path("t.csv").write_text(table)
    assert run(["select", kind, "--table", "t.csv", "--out", "out"]) == code
    err = capfd.readouterr().err
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert not Path("out").exists()
