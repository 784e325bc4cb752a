"""``defectbench store``: look a store through, heal it, clear it up."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from defectbench.cli.options import format_option, note, open_store, print_json, print_table, store_option

apply_option = click.option("--apply", is_flag=True, help="Do it; without it, it is only said.")


@click.group()
def store() -> None:
    """Look a store through, heal what is damaged, remove what nothing refers to."""


@store.command()
@store_option
@format_option
def verify(store: str, form: str) -> None:
    """Read every object and name what is damaged, with what heals it: 0 when nothing is, else 65."""
    from defectbench import upkeep
    from defectbench.errors import ExitCode

    found = list(upkeep.verify(open_store(store)))
    if form == "json":
        print_json([asdict(each) for each in found])
    elif found:
        print_table(("key", "damage", "what heals it"), [(f.key, f.problem, f.remedy) for f in found])
    note(f"{len(found)} objects are damaged" if found else "nothing is damaged")
    raise click.exceptions.Exit(ExitCode.DATA if found else ExitCode.DONE)


@store.command()
@store_option
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with the pictures of damaged archives, under any names.",
)
@apply_option
def repair(store: str, source: Path | None, apply: bool) -> None:
    """Heal what can be healed; what must be made anew is removed, so that `run` or `retry` makes it."""
    from defectbench import upkeep

    done = list(upkeep.repair(open_store(store), source, apply))
    if done:
        print_table(("key", "damage", "repair"), [(f.key, f.problem, text) for f, text in done])
    _close(len(done), "damaged", apply)


@store.command()
@store_option
@apply_option
def gc(store: str, apply: bool) -> None:
    """Remove what nothing refers to: cells of no sweep, earlier attempts, data imported anew."""
    from defectbench import upkeep

    place = open_store(store)
    found = list(upkeep.unreferenced(place))
    if found:
        print_table(("key", "why"), found)
    if apply:
        for key, _ in found:
            place.delete(key)
    _close(len(found), "referred to by nothing", apply)


def _close(number: int, what: str, apply: bool) -> None:
    """Say how many objects there were, and whether anything was changed."""
    rest = "" if apply or not number else "; nothing was changed: --apply does"
    note(f"{number} objects are {what}{rest}")
