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
from math import lcm
from statistics import NormalDist
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectbench.errors import DataError, UsageError, nearest
from defectbench.metrics import image as metrics

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
_BATCH = 1 << 22
"""Numbers held at a time while signs are drawn: 32 MB."""


@dataclass(frozen=True, eq=False)
class FoldScores:
    """One fold's tested images, scored by two models.

    Attributes:
        labels: (n,), true where abnormal.
        a, b: (seeds, n) raw scores of the two models, higher = more abnormal; the numbers of seeds may
            differ.
    """

    labels: NDArray[np.bool_]
    a: Floats
    b: Floats

    @classmethod
    def of(cls, labels: ArrayLike, a: ArrayLike, b: ArrayLike) -> FoldScores:
        """Return a fold from anything list-like, checked. A single list of scores counts as one seed.

        Raises:
            DataError: shapes that do not fit, other labels, NaN scores.
        """
        truth = np.asarray(labels)
        if truth.ndim != 1 or not np.isin(truth, (0, 1)).all():
            raise DataError("labels of a fold are a list of 0 (good) and 1 (abnormal)")
        return cls(truth.astype(bool), _seeds("a", a, truth.size), _seeds("b", b, truth.size))

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
        p: of the paired permutation test, two-sided; not yet corrected for several categories.
        a_seeds, b_seeds: the figure of each seed.
        images: distinct images of the smaller class.
        warning: in words, where intervals are known to be too narrow; else empty.
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

    def verdict(self, corrected: float, *, margin: float) -> Verdict:
        """Return :func:`verdict` by this difference; ``corrected`` is its p among several categories."""
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
    >>> round(result.difference.value, 4), result.p
    (0.2222, 0.5)
    """
    usable = [fold for fold in folds if fold.weight]
    draws = stratified_bootstrap(usable, seed=seed, resamples=resamples, endpoint=endpoint)
    a, b = draws.interval_a(level), draws.interval_b(level)
    return Comparison(
        a=a,
        b=b,
        difference=draws.interval_difference(level),
        difference_90=draws.interval_difference(0.90),
        p=permutation_test(usable, seed=seed, resamples=resamples, endpoint=endpoint),
        a_seeds=_by_seed(usable, "a", _figure(endpoint)),
        b_seeds=_by_seed(usable, "b", _figure(endpoint)),
        images=smaller_class(usable),
        warning=caution(
            smaller_class(usable), max(_mean(usable, name, metrics.image_auroc) for name in _MODELS)
        ),
    )


@dataclass(frozen=True, eq=False)
class Resamples:
    """What a bootstrap drew: both models' figures, and what each image contributes to them.

    Attributes:
        a, b: the models' figures on the images as they are.
        drawn_a, drawn_b: (resamples,) on the drawn images, the same draw for both.
        influence_a, influence_b: (images,) how far each image moves the figure, over its class's size.
    """

    a: float
    b: float
    drawn_a: Floats
    drawn_b: Floats
    influence_a: Floats
    influence_b: Floats

    def interval_a(self, level: float) -> Interval:
        """Return the BCa interval of model a's figure."""
        return _bca(self.a, self.drawn_a, self.influence_a, level)

    def interval_b(self, level: float) -> Interval:
        """Return the BCa interval of model b's figure."""
        return _bca(self.b, self.drawn_b, self.influence_b, level)

    def interval_difference(self, level: float) -> Interval:
        """Return the percentile interval of a - b.

        Percentile, because a difference is not skewed: over 500 simulations of 60 + 60 images each, at AUROC
        0.80 to 0.98, it covered 94-96 % of the time where BCa covered 90-96 %. For a single AUROC, skewed
        towards 1, percentile covered 90-96 % and BCa 94-97 %.
        """
        drawn = self.drawn_a - self.drawn_b
        return Interval(self.a - self.b, *_quantiles(drawn, (1 - level) / 2, (1 + level) / 2), level)


def stratified_bootstrap(
    folds: Sequence[FoldScores], *, seed: int, resamples: int = RESAMPLES, endpoint: str = AUROC
) -> Resamples:
    """Draw images with replacement within each fold and class, jointly for both models and all seeds.

    Fold weights stay those of the data. Memory: a byte x ``resamples`` x all images, which is kept for the
    next call with folds of the same sizes, and 8 bytes x ``resamples`` x the largest fold, twice.

    >>> fold = FoldScores.of([0, 0, 1, 1], [1, 3, 2, 4], [1, 2, 3, 4])
    >>> draws = stratified_bootstrap([fold], seed=0, resamples=99)
    >>> draws.a, draws.b, draws.interval_difference(0.9).low
    (0.75, 1.0, -1.0)
    """
    usable = [fold for fold in folds if fold.weight]
    total = sum(fold.weight for fold in usable)
    if not total:
        nothing = np.full(1, NAN)
        return Resamples(NAN, NAN, nothing, nothing, nothing, nothing)
    drawn = {"a": np.zeros(resamples), "b": np.zeros(resamples)}
    influence: dict[str, list[Floats]] = {"a": [], "b": []}
    sizes = tuple((fold.defects.size, fold.goods.size) for fold in usable)
    for fold, (rows, columns) in zip(usable, _draws(sizes, resamples, seed), strict=True):
        for name, scores in (("a", fold.a), ("b", fold.b)):
            if endpoint == AUROC:
                figures, moved = _drawn_aurocs(fold, scores, rows, columns)
            else:
                figures, moved = _drawn_figures(fold, scores, rows, columns, _figure(endpoint))
            drawn[name] += figures * (fold.weight / total)
            influence[name].append(moved * (fold.weight / total))
    value_a, value_b = (_mean(usable, name, _figure(endpoint)) for name in _MODELS)
    moved_a, moved_b = (np.concatenate(influence[name]) for name in _MODELS)
    return Resamples(value_a, value_b, drawn["a"], drawn["b"], moved_a, moved_b)


def permutation_test(
    folds: Sequence[FoldScores], *, seed: int, resamples: int = RESAMPLES, endpoint: str = AUROC
) -> float:
    """Return the two-sided p of "both models are as good", NaN without a fold of both classes.

    The two models' mid-ranks within the fold are swapped image by image, all seeds of an image together
    (Bandos, Rockette & Gur 2005, Statistics in Medicine 24). By image_auroc, swapping an image only flips the
    sign of its own contribution to the difference, and images that contribute nothing are left out. Exact
    where all patterns of swaps are no more than ``resamples``, else by random patterns with
    p = (1 + as large) / (1 + drawn). With unequal numbers of seeds the shorter list is repeated.

    The n ranks of a fold add up to a constant, so that swapping them varies the difference by (n - 1)/n of
    what new images would: every swapped pattern is widened by the square root of n/(n - 1). Without this
    p <= 0.05 was observed, where there was no difference, in 4.9-5.6 % of the simulations at 60 + 60 images
    and in 6-7 % at 15 + 15.

    >>> fold = FoldScores.of([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 5, 6], [4, 5, 6, 1, 2, 3])
    >>> permutation_test([fold], seed=0)
    0.03125
    """
    usable = [fold for fold in folds if fold.weight]
    if not usable:
        return NAN
    seeds = _common_seeds(usable)
    if endpoint == AUROC:
        shares = [_contributions(fold, seeds) for fold in usable]
        wide = np.concatenate([share * _widening(share.size) for share in shares])
        # An image that contributes nothing doubles the patterns and leaves the p as it is.
        wide = wide[wide != 0]
        observed = float(sum(share.sum() for share in shares))
        return _sign_test(lambda signs: signs @ wide, observed, wide.size, resamples, seed)
    images = sum(fold.labels.size for fold in usable)
    ranked = [_ranked(fold, seeds) for fold in usable]
    observed = sum(fold.gap(_figure(endpoint)) for fold in ranked)
    return _sign_test(partial(_swapped, ranked, _figure(endpoint)), observed, images, resamples, seed)


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
    """Return how many images the folds' smaller class has."""
    return min(sum(fold.defects.size for fold in folds), sum(fold.goods.size for fold in folds))


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
    influence = [(wins.sum(1 - axis) - wins.sum() / wins.shape[axis]) / unit for axis in (0, 1)]
    return (rows @ wins * columns).sum(axis=1) / unit, np.concatenate(influence)


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


def _draws(sizes: tuple[tuple[int, int], ...], resamples: int, seed: int) -> Iterator[tuple[Floats, Floats]]:
    """Yield for each fold how often each defect and each good is drawn, (resamples, images) each."""
    for rows, columns in _drawn(sizes, resamples, seed):
        yield rows.astype(np.float64), columns.astype(np.float64)


@lru_cache(maxsize=1)  # all models of a category have folds of the same sizes
def _drawn(
    sizes: tuple[tuple[int, int], ...], resamples: int, seed: int
) -> tuple[tuple[NDArray[np.uint8], NDArray[np.uint8]], ...]:
    """Keep the last draw as bytes: an eighth of what the floats take."""
    # 0 for the bootstrap, 1 for the permutations: one seed, yet independent draws.
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


def _common_seeds(folds: Sequence[FoldScores]) -> int:
    """Return to how many seeds both models' lists must be repeated so that each seed counts equally."""
    return lcm(*(len(scores) for fold in folds for scores in (fold.a, fold.b)))


def _contributions(fold: FoldScores, seeds: int) -> Floats:
    """(images,): what changes its sign when an image's ranks are swapped; they sum to a's wins minus b's.

    With t = +1 (kept) or -1 (swapped), a pair of a defect p and a good n adds to the difference
    (t_p + t_n)/2 x (AA - BB) + (t_p - t_n)/2 x (AB - BA), AB: a's rank of the defect beats b's of the good.
    """
    shares = np.zeros(fold.labels.size)
    for seed in range(seeds):
        a, b = (_mid_ranks(scores[seed % len(scores)]) for scores in (fold.a, fold.b))
        wins = {
            upper + lower: _wins(ranks[fold.defects], other[fold.goods])
            for upper, ranks in (("a", a), ("b", b))
            for lower, other in (("a", a), ("b", b))
        }
        same, mixed = wins["aa"] - wins["bb"], wins["ab"] - wins["ba"]
        shares[fold.defects] += (same + mixed).sum(axis=1) / 2
        shares[fold.goods] += (same - mixed).sum(axis=0) / 2
    return shares


def _mid_ranks(scores: Floats) -> Floats:
    """Rank from 1, ties sharing their mean rank."""
    _, place, number = np.unique(scores, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(number) - (number - 1) / 2)[place], dtype=np.float64)


@dataclass(frozen=True, eq=False, slots=True)
class _RankedFold:
    """A fold's mid-ranks, (seeds, n) of both models, and its weight."""

    labels: NDArray[np.bool_]
    a: Floats
    b: Floats
    weight: int

    def gap(self, figure: Figure, swapped: NDArray[np.bool_] | None = None) -> float:
        """Return a - b, times the weight, after swapping the ranks of some images."""
        one, two = self.a, self.b
        if swapped is not None:
            one, two = np.where(swapped, two, one), np.where(swapped, one, two)
        gaps = [figure(self.labels, x) - figure(self.labels, y) for x, y in zip(one, two, strict=True)]
        return self.weight * float(np.mean(gaps))


def _ranked(fold: FoldScores, seeds: int) -> _RankedFold:
    """Return the fold with ranks for scores, each model's seeds repeated to ``seeds``."""
    a, b = (
        np.stack([_mid_ranks(scores[seed % len(scores)]) for seed in range(seeds)])
        for scores in (fold.a, fold.b)
    )
    return _RankedFold(fold.labels, a, b, fold.weight)


def _swapped(folds: Sequence[_RankedFold], figure: Figure, signs: NDArray[np.int64]) -> Floats:
    """(patterns,): the difference a - b, times the weights, after swapping the ranks where the sign is -1."""
    out = np.zeros(len(signs))
    start = 0
    for fold in folds:
        end = start + fold.labels.size
        swaps = signs[:, start:end] < 0
        out += _widening(fold.labels.size) * np.array([fold.gap(figure, swapped) for swapped in swaps])
        start = end
    return out


def _widening(images: int) -> float:
    """Return by how much a fold's swapped patterns are widened; see :func:`permutation_test`."""
    return float(np.sqrt(images / (images - 1)))


def _sign_test(
    difference: Callable[[NDArray[np.int64]], Floats], observed: float, images: int, number: int, seed: int
) -> float:
    """Return the p of ``observed`` among all patterns of swaps, or ``number`` random ones."""
    # The patterns are int64: from 63 images on 2**images overflows.
    exact = images < 62 and 2**images <= number
    as_large = drawn = 0
    for batch in _all_signs(images) if exact else _random_signs(images, number, seed):
        # Sums in another order differ in the last bit; the observed pattern must count itself.
        as_large += int((np.abs(difference(batch)) >= abs(observed) - 1e-9).sum())
        drawn += len(batch)
    return as_large / drawn if exact else (1 + as_large) / (1 + drawn)


def _all_signs(images: int) -> Iterator[NDArray[np.int64]]:
    """Yield every pattern of +1 and -1 once, (2**images, images)."""
    patterns = np.arange(2**images)[:, None] >> np.arange(images)
    yield 1 - 2 * (patterns & 1)


def _random_signs(images: int, number: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield ``number`` random patterns of +1 and -1, in batches that memory holds."""
    rng = np.random.default_rng([seed, 1])
    step = max(_BATCH // images, 1)
    for start in range(0, number, step):
        size = (min(step, number - start), images)
        yield 2 * rng.integers(0, 2, size, dtype=np.int8).astype(np.int64) - 1
