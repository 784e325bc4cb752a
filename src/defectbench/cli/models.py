"""``defectbench models`` and ``defectbench weights``."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import click

from defectbench.cli.options import format_option, note, open_store, say_json, say_table, store_option


@click.group()
def models() -> None:
    """Look at the line-up."""


@models.command("list")
@format_option
def list_(form: str) -> None:
    """List every model that a sweep may name."""
    from defectbench.catalog import ENTRIES

    if form == "json":
        say_json([_plain(entry.name) for entry in ENTRIES])
        return
    rows = [
        (entry.name, entry.family, f"{entry.image_size} px", "yes" if entry.weights else "no", entry.ends)
        for entry in ENTRIES
    ]
    say_table(("model", "family", "size", "pretrained weights", "ends"), rows)


@models.command()
@click.argument("name")
@format_option
def show(name: str, form: str) -> None:
    """Show all that the catalog knows of one model."""
    entry = _plain(name)
    if form == "json":
        say_json(entry)
    else:
        say_table(("", name), [(key, _lines(value)) for key, value in entry.items() if key != "name"])


@click.group()
def weights() -> None:
    """Pretrained weights in the store; nothing is ever fetched from a hub while cells run."""


@weights.command("list")
@store_option
@format_option
def list_weights(store: str, form: str) -> None:
    """List which weights the catalog's models need and what the store has."""
    from defectbench.catalog import ENTRIES

    place = open_store(store)
    there = [key.split("/")[1:3] for key in place.keys("weights/")]
    rows = []
    for needed in sorted({item for entry in ENTRIES for item in entry.weights}, key=lambda item: item.name):
        digests = [digest for name, digest in there if name == needed.name]
        users = [entry.name for entry in ENTRIES if needed in entry.weights]
        row = {"weights": needed.name, "models": users, "licence": needed.licence, "source": needed.source}
        rows.append({**row, "sha256": digests})
    if form == "json":
        say_json(rows)
        return
    shown = [[_words(value) for value in row.values()] for row in rows]
    say_table(("weights", "models", "licence", "source", "in the store (SHA-256)"), shown)


@weights.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@store_option
def push(name: str, file: Path, store: str) -> None:
    """Put FILE into the store as the weights NAME (`weights list` shows the names).

    Another network's weights, for a sweep's `backbone` or `architecture`, have timm's full name.
    """
    from defectbench.catalog import ENTRIES
    from defectbench.errors import UsageError, nearest
    from defectbench.weights import is_full_name
    from defectbench.weights import push as put

    known = {item.name for entry in ENTRIES for item in entry.weights}
    if name not in known and not is_full_name(name):
        raise UsageError(f"no model needs weights {name!r}; {nearest(name, known)}")
    if name not in known:
        note(f"no model needs weights {name!r} unless a sweep names that network; {nearest(name, known)}")
    digest = put(open_store(store), name, file)
    note(f"weights {name} {digest} are in {store}")


def _plain(name: str) -> dict[str, object]:
    """Return a catalog entry as plain data."""
    from defectbench.catalog import SETTINGS, find

    entry = find(name)
    plain = asdict(replace(entry, settings={}))
    plain["settings"] = dict(entry.settings)
    plain["allowed"] = {setting: str(SETTINGS[setting]) for setting in entry.settings}
    return plain


def _lines(value: object) -> str:
    """Return plain data in words, a mapping's entries on lines of their own."""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_words(item)}" for key, item in value.items()) or "-"
    return _words(value)


def _words(value: object) -> str:
    """Return plain data in words, for a table."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_words, value)) or "-"
    return "-" if value is None else str(value)
