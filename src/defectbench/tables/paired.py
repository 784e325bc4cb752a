"""The two contenders on one category: on which folds they can be compared, and with what result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from defectbench.metrics import comparison
from defectbench.tables.collect import Fold
from defectbench.tables.rows import ComparisonRow

# Below these, simulated intervals covered too rarely; see :func:`cautions`.
_FEW = 30
_NEAR_ONE = 0.98
_SEED = 0
_FEWER = 999


@dataclass(frozen=True)
class PairedSeeds:
    """What can be compared: the same seeds in each fold.

    Attributes:
        expected: fits' views of each contender in the whole sweep.
        cells: of both.
    """

    category: str
    folds: tuple[comparison.FoldScores, ...]
    seeds: tuple[int, ...]
    expected: int
    cells: tuple[str, ...]


def resamples(endpoint: str) -> int:
    """Return how many draws an interval takes: all figures but the AUROC are computed draw by draw."""
    return comparison.RESAMPLES if endpoint == comparison.AUROC else _FEWER


def pair(a: Sequence[Fold], b: Sequence[Fold], units: Mapping[str, str]) -> comparison.FoldScores:
    """Put one fold's scores of two models side by side, a line for each fit; the images are the same.

    Args:
        units: image -> its group, of those in one.
    """
    one, two = (np.stack([fold.test.score for fold in folds]) for folds in (a, b))
    names = [str(name) for name in a[0].test.image_id]
    groups = [units.get(name, f"image {name}") for name in names] if units else None
    return comparison.FoldScores.of(a[0].test.label, one, two, groups)


def find_paired(
    category: str,
    classifier: Sequence[Fold],
    detector: Sequence[Fold],
    seeds: Sequence[int],
    folds: int,
    units: Mapping[str, str],
) -> PairedSeeds | None:
    """Return what both contenders have: the seeds with all folds, else the one seed with the most of them.

    Args:
        folds: how many the protocol cuts.
        units: image -> its group, of those in one.
    """
    ours, theirs = (_places(one) for one in (classifier, detector))
    shared = ours.keys() & theirs.keys()
    if not shared:
        return None
    # A seed with a missing fold would be an average over other images than the rest.
    whole = [seed for seed in seeds if sum(of == seed for _, of in shared) == folds]
    picked = whole or [max(seeds, key=lambda seed: sum(of == seed for _, of in shared))]
    numbers = sorted(fold for fold, seed in shared if seed == picked[0])
    sides = [[[one[fold, seed] for seed in picked] for fold in numbers] for one in (ours, theirs)]
    cells = dict.fromkeys(fold.reading.cell for side in sides for group in side for fold in group)
    pairs = tuple(pair(a, b, units) for a, b in zip(*sides, strict=True))
    return PairedSeeds(category, pairs, tuple(picked), folds * len(seeds), tuple(cells))


def compare_pairs(
    pairs: Mapping[tuple[str, str], Sequence[PairedSeeds]], endpoint: str, margin: float
) -> tuple[ComparisonRow, ...]:
    """Compare each pair in each category by the endpoint; p-values are corrected for all that are compared.

    Args:
        pairs: (classifier, detector) -> what can be compared of them, a category each.
    """
    draws = resamples(endpoint)
    wanted = [(models, one) for models, categories in pairs.items() for one in categories]
    compared = [
        comparison.compare(one.folds, seed=_SEED, endpoint=endpoint, resamples=draws) for _, one in wanted
    ]
    corrected = comparison.holm([each.p for each in compared])
    return tuple(
        _comparison(one, models, each, p, endpoint, margin)
        for (models, one), each, p in zip(wanted, compared, corrected, strict=True)
    )


def _places(folds: Sequence[Fold]) -> Mapping[tuple[int, int], Fold]:
    """Return (fold, seed) -> the fold's rows."""
    return {(fold.split.fold, fold.reading.seed): fold for fold in folds}


def _comparison(
    paired_seeds: PairedSeeds,
    contenders: tuple[str, str],
    compared: comparison.Comparison,
    p: float,
    endpoint: str,
    margin: float,
) -> ComparisonRow:
    """Return the comparison as a row of the table."""
    goods = sum(int(fold.goods.size) for fold in paired_seeds.folds)
    defects = sum(int(fold.defects.size) for fold in paired_seeds.folds)
    return ComparisonRow(
        category=paired_seeds.category,
        classifier=contenders[0],
        detector=contenders[1],
        classifier_value=compared.a.value,
        detector_value=compared.b.value,
        difference=compared.difference.value,
        low=compared.difference.low,
        high=compared.difference.high,
        low_90=compared.difference_90.low,
        high_90=compared.difference_90.high,
        p=compared.p,
        corrected=p,
        verdict=compared.verdict(p, margin=margin),
        seeds=tuple(a - b for a, b in zip(compared.a_seeds, compared.b_seeds, strict=True)),
        folds=len(paired_seeds.folds) * len(paired_seeds.seeds),
        expected=paired_seeds.expected,
        goods=goods,
        defects=defects,
        warnings=_warnings(compared, goods, defects, endpoint, margin),
        cells=paired_seeds.cells,
    )


def _warnings(
    compared: comparison.Comparison, goods: int, defects: int, endpoint: str, margin: float
) -> tuple[str, ...]:
    """Say why to trust the interval less, and where it could not have shown the two to be equivalent."""
    best = max(compared.a.value, compared.b.value)
    found = cautions(goods, defects, best, endpoint, compared.warning, compared.images)
    if not compared.of_families:
        number = compared.variance.seeds
        found += (
            f"for these fits only: {number} seed{'s' if number > 1 else ''} cannot show how far fits differ "
            "by luck, so nothing is decided between the families; give three seeds",
        )
    if compared.images and compared.is_blind(margin):
        least = math.ceil(comparison.RULE_OF_THREE / margin)
        found += (
            f"with so few images out of place, two models count as equivalent within {margin:g} from "
            f"{least} images of each class on (none wrong among n does not exclude 3/n)",
        )
    return found


def cautions(
    goods: int, defects: int, best: float, endpoint: str, warning: str = "", units: int | None = None
) -> tuple[str, ...]:
    """Say why an interval may be too narrow: simulated, it covered 71-86 % where images are few.

    Args:
        goods, defects: distinct tested images.
        best: the larger figure that the interval is about.
        warning: what :func:`defectbench.metrics.comparison.caution` says; by default asked of ``best``,
            where that is an AUROC.
        units: of the smaller class, the images or the groups that they come in; None for the images.
    """
    units = min(goods, defects) if units is None else units
    if not warning and endpoint == comparison.AUROC:
        warning = comparison.caution(units, best)
    found = [warning] if warning else []
    if units < _FEW:
        groups = f" in groups, {units} of the smaller class" if units < min(goods, defects) else ""
        found.append(
            f"only {goods} goods and {defects} defects{groups}: below {_FEW} of a class, intervals are too "
            "narrow"
        )
    if best > _NEAR_ONE and not warning:
        found.append(f"an {endpoint} of {best:.3f} is so near 1 that intervals are too narrow")
    return tuple(found)


def units_tested(folds: Sequence[Fold], units: Mapping[str, str]) -> int:
    """Return how many images, or groups of images, the folds' smaller class has."""
    found: dict[int, set[str]] = {0: set(), 1: set()}
    for fold in folds:
        for name, label in zip(fold.test.image_id, fold.test.label, strict=True):
            found[int(label)].add(units.get(str(name), f"image {name}"))
    return min(map(len, found.values()))


def tested(folds: Sequence[Fold]) -> tuple[int, int]:
    """Return how many distinct goods and defects the folds test."""
    labels = {
        str(name): int(label)
        for fold in folds
        for name, label in zip(fold.test.image_id, fold.test.label, strict=True)
    }
    defects = sum(labels.values())
    return len(labels) - defects, defects
