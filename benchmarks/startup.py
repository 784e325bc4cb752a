"""How fast the door opens: `defectbench --help` against a bare Python with click, in turns.

.venv/bin/python benchmarks/startup.py
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 15
BARE = "import click\n@click.command()\ndef hello():\n    '''Say hello.'''\nhello(['--help'])"


def seconds(command: list[str]) -> float:
    """Return the wall time of a command."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    program = shutil.which("defectbench", path=str(Path(sys.executable).parent)) or "defectbench"
    commands = {
        "bare python + click": [sys.executable, "-c", BARE],
        "defectbench --help": [program, "--help"],
        "defectbench plan --help": [program, "plan", "--help"],
    }
    best = {name: min(seconds(command) for _ in range(ROUNDS)) for name, command in commands.items()}
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, best of {ROUNDS}"
    )
    for name, each in best.items():
        print(f"{name:26} {each * 1000:7.1f} ms   {each / best['bare python + click']:.2f} times bare")


if __name__ == "__main__":
    main()
