"""Draw what a command shows in a terminal of 80 columns: a command, run in a real one, becomes an SVG.

    python docs/terminal.py docs/import.svg --title "..." -- defectbench data import solar-cells --store bench
    python docs/terminal.py docs/progress.svg --after 12 -- ...    # as it looks 12 seconds after the start

Needs pyte (the docs' dependencies have it), which is the terminal.
"""

from __future__ import annotations

import argparse
import fcntl
import io
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import termios
import time
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, ROWS = 80, 100
PROMPT = "$ "


def screen_after(command: list[str], after: float | None) -> list[Text]:
    """Return the lines of the screen when the command has ended, or some seconds after its start."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    unwanted = ("COLUMNS", "LINES", "NO_COLOR", "CI")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment["TERM"] = "xterm-256color"
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    kept = None
    while True:
        ready, _, _ = select.select([ours], [], [], 0.1)
        if after is not None and kept is None and time.monotonic() - start >= after:
            kept = rendered(screen)
        try:
            data = os.read(ours, 1 << 16) if ready else b""
        except OSError:  # the command has closed its side
            break
        stream.feed(data)
    os.close(ours)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command)
    return kept if kept is not None else rendered(screen)


def rendered(screen: pyte.Screen) -> list[Text]:
    """Return the screen's lines with their colours, up to the last that is not empty."""
    lines = []
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        line = Text()
        for (color, bold), run in groupby(cells, key=lambda cell: (colour(cell.fg), cell.bold)):
            line.append("".join(cell.data for cell in run), Style(color=color, bold=bold))
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def colour(name: str) -> str | None:
    """Return pyte's colour as rich calls it."""
    if name == "default":
        return None
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name.removeprefix("bright"), name.removeprefix("bright"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--title", default="defectbench")
    parser.add_argument("--after", type=float, help="seconds; at the end by default")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    lines = screen_after(arguments.command, arguments.after)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in [Text(PROMPT + shlex.join(arguments.command)), *lines]:
        console.print(line)
    # No font from the web: a picture in a page must not ask another server.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=arguments.title), flags=re.DOTALL)
    arguments.out.write_text(svg)


if __name__ == "__main__":
    main()
