"""What a command says to a terminal: nothing of it is lost to a progress bar."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

from trees import bads, goods

ROOT = Path(__file__).parents[2]


def test_import_says_all_in_a_terminal_that_it_says_in_a_pipe(tmp_path: Path) -> None:
    for category in ("plate", "ring"):
        goods(tmp_path / f"set/{category}/good", 24)
        bads(tmp_path / f"set/{category}/bad/dent", 8)
    command = [sys.executable, "-m", "defectbench", "data", "import", str(tmp_path / "set"), "--store"]
    piped = subprocess.run(
        [*command, str(tmp_path / "one")], capture_output=True, text=True, check=True
    ).stderr.replace(str(tmp_path / "one"), str(tmp_path / "two"))
    lines = ["".join(line.split()) for line in piped.splitlines()]
    assert sum("looks" in line or "masks" in line for line in lines) >= 2, "there are notes"
    terminal = runpy.run_path(str(ROOT / "docs" / "terminal.py"))
    shown = terminal["screen_after"]([*command, str(tmp_path / "two")], None)
    screen = "".join("".join(line.plain.split()) for line in shown)
    assert [line for line in lines if line not in screen] == []
    assert "importedset(2categories)" in screen
    assert "checkingpictures" not in screen, "the bars have gone"
