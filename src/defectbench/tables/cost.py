"""What a model costs against what it gives: the Pareto front, and what its mistakes cost on a line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from defectbench.catalog import Family
from defectbench.protocols.base import Split
from defectbench.records.result import Result
from defectbench.tables.conditions import cells_of, mean
from defectbench.tables.rows import CostRow, ScoreRow, ThresholdRow

COSTS: Mapping[str, str] = {
    "labelled_images": "labelled images that a fit uses, tuning included",
    "fit_seconds": "seconds that a fit takes",
    "inference_seconds_per_image": "seconds that an image takes",
    "peak_memory_bytes": "bytes of memory at the peak",
    "parameters": "parameters",
}
"""What a model is held against, and in which unit."""

PARTS = 1000
"""An expected cost is that of so many parts."""


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """One model's quality against one of its costs.

    Attributes:
        cost: a key of :data:`COSTS`.
        amount: of that cost, in its unit; NaN where it is not known.
        quality: the endpoint's mean over the categories; NaN unless it has a figure in each.
        efficient: on the Pareto front: no other model is as good and as cheap, and better in one of the two.
    """

    label: str
    family: Family
    baseline: bool
    cost: str
    amount: float
    quality: float
    efficient: bool
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CostChoice:
    """What it costs to let a model, or none, decide about a line's parts.

    Attributes:
        label, family: of the model; empty and None where none decides.
        choice: the rule of the model's threshold, ``reject everything`` or ``ship everything``.
        recall, observed: share of the defects found, and of the goods called abnormal.
        expected_cost: of 1,000 parts, at the sweep's defect rate and prices.
        cheapest: of the category; several where they cost the same.
    """

    category: str
    label: str
    family: Family | None
    choice: str
    recall: float
    observed: float
    expected_cost: float
    cheapest: bool
    cells: tuple[str, ...]


def cost(label: str, every: Sequence[Result], own: Sequence[Result], splits: Sequence[Split]) -> CostRow:
    """Return what a model's finished fits took, and what labelled images the splits give its family.

    Args:
        every: all its finished cells.
        own: those that detection reads, which its quality comes from: a training set of one defect or of
            one type takes other seconds. Where there are none, all of them count.
    """
    results = own or every

    def of(name: str) -> list[float]:
        return [result.cost[name] for result in results if name in result.cost]

    family = results[0].family
    labelled = [_labelled(split, family) for split in splits]
    return CostRow(
        label=label,
        family=family,
        cells=len(every),
        total_fit_seconds=sum(result.cost.get("fit_seconds", 0.0) for result in every),
        fit_seconds=mean(of("fit_seconds")),
        inference_seconds_per_image=mean(of("inference_seconds_per_image")),
        images_per_second=mean(of("images_per_second")),
        parameters=mean(of("parameters")),
        flops=mean(of("flops")),
        peak_memory_bytes=max(of("peak_memory_bytes"), default=math.nan),
        labelled=(min(labelled, default=0), max(labelled, default=0)),
        devices=tuple(sorted({result.device for result in results})),
    )


def _labelled(split: Split, family: Family) -> int:
    taught = sum(label for _, label in split.train(family))
    return taught + len(split.tuning(family))


def tradeoffs(
    costs: Sequence[CostRow], scores: Sequence[ScoreRow], means: Mapping[str, float]
) -> tuple[Tradeoff, ...]:
    """Return every model's quality against each cost, cost by cost in the order of the models."""
    found: list[Tradeoff] = []
    for name in COSTS:
        points = [_tradeoff(line, name, scores, means[line.label]) for line in costs]
        found += [replace(point, efficient=_is_efficient(point, points)) for point in points]
    return tuple(found)


def _tradeoff(line: CostRow, name: str, scores: Sequence[ScoreRow], quality: float) -> Tradeoff:
    own = [score for score in scores if score.label == line.label]
    amount = float(line.labelled[1] if name == "labelled_images" else getattr(line, name))
    baseline = any(score.baseline for score in own)
    return Tradeoff(line.label, line.family, baseline, name, amount, quality, False, cells_of(own))


def _is_efficient(point: Tradeoff, points: Sequence[Tradeoff]) -> bool:
    if math.isnan(point.amount) or math.isnan(point.quality):
        return False
    return not any(
        other.quality >= point.quality
        and other.amount <= point.amount
        and (other.quality, other.amount) != (point.quality, point.amount)
        for other in points
    )


def choices(
    thresholds: Sequence[ThresholdRow], defect_rate: float, missed_defect: float
) -> tuple[CostChoice, ...]:
    """Return the expected cost of each choice, category by category, the cheapest first.

    A model decides by its calibrated threshold; by the tuned one where a protocol has no calibration goods.
    """
    by_category: dict[str, list[ThresholdRow]] = {}
    for line in thresholds:
        by_category.setdefault(line.category, []).append(line)
    return tuple(
        choice
        for category, lines in by_category.items()
        for choice in _ranked([*_offers(lines), _ship(category, defect_rate * missed_defect)])
    )


def _offers(lines: Sequence[ThresholdRow]) -> Iterator[CostChoice]:
    calibrated = {line.label for line in lines if line.rule == "calibrated"}
    everything = [line for line in lines if line.rule == "everything abnormal"]
    # Where families are tested apart, each has such a line; on a sweep's defect rate they cost the same.
    yield from (_choice(line, "reject everything") for line in everything[:1])
    for line in lines:
        if line.rule == "calibrated" or (line.rule == "tuned" and line.label not in calibrated):
            yield _choice(line, line.rule)


def _choice(line: ThresholdRow, name: str) -> CostChoice:
    priced = line.cost * PARTS
    return CostChoice(
        line.category, line.label, line.family, name, line.recall, line.observed, priced, False, line.cells
    )


def _ship(category: str, priced: float) -> CostChoice:
    """Looking at no part at all: every defect is missed."""
    return CostChoice(category, "", None, "ship everything", 0.0, 0.0, priced * PARTS, False, ())


def _ranked(offers: Sequence[CostChoice]) -> list[CostChoice]:
    order = sorted(offers, key=lambda offer: (math.isnan(offer.expected_cost), offer.expected_cost))
    return [replace(offer, cheapest=offer.expected_cost == order[0].expected_cost) for offer in order]
