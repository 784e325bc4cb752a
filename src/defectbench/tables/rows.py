"""What the report's tables are made of: plain rows, for the page, the CSV files and the command line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.catalog import Family
from defectbench.metrics.comparison import Verdict


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A model of the sweep.

    Attributes:
        baseline: it needs no weights and learns no features: the deep models must beat it.
        changed: settings that are not the catalog's, ``name=value``.
        licence: of the code, and of the pretrained weights where the sweep uses them.
        commercial: these licences allow commercial use; None where that is unknown.
    """

    label: str
    model: str
    family: Family
    baseline: bool
    weights: str
    image_size: int
    changed: tuple[str, ...]
    licence: str
    commercial: bool | None


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """What a category's figures rest on.

    Attributes:
        digest: of the data.
        families: whose split it is; in crossfit all share one.
        goods, calibration: training goods that a fit learns from, and those kept for thresholds.
        learnt: labelled defects that a classifier learns from, a fold's fewest and most.
        tuned: labelled images that tune, a fold's fewest and most.
        test_goods, test_defects: tested images, summed over folds.
        defect_types: of the tested defects.
    """

    category: str
    digest: str
    families: tuple[str, ...]
    folds: int
    goods: int
    calibration: int
    learnt: tuple[int, int]
    tuned: tuple[int, int]
    test_goods: int
    test_defects: int
    defect_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The endpoint of one model and category, averaged over seeds.

    Attributes:
        low, high: bounds of the 95 % interval over images; NaN where there is none.
        seeds: the figure of each seed that has a result.
        folds, expected: fits read, over all seeds, and how many the sweep has.
        warnings: why to trust the interval less, in words.
    """

    label: str
    family: Family
    baseline: bool
    category: str
    value: float
    low: float
    high: float
    seeds: tuple[float, ...]
    folds: int
    expected: int
    warnings: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MeanRow:
    """A model's endpoint, averaged over the categories that detection splits; NaN unless it has them all."""

    label: str
    value: float


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """The two contenders on one category: classifier minus detector.

    Attributes:
        low, high: bounds of the 95 % interval; low_90, high_90 those that equivalence is read from.
        p, corrected: of the paired test, before and after Holm over all comparisons, matched pairs included.
        seeds: the difference of each seed.
        folds, expected: that both have, and of the sweep, over all seeds.
        goods, defects: distinct tested images.
        warnings: why to trust the interval less, in words.
    """

    category: str
    classifier: str
    detector: str
    classifier_value: float
    detector_value: float
    difference: float
    low: float
    high: float
    low_90: float
    high_90: float
    p: float
    corrected: float
    verdict: Verdict
    seeds: tuple[float, ...]
    folds: int
    expected: int
    goods: int
    defects: int
    warnings: tuple[str, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """Calls of one model on one category by one rule, pooled over folds and seeds.

    Attributes:
        label: empty for ``everything abnormal``, whose family is None unless families are tested on other
            images.
        rule: ``calibrated``, ``tuned``, ``oracle`` or ``everything abnormal``.
        promised, resolution: false-alarm rate of a calibrated threshold, and 1/(n+1) of the calibration
            goods.
        observed: the false-alarm rate on the tested goods.
        observed_low, observed_high: its 95 % interval, from the goods of the seed in the middle; NaN for
            the oracle.
        broken: so many false alarms were observed that the promise cannot have held (less than 1 in 1,000
            by chance).
        precision_at_rate, cost: at the sweep's defect rate and prices; NaN without.
        goods, defects: distinct images tested.
        all_abnormal: F1 of calling every one of them abnormal, which the line's F1 must be held against.
    """

    category: str
    label: str
    family: Family | None
    rule: str
    promised: float
    resolution: float
    observed: float
    observed_low: float
    observed_high: float
    broken: bool
    recall: float
    precision: float
    accuracy: float
    balanced_accuracy: float
    f1: float
    precision_at_rate: float
    cost: float
    goods: int
    defects: int
    all_abnormal: float
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ExplanationRow:
    """Where one model's heat maps fall. NaN where not measurable.

    Attributes:
        defects: distinct tested defects with a mask.
    """

    category: str
    label: str
    family: Family
    defects: int
    pixel_auroc: float
    pixel_ap: float
    pointing: float
    iou: float
    iou_oracle: float
    aupro: float
    pixel_auroc_pooled: float
    pixel_ap_pooled: float
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConditionRow:
    """One model under one condition of a protocol beyond detection, averaged over seeds.

    Attributes:
        value: the endpoint, averaged over draws too.
        spread: its standard deviation over draws, the seeds' mean; NaN where there are fewer than two.
        draws: how many draws have results; 0 where nothing is drawn.
        seeds: the endpoint of each seed that has a result.
        recall, observed, precision, accuracy, f1: at the default threshold, counts pooled over folds, draws
            and seeds; observed is the share of false alarms. NaN without a threshold.
        f1_oracle: the oracle's, averaged over folds, draws and seeds.
        goods, defects: distinct images tested, over folds and draws.
        all_abnormal: F1 of calling every one of them abnormal, which both must be held against; NaN where no
            good is tested.
        folds, expected: fits read, over all seeds and draws, and how many the sweep has.
    """

    protocol: str
    category: str
    label: str
    family: Family
    condition: str
    value: float
    spread: float
    draws: int
    seeds: tuple[float, ...]
    recall: float
    observed: float
    precision: float
    accuracy: float
    f1: float
    f1_oracle: float
    goods: int
    defects: int
    all_abnormal: float
    folds: int
    expected: int
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReferenceRow:
    """What the masks of one category's tested defects give a map that knows nothing of the image.

    Attributes:
        defects: with a mask.
        pixel_auroc, pixel_ap, pointing, iou: of the centre prior, hottest in the middle of the picture.
        chance: the mean share of the picture that is defect: pixel_ap and pointing of a random map.
    """

    category: str
    defects: int
    pixel_auroc: float
    pixel_ap: float
    pointing: float
    iou: float
    chance: float


@dataclass(frozen=True, slots=True)
class ShiftRow:
    """How well a trivial discriminator separates a category's train/good from its test/good.

    Attributes:
        auroc, low, high: cross-validated, with its 95 % interval; NaN where it was not measured.
        train, test: good pictures of each part.
        suspicious: the difference puts a classifier at a disadvantage.
        warning: what to make of it, in words; empty where there is nothing to warn of.
    """

    category: str
    auroc: float
    low: float
    high: float
    train: int
    test: int
    suspicious: bool
    warning: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one model's fits took, averaged over those that detection reads; memory is the largest.

    Attributes:
        cells, total_fit_seconds: of all its finished cells, whatever reads them.
        labelled: images with a label that a fit of detection uses, tuning included: the fewest, the most.
    """

    label: str
    family: Family
    cells: int
    total_fit_seconds: float
    fit_seconds: float
    inference_seconds_per_image: float
    images_per_second: float
    parameters: float
    flops: float
    peak_memory_bytes: float
    labelled: tuple[int, int]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CellRow:
    """One fit, and its state.

    Attributes:
        folds: that read it.
        status: ``finished``, ``failed``, ``damaged`` or ``missing``; note says why.
    """

    key: str
    label: str
    model: str
    category: str
    folds: tuple[int, ...]
    seed: int
    status: str
    weights: str
    device: str
    image_size: int
    fit_seconds: float
    versions: str
    note: str


RIGHT = "called rightly"
"""The kind of an image that is among a model's worst and on the right side of its threshold."""


@dataclass(frozen=True, slots=True)
class MistakeRow:
    """An image that a contender ranked worst inside its fold.

    Attributes:
        good: whether it is a good image, which scored high; else a defect, which scored low.
        kind: what the fold's default threshold makes of it: ``false alarm``, ``miss``, or ``called rightly``.
        abnormal: whether it lies above the fold's default threshold.
        outranked, of: how many of the fold's images of the other class it wrongly outranks.
    """

    category: str
    label: str
    family: Family
    good: bool
    kind: str
    image_id: str
    defect_type: str
    score: float
    threshold: float
    abnormal: bool
    outranked: int
    of: int
    fold: int
    seed: int
    cell: str

    @property
    def wrong(self) -> bool:
        """Whether the threshold calls it wrongly."""
        return self.kind != RIGHT


@dataclass(frozen=True, slots=True)
class CurveRow:
    """A curve of one fit.

    Attributes:
        x, y: its points.
        figure: the area under it, or its average precision.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    figure: float
    cell: str


@dataclass(frozen=True, slots=True)
class Curves:
    """One model's curves on one category, one of each kind for each fold and seed.

    Attributes:
        share: of defects among the tested images, which a random guess's precision would be.
    """

    label: str
    family: Family
    category: str
    share: float
    roc: tuple[CurveRow, ...]
    precision_recall: tuple[CurveRow, ...]
