"""docs/models.md: its table is what the check gave, and the catalog has the same figures."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from defectbench import catalog

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def writer() -> Any:
    found = importlib.util.spec_from_file_location("models_page", DOCS / "models.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    return list(json.loads((DOCS / "models.json").read_text()))


def test_page_holds_the_results_as_they_are_kept(writer: Any, results: list[dict[str, Any]]) -> None:
    page = (DOCS / "models.md").read_text()
    assert writer.render(page, results) == page, "run: python docs/models.py"
    assert all(f"| `{result['name']}` |" in page for result in results)


def test_every_kept_result_is_of_the_catalog_and_passed(results: list[dict[str, Any]]) -> None:
    names = [result["name"] for result in results]
    # A model that nobody has measured yet says so: its entry has no figures.
    measured = [entry.name for entry in catalog.ENTRIES if entry.measured is not None]
    assert sorted(names) == sorted(measured), "models check NAME --size 512"
    for result in results:
        entry = catalog.find(result["name"])
        assert result["code"] == 0, result["says"]
        assert entry.takes(result["side"])
        assert result["side"] == 512 or not entry.takes(512)


def test_catalog_has_the_figures_that_the_exam_counted(writer: Any, results: list[dict[str, Any]]) -> None:
    assert writer.MODULE.read_text() == writer.figures(results), "run: python docs/models.py"
    for result in results:
        measured = catalog.find(result["name"]).measured
        assert measured is not None
        counted = (result["parameters"], result["flops"], result["side"])
        assert counted == (measured.parameters, measured.flops, measured.side), result["name"]


def test_table_says_what_is_remarkable(writer: Any) -> None:
    result = {
        "name": "dinov2-vits14",
        "side": 518,
        "code": 0,
        "says": "fits",
        "heat_map": [37, 37],
        "parameters": 22_056_577,
        "flops": None,
        "seconds": 9.6,
        "peak_memory_bytes": 3 * 2**29,
    }
    line = writer.row(result)
    assert line.startswith(
        "| `dinov2-vits14` | 518 | 37 x 37 | 22.06 | - | 10 | 1.5 | passes (does not take 512: "
    )
    assert "504 and 518" in line
    assert "non-commercial" in writer.row({**result, "name": "fixefficientnet-b3"})
    assert "**fails**: no" in writer.row({**result, "code": 70, "says": "no"})
