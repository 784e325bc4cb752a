"""Read a sweep's results back: predictions of cells, seen through the splits of protocols.

Scores of two fits are on different scales. So every curve figure is computed inside a fold and averaged
with weight positives x negatives; only counts are pooled, each after its own fold's threshold.
"""

from __future__ import annotations

import io
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import TypeVar

import numpy as np

from defectbench.catalog import Family
from defectbench.data.archive import find_shortcut, load_manifest
from defectbench.data.manifest import Manifest
from defectbench.data.shortcut import Shortcut
from defectbench.errors import DataError, MissingInputError
from defectbench.metrics.image import (
    METRICS,
    ConfusionCounts,
    QuantileThreshold,
    best_f1_threshold,
    counts_at,
    f1_all_abnormal,
    quantile_threshold,
    threshold_free,
)
from defectbench.protocols.base import Split
from defectbench.records.predictions import Predictions
from defectbench.records.result import Failure, Result, find_failure, read_verified
from defectbench.records.sweep_record import CategorySplit, Reading, Record, SweepModel, read_record
from defectbench.stores.base import Store
from defectbench.stores.layout import views_key

# Bounds the memory, and keeps pyarrow's cost of a call small beside its work.
_AT_ONCE = 256
"""Cells whose predictions are decoded together."""

log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
EXPLANATION_COLUMNS = {
    "pixel_auroc": "pixel_auroc",
    "pixel_ap": "pixel_ap",
    "pointing": "pointing_hit",
    "iou": "iou",
}
"""Metric name -> column of the predictions that it averages."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One table entry's images.

    Attributes:
        test, tune, calibration: the cell's rows of these images, in the split's order.
        calibrated: the threshold from the calibration goods, for the sweep's false-alarm rate.
        tuned: the threshold of best F1 on the tuning images; NaN where the protocol has none.
    """

    reading: Reading
    category: str
    split: Split
    test: Predictions
    tune: Predictions
    calibration: Predictions
    calibrated: QuantileThreshold
    tuned: float

    @property
    def threshold(self) -> float:
        """The default threshold: calibrated, or tuned where a protocol has no calibration goods."""
        return self.tuned if math.isnan(self.calibrated.threshold) else self.calibrated.threshold


@dataclass(frozen=True)
class FigureRow:
    """A line of the tables: one model, category, protocol, condition and seed, over its folds and draws.

    Attributes:
        folds, expected: how many folds have results, and how many the sweep has; each draw's are counted.
        figures: name -> figure, names of :data:`defectbench.metrics.image.METRICS`. Threshold figures are
            those of the default threshold. Where a condition is drawn several times: the mean over draws.
        counts: at the default threshold, pooled over folds, summed over draws.
        tuned: counts at the tuned threshold; None where the protocol has none.
        promised: mean false-alarm rate that the calibrated thresholds promise; NaN without.
        goods, defects: distinct images tested, over folds and draws.
        all_abnormal: F1 of calling every one of them abnormal; NaN where no good is tested.
        cells: keys, in order of folds.
        draws: how many draws have results; 0 where nothing is drawn.
        spread: name -> standard deviation of the figure over draws; empty with fewer than two.
    """

    label: str
    family: Family
    category: str
    protocol: str
    condition: str
    seed: int
    folds: int
    expected: int
    figures: Mapping[str, float]
    counts: ConfusionCounts | None
    tuned: ConfusionCounts | None
    promised: float
    goods: int
    defects: int
    all_abnormal: float
    cells: tuple[str, ...]
    draws: int = 0
    spread: Mapping[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every fold has its result."""
        return self.folds == self.expected


@dataclass(frozen=True)
class Collected:
    """A sweep with all that its cells gave so far.

    Attributes:
        results: of finished cells.
        predictions: of the same cells.
        failures: cells that failed for good.
        damaged: cell -> why its result is not used.
        shortcuts: category -> how well looks separate train/good from test/good, where an import measured it.
        accepted: category -> pairs of ids of copies under two labels that the user kept, where there are any.
        units: category -> image id -> its group, of those in one.
    """

    record: Record
    results: Mapping[str, Result]
    predictions: Mapping[str, Predictions]
    failures: Mapping[str, Failure]
    damaged: Mapping[str, str]
    shortcuts: Mapping[str, Shortcut] = field(default_factory=dict)
    accepted: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    units: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def units_of(self, category: str) -> Mapping[str, str]:
        """Return image id -> its group, of those in one; empty where the category has no groups."""
        return self.units.get(category, {})

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys of the cells without a result."""
        return tuple(key for key in self.record.cells if key not in self.results)

    def model(self, label: str) -> SweepModel:
        """Return the model that tables call ``label``."""
        return next(item for item in self.record.models if item.label == label)

    def folds(self, **wanted: object) -> list[Fold]:
        """Return the readings whose cell is finished.

        Args:
            wanted: any of label, seed, category, protocol, condition.
        """
        return list(self._folds(wanted))

    def _folds(self, wanted: Mapping[str, object]) -> Iterator[Fold]:
        """Yield the readings that match ``wanted`` and whose cell is finished."""
        for reading in self.record.readings:
            placed = self.record.splits[reading.split]
            # Asked before anything is read: a sweep may have ten thousand readings.
            asked = all(_attribute(reading, placed, name) == value for name, value in wanted.items())
            if asked and reading.cell in self.predictions:
                yield self._fold(reading, placed)

    def _fold(self, reading: Reading, placed: CategorySplit) -> Fold:
        """Return a cell's rows as one split reads them, with both thresholds."""
        rows, split = self.predictions[reading.cell], placed.split
        tune, calibration = rows.select(split.tune), rows.select(split.calibration)
        rate = float(self.record.document["false_alarm_rate"])
        return Fold(
            reading=reading,
            category=placed.category,
            split=split,
            test=rows.select(split.test),
            tune=tune,
            calibration=calibration,
            calibrated=quantile_threshold(calibration.score, rate),
            tuned=best_f1_threshold(tune.label, tune.score) if len(tune) else math.nan,
        )

    def rows(self) -> list[FigureRow]:
        """Return the lines of the tables, in the sweep's order; those without any result are left out."""
        expected: dict[tuple[object, ...], int] = defaultdict(int)
        for reading in self.record.readings:
            placed = self.record.splits[reading.split]
            expected[_line(reading, placed.category, placed.split)] += 1
        lines: dict[tuple[object, ...], list[Fold]] = defaultdict(list)
        for fold in self._folds({}):
            lines[_line(fold.reading, fold.category, fold.split)].append(fold)
        return [self._row(folds, expected[line]) for line, folds in lines.items()]

    def _row(self, folds: Sequence[Fold], expected: int) -> FigureRow:
        """Return one line of the tables from its folds."""
        first = folds[0]
        cells = tuple(fold.reading.cell for fold in folds)
        draws: dict[int | None, list[Fold]] = defaultdict(list)
        for fold in folds:
            draws[fold.split.draw].append(fold)
        drawn = [self._figures(each) for each in draws.values()]
        labels = np.concatenate([fold.test.label for fold in folds])
        names = np.concatenate([fold.test.image_id for fold in folds])
        goods, defects = (len(np.unique(names[labels == label])) for label in (0, 1))
        return FigureRow(
            label=first.reading.label,
            family=self.model(first.reading.label).family,
            category=first.category,
            protocol=first.split.protocol,
            condition=first.split.condition,
            seed=first.reading.seed,
            folds=len(folds),
            expected=expected,
            figures=_over_draws(drawn, _mean),
            counts=_pooled(folds, [fold.threshold for fold in folds]),
            tuned=_pooled(folds, [fold.tuned for fold in folds]),
            promised=float(np.mean([fold.calibrated.false_alarm_rate for fold in folds])),
            goods=goods,
            defects=defects,
            all_abnormal=f1_all_abnormal(labels) if (labels == 0).any() else math.nan,
            cells=cells,
            draws=len(draws.keys() - {None}),
            spread=_over_draws(drawn, _deviation) if len(drawn) > 1 else {},
        )

    def _figures(self, folds: Sequence[Fold]) -> dict[str, float]:
        """Return the figures of one draw's folds."""
        results = [self.results[fold.reading.cell] for fold in folds]
        counts = _pooled(folds, [fold.threshold for fold in folds])
        return (
            _curves(folds)
            | _explanations(folds)
            | _means(results)
            | (counts.figures() if counts is not None else {})
        )


def collect(store: Store, name: str) -> Collected:
    """Read what a sweep's cells gave so far. A damaged result is left out and named; the rest is read."""
    return collect_record(store, read_record(store, name))


def collect_record(store: Store, record: Record) -> Collected:
    """Read what the cells of ``record`` gave so far, as :func:`collect` does; it may be a part of a sweep."""
    damaged: dict[str, str] = {}

    def noted(key: str, read: Callable[[Store, str], _Item | None]) -> _Item | None:
        try:
            return read(store, key)
        except (DataError, MissingInputError) as error:
            damaged[key] = str(error)
            return None

    results: dict[str, Result] = {}
    predictions: dict[str, Predictions] = {}
    keys = list(record.cells)
    checks = CellChecks(record)
    for start in range(0, len(keys), _AT_ONCE):
        found = _each(store, lambda key: noted(key, read_verified), keys[start : start + _AT_ONCE])
        for key, rows in _decoded({key: data for key, (_, data) in found.items()}, damaged).items():
            result = found[key][0]
            if fault := checks.of(key, result, rows):
                damaged[key] = fault
            else:
                results[key], predictions[key] = result, rows
    unfinished = [key for key in keys if key not in results]
    kept = _each(store, lambda category: _manifest(store, record, category), record.categories)
    failures = _each(store, lambda key: noted(key, find_failure), unfinished)
    return Collected(
        record=record,
        results=results,
        predictions=predictions,
        # A cell whose failure stands beside a damaged result counts once.
        failures={key: failure for key, failure in failures.items() if key not in damaged},
        damaged=damaged,
        shortcuts=_each(store, lambda category: _shortcut(store, record, category), record.categories),
        accepted={name: one.accepted_duplicates for name, one in kept.items() if one.accepted_duplicates},
        units={name: _units(one) for name, one in kept.items() if one.grouped},
    )


class CellChecks:
    """What ``status`` and the report ask of a finished cell, whole as its files are, alike.

    Args:
        record: of the sweep whose splits read the cells.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._wanted = _wanted(record)

    def of(self, key: str, result: Result, rows: Predictions) -> str:
        """Say why a cell cannot be read in the sweep; empty where it can."""
        digest = self._record.digests[self._record.cells[key]]
        return _fault(key, result, rows, digest, self._wanted.get(key, ()))

    def of_file(self, key: str, result: Result, predictions: bytes) -> str:
        """Say it of a cell by the contents of its predictions' file."""
        try:
            return self.of(key, result, Predictions.from_parquet(predictions))
        except DataError as error:
            return str(error)


def _wanted(record: Record) -> dict[str, tuple[frozenset[str], ...]]:
    """Return cell -> the images that the splits which read it ask for, split by split."""
    images = [
        frozenset((*placed.split.test, *placed.split.tune, *placed.split.calibration))
        for placed in record.splits
    ]
    found: dict[str, tuple[frozenset[str], ...]] = {}
    for reading in record.readings:
        found[reading.cell] = (*found.get(reading.cell, ()), images[reading.split])
    return found


def _fault(key: str, result: Result, rows: Predictions, digest: str, wanted: Iterable[frozenset[str]]) -> str:
    """Say why a cell's files, whole as they are, cannot be read in this sweep; empty where they can.

    Args:
        digest: of the category's data.
        wanted: images that it must have scored.
    """
    lost = sorted({name for names in wanted for name in names - rows.scored})
    found = (
        (result.data_digest != digest, f"fitted on other data, {result.data_digest[:12]}, not {digest[:12]}"),
        (rows.cell != key, f"its predictions are those of cell {rows.cell}"),
        (missing := int(np.isnan(rows.score).sum()), f"{missing} of {len(rows)} scores are NaN"),
        (lost, f"no score for {len(lost)} images of its splits, such as {', '.join(lost[:3])}"),
    )
    reasons = "; ".join(reason for wrong, reason in found if wrong)
    return f"{reasons}; remove cells/{key} from the store and run the sweep again" if reasons else ""


def _decoded(files: Mapping[str, bytes], damaged: dict[str, str]) -> dict[str, Predictions]:
    """Return cell -> predictions of its file; notes in ``damaged`` those that are none."""
    try:
        return dict(zip(files, Predictions.from_parquets(list(files.values())), strict=True))
    except DataError as error:
        if len(files) == 1:
            damaged[next(iter(files))] = str(error)
            return {}
    # One damaged file spoils a batch: then each is decoded alone, and the damaged ones are named.
    alone = [_decoded({key: data}, damaged) for key, data in files.items()]
    return {key: rows for each in alone for key, rows in each.items()}


def _shortcut(store: Store, record: Record, category: str) -> Shortcut | None:
    """Return a category's shortcut check; a damaged one is logged and left out."""
    try:
        return find_shortcut(store, record.dataset, category, record.digests[category])
    except DataError as error:
        log.warning("%s: %s", category, error)
        return None


def _manifest(store: Store, record: Record, category: str) -> Manifest | None:
    """Return the category's manifest; None where it cannot be read, or the data were imported anew."""
    try:
        manifest = load_manifest(store, record.dataset, category)
    except (DataError, MissingInputError) as error:
        log.warning("%s: %s", category, error)
        return None
    return manifest if manifest.digest == record.digests[category] else None


def _units(manifest: Manifest) -> dict[str, str]:
    """Return image id -> its group, of those in one."""
    return {image.id: image.unit for image in manifest.images if image.group is not None}


def _each(store: Store, read: Callable[[str], _Item | None], keys: Sequence[str]) -> dict[str, _Item]:
    """Read many cells; keys for which nothing is there are left out. Order is kept."""
    found = zip(keys, store.each(read, keys), strict=True)
    return {key: item for key, item in found if item is not None}


def write_views(store: Store, collected: Collected) -> None:
    """Write ``sweeps/<name>/views.parquet``: how protocols read the predictions."""
    store.put(views_key(collected.record.name), views_file(collected))


def views_file(collected: Collected) -> bytes:
    """Return the file ``views.parquet``; the same results give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[object]] = {name: [] for name in _VIEW_COLUMNS}
    for fold in collected.folds():
        for role, rows in (("test", fold.test), ("tune", fold.tune)):
            count = len(rows)
            columns["cell"] += [fold.reading.cell] * count
            columns["protocol"] += [fold.split.protocol] * count
            columns["condition"] += [fold.split.drawn] * count
            columns["fold"] += [fold.split.fold] * count
            columns["image_id"] += [str(name) for name in rows.image_id]
            columns["role"] += [role] * count
            columns["threshold"] += [fold.threshold] * count
    types = {"fold": pa.int32(), "threshold": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in _VIEW_COLUMNS])
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


_VIEW_COLUMNS = ("cell", "protocol", "condition", "fold", "image_id", "role", "threshold")


def _attribute(reading: Reading, placed: CategorySplit, name: str) -> object:
    """Return what :meth:`Collected.folds` may ask for."""
    match name:
        case "label" | "seed":
            return getattr(reading, name)
        case "protocol" | "condition":
            return getattr(placed.split, name)
        case "category":
            return placed.category
    raise TypeError(f"folds() has no {name!r}")


def _line(reading: Reading, category: str, split: Split) -> tuple[object, ...]:
    """Return what one line of the tables has in common."""
    return (category, split.protocol, split.condition, reading.label, reading.seed)


def _curves(folds: Sequence[Fold]) -> dict[str, float]:
    """Average the threshold-free figures over folds with weight positives x negatives."""
    figures = [threshold_free(fold.test.label, fold.test.score) for fold in folds]
    positives = np.array([int(fold.test.label.sum()) for fold in folds])
    weights = positives * (np.array([len(fold.test) for fold in folds]) - positives)
    # No fold has both classes: averaging by weight would divide by 0.
    if not weights.sum():
        return dict.fromkeys(figures[0], math.nan)
    return {
        name: float(
            sum(w * each[name] for w, each in zip(weights, figures, strict=True) if w) / weights.sum()
        )
        for name in figures[0]
    }


def _explanations(folds: Sequence[Fold]) -> dict[str, float]:
    """Average the per-image explanation figures over the tested defects that have them."""
    means: dict[str, float] = {}
    for name, column in EXPLANATION_COLUMNS.items():
        values = np.concatenate([getattr(fold.test, column) for fold in folds])
        known = values[~np.isnan(values)]
        means[name] = float(known.mean()) if len(known) else math.nan
    return means


def _means(results: Sequence[Result]) -> dict[str, float]:
    """Average the figures that belong to a fit: pooled pixel figures and cost."""
    means: dict[str, float] = {}
    for metric in METRICS:
        if metric.kind in ("pooled", "cost"):
            values = [
                {**result.metrics, **result.cost}[metric.name]
                for result in results
                if metric.name in result.metrics or metric.name in result.cost
            ]
            means[metric.name] = float(np.mean(values)) if values else math.nan
    return means


def _over_draws(
    drawn: Sequence[Mapping[str, float]], of: Callable[[Sequence[float]], float]
) -> dict[str, float]:
    """Bring each figure's values of several draws to one; those that are undefined are left out."""
    names = dict.fromkeys(name for figures in drawn for name in figures)
    values = {name: [figures[name] for figures in drawn if name in figures] for name in names}
    return {name: of([v for v in several if not math.isnan(v)]) for name, several in values.items()}


def _mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing."""
    return float(np.mean(values)) if values else math.nan


def _deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; NaN of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def _pooled(folds: Sequence[Fold], thresholds: Sequence[float]) -> ConfusionCounts | None:
    """Pool the counts after each fold's own threshold; None where one of them has no threshold."""
    if any(math.isnan(threshold) for threshold in thresholds):
        return None
    counts = [
        counts_at(fold.test.label, fold.test.score, threshold)
        for fold, threshold in zip(folds, thresholds, strict=True)
    ]
    return reduce(add, counts)
