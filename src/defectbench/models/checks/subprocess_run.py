"""A module of ours run in a process of its own, which prints a line of JSON for each thing it did."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence


def run_module(module: str, arguments: Sequence[str], seconds: float) -> tuple[str, str]:
    """Return the whole lines that ``python -m module arguments`` printed, and in words how it ended."""
    command = [sys.executable, "-m", module, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as late:
        return _complete_lines(late.stdout), f"its process had not ended after {seconds:g} s"
    return _complete_lines(done.stdout), f"its process ended with {done.returncode}: {last_line(done.stderr)}"


def last_line(text: str) -> str:
    """Return what a process said last.

    >>> last_line("one\\ntwo\\n"), last_line("")
    ('two', 'it said nothing')
    """
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def describe_error(error: BaseException) -> str:
    """Return an error's kind and the last line of what it says."""
    return f"{type(error).__name__}: {last_line(str(error))}"


def _complete_lines(output: bytes | str | None) -> str:
    """Return the output up to its last line break: a killed process may have cut a line."""
    # After a timeout subprocess gives bytes, whatever was asked for.
    text = output.decode() if isinstance(output, bytes) else output or ""
    return text[: text.rfind("\n") + 1]
