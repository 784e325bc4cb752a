"""Real inspection pictures: the solar cells of `elpv-dataset`, laid out by examples/solar/prepare.py."""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from collections import Counter
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from defectbench.__main__ import run

PREPARE = Path(__file__).parents[2] / "examples" / "solar" / "prepare.py"


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    try:
        distribution("elpv-dataset")
    except PackageNotFoundError:
        pytest.skip("elpv-dataset is not installed; run: make sync")
    spec = importlib.util.spec_from_file_location("prepare", PREPARE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(prepare: Any) -> list[dict[str, str]]:
    lines = prepare.labels_file().read_text(encoding="utf-8").splitlines()
    found: list[dict[str, str]] = prepare.table([line.split() for line in lines if line.strip()])
    return found


def test_every_picture_has_a_label_and_a_module(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 2624
    labels = Counter((row["category"], row["label"]) for row in rows)
    assert labels == {
        ("mono", "good"): 588,
        ("mono", "bad"): 313,
        ("mono", "uncertain"): 173,
        ("poly", "good"): 920,
        ("poly", "bad"): 402,
        ("poly", "uncertain"): 228,
    }
    modules = {(row["category"], row["group"]) for row in rows}
    assert Counter(kind for kind, _ in modules) == {"mono": 18, "poly": 26}  # as the data's authors state
    assert max(Counter(row["group"] for row in rows).values()) <= 72


def test_modules_of_real_cells_are_imported_whole(
    prepare: Any, rows: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five modules of 60 polycrystalline cells: goods, defects and uncertain ones in each."""
    own = [row for row in rows if row["category"] == "poly"][:300]
    source = prepare.labels_file().parent
    (tmp_path / "cells" / "images").mkdir(parents=True)
    for row in own:
        shutil.copyfile(source / row["path"], tmp_path / "cells" / row["path"])
    with (tmp_path / "cells" / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(own[0]))
        writer.writeheader()
        writer.writerows(own)
    store = str(tmp_path / "store")
    assert run(["data", "import", str(tmp_path / "cells"), "--name", "cells", "--store", store]) == 0
    capsys.readouterr()
    assert run(["data", "show", "cells", "--store", store, "--format", "json"]) == 0
    [shown] = json.loads(capsys.readouterr().out)["categories"]
    counts = Counter(row["label"] for row in own)
    assert shown["groups"] == 5
    assert shown["train_good"] + shown["test_good"] == counts["good"]
    assert shown["train_defects"] + shown["test_defective"] == counts["bad"]
    assert shown["uncertain"] == counts["uncertain"]
    assert min(shown["train_good"], shown["test_good"], shown["train_defects"], shown["test_defective"]) > 0
