"""What several commands share: options, printing, and the store."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast

import click

if TYPE_CHECKING:
    from defectbench.records.sweep_record import Narrowing
    from defectbench.runners.chart.values import Values
    from defectbench.stores.base import Store

Command = TypeVar("Command", bound=Callable[..., Any])

store_option = click.option(
    "--store",
    envvar="DEFECTBENCH_STORE",
    default="./bench",
    show_default=True,
    metavar="URL",
    help="Where data and results lie: s3://bucket/prefix, a directory, or a URL that a package knows.  "
    "[env: DEFECTBENCH_STORE]",
)
tracking_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="URI",
    help="MLflow; a directory store has its own mlflow.db.  [env: MLFLOW_TRACKING_URI]",
)
cache_option = click.option(
    "--cache",
    envvar="DEFECTBENCH_CACHE",
    type=click.Path(file_okay=False, path_type=Path),
    help="Unpacked pictures and features on this machine.  [env: DEFECTBENCH_CACHE]",
)
format_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="A table for people, JSON for pipes.",
)
set_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.PATH=VALUE",
    help="Override a key of the sweep; the value is YAML. May be given again.",
)
replace_option = click.option(
    "--replace",
    is_flag=True,
    help="Take the place of another sweep of this name in the store; its results stay there, unread.",
)
device_option = click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
    help="auto takes CUDA where there is one, else the CPU.",
)

namespace_option = click.option("-n", "--namespace", metavar="NAME", help="Default: the context's.")
kube_context_option = click.option(
    "--kube-context", metavar="NAME", help="Of the kubeconfig; default: its current one."
)


def sweep_name(sweep: str) -> str:
    """Return the name of a sweep that is given by its name or by its file."""
    from defectbench.sweeps.source import sweep_name as name_of

    return name_of(sweep)


def _bundled(command: Command, into: str, fields: Sequence[str], make: Callable[..., Any]) -> Command:
    """Give ``command`` one argument ``into`` for several options, made of their values."""

    @functools.wraps(command)
    def bundling(**given: Any) -> Any:
        given[into] = make(*(given.pop(field) for field in fields))
        return command(**given)

    return cast(Command, bundling)


def _narrowing(*given: Sequence[str]) -> Narrowing:
    """Return the narrowing that the options name."""
    from defectbench.records.sweep_record import Narrowing

    return Narrowing(*given)


def narrowing_options(command: Command) -> Command:
    """Add --model, --category and --cell: the command's argument ``narrowing``."""
    command = _bundled(command, "narrowing", ("only_model", "only_category", "only_cell"), _narrowing)
    for name, text in (
        ("cell", "Only the cells whose key starts so."),
        ("category", "Only this category."),
        ("model", "Only this model of the sweep."),
    ):
        option = click.option(f"--{name}", f"only_{name}", multiple=True, help=f"{text} May be given again.")
        command = option(command)
    return command


class ChartOptions(NamedTuple):
    """The values of -f, --set-values and --image. No dataclass: that import alone costs `--help` a tenth."""

    files: Sequence[Path]
    overrides: Sequence[str]
    image: str | None

    def read(self) -> Values:
        """Return the values that a user gives for the chart."""
        from defectbench.runners.chart.values import read_values

        return read_values(self.files, self.overrides, self.image)

    def __bool__(self) -> bool:
        return bool(self.files or self.overrides or self.image)


def values_options(command: Command) -> Command:
    """Add -f, --set-values and --image: the command's argument ``chart_options``."""
    command = _bundled(command, "chart_options", ("values_files", "value_overrides", "image"), ChartOptions)
    for option in (
        click.option("--image", metavar="IMAGE", help="Of the pods.  [default: defectbench:<version>]"),
        click.option(
            "--set-values",
            "value_overrides",
            multiple=True,
            metavar="KEY.PATH=VALUE",
            help="Set a value of the chart; the value is YAML. May be given again.",
        ),
        click.option(
            "-f",
            "--values",
            "values_files",
            multiple=True,
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Values of the chart, as for helm. May be given again; later ones win.",
        ),
    ):
        command = option(command)
    return command


def kubernetes_options(command: Command) -> Command:
    """Add what every command takes that makes Jobs: the chart's values, and --namespace."""
    return values_options(click.option("-n", "--namespace", metavar="NAME", help="Of the Jobs.")(command))


specs_option = click.option(
    "--write-specs",
    is_flag=True,
    help="Also write the cells' specs into the store, for pods that kubectl or Argo CD starts.",
)


def open_store(url: str) -> Store:
    """Return the store at ``url``."""
    from defectbench.stores.choose import open_store as choose

    return choose(url)


def cache_or_default(cache: Path | None) -> Path:
    """Return the cache to use."""
    from defectbench.models.pictures.images import default_cache

    return cache or default_cache()


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def print_yaml(documents: Iterable[Any]) -> None:
    """Print YAML documents on standard output."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    for document in documents:
        text = yaml.dump(document, Dumper=dumper, sort_keys=False, allow_unicode=True, width=1000)
        click.echo(f"---\n{text}", nl=False)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table on standard output. Columns of numbers are flush right; words stay whole if they fit."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    _bars.clear()
    console = Console(width=None if sys.stdout.isatty() else 200)
    cells = [[f"{item:.4g}" if isinstance(item, float) else str(item) for item in row] for row in rows]
    least = [
        max(len(word) for text in texts for word in text.split() or [""])
        for texts in zip(columns, *cells, strict=True)
    ]
    fits = sum(least) + _BETWEEN * len(least) <= console.width
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, _BETWEEN - 1, 0, 0))
    for place, name in enumerate(columns):
        numbers = all(isinstance(row[place], int | float) for row in rows) and bool(rows)
        justify: Literal["left", "right"] = "right" if numbers else "left"
        table.add_column(name, justify=justify, overflow="fold", min_width=least[place] if fits else None)
    for row in cells:
        # Text, not str: a name with square brackets is no markup.
        table.add_row(*(Text(text) for text in row))
    console.print(table)


_BETWEEN = 2
"""Blanks between two columns of a table."""


def note(text: str) -> None:
    """Print a message for people on standard error."""
    _bars.clear()
    click.echo(text, err=True)


class _Bars:
    """The bars of what is under way, on standard error where that is a terminal.

    What is printed meanwhile takes them away until the next step: else they would take lines below them along
    when they go.
    """

    def __init__(self) -> None:
        self._shown: Any = None
        self._tasks: dict[str, Any] = {}

    def step(self, what: str, done: int, total: int) -> None:
        """Show how far it is."""
        from rich.console import Console
        from rich.progress import Progress

        if self._shown is None:
            self._shown = Progress(
                console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
            )
            self._shown.start()
        if what not in self._tasks:
            self._tasks[what] = self._shown.add_task(what, total=total)
        self._shown.update(self._tasks[what], completed=done, total=total)

    def clear(self) -> None:
        """Take them away."""
        if self._shown is not None:
            self._shown.stop()
        # Never started again: it would go up as many lines as it had, over what was printed since.
        self._shown, self._tasks = None, {}


_bars = _Bars()


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Give a callback (what, done, total) that draws a bar on standard error, where that is a terminal."""
    try:
        yield _bars.step
    finally:
        _bars.clear()
