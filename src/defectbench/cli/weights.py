"""``defectbench weights``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from defectbench.cli.models import words
from defectbench.cli.options import (
    cache_option,
    cache_or_default,
    format_option,
    note,
    open_store,
    print_json,
    print_table,
    store_option,
)

if TYPE_CHECKING:
    from defectbench.catalog import Weights
    from defectbench.stores.base import Store


@click.group()
def weights() -> None:
    """Pretrained weights in the store; nothing is ever fetched from a hub while cells run."""


@weights.command("list")
@store_option
@format_option
def list_weights(store: str, form: str) -> None:
    """List which weights the catalog's models need and what the store has."""
    from defectbench.catalog import entries
    from defectbench.stores.layout import WEIGHTS
    from defectbench.weights.packaged import packaged_file

    there = [key.split("/")[1:3] for key in open_store(store).keys(WEIGHTS)]
    rows = []
    for needed in sorted({item for entry in entries() for item in entry.weights}, key=lambda item: item.name):
        rows.append(
            {
                "weights": needed.name,
                "kind": needed.kind,
                "models": [entry.name for entry in entries() if needed in entry.weights],
                "licence": needed.licence,
                "commercial": needed.commercial,
                "source": needed.source,
                "published": needed.digest or None,
                "archive": needed.archive or None,
                "sha256": [digest for name, digest in there if name == needed.name],
                "package": needed.package or None,
                "installed": packaged_file(needed) is not None,
            }
        )
    if form == "json":
        print_json(rows)
        return
    shown = [
        [
            words(row[key]) + (" (NON-COMMERCIAL)" if key == "licence" and not row["commercial"] else "")
            for key in ("weights", "models", "licence", "source")
        ]
        + [words(row["sha256"]) or ("installed with its package" if row["installed"] else "")]
        for row in rows
    ]
    print_table(("weights", "models", "licence", "source", "in the store (SHA-256)"), shown)


_sweep_option = click.option(
    "--sweep",
    type=click.Path(dir_okay=False, path_type=Path),
    help="All that the models of this sweep need.",
)
_model_option = click.option("--model", multiple=True, help="All that this model needs. May be given again.")


@weights.command()
@click.argument("name", required=False)
@click.argument("path", required=False, type=click.Path(path_type=Path))
@_sweep_option
@_model_option
@store_option
def push(name: str | None, path: Path | None, sweep: Path | None, model: tuple[str, ...], store: str) -> None:
    """Put weights into the store.

    NAME PATH puts a file of yours there as the weights NAME (`weights list` shows the names); pictures may be
    a folder or a tar. NAME alone, --sweep or --model fetch published files from the internet: run that on a
    machine that has it. What the store has is not fetched again.

    A file of yours is read first: the network is built and every key compared, and a file that is something
    else, or another network's, is refused (65). Where torch is not installed the keys are not compared.

    Another network's weights, for a sweep's `backbone` or `architecture`, have timm's full name.
    """
    place = open_store(store)
    if name is not None and path is not None:
        _push_file(place, name, path)
    else:
        _mirror(place, _names(([name] if name else []), sweep, model))


def _push_file(place: Store, name: str, path: Path) -> None:
    from defectbench.weights.store import described, push_weights

    _check_name(name)
    published = described(name)
    told = _checked(published, path)
    digest = push_weights(place, name, path)
    note(f"weights {name} {digest} are in {place.url}; licence: {published.terms}")
    if not digest.startswith(published.digest):
        note(f"note: not byte for byte the file that {published.source} publishes ({published.digest}...)")
    for text in told:
        note(f"note: {text}")


def _checked(published: Weights, path: Path) -> tuple[str, ...]:
    """Refuse a file that is not these weights; return what to say of it. Pictures are looked at later."""
    from defectbench.errors import MissingInputError
    from defectbench.models.checks.weights_check import check
    from defectbench.util.files import disk_errors

    if published.kind != "file" or path.is_dir():
        return ()
    if not path.exists():
        raise MissingInputError(f"no such weights file: {path}")
    with disk_errors(path):
        return check(published.name, path)


def _check_name(name: str) -> None:
    from defectbench.catalog import entries
    from defectbench.errors import UsageError, nearest
    from defectbench.weights.store import is_full_name

    known = {item.name for entry in entries() for item in entry.weights}
    if name not in known and not is_full_name(name):
        raise UsageError(f"no model needs weights {name!r}; {nearest(name, known)}")
    if name not in known:
        note(f"no model needs weights {name!r} unless a sweep names that network; {nearest(name, known)}")


def _mirror(place: Store, names: Iterable[str]) -> None:
    """Fetch what the store lacks; all that cannot be had is said at the end."""
    from defectbench.errors import MissingWeightsError, TryAgainError
    from defectbench.stores.layout import weights_key
    from defectbench.weights.hub import address, download
    from defectbench.weights.packaged import packaged_file
    from defectbench.weights.store import described, push_weights

    failed: list[MissingWeightsError | TryAgainError] = []
    for name in names:
        if any(place.keys(weights_key(name))):
            note(f"{name}: is in {place.url}")
            continue
        published = described(name)
        if (installed := packaged_file(published)) is not None:
            note(f"{name}: from {installed}; licence: {published.terms}")
            note(f"{name}: {push_weights(place, name, installed)}")
            continue
        import tempfile

        with tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
            file = Path(folder) / "file"
            try:
                note(f"{name}: from {address(published)}; licence: {published.terms}")
                download(published, file)
            except (MissingWeightsError, TryAgainError) as error:
                failed.append(error)
            else:
                note(f"{name}: {push_weights(place, name, file)}")
    if failed:
        # A second try brings all only where none is missing for good.
        later = all(isinstance(error, TryAgainError) for error in failed)
        raise (TryAgainError if later else MissingWeightsError)("\n".join(map(str, failed)))


def _names(named: list[str], sweep: Path | None, models: tuple[str, ...]) -> list[str]:
    """Return the names of the weights that are meant, each once."""
    from defectbench.catalog import find
    from defectbench.errors import UsageError
    from defectbench.sweeps.config import read_sweep, resolve_models
    from defectbench.weights.store import needed

    if not (named or sweep or models):
        raise UsageError("say which weights: NAME, NAME PATH, --sweep SWEEP or --model NAME")
    for name in named:
        _check_name(name)
    found = [*named, *(weights.name for model in models for weights in find(model).weights)]
    for model in resolve_models(read_sweep(sweep)) if sweep else ():
        if model.weights != "none":  # a file takes the place of the first
            found += needed(model.entry, model.settings)[0 if model.weights == "pretrained" else 1 :]
    return list(dict.fromkeys(found))


@weights.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@_sweep_option
@_model_option
@store_option
@cache_option
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Not into the cache but here.")
@format_option
def pull(
    names: tuple[str, ...],
    sweep: Path | None,
    model: tuple[str, ...],
    store: str,
    cache: Path | None,
    out: Path | None,
    form: str,
) -> None:
    """Bring weights from the store into this machine's cache, where jobs find them, or to --out."""
    from defectbench.weights.store import pull_weights

    files = pull_weights(open_store(store), _names(list(names), sweep, model), out or cache_or_default(cache))
    rows = [{"weights": name, "file": str(path), "sha256": path.name} for name, path in files.items()]
    if form == "json":
        print_json(rows)
    else:
        print_table(("weights", "file"), [(row["weights"], row["file"]) for row in rows])
