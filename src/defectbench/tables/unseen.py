"""Defects of types never learnt: the matrix trained-on x tested-on, and seen against unseen."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from defectbench.catalog import Family
from defectbench.data.manifest import GOOD
from defectbench.metrics.comparison import ENDPOINTS, FoldScores, fold_average, fold_weight
from defectbench.metrics.unseen import UnseenBlock, difference
from defectbench.protocols.unseen import STUDY, Unseen
from defectbench.tables.collect import Collected, Fold
from defectbench.tables.conditions import fitted_by, mean
from defectbench.tables.paired import cautions, tested

_SEED = 0


@dataclass(frozen=True, slots=True)
class UnseenRow:
    """An entry of the matrix: one model that learnt some types, tested on one type against the fold's goods.

    A detector learns no type: its entries are the same in every line of its matrix.

    Attributes:
        mode: ``one`` or ``all_but_one``.
        type: the type learnt alone, or left out alone: the matrix's line.
        tested: the matrix's column.
        learnt: whether ``tested`` is among the types learnt.
        control: the model learnt as many defects of any type instead.
        value: the endpoint, averaged over folds, then over seeds.
        defects: tested, over the folds of one seed.
    """

    category: str
    label: str
    family: Family
    mode: str
    type: str
    tested: str
    learnt: bool
    control: bool
    value: float
    seeds: tuple[float, ...]
    defects: int
    folds: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeenUnseenRow:
    """Seen against unseen: one model on one category, averaged over training sets and folds.

    Attributes:
        seen, unseen, control: the endpoint on types learnt, on types not learnt, and, on the latter's
            pictures, of models that learnt as many defects of any type.
        loss: image AUROC on unseen types less the control's, with its 95 % interval.
        lead: image AUROC on unseen types less the detector's that the sweep names for the verdict, likewise.
        warnings: why to trust these intervals less, in words.
    """

    category: str
    label: str
    family: Family
    mode: str
    seen: float
    unseen: float
    control: float
    loss: float
    loss_low: float
    loss_high: float
    lead: float
    lead_low: float
    lead_high: float
    warnings: tuple[str, ...]
    cells: tuple[str, ...]


_Key = tuple[str, str, str, str, bool]
"""Category, label, mode, type, control."""


class UnseenTables:
    """The tables of a sweep's ``unseen`` protocol, its cross-fitted modes."""

    def __init__(self, collected: Collected, endpoint: str) -> None:
        self._collected = collected
        self._endpoint, self._figure = endpoint, ENDPOINTS[endpoint]
        contenders = collected.record.contenders
        self._detector = contenders[1] if contenders else ""
        self._training_sets: dict[_Key, list[Fold]] = defaultdict(list)
        for fold in collected.folds(protocol=Unseen.name):
            setting = fold.split.setting
            if setting["mode"] == STUDY:  # without goods: a table of its own
                continue
            training = (str(setting["mode"]), str(setting["type"]), bool(setting["control"]))
            self._training_sets[fold.category, fold.reading.label, *training].append(fold)

    def matrix(self) -> tuple[UnseenRow, ...]:
        """Return the entries, in the sweep's order of categories, models and training sets."""
        return tuple(
            self._entry(key, tested, [fold for fold in folds if tested in _types(fold)])
            for key, folds in self._training_sets.items()
            for tested in sorted({kind for fold in folds for kind in _types(fold)})
        )

    def seen_unseen(self) -> tuple[SeenUnseenRow, ...]:
        """Return seen against unseen, a line for each category, model and mode."""
        lines = dict.fromkeys(key[:3] for key in self._training_sets)
        return tuple(self._seen_unseen_row(*line) for line in lines)

    def _entry(self, key: _Key, tested: str, folds: Sequence[Fold]) -> UnseenRow:
        """Return one entry of the matrix."""
        category, label, mode, training, control = key
        by_seed = _grouped(folds, lambda fold: fold.reading.seed)
        values = tuple(self._value(each, [tested]) for each in by_seed.values())
        first = next(iter(by_seed.values()))
        return UnseenRow(
            category=category,
            label=label,
            family=self._collected.model(label).family,
            mode=mode,
            type=training,
            tested=tested,
            learnt=folds[0].split.setting["tested"] == "seen",
            control=control,
            value=mean(values),
            seeds=values,
            defects=sum(int((fold.test.defect_type == tested).sum()) for fold in first),
            folds=len(folds),
            cells=fitted_by(folds),
        )

    def _value(self, folds: Sequence[Fold], types: Sequence[str]) -> float:
        """Return the endpoint on some types against the goods, averaged over folds."""
        places = [np.isin(fold.test.defect_type, [GOOD, *types]) for fold in folds]
        tested = [(fold.test.label[at], fold.test.score[at]) for fold, at in zip(folds, places, strict=True)]
        values = [self._figure(labels.astype(bool), scores) for labels, scores in tested]
        return fold_average(values, [fold_weight(labels) for labels, _ in tested])

    def _seen_unseen_row(self, category: str, label: str, mode: str) -> SeenUnseenRow:
        """Return one model's line of a category and mode."""
        own = self._of(category, label, mode, False)
        seen, unseen = (_tested(own, name) for name in ("seen", "unseen"))
        control = _tested(self._of(category, label, mode, True), "unseen")
        family = self._collected.model(label).family
        learns = family != "detector"
        theirs = _tested(self._of(category, self._detector, mode, False), "unseen") if learns else []
        loss, lead = (difference(_blocks(unseen, other), seed=_SEED) for other in (control, theirs))
        values = [self._mean(folds) for folds in (seen, unseen, control)]
        best = max((value for value in values if value == value), default=math.nan)
        return SeenUnseenRow(
            category=category,
            label=label,
            family=family,
            mode=mode,
            seen=values[0],
            unseen=values[1],
            control=values[2],
            loss=loss.value,
            loss_low=loss.low,
            loss_high=loss.high,
            lead=lead.value,
            lead_low=lead.low,
            lead_high=lead.high,
            warnings=cautions(*tested([*seen, *unseen]), best, self._endpoint),
            cells=fitted_by([*seen, *unseen, *control]),
        )

    def _of(self, category: str, label: str, mode: str, control: bool) -> list[Fold]:
        """Return the folds of all training sets of a mode."""
        wanted = (category, label, mode, control)
        training_sets = ((key[:3], key[4], folds) for key, folds in self._training_sets.items())
        return [fold for key, of, folds in training_sets if (*key, of) == wanted for fold in folds]

    def _mean(self, folds: Sequence[Fold]) -> float:
        """Return the endpoint averaged over training sets and folds, then over seeds."""
        by_seed = _grouped(folds, lambda fold: fold.reading.seed)
        return mean(self._value(each, _every(each)) for each in by_seed.values())


def _every(folds: Sequence[Fold]) -> list[str]:
    """Return all types that the folds test, sorted."""
    return sorted({kind for fold in folds for kind in _types(fold)})


def _types(fold: Fold) -> set[str]:
    """Return the defect types that a fold tests."""
    return set(fold.test.defect_type.tolist()) - {GOOD}


def _tested(folds: Sequence[Fold], what: str) -> list[Fold]:
    """Return the folds that test seen, or unseen, types."""
    return [fold for fold in folds if fold.split.setting["tested"] == what]


_Group = TypeVar("_Group", bound=Hashable)


def _grouped(folds: Sequence[Fold], by: Callable[[Fold], _Group]) -> dict[_Group, list[Fold]]:
    """Return the folds by a key, in their order."""
    groups: dict[_Group, list[Fold]] = defaultdict(list)
    for fold in folds:
        groups[by(fold)].append(fold)
    return groups


def _blocks(ours: Sequence[Fold], theirs: Sequence[Fold]) -> list[UnseenBlock]:
    """Pair the training sets and folds that both have; a block's lines are the seeds."""
    others = _grouped(theirs, _place)
    return [
        _block(folds, others[place]) for place, folds in _grouped(ours, _place).items() if place in others
    ]


def _place(fold: Fold) -> tuple[str, int]:
    """Return what a fold has in common with its counterpart: the training set's type and the fold."""
    return str(fold.split.setting["type"]), fold.split.fold


def _block(ours: Sequence[Fold], theirs: Sequence[Fold]) -> UnseenBlock:
    """Return one training set's images of one fold, scored by both models."""
    tested = ours[0].test
    a, b = (np.stack([fold.test.score for fold in folds]) for folds in (ours, theirs))
    scores = FoldScores.of(tested.label, a, b)
    return UnseenBlock(ours[0].split.fold, tested.image_id.tolist(), tested.defect_type.tolist(), scores)
