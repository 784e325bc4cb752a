"""The answer for each category as a line needs it: what each contender finds at the threshold that was set.

The threshold is the one that a line can set: from the calibration goods, for the false-alarm rate that the
sweep states. No tested image has a part in it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from defectbench.catalog import Family
from defectbench.metrics.comparison import Verdict
from defectbench.metrics.variance import share_of_groups, variance_of
from defectbench.tables.collect import Fold
from defectbench.tables.tables import Tables

Met = Literal["meets it", "does not meet it", "cannot be said from these pictures"]

_WITHIN = 0.1
"""Half width of the interval of a type's recall that further pictures are to bring."""
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """A share of images and its 95 % interval, over images (or groups of them) and fits.

    Attributes:
        groups: that the images come in; as many as there are images, where each is one by itself.
    """

    value: float
    low: float
    high: float
    images: int
    groups: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a model does at its calibrated threshold.

    Attributes:
        promised: the false-alarm rate that the threshold was set for.
        recall, false_alarms: of the tested defects and goods, mean over seeds.
        types: defect type -> its recall, the lowest first.
        missed: defects that most of the seeds' fits let pass, by id.
    """

    label: str
    family: Family
    promised: float
    recall: Share
    false_alarms: Share
    types: Mapping[str, Share]
    missed: tuple[str, ...]

    @property
    def kept(self) -> bool:
        """Whether the false alarms that came may be those that were promised."""
        return not self.false_alarms.low > self.promised

    def per_thousand(self, defect_rate: float) -> tuple[float, float]:
        """Return bad parts that pass and good parts that are stopped, among 1,000 of the line's parts."""
        return (
            1000 * defect_rate * (1 - self.recall.value),
            1000 * (1 - defect_rate) * self.false_alarms.value,
        )

    def met(self, recall: float, false_alarm_rate: float) -> Met:
        """Say whether it meets a requirement, surely; does not, surely; or neither is sure."""
        if self.recall.low >= recall and self.false_alarms.high <= false_alarm_rate:
            return "meets it"
        if self.recall.high < recall or self.false_alarms.low > false_alarm_rate:
            return "does not meet it"
        return "cannot be said from these pictures"


@dataclass(frozen=True, slots=True)
class CategoryAnswer:
    """One category's answer.

    Attributes:
        verdict: of the comparison by the endpoint.
        points: the classifier's and the detector's.
        gap: classifier's recall less the detector's, with its 95 % interval.
        seeds: fits of each that it rests on.
    """

    category: str
    verdict: Verdict
    points: tuple[OperatingPoint, OperatingPoint]
    gap: tuple[float, float, float]
    seeds: int

    @property
    def best(self) -> OperatingPoint | None:
        """The winner; None where the verdict names none."""
        return next((point for point in self.points if point.family == self.verdict), None)

    def further(self) -> tuple[str, int] | None:
        """Return the defect type that is known least, and how many more pictures of it would tell.

        So many that its recall would be known within 10 points; None where all are. 0 where pictures of the
        same groups would tell no more.
        """
        types = (self.best or self.points[0]).types
        wide = {name: share for name, share in types.items() if share.high - share.low > 2 * _WITHIN}
        if not wide:
            return None
        name, share = max(wide.items(), key=lambda item: item[1].high - item[1].low)
        # Of a share that is far from sure: at least that of four in five.
        spread = max(share.value * (1 - share.value), 0.16)
        return name, max(math.ceil(spread * (1.96 / _WITHIN) ** 2) - share.images, 0)


def answers(tables: Tables) -> tuple[CategoryAnswer, ...]:
    """Return the answer of each category that both contenders have results for."""
    found = []
    for row in tables.comparisons:
        sides = [_calls(tables.folds_of(row.category, label)) for label in (row.classifier, row.detector)]
        if any(side is None for side in sides):
            continue
        units = tables.collected.units_of(row.category)
        points = tuple(
            _point(label, tables.collected.model(label).family, side, units)
            for label, side in zip((row.classifier, row.detector), sides, strict=True)
            if side is not None
        )
        one, two = (side for side in sides if side is not None)
        found.append(
            CategoryAnswer(
                row.category, row.verdict, (points[0], points[1]), _gap(one, two, units), len(one.calls)
            )
        )
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Calls:
    """Which of the tested images a model calls abnormal.

    Attributes:
        images, types, labels: (n,), in one order.
        calls: (seeds, n).
        promised: false-alarm rate of the threshold.
    """

    images: tuple[str, ...]
    types: tuple[str, ...]
    labels: NDArray[np.bool_]
    calls: NDArray[np.bool_]
    promised: float

    def units(self, of: Mapping[str, str], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the number of the group of each chosen image."""
        names = [of.get(name, f"image {name}") for name, one in zip(self.images, chosen, strict=True) if one]
        return np.unique(np.array(names, np.str_), return_inverse=True)[1].astype(np.int64)


def _calls(folds: Sequence[Fold]) -> _Calls | None:
    """Return the calls of a model, of the seeds that have the most images; None without a threshold."""
    by_seed: dict[int, dict[str, bool]] = defaultdict(dict)
    known: dict[str, tuple[str, bool]] = {}
    for fold in folds:
        if math.isnan(fold.calibrated.threshold):
            continue
        rows = fold.test
        for name, kind, label, score in zip(
            rows.image_id, rows.defect_type, rows.label, rows.score, strict=True
        ):
            known[str(name)] = (str(kind), bool(label))
            by_seed[fold.reading.seed][str(name)] = bool(score > fold.calibrated.threshold)
    if not known:
        return None
    most = max(map(len, by_seed.values()))
    whole = [seed for seed in sorted(by_seed) if len(by_seed[seed]) == most]
    images = tuple(sorted(by_seed[whole[0]]))
    whole = [seed for seed in whole if by_seed[seed].keys() == set(images)]
    return _Calls(
        images,
        tuple(known[name][0] for name in images),
        np.array([known[name][1] for name in images]),
        np.array([[by_seed[seed][name] for name in images] for seed in whole]),
        folds[0].calibrated.false_alarm_rate,
    )


def _point(label: str, family: Family, side: _Calls, units: Mapping[str, str]) -> OperatingPoint:
    kinds = np.array(side.types)
    types = {kind: _share(side, (kinds == kind) & side.labels, units) for kind in set(kinds[side.labels])}
    missed = ~side.calls & side.labels
    return OperatingPoint(
        label,
        family,
        side.promised,
        _share(side, side.labels, units),
        _share(side, ~side.labels, units),
        {str(kind): types[kind] for kind in sorted(types, key=lambda kind: (types[kind].value, kind))},
        tuple(name for name, share in zip(side.images, missed.mean(0), strict=True) if share > 0.5),
    )


def _share(side: _Calls, chosen: NDArray[np.bool_], units: Mapping[str, str]) -> Share:
    """Return the share of the chosen images that is called abnormal."""
    numbered = side.units(units, chosen)
    value, low, high = share_of_groups(side.calls[:, chosen], numbered, _LEVEL)
    return Share(value, low, high, int(chosen.sum()), int(np.unique(numbered).size))


def _gap(one: _Calls, two: _Calls, units: Mapping[str, str]) -> tuple[float, float, float]:
    """Return the difference of two recalls on the same defects, seed by seed, with its interval."""
    seeds = min(len(one.calls), len(two.calls))
    chosen = one.labels
    if one.images != two.images or not chosen.any():
        return math.nan, math.nan, math.nan
    moved = one.calls[:seeds, chosen].astype(float) - two.calls[:seeds, chosen]
    means = moved.mean(1)
    found = variance_of(
        list(map(float, means)), [((moved - means[:, None]) / moved.shape[1], one.units(units, chosen))]
    )
    value, reach = float(means.mean()), found.reach(_LEVEL)
    return value, max(value - reach, -1.0), min(value + reach, 1.0)
