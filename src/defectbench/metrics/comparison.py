"""How sure a comparison of two models is: averages over folds, intervals, a paired test, verdicts.

Scores of different folds come from different fits, hence lie on different scales. Nothing here compares two
scores of different folds: every AUROC is that of one fold, and folds are averaged with weight positives x
negatives, so that a shift or any increasing change of one fold's scores moves nothing.

Within a fold the AUROC is the mean of a matrix, one entry for each pair of a defect and a good part
(1 the defect scores higher, 1/2 tie, 0 lower). A resample weighs rows and columns of that matrix, so that
thousands of resamples are one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectbench.errors import DataError, UsageError, nearest
from defectbench.metrics import image as metrics
from defectbench.metrics.variance import FEWEST_SEEDS, Variance, variance_of, variance_of_draws

Floats = NDArray[np.float64]
Verdict = Literal["detector", "classifier", "equivalent", "undecided"]
NAN = float("nan")
RESAMPLES = 9999
RULE_OF_THREE = 3
AUROC = "image_auroc"
Figure = Callable[[NDArray[np.bool_], Floats], float]
ENDPOINTS: Mapping[str, Figure] = MappingProxyType(
    {
        AUROC: metrics.image_auroc,
        "image_ap": metrics.image_ap,
        "f1_oracle": metrics.f1_oracle,
        "recall_at_precision_95": partial(metrics.recall_at_precision, precision=0.95),
        "recall_at_precision_99": partial(metrics.recall_at_precision, precision=0.99),
    }
)
"""What two models may be compared by: higher is better, and read from ranks alone."""

_MODELS: tuple[Literal["a"], Literal["b"]] = ("a", "b")


@dataclass(frozen=True, eq=False)
class FoldScores:
    """One fold's tested images, scored by two models.

    Attributes:
        labels: (n,), true where abnormal.
        a, b: (seeds, n) raw scores of the two models, higher = more abnormal; the numbers of seeds may
            differ.
        units: (n,) the group that each image belongs to, numbered from 0: groups are drawn whole. None where
            each image is one by itself.
    """

    labels: NDArray[np.bool_]
    a: Floats
    b: Floats
    units: NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls, labels: ArrayLike, a: ArrayLike, b: ArrayLike, units: Sequence[str] | None = None
    ) -> FoldScores:
        """Return a fold from anything list-like, checked. A single list of scores counts as one seed.

        Args:
            units: of each image, what it belongs to; None where each is one by itself.

        Raises:
            DataError: shapes that do not fit, other labels, NaN scores.
        """
        truth = np.asarray(labels)
        if truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
            raise DataError("labels of a fold are a list of 0 (good) and 1 (abnormal)")
        scores = _seeds("a", a, truth.size), _seeds("b", b, truth.size)
        if units is None:
            return cls(truth.astype(bool), *scores)
        if len(units) != truth.size:
            raise DataError(f"{len(units)} units for {truth.size} labels")
        numbered = np.unique(np.asarray(units, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
        alone = numbered.max(initial=-1) + 1 == truth.size
        return cls(truth.astype(bool), *scores, None if alone else numbered)

    @cached_property
    def unit_of(self) -> NDArray[np.int64]:
        """(n,) the unit of each image; its place, where each is one by itself."""
        return np.arange(self.labels.size) if self.units is None else self.units

    @cached_property
    def defects(self) -> NDArray[np.int64]:
        """Places of the abnormal images."""
        return np.flatnonzero(self.labels)

    @cached_property
    def goods(self) -> NDArray[np.int64]:
        """Places of the good images."""
        return np.flatnonzero(~self.labels)

    @property
    def weight(self) -> int:
        """Positives x negatives: 0 where a class is missing, and the fold says nothing."""
        return int(self.defects.size * self.goods.size)

    def pairs(self, scores: Floats) -> Floats:
        """Return the (defects, goods) matrix of wins, summed over the seeds of ``scores`` (seeds, n)."""
        total = np.zeros((self.defects.size, self.goods.size))
        for row in scores:
            # Wins are 0, 1/2 or 1: their sums are exact in any order, whatever the number of threads.
            total += _wins(row[self.defects], row[self.goods])
        return total

    def moved(self, scores: Floats) -> Floats:
        """Return (seeds, n): how far each image moves each seed's AUROC, over its class's size."""
        found = np.zeros(scores.shape)
        for row, out in zip(scores, found, strict=True):
            wins = _wins(row[self.defects], row[self.goods])
            out[self.defects] = (wins.mean(1) - wins.mean()) / self.defects.size
            out[self.goods] = (wins.mean(0) - wins.mean()) / self.goods.size
        return found

    def gaps(self) -> Floats:
        """Return (defects, goods): how much likelier model a ranks the pair rightly than b, over seeds."""
        return self.pairs(self.a) / len(self.a) - self.pairs(self.b) / len(self.b)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the bounds between which it lies with confidence ``level``; NaN where undefined."""

    value: float
    low: float
    high: float
    level: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same images by one endpoint, folds and seeds averaged.

    Attributes:
        a, b: each model's figure.
        difference: a - b, with the level asked for.
        difference_90: a - b at 90 %, which equivalence is read from.
        p: of the paired test, two-sided; not yet corrected for several categories.
        a_seeds, b_seeds: the figure of each seed.
        images: distinct images of the smaller class, or groups of images.
        warning: in words, where intervals are known to be too narrow; else empty.
        variance: of the difference: what images and what fits contribute.
    """

    a: Interval
    b: Interval
    difference: Interval
    difference_90: Interval
    p: float
    a_seeds: tuple[float, ...]
    b_seeds: tuple[float, ...]
    images: int
    warning: str
    variance: Variance

    @property
    def of_families(self) -> bool:
        """Whether there are seeds enough to speak of the families; else it holds for these fits only."""
        return self.variance.seeds >= FEWEST_SEEDS

    def verdict(self, corrected: float, *, margin: float) -> Verdict:
        """Return :func:`verdict` by this difference; ``corrected`` is its p among several categories.

        With fewer than three seeds it is undecided: what the fits' luck does is not known.
        """
        if not self.of_families:
            return "undecided"
        found = verdict(self.difference_90, corrected, margin=margin)
        return "undecided" if found == "equivalent" and self.is_blind(margin) else found

    def is_blind(self, margin: float) -> bool:
        """Whether the images are too few to tell whether the two are equivalent.

        Where fewer than one image is out of place, resampling has nothing to vary, and the interval of two
        perfect models is a point. None out of place among n does not exclude 3/n (95 %, the rule of three),
        so that 3 / margin images of the smaller class are needed.
        """
        return bool(self.warning) and self.images * margin < RULE_OF_THREE


def fold_weight(labels: ArrayLike) -> int:
    """Return positives x negatives, the weight of a fold in every average.

    >>> fold_weight([0, 0, 1])
    2
    """
    positives = int(np.asarray(labels).astype(bool).sum())
    return positives * (int(np.asarray(labels).size) - positives)


def fold_average(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted mean over folds. Folds of weight 0 are left out; NaN where none is left.

    >>> fold_average([1.0, 0.5, float("nan")], [1, 3, 0])
    0.625
    """
    kept = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0]
    total = sum(weight for _, weight in kept)
    return float(sum(value * weight for value, weight in kept) / total) if kept else NAN


def compare(
    folds: Sequence[FoldScores],
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    endpoint: str = AUROC,
) -> Comparison:
    """Return two models' figures, their difference, intervals and the paired test's p.

    Four folds of 60 images with three seeds and 9,999 resamples take 0.2 s by image_auroc; the other
    :data:`ENDPOINTS` are computed resample by resample, some hundred times slower: lower ``resamples``.

    Raises:
        UsageError: no such endpoint.

    >>> fold = FoldScores.of([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], [1, 2, 5, 4, 3, 6])
    >>> result = compare([fold], seed=0)
    >>> round(result.difference.value, 4), round(result.p, 4)
    (0.2222, 0.3739)
    """
    usable = [fold for fold in folds if fold.weight]
    draws = stratified_bootstrap(usable, seed=seed, resamples=resamples, endpoint=endpoint)
    a, b = (_by_seed(usable, name, _figure(endpoint)) for name in _MODELS)
    found = _difference_variance(usable, a, b, draws, endpoint)
    value = draws.a - draws.b
    return Comparison(
        a=draws.interval_a(level),
        b=draws.interval_b(level),
        difference=_around(value, found, level),
        difference_90=_around(value, found, 0.90),
        p=found.p(value) if usable else NAN,
        a_seeds=a,
        b_seeds=b,
        images=smaller_class(usable),
        warning=caution(
            smaller_class(usable), max(_mean(usable, name, metrics.image_auroc) for name in _MODELS)
        ),
        variance=found,
    )


def _around(value: float, found: Variance, level: float) -> Interval:
    """Return Student's interval, within what a difference can be."""
    if np.isnan(value):
        return Interval(NAN, NAN, NAN, level)
    reach = found.reach(level)
    return Interval(value, max(value - reach, -1.0), min(value + reach, 1.0), level)


def _difference_variance(
    folds: Sequence[FoldScores],
    a: Sequence[float],
    b: Sequence[float],
    draws: Resamples,
    endpoint: str,
) -> Variance:
    """Return the variance of a - b. With unequal numbers of seeds the shorter list is repeated."""
    number = max(len(a), len(b), 1)
    seeds = [a[k % len(a)] - b[k % len(b)] for k in range(number)] if a and b else [NAN]
    units = sum(int(np.unique(fold.unit_of).size) for fold in folds)
    if endpoint != AUROC or not folds:
        return variance_of_draws(seeds, draws.drawn_a - draws.drawn_b, units)
    total = sum(fold.weight for fold in folds)
    moved: list[tuple[Floats, NDArray[np.int64]]] = []
    for fold in folds:
        one, two = (fold.moved(scores) for scores in (fold.a, fold.b))
        rows: Floats = np.stack([one[k % len(one)] - two[k % len(two)] for k in range(number)])
        moved.append((np.asarray(rows * (fold.weight / total), np.float64), fold.unit_of))
    return variance_of(seeds, moved)


@dataclass(frozen=True, eq=False)
class Resamples:
    """What a bootstrap drew: both models' figures, and what each image contributes to them.

    Attributes:
        a, b: the models' figures on the images as they are.
        drawn_a, drawn_b: (resamples,) on the drawn images, the same draw for both.
        influence_a, influence_b: (units,) how far each image, or group, moves the figure.
        variance_a, variance_b: by images and fits; the intervals are widened by the fits' share.
    """

    a: float
    b: float
    drawn_a: Floats
    drawn_b: Floats
    influence_a: Floats
    influence_b: Floats
    variance_a: Variance
    variance_b: Variance

    def interval_a(self, level: float) -> Interval:
        """Return the BCa interval of model a's figure, widened by the luck of its fits."""
        return _widened(_bca(self.a, self.drawn_a, self.influence_a, level), self.variance_a)

    def interval_b(self, level: float) -> Interval:
        """Return the BCa interval of model b's figure, widened by the luck of its fits."""
        return _widened(_bca(self.b, self.drawn_b, self.influence_b, level), self.variance_b)


def _widened(found: Interval, of: Variance) -> Interval:
    """Return an interval over images widened by the luck of the fits, within 0 and 1."""
    if np.isnan(found.value):
        return found
    if of.images <= 0:  # no image is out of place: the fits alone vary
        low = high = of.reach(found.level)
    else:
        factor = of.widening(found.level)
        low, high = factor * (found.value - found.low), factor * (found.high - found.value)
    return Interval(found.value, max(found.value - low, 0.0), min(found.value + high, 1.0), found.level)


def stratified_bootstrap(
    folds: Sequence[FoldScores], *, seed: int, resamples: int = RESAMPLES, endpoint: str = AUROC
) -> Resamples:
    """Draw images with replacement within each fold and class, jointly for both models and all seeds.

    Groups are drawn whole, within those that hold goods, defects, or both. Fold weights stay those of the
    data. Memory: a byte x ``resamples`` x all images, which is kept for the
    next call with folds of the same sizes, and 8 bytes x ``resamples`` x the largest fold, twice.

    >>> fold = FoldScores.of([0, 0, 1, 1], [1, 3, 2, 4], [1, 2, 3, 4])
    >>> draws = stratified_bootstrap([fold], seed=0, resamples=99)
    >>> draws.a, draws.b
    (0.75, 1.0)
    """
    usable = [fold for fold in folds if fold.weight]
    total = sum(fold.weight for fold in usable)
    if not total:
        nothing, none = np.full(1, NAN), Variance(0.0, 0.0, 0.0, 0, 1)
        return Resamples(NAN, NAN, nothing, nothing, nothing, nothing, none, none)
    drawn = {"a": np.zeros(resamples), "b": np.zeros(resamples)}
    influence: dict[str, list[Floats]] = {"a": [], "b": []}
    for fold, (rows, columns) in zip(usable, _draws(usable, resamples, seed), strict=True):
        for name, scores in (("a", fold.a), ("b", fold.b)):
            if endpoint == AUROC:
                figures, moved = _drawn_aurocs(fold, scores, rows, columns)
            else:
                figures, moved = _drawn_figures(fold, scores, rows, columns, _figure(endpoint))
            drawn[name] += figures * (fold.weight / total)
            order = np.concatenate([fold.defects, fold.goods])
            summed = np.bincount(fold.unit_of[order], weights=moved * (fold.weight / total))
            influence[name].append(np.asarray(summed, np.float64))
    value_a, value_b = (_mean(usable, name, _figure(endpoint)) for name in _MODELS)
    moved_a, moved_b = (np.concatenate(influence[name]) for name in _MODELS)
    of_a, of_b = (_own_variance(usable, name, drawn[name], endpoint) for name in _MODELS)
    return Resamples(value_a, value_b, drawn["a"], drawn["b"], moved_a, moved_b, of_a, of_b)


def _own_variance(
    folds: Sequence[FoldScores], name: Literal["a", "b"], drawn: Floats, endpoint: str
) -> Variance:
    """Return the variance of one model's figure."""
    seeds = _by_seed(folds, name, _figure(endpoint))
    if endpoint != AUROC:
        return variance_of_draws(seeds, drawn, sum(int(np.unique(fold.unit_of).size) for fold in folds))
    total = sum(fold.weight for fold in folds)
    return variance_of(
        seeds,
        (
            (fold.moved(getattr(fold, name)[: len(seeds)]) * (fold.weight / total), fold.unit_of)
            for fold in folds
        ),
    )


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted for being several (Holm 1979), in their order. NaN stays and does not count.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    adjusted, largest = list(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        adjusted[place] = largest
    return tuple(adjusted)


def verdict(difference_90: Interval, p: float, *, margin: float = 0.01, alpha: float = 0.05) -> Verdict:
    """Return who wins, from the 90 % interval of classifier minus detector and the corrected p.

    ``equivalent`` comes first: a difference that surely lies within the margin is of no use to a factory,
    however significant. Then the test decides; without significance, or without a figure, ``undecided``.

    >>> verdict(Interval(0.08, 0.05, 0.11, 0.9), 0.001)
    'classifier'
    >>> verdict(Interval(0.001, -0.004, 0.006, 0.9), 0.7)
    'equivalent'
    """
    if -margin < difference_90.low <= difference_90.high < margin:
        return "equivalent"
    # Written so that a NaN p, as of a fold without both classes, is undecided too.
    if not p <= alpha or difference_90.value == 0:
        return "undecided"
    return "classifier" if difference_90.value > 0 else "detector"


def smaller_class(folds: Sequence[FoldScores]) -> int:
    """Return how many images, or groups of images, the folds' smaller class has."""
    defects = sum(int(np.unique(fold.unit_of[fold.defects]).size) for fold in folds)
    goods = sum(int(np.unique(fold.unit_of[fold.goods]).size) for fold in folds)
    return min(defects, goods)


def caution(images: int, auroc: float) -> str:
    """Say where intervals are too narrow: simulated, they covered 61-85 % below one misplaced image.

    Args:
        images: of the smaller class.
    """
    if not images:
        return "no fold has both classes: nothing can be compared"
    if images * (1 - auroc) >= 1:
        return ""
    return (
        f"{images} images in the smaller class at an AUROC of {auroc:.3f}: fewer than one of them is out of "
        "place, so the interval is too narrow; read it as a lower bound of the uncertainty"
    )


def _seeds(name: str, scores: ArrayLike, images: int) -> Floats:
    """Return scores as (seeds, images) float64, checked: one list counts as one seed."""
    values = np.atleast_2d(np.asarray(scores, dtype=np.float64))
    if values.ndim != 2 or values.shape[1] != images or not values.shape[0]:
        raise DataError(f"scores {name} {values.shape} must be (seeds, {images}), as the labels")
    missing = int(np.isnan(values).sum())
    if missing:
        raise DataError(f"{missing} of {values.size} scores {name} are NaN: the model's output is not usable")
    return values


def _wins(upper: Floats, lower: Floats) -> Floats:
    """(u, l): 1 where ``upper`` is higher, 1/2 where they tie, else 0."""
    above, tied = upper[:, None] > lower, upper[:, None] == lower
    return np.asarray(above + tied / 2, dtype=np.float64)


def _figure(endpoint: str) -> Figure:
    """Return the endpoint's function; UsageError names the nearest."""
    try:
        return ENDPOINTS[endpoint]
    except KeyError:
        raise UsageError(f"unknown endpoint {endpoint!r}; {nearest(endpoint, ENDPOINTS)}") from None


def _by_seed(folds: Sequence[FoldScores], name: Literal["a", "b"], figure: Figure) -> tuple[float, ...]:
    """Fold average of each seed, as far as all folds have it."""
    seeds = min((len(getattr(fold, name)) for fold in folds), default=0)
    weights = [fold.weight for fold in folds]
    return tuple(
        fold_average([figure(fold.labels, getattr(fold, name)[seed]) for fold in folds], weights)
        for seed in range(seeds)
    )


def _mean(folds: Sequence[FoldScores], name: Literal["a", "b"], figure: Figure) -> float:
    """Fold average of a model's figure, seeds averaged."""
    values = [float(np.mean([figure(fold.labels, row) for row in getattr(fold, name)])) for fold in folds]
    return fold_average(values, [fold.weight for fold in folds])


def _drawn_aurocs(fold: FoldScores, scores: Floats, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """(resamples,) AUROC of each draw, and (images,) each image's influence over its class's size."""
    wins, unit = fold.pairs(scores), len(scores) * fold.weight  # halves: exact sums, whatever the threads
    influence = fold.moved(scores).mean(axis=0)[np.concatenate([fold.defects, fold.goods])]
    drawn = (rows @ wins * columns).sum(axis=1)
    if fold.units is None:
        return drawn / unit, influence
    # Drawn groups may be larger or smaller than those that are left out. A draw without a class says nothing.
    pairs = len(scores) * rows.sum(axis=1) * columns.sum(axis=1)
    whole = wins.sum() / unit
    return np.where(pairs > 0, drawn / np.maximum(pairs, 1), whole), influence


def _drawn_figures(
    fold: FoldScores, scores: Floats, rows: Floats, columns: Floats, figure: Figure
) -> tuple[Floats, Floats]:
    """Do for any figure what :func:`_drawn_aurocs` does for one, draw by draw; influence by jackknife."""

    def of(chosen: NDArray[np.int64]) -> float:
        return float(np.mean([figure(fold.labels[chosen], row[chosen]) for row in scores]))

    order = np.concatenate([fold.defects, fold.goods])
    times = np.concatenate([rows, columns], axis=1).astype(np.int64)
    drawn = np.array([of(np.repeat(order, row)) for row in times])
    whole, influence = of(order), np.zeros(order.size)
    for place, image in enumerate(order):
        # Jackknife within the class, as images are drawn within it (strata, Efron & Tibshirani 22.6).
        size = fold.defects.size if fold.labels[image] else fold.goods.size
        if size > 1:
            influence[place] = (whole - of(np.delete(order, place))) * (size - 1) / size
    return drawn, influence


def _draws(folds: Sequence[FoldScores], resamples: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield for each fold how often each defect and each good is drawn, (resamples, images) each."""
    sizes = tuple((fold.defects.size, fold.goods.size) for fold in folds)
    for place, (fold, (rows, columns)) in enumerate(zip(folds, _drawn(sizes, resamples, seed), strict=True)):
        if fold.units is None:
            yield rows.astype(np.float64), columns.astype(np.float64)
        else:
            times = drawn_groups(fold, fold.units, resamples, np.random.default_rng([seed, 2, place]))
            yield times[:, fold.defects], times[:, fold.goods]


def drawn_groups(
    fold: FoldScores, units: NDArray[np.int64], resamples: int, rng: np.random.Generator
) -> Floats:
    """(resamples, images): how often each image is drawn, groups whole, within groups of one composition."""
    number = int(units.max()) + 1
    bad = np.bincount(units, weights=fold.labels, minlength=number) > 0
    good = np.bincount(units, weights=~fold.labels, minlength=number) > 0
    times = np.zeros((resamples, number))
    for kind in (bad & good, bad & ~good, good & ~bad):
        members = np.flatnonzero(kind)
        if members.size:
            times[:, members] = rng.multinomial(
                members.size, np.full(members.size, 1 / members.size), size=resamples
            )
    return times[:, units]


@lru_cache(maxsize=1)  # all models of a category have folds of the same sizes
def _drawn(
    sizes: tuple[tuple[int, int], ...], resamples: int, seed: int
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], ...]:
    """Keep the last draw as bytes: an eighth of what the floats take."""
    rng = np.random.default_rng([seed, 0])
    return tuple((_draw(rng, rows, resamples), _draw(rng, columns, resamples)) for rows, columns in sizes)


def _draw(rng: np.random.Generator, images: int, resamples: int) -> NDArray[np.uint8]:
    """(resamples, images): how often each image is drawn; a byte holds it: 256 never happen."""
    return rng.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.uint8)


def _quantiles(drawn: Floats, low: float, high: float) -> tuple[float, float]:
    """Return two quantiles of the draws, by linear interpolation."""
    bounds = np.quantile(drawn, [low, high])
    return float(bounds[0]), float(bounds[1])


def _bca(value: float, drawn: Floats, influence: Floats, level: float) -> Interval:
    """Bias-corrected and accelerated interval (Efron & Tibshirani 1993, 14.3; strata as in 22.6)."""
    if np.isnan(value):
        return Interval(NAN, NAN, NAN, level)
    normal = NormalDist()
    below = (np.mean(drawn < value - 1e-12) + np.mean(drawn <= value + 1e-12)) / 2  # ties count half
    # No draw below the value, or all of them, would put the bias at infinity.
    edge = 1 / (drawn.size + 1)
    bias = normal.inv_cdf(min(max(float(below), edge), 1 - edge))
    spread = float((influence**2).sum())
    # An influence of rounding errors alone would make the quotient of two powers of it arbitrary.
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread > 1e-24 else 0.0
    reach = [bias + normal.inv_cdf(tail) for tail in ((1 - level) / 2, (1 + level) / 2)]
    low, high = (normal.cdf(bias + z / (1 - acceleration * z)) for z in reach)
    return Interval(value, *_quantiles(drawn, low, high), level)
