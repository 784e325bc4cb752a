"""tools/parts.py: what it says, and that it builds only what has changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from parts import ROOT

BIN = ROOT / ".parts" / "bin"


def parts(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tools" / "parts.py"), *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_unknown_part_is_named_with_those_there_are() -> None:
    done = parts("etc")
    assert done.returncode == 1
    assert "no part is called 'etc'; there are: versitygw, helm, etcd" in done.stderr


def test_without_go_it_says_what_is_missing(tmp_path: Path) -> None:
    done = parts("helm", PATH=str(tmp_path))
    assert done.returncode == 69
    assert "needs Go 1.26" in done.stderr


def test_built_part_is_not_built_again() -> None:
    if not (BIN / ".etcd").is_file():
        pytest.skip("no etcd here; run: make parts")
    before = (BIN / "etcd").stat().st_mtime_ns
    assert parts("etcd").stdout == "etcd: as built before\n"
    assert (BIN / "etcd").stat().st_mtime_ns == before
