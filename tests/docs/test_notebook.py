"""docs/notebook.ipynb: executed as it stands, in a kernel of its own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"
CHECKS = """\
assert figures.num_rows == 3 * 4, figures
assert all(0 <= value <= 1 for value in figures["image_auroc"].to_pylist())
assert comparisons.num_rows == 2
assert tested.num_rows == 3 * 2 * 2 * (9 + 5 * 3)
assert page.is_file()
"""
"""Run in the notebook's kernel behind its last cell."""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type:
    """nbclient's class; nothing of Jupyter's is written outside the test's folder."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    from nbclient import NotebookClient

    return NotebookClient


def test_notebook_runs_to_its_end_and_its_tables_have_rows(client: type, tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    kept = [cell for cell in notebook.cells if cell.cell_type == "code"]
    told = [[output.output_type for output in cell.outputs] for cell in kept]
    notebook.cells.append(nbformat.v4.new_code_cell(CHECKS))
    client(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert told == [[output.output_type for output in cell.outputs] for cell in kept]


def test_notebook_as_kept_names_no_machine_and_was_run_in_order() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [
        output for cell in code for output in cell.outputs if output.output_type in ("error", "stream")
    ]
    for private in ("/tmp", "/home", "/work", "/Users"):
        assert private not in NOTEBOOK.read_text().replace('folder / "', "")
