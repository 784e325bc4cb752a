"""``defectbench models``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from defectbench.cli.options import format_option, note, print_json, print_table
from defectbench.errors import ExitCode

if TYPE_CHECKING:
    from defectbench.catalog import Entry
    from defectbench.models.checks.full_check import FullCheckResult


@click.group()
def models() -> None:
    """Look at the line-up."""


@models.command("list")
@format_option
def list_(form: str) -> None:
    """List every model that a sweep may name."""
    from defectbench.catalog import entries

    _print_problems()
    if form == "json":
        print_json([_plain(entry.name) for entry in entries()])
        return
    foreign = any(entry.package for entry in entries())
    rows = [
        (
            entry.name,
            *((_package(entry),) if foreign else ()),
            entry.family,
            f"{entry.image_size} px",
            entry.licence,
            _terms(entry),
            entry.ends,
        )
        for entry in entries()
    ]
    head = ("family", "size", "licence of the code", "of pretrained weights", "ends")
    print_table(("model", *(("package",) if foreign else ()), *head), rows)
    note("note: any other timm network is a model too: `{timm: NETWORK, label: ...}` in a sweep")


@models.command()
@click.argument("name")
@format_option
def show(name: str, form: str) -> None:
    """Show all that the catalog knows of one model."""
    entry = _plain(name)
    if form == "json":
        print_json(entry)
    else:
        entry["resumes"] = _RESUMES[bool(entry["resumes"])]
        print_table(("", name), [(key, _lines(value)) for key, value in entry.items() if key != "name"])
        if entry["commercial"] is None:
            note(f"note: check the licence of the pretrained weights of {name}: commercial use is unknown")
        elif not entry["commercial"]:
            note(f"note: the pretrained weights of {name} are not for commercial use")
        note("note: MVTec AD itself is CC BY-NC-SA 4.0, so what learns from it is not for commercial use")


@models.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "whole", is_flag=True, help="Every model of the catalog.")
@click.option("--size", default=512, show_default=True, type=click.IntRange(min=32), help="Side in pixels.")
@click.option("--seconds", default=1800.0, show_default=True, help="For each model.")
@click.option("--memory", default=12.0, show_default=True, help="GiB of data for each model's process.")
@format_option
def check(
    names: tuple[str, ...], whole: bool, size: int, seconds: float, memory: float, form: str
) -> ExitCode:
    """Put models through a fit of two tiny batches at a size: score, heat map, save, load, equal scores.

    Random weights, no network, one thread, one process a model, in bounded memory (Linux). A model that does
    not take the size is checked at the next one that it takes. Ends with the code of the first that failed.
    """
    from defectbench.catalog import entries, find
    from defectbench.models.checks.full_check import full_check

    asked = [entry.name for entry in entries()] if whole else [find(name).name for name in names]
    if not asked:
        raise click.UsageError("say which models: NAME..., or --all")
    results = []
    for result in full_check(asked, size, seconds, int(memory * 2**30)):
        note(f"{result.name}: {result.says}")
        results.append(result)
    if form == "json":
        from dataclasses import asdict

        print_json([asdict(result) for result in results])
    else:
        print_table(_CHECKED, [_checked(result, size) for result in results])
    return next((ExitCode(result.code) for result in results if result.code), ExitCode.DONE)


_RESUMES = {
    True: "a stopped fit goes on from its last checkpoint",
    False: "no: a stopped fit starts anew",
}

_CHECKED = ("model", "size", "heat map", "parameters (M)", "GFLOP", "seconds", "peak memory (GiB)", "")


def _checked(result: FullCheckResult, size: int) -> tuple[object, ...]:
    """Return a model's check as a row."""
    from defectbench.catalog import find

    passed = "passes" if not result.code else f"FAILS ({result.code}): {result.says}"
    other = "" if result.side == size else f"; takes {find(result.name).sizes}"
    return (
        result.name,
        result.side,
        "{} x {}".format(*result.heat_map),
        round(result.parameters / 1e6, 2),
        "-" if result.flops is None else round(result.flops / 1e9, 2),
        result.seconds,
        round(result.peak_memory_bytes / 2**30, 2),
        passed + other,
    )


def _print_problems() -> None:
    """Name the packages whose models cannot be used."""
    from defectbench.catalog import problems

    for problem in problems():
        note(f"note: {problem}")


def _package(entry: Entry) -> str:
    """Return the package of a foreign model with its version; a dash for our own."""
    return f"{entry.package} {entry.version}" if entry.package else "-"


def _terms(entry: Entry) -> str:
    """Return the terms of a model's weights."""
    return "; ".join(dict.fromkeys(weights.terms for weights in entry.weights)) or "needs none"


def _plain(name: str) -> dict[str, object]:
    """Return a catalog entry as plain data."""
    from dataclasses import asdict, replace

    from defectbench.catalog import find

    entry = find(name)
    plain = asdict(replace(entry, settings={}, rules={}))
    del plain["rules"]  # `allowed` says them in words
    plain |= {"package": entry.package or None, "version": entry.version or None}
    plain["settings"] = dict(entry.settings)
    plain["commercial"] = entry.commercial
    plain["sizes"] = entry.sizes
    plain["allowed"] = {setting: str(entry.rule(setting)) for setting in entry.settings}
    return plain


def _lines(value: object) -> str:
    """Return plain data in words, a mapping's entries on lines of their own."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {words(item)}" for key, item in value.items()) or "-"
    return words(value)


def words(value: object) -> str:
    """Return plain data in words, for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(words, value)) or "-"
    return "-" if value is None else str(value)
