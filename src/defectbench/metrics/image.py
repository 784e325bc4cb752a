"""Image metrics: pure functions of labels (0 good, 1 abnormal) and raw scores (higher = more abnormal).

One decision rule holds everywhere: an image is called abnormal when ``score > threshold``.

Everything here is exact, keeps ties, and reads only the order of the scores, so that no strictly increasing
change of them moves a figure (a threshold lies on the scores' own scale and moves with them). Scores of two
fits are on different scales: call these functions inside one fit and average with ``stats.fold_average``.

What is undefined is NaN, never an exception and never a stand-in: a curve metric without both classes, a
precision where nothing was called abnormal, a recall without defects. A NaN among the scores is a
:class:`~defectbench.errors.DataError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectbench.errors import DataError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Metric:
    """What tables, the report and the tracker must know about a figure.

    Attributes:
        name: the same everywhere: result.json, MLflow, tables, report.
        kind: ``image`` (threshold-free), ``threshold`` (belongs to a view's threshold), ``explanation``
            (averaged over defective images), ``pooled`` (all pixels of one fit) or ``cost``.
        better: ``higher`` or ``lower``.
        says: one line for people.
    """

    name: str
    kind: Literal["image", "threshold", "explanation", "pooled", "cost"]
    better: Literal["higher", "lower"]
    says: str


METRICS: tuple[Metric, ...] = (
    Metric("image_auroc", "image", "higher", "chance that a defect scores above a good part"),
    Metric("image_ap", "image", "higher", "average precision over the recall steps"),
    Metric("f1_oracle", "image", "higher", "best F1 over all thresholds: an upper bound"),
    Metric("recall_at_precision_95", "image", "higher", "largest recall with at least 95 % precision"),
    Metric("recall_at_precision_99", "image", "higher", "largest recall with at least 99 % precision"),
    Metric("false_alarms_at_recall_99", "image", "lower", "goods called abnormal when 99 % of defects are"),
    Metric("f1", "threshold", "higher", "F1 of the abnormal class at the threshold"),
    Metric("recall", "threshold", "higher", "share of defects called abnormal"),
    Metric("precision", "threshold", "higher", "share of defects among what is called abnormal"),
    Metric("accuracy", "threshold", "higher", "share of images called rightly"),
    Metric("balanced_accuracy", "threshold", "higher", "mean of the two classes' shares called rightly"),
    Metric("pixel_auroc", "explanation", "higher", "chance that a defect's pixel is hotter than another"),
    Metric("pixel_ap", "explanation", "higher", "average precision of the pixels (chance: its area)"),
    Metric("pointing", "explanation", "higher", "share of images whose hottest pixel lies on the defect"),
    Metric("iou", "explanation", "higher", "overlap with the mask at calibration goods' 99 % pixel quantile"),
    Metric("iou_oracle", "pooled", "higher", "best overlap over a map's thresholds, chosen on the mask"),
    Metric("pixel_auroc_pooled", "pooled", "higher", "pixel AUROC over all scored images at once"),
    Metric("pixel_ap_pooled", "pooled", "higher", "pixel average precision over all scored images at once"),
    Metric("aupro", "pooled", "higher", "mean overlap of the defects' regions up to 30 % false pixels"),
    Metric("fit_seconds", "cost", "lower", "time of the fit"),
    Metric("inference_seconds_per_image", "cost", "lower", "time to score one image"),
    Metric("images_per_second", "cost", "higher", "images scored in a second"),
    Metric("parameters", "cost", "lower", "numbers that the fit may set or that the weights hold"),
    Metric("flops", "cost", "lower", "floating-point operations to score one image"),
    Metric(
        "peak_memory_bytes",
        "cost",
        "lower",
        "largest resident host memory of the process during fit and scores",
    ),
)
"""Every figure's name, in the order in which tables show them."""


@dataclass(frozen=True, slots=True)
class Roc:
    """Points of a ROC curve, from nothing called abnormal to everything; join them by straight lines.

    Attributes:
        false_alarm_rate, recall: (k,) float64; NaN where the class is absent.
        threshold: (k,) float64; a point counts ``score > threshold``; the last is -inf.
    """

    false_alarm_rate: Floats
    recall: Floats
    threshold: Floats


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Points of a precision-recall curve in order of growing recall; join them by steps, not by lines.

    Attributes:
        recall, precision: (k,) float64; the first point is (0, 1) by convention.
        threshold: (k,) float64; a point counts ``score > threshold``; the last is -inf.
    """

    recall: Floats
    precision: Floats
    threshold: Floats


@dataclass(frozen=True, slots=True)
class ConfusionCounts:
    """Images called rightly and wrongly; abnormal is the positive class. Counts of folds may be added.

    >>> both = Counts(tp=8, fp=1, tn=9, fn=2) + Counts(tp=1, fp=0, tn=1, fn=0)
    >>> both.recall, both.precision, round(both.f1, 4), both.accuracy
    (0.8181818181818182, 0.9, 0.8571, 0.8636363636363636)
    """

    tp: int
    fp: int
    tn: int
    fn: int

    def __add__(self, other: ConfusionCounts) -> ConfusionCounts:
        return ConfusionCounts(self.tp + other.tp, self.fp + other.fp, self.tn + other.tn, self.fn + other.fn)

    @property
    def recall(self) -> float:
        """Share of the defects called abnormal; NaN without defects."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def false_alarm_rate(self) -> float:
        """Share of the goods called abnormal; NaN without goods."""
        return _ratio(self.fp, self.fp + self.tn)

    @property
    def precision(self) -> float:
        """Share of defects among what was called abnormal; NaN where nothing was."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float:
        """``2 tp / (2 tp + fp + fn)``; NaN where there is neither a defect nor an alarm."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def accuracy(self) -> float:
        """Share of the images called rightly; NaN without images."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the shares of defects and of goods called rightly; NaN unless both classes are there."""
        return (self.recall + 1 - self.false_alarm_rate) / 2

    def precision_at(self, defect_rate: float) -> float:
        """Return the precision on a line where ``defect_rate`` of the parts are defective (Bayes' rule).

        >>> Counts(tp=9, fp=1, tn=9, fn=1).precision_at(0.01)
        0.08333333333333333
        """
        hits, alarms = defect_rate * self.recall, (1 - defect_rate) * self.false_alarm_rate
        return _ratio(hits, hits + alarms)

    def cost_at(self, defect_rate: float, *, false_alarm: float, missed_defect: float) -> float:
        """Return the expected cost of one part, in the unit of the two prices.

        >>> Counts(tp=9, fp=1, tn=9, fn=1).cost_at(0.01, false_alarm=2.0, missed_defect=100.0)
        0.298
        """
        missed = defect_rate * (1 - self.recall) * missed_defect
        return missed + (1 - defect_rate) * self.false_alarm_rate * false_alarm

    def figures(self) -> dict[str, float]:
        """Return the figures of kind ``threshold`` under their names in :data:`METRICS`.

        Where no good image was tested nothing could be a false alarm: all but the recall are NaN then.

        >>> Counts(tp=3, fp=0, tn=0, fn=1).figures()["recall"], Counts(tp=3, fp=0, tn=0, fn=1).figures()["f1"]
        (0.75, nan)
        """
        names = [metric.name for metric in METRICS if metric.kind == "threshold"]
        known = names if self.fp + self.tn else ["recall"]
        return {name: getattr(self, name) if name in known else NAN for name in names}


@dataclass(frozen=True, slots=True)
class QuantileThreshold:
    """A threshold from calibration goods.

    Attributes:
        threshold: call abnormal what scores above; NaN without calibration goods.
        false_alarm_rate: that it keeps: a new good part scores above with at most this probability.
            It is a multiple of 1/(n+1), and above the rate asked for only when that is below 1/(n+1).
    """

    threshold: float
    false_alarm_rate: float


def image_auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the area under the ROC curve: P(defect above good) + P(tie)/2.

    NaN unless both classes are there.

    >>> image_auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    """
    return _steps(labels, scores).auroc()


def image_ap(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the average precision, sum of (recall step) x precision, as scikit-learn defines it.

    NaN unless both classes are there. No interpolation between the points.

    >>> round(image_ap([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    return _steps(labels, scores).ap()


def roc_curve(labels: ArrayLike, scores: ArrayLike) -> Roc:
    """Return the ROC curve's points, one for each distinct score and one for nothing called abnormal.

    >>> roc_curve([0, 1, 1], [0.2, 0.2, 0.9]).recall.tolist()
    [0.0, 0.5, 1.0]
    """
    steps = _steps(labels, scores)
    alarms = np.concatenate([[0], steps.fp]) / (steps.negatives or NAN)
    return Roc(alarms, np.concatenate([[0], steps.tp]) / (steps.positives or NAN), steps.thresholds())


def precision_recall_curve(labels: ArrayLike, scores: ArrayLike) -> PrecisionRecall:
    """Return the precision-recall curve's points, one for each distinct score, after (0, 1).

    >>> precision_recall_curve([0, 1, 1], [0.2, 0.2, 0.9]).precision.tolist()
    [1.0, 1.0, 0.6666666666666666]
    """
    steps = _steps(labels, scores)
    recall = np.concatenate([[0], steps.tp]) / (steps.positives or NAN)
    return PrecisionRecall(recall, np.concatenate([[1.0], steps.precision]), steps.thresholds())


def f1_oracle(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the best F1 over all thresholds. NaN unless both classes are there.

    It looks at the labels that it is judged by: an upper bound, never a result.
    :func:`best_f1_threshold` gives the threshold.

    >>> f1_oracle([0, 1, 0, 1], [0.1, 0.3, 0.5, 0.9])
    0.8
    """
    return _steps(labels, scores).best_f1()


def recall_at_precision(labels: ArrayLike, scores: ArrayLike, precision: float) -> float:
    """Return the largest recall over thresholds with at least ``precision``; 0 where none reaches it.

    NaN unless both classes are there.

    >>> recall_at_precision([0, 1, 0, 1, 1], [0.1, 0.3, 0.5, 0.8, 0.9], 0.95)
    0.6666666666666666
    """
    return _steps(labels, scores).recall_at_precision(precision)


def false_alarms_at_recall(labels: ArrayLike, scores: ArrayLike, recall: float) -> float:
    """Return the share of goods called abnormal at the highest threshold that reaches ``recall``.

    Goods that tie with the last defect needed count as false alarms, since no threshold parts them.
    NaN unless both classes are there.

    >>> false_alarms_at_recall([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8], 0.99)
    0.5
    """
    return _steps(labels, scores).false_alarms_at_recall(recall)


def counts_at(labels: ArrayLike, scores: ArrayLike, threshold: float) -> ConfusionCounts:
    """Count the images called abnormal (``score > threshold``) and not, by class.

    With a NaN threshold nothing is called: all four counts are 0 and every figure of them is NaN.

    >>> counts_at([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8], 0.4)
    Counts(tp=1, fp=0, tn=2, fn=1)
    """
    truth, values = _checked(labels, scores)
    if np.isnan(threshold):
        return ConfusionCounts(0, 0, 0, 0)
    called = values > threshold
    tp, fp = int((called & truth).sum()), int((called & ~truth).sum())
    return ConfusionCounts(tp, fp, int((~truth).sum()) - fp, int(truth.sum()) - tp)


def share_interval(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper & Pearson 1934); NaN where there is nothing.

    >>> low, high = share_interval(0, 60)
    >>> (low, round(high, 4))
    (0.0, 0.0596)
    """
    from scipy.special import betaincinv

    if not of:
        return NAN, NAN
    tail = (1 - level) / 2
    low = float(betaincinv(hits, of - hits + 1, tail)) if hits else 0.0
    return low, float(betaincinv(hits + 1, of - hits, 1 - tail)) if hits < of else 1.0


def f1_all_abnormal(labels: ArrayLike) -> float:
    """Return the F1 of calling every image abnormal: what any F1 must be held against.

    >>> f1_all_abnormal([0, 1, 1])
    0.8
    """
    truth = np.asarray(labels)
    positives = int((truth == 1).sum())
    return ConfusionCounts(positives, int(truth.size) - positives, 0, 0).f1


def quantile_threshold(calibration_scores: ArrayLike, false_alarm_rate: float) -> QuantileThreshold:
    """Return the threshold that keeps a false-alarm rate, from the scores of good images no fit has seen.

    The threshold is the k-th largest score, k = floor(rate x (n+1)), at least 1: a new good part,
    exchangeable with the n, scores above it with probability k/(n+1) at most (conformal prediction's bound,
    Vovk et al. 2005). n = 19 resolves 5 %; with fewer the smallest possible rate 1/(n+1) is kept and told.

    >>> quantile_threshold([float(i) for i in range(1, 40)], 0.05)
    QuantileThreshold(threshold=38.0, false_alarm_rate=0.05)
    >>> quantile_threshold([1.0, 2.0, 3.0], 0.05)
    QuantileThreshold(threshold=3.0, false_alarm_rate=0.25)

    Raises:
        DataError: a score is NaN.
    """
    values = np.sort(_without_nan(calibration_scores))
    if not values.size:
        return QuantileThreshold(NAN, NAN)
    exceed = int(np.floor(false_alarm_rate * (values.size + 1) + 1e-9))  # 0.05 x 20 must give 1
    rank = min(max(exceed, 1), values.size)
    return QuantileThreshold(float(values[-rank]), rank / (values.size + 1))


def best_f1_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Return the threshold of the best F1: half-way between the last score called abnormal and the next.

    For the tuning fold. Equal F1: the highest threshold, hence the fewest alarms. -inf where calling
    everything abnormal is best; NaN unless both classes are there.

    >>> best_f1_threshold([0, 1, 0, 1], [0.1, 0.3, 0.5, 0.9])
    0.2
    """
    steps = _steps(labels, scores)
    if not steps.both:
        return NAN
    best = int(np.argmax(steps.f1))
    if best + 1 == steps.values.size:
        return float("-inf")
    called, rest = float(steps.values[best]), float(steps.values[best + 1])
    middle = rest / 2 + called / 2
    return middle if rest <= middle < called else rest  # neighbours without a number between, or infinite


def threshold_free(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """Return the figures of kind ``image`` under their names in :data:`METRICS`, for result.json.

    >>> threshold_free([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])["image_auroc"]
    0.75
    """
    steps = _steps(labels, scores)
    return {
        "image_auroc": steps.auroc(),
        "image_ap": steps.ap(),
        "f1_oracle": steps.best_f1(),
        "recall_at_precision_95": steps.recall_at_precision(0.95),
        "recall_at_precision_99": steps.recall_at_precision(0.99),
        "false_alarms_at_recall_99": steps.false_alarms_at_recall(0.99),
    }


@dataclass(frozen=True, slots=True)
class _Steps:
    """Counts of what is called abnormal, as the threshold falls past each distinct score.

    ``values`` (k,) distinct scores, falling; ``tp``, ``fp`` (k,): images scored at least that much. The
    figures are those of the public functions, NaN unless both classes are there.
    """

    values: Floats
    tp: Ints
    fp: Ints
    positives: int
    negatives: int

    @property
    def both(self) -> bool:
        return self.positives > 0 and self.negatives > 0

    @property
    def precision(self) -> Floats:
        return np.asarray(self.tp / (self.tp + self.fp), np.float64)

    @property
    def f1(self) -> Floats:
        return np.asarray(2 * self.tp / (self.tp + self.fp + self.positives), np.float64)

    def auroc(self) -> float:
        if not self.both:
            return NAN
        twice = np.diff(self.fp, prepend=0) @ (2 * self.tp - np.diff(self.tp, prepend=0))
        return float(twice / (2 * self.positives * self.negatives))

    def ap(self) -> float:
        if not self.both:
            return NAN
        return float((np.diff(self.tp, prepend=0) * self.precision).sum() / self.positives)

    def best_f1(self) -> float:
        return float(self.f1.max()) if self.both else NAN

    def recall_at_precision(self, precision: float) -> float:
        if not self.both:
            return NAN
        return float(self.tp[self.precision >= precision].max(initial=0) / self.positives)

    def false_alarms_at_recall(self, recall: float) -> float:
        if not self.both:
            return NAN
        first = int(np.argmax(self.tp / self.positives >= recall))
        return float(self.fp[first] / self.negatives)

    def thresholds(self) -> Floats:
        """(k+1,): above the first lies nothing, above the others ``tp + fp`` images of each step."""
        return np.concatenate([self.values, [-np.inf]])


def _steps(labels: ArrayLike, scores: ArrayLike) -> _Steps:
    """Sort once, keep ties together; all curve metrics start here."""
    truth, values = _checked(labels, scores)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], [True] * (values.size > 0)))
    tp = np.cumsum(truth, dtype=np.int64)[ends]
    positives = int(truth.sum())
    return _Steps(values[ends], tp, ends + 1 - tp, positives, int(truth.size) - positives)


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Floats]:
    """Return labels as booleans and scores as float64, both (n,)."""
    truth, values = np.asarray(labels), _without_nan(scores)
    if truth.shape != values.shape or truth.ndim != 1:
        raise DataError(f"labels {truth.shape} and scores {values.shape} must be two lists of one length")
    if not ((truth == 0) | (truth == 1)).all():
        raise DataError(f"labels are 0 (good) or 1 (abnormal), got {np.unique(truth).tolist()[:5]}")
    return truth.astype(bool), values


def _without_nan(scores: ArrayLike) -> Floats:
    values: NDArray[Any] = np.asarray(scores, dtype=np.float64)
    missing = int(np.isnan(values).sum())
    if missing:
        raise DataError(f"{missing} of {values.size} scores are NaN: the model's output is not usable")
    return values


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else NAN
