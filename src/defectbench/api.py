"""The Python API: a handful of functions for notebooks and scripts, the same steps as on the command line.

``import defectbench as db`` offers them; see docs/python.md. Every function takes a store as its URL or as
what :func:`open_store` returned, and a sweep as a path, a YAML text or a mapping. Errors are those of
:mod:`defectbench.errors`, all below :class:`DefectbenchError`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectbench.data import archive
from defectbench.data.intensity import AUTO
from defectbench.data.layouts import Wishes
from defectbench.data.layouts.grouping import make_grouping
from defectbench.data.manifest import Manifest
from defectbench.data.synthetic import synth as rendering
from defectbench.data.synthetic.scenes import SCENES
from defectbench.errors import DefectbenchError, UsageError
from defectbench.execution.events import Event
from defectbench.models.pictures.images import default_cache
from defectbench.records.state import CellState
from defectbench.records.sweep_record import Narrowing
from defectbench.report import page
from defectbench.runners.local_sweep import cell_titles, local_runner, write_unfinished
from defectbench.stores import choose
from defectbench.stores.base import Store
from defectbench.sweeps.plan import Plan, make_plan
from defectbench.sweeps.source import SweepSource, load_sweep, sweep_name
from defectbench.tables import arrow
from defectbench.tables.collect import Collected, collect
from defectbench.tables.tables import FILES, Tables

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "DefectbenchError",
    "Results",
    "import_dataset",
    "open_store",
    "plan",
    "results",
    "run",
    "synth",
    "write_report",
]

_DEVICES = ("auto", "cpu", "cuda", "mps")
_MOST_WORKERS = 256
log = logging.getLogger(__name__)


def open_store(url: str | Path) -> Store:
    """Return the store at ``url``: a folder, ``file:///path`` or ``s3://bucket/prefix``. Touches nothing yet.

    Raises:
        UsageError: no such kind of store, or the URL carries credentials.
        ConfigurationError: what this kind of store needs is not installed.

    >>> open_store("/data/bench").url
    '/data/bench'
    """
    return choose.open_store(str(url))


def synth(
    directory: str | Path,
    *,
    categories: Sequence[str] = tuple(SCENES),
    size: int = 256,
    train_good: int = 60,
    test_good: int = 30,
    defects: int = 8,
    seed: int = 0,
) -> Path:
    """Render defects with masks into real photographs, in MVTec AD's layout, and return the folder.

    Args:
        directory: must not be there yet, or be empty.
        categories: which; the default is all.
        size: side of the images in pixels, 32 to 1024.
        train_good, test_good: good images of each category.
        defects: abnormal images of each defect type.
        seed: the same seed gives the same files.

    Raises:
        UsageError: an argument is out of range, a category unknown, or the folder is not empty.
        TryAgainError: the disk is full or read-only.
    """
    folder = Path(directory)
    rendering.synth(
        folder,
        categories=categories,
        size=size,
        train_good=train_good,
        test_good=test_good,
        defects_per_type=defects,
        seed=seed,
    )
    return folder


def import_dataset(
    source: str | Path,
    store: Store | str,
    *,
    name: str | None = None,
    layout: str | None = None,
    any_orientation: Sequence[str] = (),
    group: str | None = None,
    group_by_folder: bool = False,
    test_goods: float | None = None,
    accept_duplicates: bool = False,
    intensity: str = AUTO,
) -> list[Manifest]:
    """Check a folder of images, put it into the store, and return a manifest for each category.

    Args:
        name: what the store calls it; default: the folder's name.
        layout: a name that ``defectbench data import --help`` lists; default: recognised.
        any_orientation: categories whose parts come in any orientation: training rotates and mirrors them.
        group: regular expression, found in the paths below the folder, that names what stays together.
        group_by_folder: the images of a folder stay together.
        test_goods: share of the goods to test, 0.05 to 0.9, where no folder says which; default: a fifth.
        accept_duplicates: keep copies of one image under two labels.
        intensity: ``auto`` or ``window:LOW,HIGH``: the scale of grey of more than 8 bits.

    Raises:
        DataError: the images are wrong: all problems at once; nothing is imported.
        UsageError: an argument that is not allowed.
        MissingInputError: no such folder.
        TryAgainError: the disk or the store is full or out of reach.
    """
    _check_names(any_orientation=any_orientation)
    return archive.import_dataset(
        Path(source),
        _opened(store),
        name=name,
        layout=layout,
        any_orientation=any_orientation,
        wishes=Wishes(make_grouping(group, group_by_folder), test_goods),
        accept_duplicates=accept_duplicates,
        intensity=intensity,
    )


def plan(sweep: SweepSource, store: Store | str, **overrides: Any) -> Plan:
    """Expand a sweep over the data in the store, and start nothing.

    ``plan.cells`` are its distinct fits by key, ``plan.notes`` what a protocol cannot do on a category, and
    ``plan.missing`` the models whose weights are not in the store.

    Args:
        sweep: a path, a YAML text or a mapping.
        overrides: keys of the sweep, as ``image_size=128``; inner ones as ``**{"data.dataset": "mine"}``.

    Raises:
        MissingInputError: there is no such file, or no such data set in the store.
        SweepError: all that is wrong with the sweep, each with its place.
        DataError: no protocol can split any category.
    """
    return make_plan(load_sweep(sweep, overrides), _opened(store))


def run(
    sweep: Plan | SweepSource,
    store: Store | str,
    workers: int = 1,
    *,
    models: Sequence[str] = (),
    categories: Sequence[str] = (),
    device: str = "auto",
    cache: str | Path | None = None,
    tracking_uri: str | None = None,
    watch: Callable[[Event], None] | None = None,
    replace: bool = False,
) -> Mapping[str, Event]:
    """Run a sweep on this machine. What is finished is skipped; what failed before is tried again.

    A cell that fails ends no other cell: its failure is logged as a warning, and its event says why.

    Args:
        sweep: what :func:`plan` returned, or the sweep itself.
        workers: processes, 1 to 256.
        models, categories: run only these; none named means all.
        device: ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda`` or ``mps``.
        cache: folder for unpacked images and features; default: as ``DEFECTBENCH_CACHE`` says.
        tracking_uri: MLflow's; None keeps no runs there, and ``defectbench track`` adds them later.
        watch: called with every event of every cell.
        replace: take the place of another sweep of this name in the store.

    Returns:
        Key -> how the cell ended, for those that were run now: ``state``, ``code`` and ``message``.

    Raises:
        UsageError: an argument is not allowed, or the sweep has no such model or category.
        MissingWeightsError: names every model whose weights are missing; nothing is run.
        StoppedError: SIGTERM or Ctrl-C; what could be saved is saved, and the same call goes on there.
        ConfigurationError: the store has another sweep of this name; nothing was written.
        MissingInputError, SweepError, DataError: as in :func:`plan`.
    """
    _check_allowed(workers, device)
    _check_names(models=models, categories=categories)
    place = _opened(store)
    planned = sweep if isinstance(sweep, Plan) else plan(sweep, place)
    keys = write_unfinished(planned, place, list(planned.narrowed(Narrowing(models, categories))), replace)
    runner = local_runner(
        planned,
        place.url,
        workers,
        cache=None if cache is None else Path(cache),
        device=device,
        tracking_uri=tracking_uri,
    )
    ended = runner.run(keys, watch or _ignore)
    _warn_of_failures(ended, cell_titles(planned, keys))
    return ended


@dataclass(frozen=True)
class Results:
    """What a sweep's cells gave so far, as pyarrow tables; ``.to_pandas()`` where pandas is installed.

    Attributes:
        collected: the results as the report reads them: ``missing``, ``failures`` and ``damaged`` cells too.
    """

    collected: Collected

    @property
    def complete(self) -> bool:
        """Whether every cell of the sweep has its result."""
        return not self.collected.missing

    def predictions(self) -> pa.Table:
        """Return a row for each tested image of each fold.

        Columns: ``model``, ``family``, ``category``, ``protocol``, ``condition``, ``seed``, ``fold``,
        ``cell`` and ``threshold`` (the fold's default one; null without), then those of the cell's
        predictions: ``image_id``, ``label`` (0 good, 1 abnormal), ``defect_type``, ``score`` and the
        explanation figures.
        Scores of two folds are on different scales: never pool them.
        """
        return arrow.predictions_table(self.collected)

    def figures(self) -> pa.Table:
        """Return a row for each model, category, protocol, condition and seed, with a column for each metric.

        Metrics are those of docs/results.md. ``folds`` of ``expected`` folds have results.
        """
        return arrow.figures_table(self.collected)

    def table(self, name: str) -> pa.Table:
        """Return one of the report's tables, such as ``scores``, ``comparisons`` or ``costs``.

        Raises:
            UsageError: no such table; names those there are.
        """
        return self._tables.arrow(name)

    @property
    def table_names(self) -> tuple[str, ...]:
        """What :meth:`table` may be asked for."""
        return FILES

    @cached_property
    def _tables(self) -> Tables:
        return Tables(self.collected)


def results(sweep: Plan | SweepSource, store: Store | str) -> Results:
    """Read what a sweep's cells gave so far. A damaged result is left out and named in ``collected.damaged``.

    Args:
        sweep: its name in the store, or what :func:`run` was given.

    Raises:
        MissingInputError: the store knows no such sweep; names those it knows.
    """
    return Results(collect(_opened(store), _name(sweep)))


def write_report(
    sweep: Plan | SweepSource, store: Store | str, out: str | Path, *, cache: str | Path | None = None
) -> Path:
    """Write the comparison as one page, and its tables and figures as files; return the page's path.

    Args:
        sweep: as for :func:`results`.
        out: a new or empty folder, or that of an older report, which is replaced.
        cache: as for :func:`run`.

    Raises:
        MissingInputError: the store knows no such sweep.
        UsageError: ``out`` holds something else.
        TryAgainError: the disk is full or read-only.
    """
    folder = default_cache() if cache is None else Path(cache)
    return page.write_report(_opened(store), _name(sweep), Path(out), folder)


def _name(sweep: Plan | SweepSource) -> str:
    return sweep.sweep.name if isinstance(sweep, Plan) else sweep_name(sweep)


def _opened(store: Store | str) -> Store:
    return store if isinstance(store, Store) else open_store(store)


def _check_allowed(workers: int, device: str) -> None:
    """Refuse what the command line's options refuse."""
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= _MOST_WORKERS:
        raise UsageError(f"workers: expected a whole number from 1 to {_MOST_WORKERS}, got {workers!r}")
    if device not in _DEVICES:
        raise UsageError(f"device: expected one of {', '.join(_DEVICES)}, got {device!r}")


def _check_names(**names: Sequence[str]) -> None:
    """Refuse a bare text where a list of names is wanted: it would be read letter by letter."""
    for argument, given in names.items():
        if isinstance(given, str):
            raise UsageError(f"{argument}: expected a list of names, got {given!r}; write [{given!r}]")


def _warn_of_failures(ended: Mapping[str, Event], titles: Mapping[str, str]) -> None:
    for key, event in ended.items():
        if event.state is not CellState.FINISHED:
            log.warning("%s %s: %s (%d): %s", titles[key], key, event.state, event.code, event.message)


def _ignore(event: Event) -> None:
    """Hear an event and do nothing."""
