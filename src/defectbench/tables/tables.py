"""The report's tables: the page, the CSV files and the command line show the same figures.

All but ``conditions`` are about the ``detection`` protocol. Figures come from
:mod:`defectbench.tables.collect`, intervals and verdicts from :mod:`defectbench.metrics.comparison`; what
shows the rows computes nothing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import numpy as np

from defectbench import catalog
from defectbench.catalog import Family
from defectbench.data.shortcut import Shortcut
from defectbench.errors import UsageError, nearest
from defectbench.metrics import comparison
from defectbench.metrics.image import image_ap, image_auroc, precision_recall_curve, roc_curve
from defectbench.protocols.base import EVERYONE, Split
from defectbench.protocols.choose import PRIMARY
from defectbench.protocols.detection import HOLDOUT
from defectbench.records.result import Result
from defectbench.records.sweep_record import Reading, SweepModel
from defectbench.tables import cost, paired, worst_images
from defectbench.tables.collect import Collected, FigureRow, Fold
from defectbench.tables.conditions import cells_of, conditions, mean
from defectbench.tables.cost import CostChoice, Tradeoff
from defectbench.tables.files import as_files, to_arrow
from defectbench.tables.goods_curve import GoodsNeededRow, GoodsRow, GoodsTables
from defectbench.tables.learning_curve import CrossoverRow, LearningRow, LearningTables
from defectbench.tables.matched import matched_pairs
from defectbench.tables.rows import (
    CategoryRow,
    CellRow,
    ComparisonRow,
    ConditionRow,
    CostRow,
    CurveRow,
    Curves,
    ExplanationRow,
    MeanRow,
    MistakeRow,
    ModelRow,
    ScoreRow,
    ShiftRow,
    ThresholdRow,
)
from defectbench.tables.sample_size import SampleSizeRow, size_up
from defectbench.tables.thresholds import ThresholdTable
from defectbench.tables.uncertain import UncertainRow, uncertain_rows
from defectbench.tables.unseen import SeenUnseenRow, UnseenRow, UnseenTables
from defectbench.tables.unseen_study import UnseenScore, UnseenStudy, study_recalls, study_scores
from defectbench.weights.store import described, needed

if TYPE_CHECKING:
    import pyarrow as pa

EXPLANATION = (
    "pixel_auroc",
    "pixel_ap",
    "pointing",
    "iou",
    "iou_oracle",
    "aupro",
    "pixel_auroc_pooled",
    "pixel_ap_pooled",
)
"""Figures of the heat maps, in the order of the table's columns."""

FILES = (
    "models",
    "categories",
    "scores",
    "means",
    "comparisons",
    "matched",
    "thresholds",
    "explanations",
    "costs",
    "tradeoffs",
    "choices",
    "sample_sizes",
    "shifts",
    "mistakes",
    "uncertain",
    "conditions",
    "unseen",
    "seen_unseen",
    "unseen_study",
    "unseen_scores",
    "learning",
    "crossovers",
    "goods_curve",
    "goods_needed",
    "cells",
)
"""Tables that become files."""

_SEED = 0
_NAN = math.nan
_Line = TypeVar("_Line")


class Tables:
    """All tables of a sweep's detection protocol; each is made when first asked for.

    Attributes:
        endpoint: name of the figure that the verdict is about.
        scheme: of detection, ``crossfit`` or ``holdout``; empty where the sweep has no detection.
        paired: whether both families are tested on the same images (crossfit).
        labels: the models' names in tables, in the sweep's order.
    """

    def __init__(self, collected: Collected) -> None:
        record = collected.record
        self.collected = collected
        self.endpoint = str(record.document["endpoint"])
        self.margin = float(record.document["margin"])
        self.seeds = tuple(int(seed) for seed in record.document["seeds"])
        self.defect_rate: float | None = record.document["defect_rate"]
        self.prices: Mapping[str, float] | None = record.document["prices"]
        # Not in a record of version 0.1.
        self.requirement: Mapping[str, float] | None = record.document.get("requirement")
        self.labels = tuple(model.label for model in record.models)
        splits = [placed for placed in record.splits if placed.split.protocol == PRIMARY]
        self.scheme = splits[0].split.condition if splits else ""
        # A holdout has a split for each family: their test images differ.
        self.paired = bool(splits) and all(placed.split.families == EVERYONE for placed in splits)
        self.cuts = {
            name: len({s.split.fold for s in splits if s.category == name}) for name in record.categories
        }
        self._folds: dict[tuple[str, str], list[Fold]] = defaultdict(list)
        for fold in collected.folds(protocol=PRIMARY):
            self._folds[fold.category, fold.reading.label].append(fold)
        self._rows: dict[tuple[str, str], list[FigureRow]] = defaultdict(list)
        self._all_rows = collected.rows()
        for row in self._all_rows:
            if row.protocol == PRIMARY:
                self._rows[row.category, row.label].append(row)

    @cached_property
    def models(self) -> tuple[ModelRow, ...]:
        """Every model of the sweep."""
        return tuple(_model(model) for model in self.collected.record.models)

    @cached_property
    def categories(self) -> tuple[CategoryRow, ...]:
        """What was tested: a line for each category, in holdout for each family as well."""
        lines: dict[tuple[str, tuple[str, ...]], dict[int, Fold]] = defaultdict(dict)
        for folds in self._in_order(self._folds):
            for fold in folds:
                lines[fold.category, fold.split.families].setdefault(fold.split.fold, fold)
        digests = self.collected.record.digests
        return tuple(_category(name, digests[name], [*folds.values()]) for (name, _), folds in lines.items())

    @cached_property
    def scores(self) -> tuple[ScoreRow, ...]:
        """The endpoint of every model and category that has a result."""
        return tuple(self._score(rows) for rows in self._in_order(self._rows))

    @cached_property
    def means(self) -> tuple[MeanRow, ...]:
        """Every model's mean over the categories that detection splits; NaN unless it has each of them."""
        values: dict[str, list[float]] = defaultdict(list)
        for score in self.scores:
            values[score.label].append(score.value)
        wanted = sum(folds > 0 for folds in self.cuts.values())
        return tuple(
            MeanRow(label, float(np.mean(values[label])) if len(values[label]) == wanted > 0 else _NAN)
            for label in self.labels
        )

    @cached_property
    def _paired_by_category(self) -> tuple[paired.PairedSeeds, ...]:
        """What can be compared of the contenders."""
        contenders = self.collected.record.contenders
        return self._find(contenders) if contenders else ()

    def _find(self, pair: tuple[str, str]) -> tuple[paired.PairedSeeds, ...]:
        """Return what can be compared of a classifier and a detector; nothing in holdout."""
        if not self.paired:
            return ()
        found = []
        for category in self.collected.record.categories:
            classifier, detector = (self._folds[category, label] for label in pair)
            shared = paired.find_paired(
                category,
                classifier,
                detector,
                self.seeds,
                self.cuts[category],
                self.collected.units_of(category),
            )
            found += [shared] if shared is not None else []
        return tuple(found)

    @cached_property
    def comparisons(self) -> tuple[ComparisonRow, ...]:
        """The contenders, paired, by category."""
        contenders = self.collected.record.contenders
        return self._compared_of([contenders] if contenders else [])

    @cached_property
    def matched(self) -> tuple[ComparisonRow, ...]:
        """Pairs on one backbone with the same weights, paired, by category: here only the family differs."""
        return self._compared_of(matched_pairs(self.collected.record.models))

    @cached_property
    def compared(self) -> tuple[ComparisonRow, ...]:
        """The contenders and the matched pairs: p is corrected for all of them, since each may be decided."""
        contenders = self.collected.record.contenders
        pairs = {contenders: self._paired_by_category} if contenders else {}
        for pair in matched_pairs(self.collected.record.models):
            if pair not in pairs:
                pairs[pair] = self._find(pair)
        return paired.compare_pairs(pairs, self.endpoint, self.margin)

    def _compared_of(self, pairs: Sequence[tuple[str, str]]) -> tuple[ComparisonRow, ...]:
        return tuple(row for pair in pairs for row in self.compared if (row.classifier, row.detector) == pair)

    @cached_property
    def sample_sizes(self) -> tuple[SampleSizeRow, ...]:
        """How many tested images would decide a difference of one margin, by category."""
        contenders = self.collected.record.contenders
        return size_up(self._paired_by_category, contenders, self.endpoint, self.margin) if contenders else ()

    @cached_property
    def shifts(self) -> tuple[ShiftRow, ...]:
        """Whether the parts' good pictures look alike, by category; NaN where no import measured it."""
        shortcuts = self.collected.shortcuts
        return tuple(_shift(name, shortcuts.get(name)) for name in self.collected.record.categories)

    def folds_of(self, category: str, label: str) -> list[Fold]:
        """Return detection's folds of one model and category, over all seeds."""
        return self._folds.get((category, label), [])

    def rows_of(self, category: str, label: str) -> list[FigureRow]:
        """Return detection's lines of one model and category, one for each seed."""
        return self._rows.get((category, label), [])

    def holdout_rows_of(self, category: str, label: str) -> list[FigureRow]:
        """Return the lines of one model and category in the holdout beside crossfit, one for each seed."""
        wanted = (HOLDOUT, category, label)
        return [row for row in self._all_rows if (row.protocol, row.category, row.label) == wanted]

    @cached_property
    def thresholds(self) -> tuple[ThresholdRow, ...]:
        """Calls by each rule, in the order in which they may be trusted, within each category."""
        families = {one.label: one.family for one in self.collected.record.models}
        return ThresholdTable(self._rows, self._folds, families, self.defect_rate, self.prices).lines(
            self.collected.record.categories
        )

    @cached_property
    def explanations(self) -> tuple[ExplanationRow, ...]:
        """Where the heat maps fall, for every model and category that has a result."""
        return tuple(self._explanation(rows) for rows in self._in_order(self._rows))

    @cached_property
    def conditions(self) -> tuple[ConditionRow, ...]:
        """What the protocols beyond detection gave, condition by condition."""
        return conditions(self._all_rows, self.endpoint, but=PRIMARY)

    @cached_property
    def uncertain(self) -> tuple[UncertainRow, ...]:
        """Where every model ranks the images whose label nobody is sure of; empty without such."""
        return tuple(
            row
            for folds in self._in_order(self._folds)
            for row in uncertain_rows(folds, self._family(folds), self.collected)
        )

    @cached_property
    def _unseen(self) -> UnseenTables:
        """The tables of the unseen protocol."""
        return UnseenTables(self.collected, self.endpoint)

    @cached_property
    def _learning(self) -> LearningTables:
        """The tables of the scarcity protocol."""
        return LearningTables(self.collected)

    @cached_property
    def unseen(self) -> tuple[UnseenRow, ...]:
        """The matrix trained-on x tested-on, entry by entry; empty without the unseen protocol."""
        return self._unseen.matrix()

    @cached_property
    def seen_unseen(self) -> tuple[SeenUnseenRow, ...]:
        """Seen against unseen defects; empty without the unseen protocol."""
        return self._unseen.seen_unseen()

    @cached_property
    def unseen_study(self) -> tuple[UnseenStudy, ...]:
        """Recall on types never learnt, in the original study's form; empty without that mode."""
        return study_recalls(self.collected)

    @cached_property
    def unseen_scores(self) -> tuple[UnseenScore, ...]:
        """Scores of the images behind ``unseen_study``."""
        return study_scores(self.collected)

    @cached_property
    def learning(self) -> tuple[LearningRow, ...]:
        """The learning curves, point by point; empty without scarcity, or without both contenders."""
        return self._learning.learning()

    @cached_property
    def crossovers(self) -> tuple[CrossoverRow, ...]:
        """From how many labelled defects on a classifier suffices; empty likewise."""
        return self._learning.crossovers()

    @cached_property
    def _goods(self) -> GoodsTables:
        """The tables of the goods protocol."""
        return GoodsTables(self.collected)

    @cached_property
    def goods_curve(self) -> tuple[GoodsRow, ...]:
        """Each model's quality by the goods that it learnt from; empty without the goods protocol."""
        return self._goods.points()

    @cached_property
    def goods_needed(self) -> tuple[GoodsNeededRow, ...]:
        """From how many goods on each model is as good as with all; empty likewise."""
        return self._goods.needed()

    @cached_property
    def costs(self) -> tuple[CostRow, ...]:
        """What the fits took, a line for each model that has a result."""
        found = ((label, self._results(label)) for label in self.labels)
        return tuple(
            cost.cost(label, results, self._results(label, PRIMARY), self._splits(results))
            for label, results in found
            if results
        )

    @cached_property
    def tradeoffs(self) -> tuple[Tradeoff, ...]:
        """Every model's quality against each of its costs."""
        return cost.tradeoffs(self.costs, self.scores, {mean.label: mean.value for mean in self.means})

    @cached_property
    def choices(self) -> tuple[CostChoice, ...]:
        """What each choice would cost on the line; empty where the sweep sets no prices."""
        if self.prices is None or self.defect_rate is None:
            return ()
        return cost.choices(self.thresholds, self.defect_rate, self.prices["missed_defect"])

    @cached_property
    def cells(self) -> tuple[CellRow, ...]:
        """Every cell of the sweep, in the order of running."""
        readings: dict[str, list[Reading]] = defaultdict(list)
        for reading in self.collected.record.readings:
            readings[reading.cell].append(reading)
        return tuple(_cell(self.collected, key, readings[key]) for key in self.collected.record.cells)

    @cached_property
    def curves(self) -> tuple[Curves, ...]:
        """ROC and precision-recall curves by fold and seed."""
        return tuple(_curves(folds, self._family(folds)) for folds in self._in_order(self._folds))

    @cached_property
    def mistakes(self) -> tuple[MistakeRow, ...]:
        """The images that each family's contender got most wrong with the first seed; the worst first."""
        found: list[MistakeRow] = []
        for category in self.collected.record.categories:
            for label in self.shown:
                folds = [f for f in self._folds[category, label] if f.reading.seed == self.seeds[0]]
                found += worst_images.worst(folds, self._family(folds)) if folds else ()
        return tuple(found)

    @cached_property
    def shown(self) -> tuple[str, ...]:
        """Whose mistakes are shown: the contenders, or the first model of each family."""
        record = self.collected.record
        first = {one.family: one.label for one in reversed(record.models)}
        return record.contenders or tuple(sorted(first.values(), key=self.labels.index))

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the tables as files, each as CSV and as Parquet: (name, content)."""
        for name in FILES:
            rows, kind = getattr(self, name), _kind(name)
            yield from as_files(name, rows, kind)

    def arrow(self, name: str) -> pa.Table:
        """Return the table of one of :data:`FILES`.

        Raises:
            UsageError: no such table; names those there are.
        """
        if name not in FILES:
            raise UsageError(f"no table {name!r}; {nearest(name, FILES)}")
        return to_arrow(getattr(self, name), _kind(name))

    def _in_order(self, lines: Mapping[tuple[str, str], list[_Line]]) -> Iterator[list[_Line]]:
        """Yield what there is by category and model, both in the sweep's order."""
        for category in self.collected.record.categories:
            for label in self.labels:
                if lines.get((category, label)):
                    yield lines[category, label]

    def _family(self, folds: Sequence[Fold]) -> Family:
        """Return the family of the folds' model."""
        return self.collected.model(folds[0].reading.label).family

    def _results(self, label: str, protocol: str = "") -> list[Result]:
        """Return a model's finished cells, all or those that a protocol reads."""
        record = self.collected.record
        own = (reading for reading in record.readings if reading.label == label)
        cells = dict.fromkeys(
            reading.cell for reading in own if protocol in ("", record.splits[reading.split].split.protocol)
        )
        return [self.collected.results[key] for key in cells if key in self.collected.results]

    def _splits(self, results: Sequence[Result]) -> list[Split]:
        """Return detection's splits that a model's family reads."""
        placed = [placed.split for placed in self.collected.record.splits]
        return [s for s in placed if s.protocol == PRIMARY and results[0].family in s.families]

    def _score(self, rows: Sequence[FigureRow]) -> ScoreRow:
        """Return the endpoint's row of one model and category."""
        first = rows[0]
        values = tuple(row.figures[self.endpoint] for row in rows)
        folds = self._folds[first.category, first.label]
        interval = self._interval(folds)
        return ScoreRow(
            label=first.label,
            family=first.family,
            baseline=_is_baseline(self.collected.model(first.label)),
            category=first.category,
            value=mean(values),
            low=interval.low,
            high=interval.high,
            seeds=values,
            folds=sum(row.folds for row in rows),
            expected=first.expected * len(self.seeds),
            warnings=paired.cautions(
                *paired.tested(folds),
                mean(values),
                self.endpoint,
                units=paired.units_tested(folds, self.collected.units_of(first.category)),
            ),
            cells=cells_of(rows),
        )

    def _interval(self, folds: Sequence[Fold]) -> comparison.Interval:
        """Return the endpoint's interval: both sides of the comparison are this model."""
        by_fold: dict[int, list[Fold]] = defaultdict(list)
        for fold in folds:
            by_fold[fold.split.fold].append(fold)
        units = self.collected.units_of(folds[0].category) if folds else {}
        scores = [paired.pair(seeds, seeds, units) for seeds in by_fold.values()]
        draws = paired.resamples(self.endpoint)
        resampled = comparison.stratified_bootstrap(
            scores, seed=_SEED, endpoint=self.endpoint, resamples=draws
        )
        return resampled.interval_a(0.95)

    def _explanation(self, rows: Sequence[FigureRow]) -> ExplanationRow:
        """Return the heat maps' row of one model and category."""
        first = rows[0]
        folds = self._folds[first.category, first.label]
        masked = (fold.test.image_id[~np.isnan(fold.test.pixel_auroc)].tolist() for fold in folds)
        measured = len({name for names in masked for name in names})
        figures = {
            name: mean(row.figures.get(name, _NAN) for row in rows) if measured else _NAN
            for name in EXPLANATION
        }
        return ExplanationRow(
            first.category, first.label, first.family, measured, cells=cells_of(rows), **figures
        )


def _kind(name: str) -> type:
    """Return the class of a table's rows, which an empty table has too."""
    of: type = get_args(get_type_hints(getattr(Tables, name).func)["return"])[0]
    return of


def _model(model: SweepModel) -> ModelRow:
    """Return a model's row."""
    licence, commercial = _licence(model)
    return ModelRow(
        label=model.label,
        model=model.model,
        family=model.family,
        baseline=_is_baseline(model),
        weights=model.weights,
        image_size=model.image_size,
        changed=tuple(f"{name}={value}" for name, value in model.changed.items()),
        licence=licence,
        commercial=commercial,
    )


def _licence(model: SweepModel) -> tuple[str, bool | None]:
    """Return the licences of code and pretrained weights in words, and whether they allow commercial use.

    Nothing forbids: True; one does: False; of one that is in no catalog it is unknown: None.
    """
    entry = catalog.known(model.model, model.package)
    if entry is None:
        return f"of the package {model.package}, which is not installed here", None
    settings = {**entry.settings, **model.changed}
    names = needed(entry, settings) if model.weights == "pretrained" else ()
    used = [described(name) for name in names]
    terms = [f"code {entry.licence}", *dict.fromkeys(f"weights {weights.terms}" for weights in used)]
    allowed = {weights.commercial for weights in used}
    return "; ".join(terms), False if False in allowed else None if None in allowed else True


def _is_baseline(model: SweepModel) -> bool:
    """Whether the model is one of the two without weights."""
    entry = catalog.known(model.model, model.package)
    return entry is not None and entry.baseline


def _category(name: str, digest: str, folds: Sequence[Fold]) -> CategoryRow:
    """Return what one category was tested with, from one fold of each number."""
    labels = np.concatenate([fold.test.label for fold in folds])
    types = {kind for fold in folds for kind in fold.test.defect_type[fold.test.label == 1].tolist()}
    learnt, tuned = ([len(getattr(f.split, part)) for f in folds] for part in ("defects", "tune"))
    return CategoryRow(
        category=name,
        digest=digest,
        families=folds[0].split.families,
        folds=len(folds),
        goods=len(folds[0].split.goods),
        calibration=len(folds[0].split.calibration),
        learnt=(min(learnt), max(learnt)),
        tuned=(min(tuned), max(tuned)),
        test_goods=int((labels == 0).sum()),
        test_defects=int(labels.sum()),
        defect_types=tuple(sorted(types)),
    )


def _shift(category: str, found: Shortcut | None) -> ShiftRow:
    """Return a category's row of the shortcut check; NaN where none was made."""
    if found is None:
        return ShiftRow(category, _NAN, _NAN, _NAN, 0, 0, False, "")
    warning = found.warning if found.suspicious else ""
    figures = (found.auroc, found.low, found.high, found.train, found.test)
    return ShiftRow(category, *figures, found.suspicious, warning)


def _cell(collected: Collected, key: str, readings: Sequence[Reading]) -> CellRow:
    """Return a cell's row."""
    result = collected.results.get(key)
    model = collected.model(readings[0].label)
    status, note = _status(collected, key)
    return CellRow(
        key=key,
        label=model.label,
        model=model.model,
        category=collected.record.cells[key],
        folds=tuple(sorted({collected.record.splits[reading.split].split.fold for reading in readings})),
        seed=readings[0].seed,
        status=status,
        weights=_weights(result.weights) if result else model.weights,
        device=result.device if result else "",
        image_size=model.image_size,
        fit_seconds=result.cost.get("fit_seconds", _NAN) if result else _NAN,
        versions=", ".join(f"{name} {of}" for name, of in sorted(result.versions.items())) if result else "",
        note=note,
    )


def _status(collected: Collected, key: str) -> tuple[str, str]:
    """Return a cell's state, and why."""
    if key in collected.results:
        return "finished", ""
    if key in collected.damaged:
        return "damaged", collected.damaged[key]
    failure = collected.failures.get(key)
    return ("failed", f"exit code {int(failure.code)}: {failure.message}") if failure else ("missing", "")


def _weights(weights: Mapping[str, Any]) -> str:
    """Return the weights' kind and their digests."""
    digests = [f"{name} {of}" for name, of in weights.items() if name != "kind"]
    kind = str(weights.get("kind", ""))
    return f"{kind} ({', '.join(digests)})" if digests else kind


def _curves(folds: Sequence[Fold], family: Family) -> Curves:
    """Return a model's curves on one category; a fold of one class has none."""
    roc, precision_recall = [], []
    for fold in folds:
        labels, values, cell = fold.test.label, fold.test.score, fold.reading.cell
        if 0 < labels.sum() < len(labels):
            points, steps = roc_curve(labels, values), precision_recall_curve(labels, values)
            roc.append(CurveRow(points.false_alarm_rate, points.recall, image_auroc(labels, values), cell))
            precision_recall.append(CurveRow(steps.recall, steps.precision, image_ap(labels, values), cell))
    share = float(np.concatenate([fold.test.label for fold in folds]).mean())
    label, category = folds[0].reading.label, folds[0].category
    return Curves(label, family, category, share, tuple(roc), tuple(precision_recall))
