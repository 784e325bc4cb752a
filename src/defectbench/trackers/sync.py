"""Where results meet the tracker: what a sweep's cells gave, shown as runs. The store is the source of truth.

A *parent* run for each model, category, protocol and seed carries the tables' figures; the cells that it is
made of lie below it with their learning curves and heat maps.
"""

from __future__ import annotations

import csv
import io
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from defectbench.data.gallery import Gallery
from defectbench.errors import DataError, MissingInputError
from defectbench.metrics.comparison import ENDPOINTS
from defectbench.metrics.image import ConfusionCounts, counts_at
from defectbench.protocols.choose import PRIMARY
from defectbench.records.cell import Cell
from defectbench.records.predictions import HistoryPoint, history_from_parquet
from defectbench.records.result import Failure, Result, read_file, read_predictions
from defectbench.records.sweep_record import Reading, Record, read_record
from defectbench.stores.base import Store
from defectbench.stores.layout import spec_key
from defectbench.tables.collect import Collected, FigureRow, collect_record, write_views
from defectbench.trackers.base import RunAttachments, TrackedData, TrackedRun, Tracker
from defectbench.trackers.contact_sheet import contact_sheet
from defectbench.trackers.run_registry import RunRegistry

log = logging.getLogger(__name__)

_HISTORY, _HEAT_MAPS = "history.parquet", "heatmaps.npz"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#999999", "#000000")
"""A model has one colour in all categories (Okabe and Ito's, which the colour-blind distinguish)."""


@dataclass(frozen=True, slots=True)
class SyncSummary:
    """What :func:`sync_sweep` did.

    Attributes:
        written: runs written, or written again.
        skipped: runs that were up to date.
        incomplete: parents that wait for cells.
    """

    written: int
    skipped: int
    incomplete: int

    def __add__(self, other: SyncSummary) -> SyncSummary:
        return SyncSummary(
            self.written + other.written, self.skipped + other.skipped, self.incomplete + other.incomplete
        )


@dataclass(frozen=True, order=True)
class _Parent:
    """What one parent run is about."""

    label: str
    category: str
    protocol: str
    seed: int

    @property
    def key(self) -> str:
        """A name no other parent has: only the category may hold a comma, and it is in the middle."""
        return f"{self.label},{self.category},{self.protocol},seed{self.seed}"

    @property
    def title(self) -> str:
        """Its name for people, short because MLflow cuts names off; what is usual goes without saying."""
        protocol = "" if self.protocol == PRIMARY else f" {self.protocol}"
        return f"{self.label} {self.category}{protocol}" + (f" seed {self.seed}" if self.seed else "")

    def of(self, row: FigureRow) -> bool:
        """Whether a row belongs to it."""
        return self == _Parent(row.label, row.category, row.protocol, row.seed)


_Groups = Mapping[_Parent, Sequence[Reading]]


def sync_sweep(
    store: Store,
    name: str,
    tracker: Tracker,
    cells: Sequence[str] | None = None,
    cache: Path | None = None,
) -> SyncSummary:
    """Bring the tracker up to date with what the store holds of a sweep. A second call writes nothing.

    Args:
        cells: only the runs of these cells and of the parents that read them: what a worker calls when it has
            finished a cell. None for all; then ``sweeps/<name>/views.parquet`` is written as well, and runs
            that the sweep no longer has are removed.
        cache: folder where pictures are unpacked, to be shown under the heat maps; None shows maps alone.

    Raises:
        MissingInputError: the store knows no such sweep.
        TryAgainError: the tracker (or the store) is out of reach: the same call later goes on.
        NoRightsError, ConfigurationError: the tracker refuses.
    """
    record = read_record(store, name)
    groups = _groups(record)
    chosen = {
        parent: readings
        for parent, readings in groups.items()
        if cells is None or any(reading.cell in cells for reading in readings)
    }
    collected = collect_record(store, _narrowed(record, chosen))
    if cells is None:
        write_views(store, collected)
    registry = RunRegistry(store, name, tracker, tracker.open(name))
    work = _SyncJob(store, collected, registry, collected.rows(), cache)
    done = SyncSummary(0, 0, 0)
    for parent, readings in chosen.items():
        wanted = {reading.cell for reading in readings if cells is None or reading.cell in cells}
        done += work.parent(parent, readings, wanted)
    if cells is None:
        registry.prune(_names(groups))
    return done


def _groups(record: Record) -> _Groups:
    """Return the readings of each parent run."""
    groups: dict[_Parent, list[Reading]] = defaultdict(list)
    for reading in record.readings:
        placed = record.splits[reading.split]
        parent = _Parent(reading.label, placed.category, placed.split.protocol, reading.seed)
        groups[parent].append(reading)
    return groups


def _narrowed(record: Record, groups: _Groups) -> Record:
    """Return the record of these parents alone: a worker need not read a whole sweep after each cell."""
    readings = tuple(reading for each in groups.values() for reading in each)
    keys = {reading.cell for reading in readings}
    cells = {key: category for key, category in record.cells.items() if key in keys}
    return replace(record, readings=readings, cells=cells)


def _names(groups: _Groups) -> set[str]:
    """Return the names of all runs that the sweep has."""
    names = {parent.key for parent in groups}
    return names | {f"{p.key},{reading.cell}" for p, readings in groups.items() for reading in readings}


@dataclass(frozen=True)
class _SyncJob:
    """Writes the runs of one sweep into the tracker."""

    store: Store
    collected: Collected
    registry: RunRegistry
    rows: Sequence[FigureRow]
    cache: Path | None

    def parent(self, parent: _Parent, readings: Sequence[Reading], wanted: Iterable[str]) -> SyncSummary:
        """Write the wanted cells' runs, then the parent's, so that one marked finished is whole."""
        ended = {**self.collected.results, **self.collected.failures}
        order = list(dict.fromkeys(reading.cell for reading in readings))
        first = next((key for key in order if key in ended), None)
        if first is None:
            return SyncSummary(0, 0, 1)
        run = self._parent_run(parent, readings, first)
        # The parent is created first, because a run below it must name it, and written last.
        parent_id = self.registry.hold(parent.key, run).run_id
        written = []
        for key in order:
            if key in wanted and key in ended:
                nested = self._cell_run(parent, parent_id, [r for r in readings if r.cell == key])
                written.append(self.registry.update(f"{parent.key},{key}", nested))
        written.append(self.registry.update(parent.key, run))
        return SyncSummary(sum(written), len(written) - sum(written), int(run.status != "finished"))

    def _parent_run(self, parent: _Parent, readings: Sequence[Reading], first: str) -> TrackedRun:
        """Return a line of the tables as a run; without figures until all its cells are finished."""
        rows = [row for row in self.rows if parent.of(row)]
        keys = tuple(dict.fromkeys(reading.cell for reading in readings))
        complete = all(key in self.collected.results for key in keys)
        seconds = sum(self.collected.results[key].cost.get("fit_seconds", 0.0) for key in keys if complete)
        return TrackedRun(
            name=parent.title,
            status="finished" if complete else "running",
            seconds=seconds,
            tags={"level": "parent", **self._tags(parent, readings)},
            params=self._named(parent) | self._sweep_params(readings) | _model_params(self._cell(first)),
            metrics=_figures(rows) if complete else {},
            colour=self._colour(parent),
            data=TrackedData(
                f"{self.collected.record.dataset}/{parent.category}",
                self.collected.record.digests[parent.category],
                self.store.url,
            ),
            note="The line of the tables: figures over all folds. The fits lie below it.",
            attach=lambda: RunAttachments(files={"folds.csv": self._fold_table(parent)} if complete else {}),
        )

    def _cell_run(self, parent: _Parent, parent_id: str, readings: Sequence[Reading]) -> TrackedRun:
        """Return one finished or failed cell as a run below its parent."""
        key = readings[0].cell
        result = self.collected.results.get(key)
        cell = self._cell(key)
        run = TrackedRun(
            name=f"{self._folds(readings)}, {parent.title}",
            status="failed",
            seconds=0.0,
            tags={"level": "cell", "cell": key, **self._tags(parent, readings)},
            params=self._named(parent) | _model_params(cell) | _data_params(cell),
            metrics={},
            parent=parent_id,
            colour=self._colour(parent),
        )
        return (
            _with_result(self.store, run, result, self.cache)
            if result
            else _with_failure(run, self.collected.failures[key])
        )

    def _tags(self, parent: _Parent, readings: Sequence[Reading]) -> dict[str, str]:
        """Return what both kinds of run are searched by."""
        record = self.collected.record
        model = self.collected.model(parent.label)
        return {
            "model": parent.label,
            "catalog_name": model.model,
            "family": model.family,
            "category": parent.category,
            "protocol": parent.protocol,
            "condition": _few(self._conditions(readings)),
            "seed": str(parent.seed),
            "sweep": record.name,
            "dataset": record.dataset,
            "data_digest": record.digests[parent.category],
            "weights": model.weights,
            "contender": "yes" if parent.label in (record.contenders or ()) else "no",
            "store": self.store.url,
        }

    def _named(self, parent: _Parent) -> dict[str, str]:
        """Return what tells runs apart as params, too: MLflow's comparison of runs opens on params."""
        return {
            "model": parent.label,
            "family": self.collected.model(parent.label).family,
            "category": parent.category,
            "protocol": parent.protocol,
            "seed": str(parent.seed),
        }

    def _conditions(self, readings: Sequence[Reading]) -> list[str]:
        """Return the conditions under which cells are read."""
        splits = [self.collected.record.splits[reading.split].split for reading in readings]
        return list(dict.fromkeys(split.condition for split in splits))

    def _folds(self, readings: Sequence[Reading]) -> str:
        """Say who reads a cell: ``fold 2``, ``folds 0, 1``; beyond detection ``fold 2 of n=4/draw0``."""
        splits = [self.collected.record.splits[reading.split].split for reading in readings]
        folds = sorted({split.fold for split in splits})
        text = f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"
        if splits[0].protocol == PRIMARY:
            return text
        return f"{text} of {_few(list(dict.fromkeys(split.drawn for split in splits)), 2)}"

    def _colour(self, parent: _Parent) -> str:
        """Return the model's colour in charts."""
        labels = [model.label for model in self.collected.record.models]
        return _COLOURS[labels.index(parent.label) % len(_COLOURS)]

    def _cell(self, key: str) -> Cell:
        """Return a cell's spec."""
        try:
            return Cell.from_json(self.store.get(spec_key(key)).data)
        except DataError as error:
            raise DataError(
                f"{spec_key(key)}: {error}; `defectbench retry` or `run` writes it anew"
            ) from error

    def _sweep_params(self, readings: Sequence[Reading]) -> dict[str, str]:
        """Return the sweep's settings that the figures depend on."""
        document = self.collected.record.document
        named = ("endpoint", "false_alarm_rate", "split_seed")
        return {
            "folds": str(
                len({self.collected.record.splits[reading.split].split.fold for reading in readings})
            ),
            **{name: str(document[name]) for name in named if name in document},
        }

    def _fold_table(self, parent: _Parent) -> bytes:
        """Return a line for each fold: threshold and what was called rightly and wrongly."""
        lines: list[Sequence[object]] = []
        for fold in self.collected.folds(
            label=parent.label, category=parent.category, protocol=parent.protocol, seed=parent.seed
        ):
            counts = counts_at(fold.test.label, fold.test.score, fold.threshold)
            place = (fold.split.drawn, fold.split.fold, fold.reading.cell, len(fold.test))
            lines.append((*place, fold.threshold, fold.tuned, counts.tp, counts.fp, counts.tn, counts.fn))
        head = ("condition", "fold", "cell", "images", "threshold", "tuned_threshold", "tp", "fp", "tn", "fn")
        return _csv(head, lines)


def _with_result(store: Store, run: TrackedRun, result: Result, cache: Path | None) -> TrackedRun:
    """Return the run of a finished cell."""
    figures = dict(result.metrics) | dict(result.cost)
    if result.calibration_threshold is not None:
        figures["calibration_threshold"] = result.calibration_threshold
    versions = {f"version.{name}": text for name, text in result.versions.items()}
    return replace(
        run,
        status="finished",
        seconds=result.cost.get("fit_seconds", 0.0),
        tags={**run.tags, "device": result.device},
        params={**run.params, **versions},
        metrics=figures,
        note="One fit. Figures over all images that it did not learn from; curves under `history/`.",
        sources=result.files,
        attach=lambda: _attached(store, result, cache),
    )


def _with_failure(run: TrackedRun, failure: Failure) -> TrackedRun:
    """Return the run of a cell that failed for good."""
    note = f"Failed for good ({failure.code}): {failure.message}\n\n`defectbench retry` takes it up again."
    return replace(run, note=note, tags={**run.tags, "exit_code": str(int(failure.code))})


def _attached(store: Store, result: Result, cache: Path | None) -> RunAttachments:
    """Read the learning curves, and make the files of a finished cell."""
    curves: tuple[HistoryPoint, ...] = ()
    if result.file(_HISTORY):
        points = history_from_parquet(read_file(store, result, _HISTORY))
        curves = tuple(replace(point, name=f"history/{point.name}") for point in points)
    predictions = read_predictions(store, result)
    rows = [(r.image_id, r.label, r.defect_type, r.role, r.score) for r in predictions.rows()]
    files = {"predictions.csv": _csv(("image_id", "label", "defect_type", "role", "score"), rows)}
    if result.file(_HEAT_MAPS):
        maps = read_file(store, result, _HEAT_MAPS)
        files["heat_maps.png"] = contact_sheet(maps, predictions, _gallery(store, result, cache))
    return RunAttachments(curves, files)


def _gallery(store: Store, result: Result, cache: Path | None) -> Gallery | None:
    """Return the pictures that the cell was tested on, if they are still to be had."""
    if cache is None:
        return None
    try:
        return Gallery.open(store, result.dataset, result.category, result.data_digest, cache)
    except (MissingInputError, DataError) as error:
        log.warning("cell %s: heat maps are shown without pictures: %s", result.cell, error)
        return None


def _figures(rows: Sequence[FigureRow]) -> dict[str, float]:
    """Return the tables' figures; where a protocol has several conditions, under ``<condition>/``.

    A condition that was drawn several times has its spread over draws beside each figure of the endpoint's
    kind, as ``<condition>/image_auroc_spread``.
    """
    figures: dict[str, float] = {}
    for row in rows:
        prefix = f"{row.condition}/" if len(rows) > 1 else ""
        figures |= {prefix + name: value for name, value in _line(row).items()}
    return figures


def _line(row: FigureRow) -> dict[str, float]:
    """Return one condition's figures by name."""
    figures = dict(row.figures)
    figures |= _counted(row.counts) if row.counts else {}
    if row.tuned is not None:
        tuned = row.tuned.figures() | _counted(row.tuned)
        figures |= {f"{name}_tuned": value for name, value in tuned.items()}
    figures |= {f"{name}_spread": row.spread[name] for name in ENDPOINTS if name in row.spread}
    return figures | {"false_alarm_rate_promised": row.promised, "f1_all_abnormal": row.all_abnormal}


def _few(names: Sequence[str], most: int = 8) -> str:
    """Return a list that a page can show: its beginning, and how many follow."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _counted(counts: ConfusionCounts) -> dict[str, float]:
    """Return the counts themselves, and the rate that has no place among the tables' figures."""
    whole = {name: float(getattr(counts, name)) for name in ("tp", "fp", "tn", "fn")}
    return whole | {"false_alarm_rate": counts.false_alarm_rate}


def _model_params(cell: Cell) -> dict[str, str]:
    """Return all that decides a fit but its images."""
    fit = cell.fit
    names = ("image_size", "epochs", "patience", "balance", "threads", "fit_version", "rotate_and_flip")
    settings = {f"setting.{name}": str(value) for name, value in fit.settings.items()}
    weights = {f"weights.{name}": digest for name, digest in fit.weights.items()}
    return {name: str(getattr(fit, name)) for name in names} | settings | weights


def _data_params(cell: Cell) -> dict[str, str]:
    """Say how many images a fit learnt from, which is what families differ in."""
    defects = sum(label for _, label in cell.fit.train)
    counts = {
        "train_goods": len(cell.fit.train) - defects,
        "train_defects": defects,
        "tuning_images": len(cell.fit.tune),
        "calibration_goods": len(cell.fit.calibration),
    }
    return {name: str(number) for name, number in counts.items()}


def _csv(head: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows with a header as CSV."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    return buffer.getvalue().encode()
