"""Made-up distributions with entry points, as an installer leaves them: a folder for PYTHONPATH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SRC = Path(__file__).resolve().parents[1] / "src"


def install(folder: Path, name: str, points: Mapping[str, str], source: str, version: str = "1.0") -> Path:
    """Put a distribution of one module into ``folder``.

    Args:
        points: group and name of an entry point, ``models/mine`` -> its value.
        source: the module's text; its name is the distribution's with ``_``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [
        f"[defectbench.{point.partition('/')[0]}]\n{point.partition('/')[2]} = {value}\n"
        for point, value in points.items()
    ]
    (info / "entry_points.txt").write_text("\n".join(lines))
    (folder / f"{name.replace('-', '_')}.py").write_text(source)
    return folder


def run(folder: Path, *words: str, python: str = "") -> subprocess.CompletedProcess[str]:
    """Run defectbench, or a text of Python, where the distributions in ``folder`` are installed."""
    command = [sys.executable, "-c", python] if python else [sys.executable, "-m", "defectbench", *words]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{SRC}"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def entry_source(name: str, more: str = "") -> str:
    """Return the text of a module whose ENTRY is a detector called ``name``."""
    return f"""\
from defectbench.catalog import Bounds, Entry

ENTRY = Entry(name={name!r}, family="detector", builder="nowhere:Nothing", source="made up",
              licence="MIT", image_size=64, epochs=0, ends="at once", heat_map="none", extra=None{more})
"""
