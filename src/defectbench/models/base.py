"""The contract of both families: fit, then picture -> (score, heat map); higher means more abnormal.

A model never sees an image id, a path, a defect type or a label other than those of its training set: what
it is given cannot leak. Same settings and same training set give the same scores, bit for bit, on one device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from defectbench.catalog import Setting
from defectbench.errors import DataError, UsageError


class Pictures(Protocol):
    """Decoded pictures of one size, in a fixed order."""

    def __len__(self) -> int:
        """How many pictures."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One picture: (size, size, 3), RGB."""

    def features(
        self, extractor: str, compute: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield what ``compute`` gives for each picture, in order; computed once and kept for all cells.

        Args:
            extractor: names all that decides the features (kind, libraries' versions, weights digest,
                layers); the data, the image size and the number of threads are added here.
            compute: (batch, size, size, 3) uint8 -> (batch, ...) float32. It is always called on the same
                batches of the category's pictures, whoever asks, so that rounding cannot depend on the cell.
        """


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """What is built.

    Attributes:
        options: the catalog's settings with the sweep's overrides.
        image_size: side of the pictures in pixels.
        epochs, patience: as in the catalog's entry.
        seed: decides initial weights, order and augmentation; nothing else may.
        weights: weights' name -> local file; empty for ``weights: none``.
        weights_digest: names the weights in the keys of cached features; ``none`` for random ones.
        device: ``auto`` (CUDA where there is one, else CPU), ``cpu``, ``cuda`` or ``mps``.
        balance: how a classifier meets the imbalance: ``weights``, ``oversample`` or ``none``.
        rotate_and_flip: whether defects and goods alike may be rotated by 90 degrees and mirrored.
    """

    options: Mapping[str, Setting]
    image_size: int
    epochs: int
    patience: int
    seed: int
    weights: Mapping[str, Path] = field(default_factory=dict)
    weights_digest: str = "none"
    device: str = "auto"
    balance: str = "weights"
    rotate_and_flip: bool = False

    def whole(self, name: str, least: int = 1) -> int:
        """Return a setting that is a whole number, at least ``least``; raises UsageError otherwise."""
        value = self.options[name]
        # bool is an int to Python.
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"setting {name}: {value!r}; a whole number of at least {least} is allowed")
        return value

    def number(self, name: str) -> float:
        """Return a setting that is a finite number, 0 or more; raises UsageError otherwise."""
        value = self.options[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageError(f"setting {name}: {value!r}; a number of at least 0 is allowed")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a setting that is true or false; raises UsageError otherwise."""
        value = self.options[name]
        if not isinstance(value, bool):
            raise UsageError(f"setting {name}: {value!r}; true or false is allowed")
        return value

    def text(self, name: str) -> str:
        """Return a setting that is a text; raises UsageError otherwise."""
        value = self.options[name]
        if not isinstance(value, str):
            raise UsageError(f"setting {name}: {value!r}; a text is allowed")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a setting that is a list of texts, not empty; raises UsageError otherwise."""
        value = self.options[name]
        if isinstance(value, tuple | list) and value and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise UsageError(f"setting {name}: {value!r}; a list of texts is allowed")


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All that one fit may see.

    Attributes:
        pictures: training pictures.
        labels: (n,) int64, 0 good, 1 abnormal. All 0 for a detector.
        tuning: pictures for early stopping, or None.
        tuning_labels: their labels, (m,) int64; empty without ``tuning``.
        masks: place among the training pictures -> (size, size) bool, where the defect is; for supervised
            detectors alone, and only of defects that are labelled as such.
    """

    pictures: Pictures
    labels: NDArray[np.int64]
    tuning: Pictures | None = None
    tuning_labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)


def set_aside(total: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the goods that are learnt, and the tenth of them that sets a scale; a single one does both.

    >>> learnt, aside = set_aside(20, seed=0)
    >>> len(learnt), len(aside), sorted([*learnt, *aside]) == list(range(20))
    (18, 2, True)
    """
    # Seeded anew here, so that a fit and its calibration set the same goods aside without a word passed.
    order = np.random.default_rng(seed).permutation(total)
    aside = max(1, round(total / 10))
    return np.sort(order[aside:] if total > 1 else order), np.sort(order[:aside])


def check_goods(training: TrainingData) -> None:
    """Raise DataError unless the training set has pictures and all of them count as good."""
    if not len(training.pictures):
        raise DataError("no training picture: a detector learns from goods, at least 1")
    if training.labels.any():
        raise DataError(
            f"{int(training.labels.sum())} of {len(training.labels)} training pictures are abnormal: "
            "a detector learns from goods alone"
        )


def check_labels(training: TrainingData) -> None:
    """Raise DataError unless both classes are among the training pictures."""
    counts = np.bincount(training.labels, minlength=2)
    if not counts[0] or not counts[1]:
        raise DataError(
            f"training pictures: {counts[0]} good, {counts[1]} abnormal; a classifier needs 1 of each or more"
        )


def check_tuning(training: TrainingData) -> None:
    """Raise DataError unless the tuning pictures are of both classes, or there are none."""
    if training.tuning is None:
        return
    good, bad = np.bincount(training.tuning_labels, minlength=2)
    if not good or not bad:
        raise DataError(
            f"tuning pictures: {good} good, {bad} abnormal; early stopping needs 1 of each (or none at all)"
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a fit.

    Attributes:
        done, total: in the fit's own unit: epochs, or batches where there are no epochs.
        figures: points of the learning curves at ``done``; empty between epochs.
        save: writes all that the fit needs to go on from this step to a file, and can be called until the
            report returns; None where there is nothing to go on from.
    """

    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)
    save: Callable[[Path], None] | None = field(default=None, compare=False, repr=False)


FitCallback = Callable[[Progress], None]
"""Called by a fit after every optimiser step or batch; may raise, so that a stop is obeyed within seconds."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model makes of one picture.

    Attributes:
        score: raw, higher = more abnormal; a classifier's log-odds.
        heat_map: (h, w) float32, raw, higher = more abnormal; any size, it covers the whole picture.
    """

    score: float
    heat_map: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelSize:
    """What a model weighs.

    Attributes:
        parameters: numbers that the fit may set or that the weights file holds.
        flops: floating-point operations to score one picture, or None where they cannot be counted.
    """

    parameters: int
    flops: int | None


class Model(ABC):
    """A model of either family. Constructing it downloads nothing and trains nothing."""

    device: str = "cpu"
    """Where it runs, resolved: ``cpu``, ``cuda`` or ``mps``."""

    self_contained: ClassVar[bool] = False
    """Whether what :meth:`save` writes is all that :meth:`load` needs: no weights file beside it."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings

    @abstractmethod
    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Learn. Calls ``report`` after every optimiser step or batch; an exception from it ends the fit."""

    @abstractmethod
    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield a prediction for each picture, in order, in bounded memory. Needs a fit or a load."""

    def scores(self, pictures: Pictures) -> Iterator[float]:
        """Yield the scores that :meth:`predict` gives, bit for bit; for those whose maps nobody asks for."""
        return (prediction.score for prediction in self.predict(pictures))

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write the fitted state to one file (safetensors or npz: no pickle)."""

    @abstractmethod
    def load(self, path: Path) -> None:
        """Read what :meth:`save` wrote; the next :meth:`predict` gives the same scores, bit for bit."""

    @abstractmethod
    def size(self) -> ModelSize:
        """Count parameters and FLOPs of the fitted model."""


class Resumable(Model):
    """A model whose fit can be saved between two steps (:attr:`Progress.save`) and gone on with.

    Those that are none of these start anew: what a memory bank has collected so far is most of its work,
    and the baselines take seconds.
    """

    @abstractmethod
    def resume(self, training: TrainingData, report: FitCallback, saved: Path) -> None:
        """Go on with a fit of the same settings and training set; ends as :meth:`fit` would, bit for bit.

        Raises:
            CheckpointError: ``saved`` is no such fit; nothing was reported, and :meth:`fit` may be called.
        """
