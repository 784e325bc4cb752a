"""Write docs/commands.md from the commands' own help, so that it cannot drift: `make docs`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from defectbench.cli import main

PAGE = Path(__file__).with_name("commands.md")
HEAD = """\
# Commands

Written by `make docs` from the commands' own `--help`; a test keeps it so.
"""


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    """Yield a section for the command and for each below it."""
    settings = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
    context = click.Context(command, info_name=name, parent=parent, **settings)
    yield f"## {context.command_path}\n\n```\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for child in sorted(command.commands):
            yield from pages(command.commands[child], child, context)


def render() -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *pages(main, "defectbench")])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
