"""What a command says to a terminal: nothing of it is lost to a progress bar."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte

from trees import bads, goods


def shown(command: list[str], columns: int, rows: int) -> str:
    """Run a command in a terminal and return its screen, without blanks."""
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "CI"):
        environment.pop(name, None)
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    while True:
        try:
            data = os.read(ours, 1 << 16)
        except OSError:  # the command has closed its side
            break
        if not data:
            break
        stream.feed(data)
    os.close(ours)
    assert process.wait() == 0
    return "".join("".join(screen.display).split())


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
    screen = shown([*command, str(tmp_path / "two")], 80, 100)
    assert [line for line in lines if line not in screen] == []
    assert "importedset(2categories)" in screen
    assert "checkingpictures" not in screen, "the bars have gone"
