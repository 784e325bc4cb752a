"""Points of learning curves: what one condition has on the same folds as all others of its curve."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from defectbench.catalog import Family
from defectbench.metrics.comparison import AUROC
from defectbench.metrics.crossover import Crossover, CrossoverPoint, crossover
from defectbench.tables.collect import Collected, Fold
from defectbench.tables.conditions import fitted_by
from defectbench.tables.paired import cautions, pair, tested

WHOLE = "all"
"""The condition that is the fit of detection."""

_SEED = 0


@dataclass(frozen=True)
class Stage:
    """What is known of one number of pictures: the same folds as all others of the curve."""

    condition: str
    folds: tuple[tuple[Fold, ...], ...]
    draws: int
    seeds: int

    @property
    def n(self) -> int:
        """The number of pictures; of ``all`` the fewest of a fold."""
        return min(int(fold.split.setting["n"]) for folds in self.folds for fold in folds)

    @property
    def cells(self) -> tuple[str, ...]:
        """Keys of its fits."""
        return fitted_by(fold for folds in self.folds for fold in folds)

    def point(self, reference: Sequence[Sequence[Fold]], units: Mapping[str, str]) -> CrossoverPoint:
        """Return its scores beside those of a reference, fold by fold; ``units``: image -> its group."""
        pairs = zip(self.folds, reference, strict=True)
        return CrossoverPoint(self.n, tuple(pair(ours, theirs, units) for ours, theirs in pairs), self.seeds)


@dataclass(frozen=True)
class Curve:
    """One model's stages on one category, beside a reference on the same folds.

    Attributes:
        units: image -> its group.
        folds, expected: fits of the curve that have results, and how many the sweep has.
    """

    category: str
    label: str
    family: Family
    stages: tuple[Stage, ...]
    reference: tuple[tuple[Fold, ...], ...]
    units: Mapping[str, str]
    margin: float
    folds: int
    expected: int

    @cached_property
    def found(self) -> Crossover:
        """From where on the model is no worse than its reference; resampled once for all tables."""
        points = [stage.point(self.reference, self.units) for stage in self.stages]
        return crossover(points, margin=self.margin, seed=_SEED)

    @property
    def tested(self) -> tuple[int, ...]:
        """The numbers tested, rising."""
        return tuple(stage.n for stage in self.stages)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why to trust bound and interval less."""
        best = max(max(level.classifier.value, level.detector.value) for level in self.found.levels)
        return cautions(*tested([fold for folds in self.reference for fold in folds]), best, AUROC)


def conditions_of(folds: Sequence[Fold]) -> list[str]:
    """Return the conditions by rising number; `all`, which has the tuning part's defects too, is the last."""
    numbers = {fold.split.condition: int(fold.split.setting["n"]) for fold in folds}
    return sorted(numbers, key=lambda name: (name == WHOLE, numbers[name]))


def by_fold(folds: Sequence[Fold]) -> dict[int, list[Fold]]:
    """Return fold -> its fits, the folds rising."""
    found: dict[int, list[Fold]] = defaultdict(list)
    for fold in sorted(folds, key=lambda fold: fold.split.fold):
        found[fold.split.fold].append(fold)
    return found


def stage_of(folds: Sequence[Fold], condition: str, wanted: Sequence[int]) -> Stage | None:
    """Return what one condition has on the wanted folds: the draws that have the same seeds in each fold.

    None where a fold is missing: its average would be over other images than those of its neighbours.
    """
    of = by_fold([fold for fold in folds if fold.split.condition == condition])
    if any(place not in of for place in wanted):
        return None
    seeds = sorted({fold.reading.seed for fold in of[wanted[0]]})
    whole = [tuple(_whole_draws(of[place], seeds)) for place in wanted]
    if not all(whole):
        return None
    return Stage(condition, tuple(whole), min(map(len, whole)) // len(seeds), len(seeds))


def _whole_draws(folds: Sequence[Fold], seeds: Sequence[int]) -> Iterator[Fold]:
    """Yield the fits of the draws that have all seeds, draw by draw."""
    draws: dict[int, dict[int, Fold]] = defaultdict(dict)
    for fold in folds:
        # ``all`` has no draw: it counts as one.
        draws[fold.split.draw or 0][fold.reading.seed] = fold
    for draw in sorted(draws):
        if draws[draw].keys() >= set(seeds):
            yield from (draws[draw][seed] for seed in seeds)


def folds_of(collected: Collected, protocol: str) -> dict[tuple[str, str], list[Fold]]:
    """Return (category, model) -> the finished folds of a protocol, in the sweep's order."""
    found: dict[tuple[str, str], list[Fold]] = defaultdict(list)
    for fold in collected.folds(protocol=protocol):
        found[fold.category, fold.reading.label].append(fold)
    return found


def expected_folds(collected: Collected, protocol: str) -> Counter[tuple[str, str]]:
    """Return (category, model) -> fits of a protocol that the sweep reads."""
    record = collected.record
    placed = ((record.splits[reading.split], reading.label) for reading in record.readings)
    return Counter((one.category, label) for one, label in placed if one.split.protocol == protocol)
