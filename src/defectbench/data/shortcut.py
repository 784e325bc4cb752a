"""Can train/good and test/good be told apart by looks alone? Then a classifier is at a disadvantage.

A classifier learns train/good as good and defects of the test part as abnormal. If the two parts differ in
brightness, sharpness or size, it may learn the part instead of the defect, and then calls good pictures of
the test part abnormal: its figures are worse than the line's would be (docs/statistics.md). So a trivial
discriminator is taught the part of good pictures, by statistics of the whole picture: it sees no
defect and no label. AUROC 0.5: it cannot tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.metrics.comparison import FoldScores, stratified_bootstrap
from defectbench.util.documents import STRICT, read_document, typed, write_document

Looks = NDArray[np.float64]
SUSPICIOUS = 0.7
"""AUROC from which on a warning is due, if the lower bound is above one half too."""

_SIDE = 64
_FOLDS = 5
_RESAMPLES = 1999
_SHRINKAGE = 0.1
_SEED = 0


@dataclass(frozen=True, slots=True)
class Shortcut:
    """How well a trivial discriminator tells train/good from test/good.

    Attributes:
        auroc: cross-validated; 0.5 means not at all.
        low, high: its 95 % interval over pictures.
        train, test: good pictures of each part.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    auroc: float
    low: float
    high: float
    train: int
    test: int

    @property
    def suspicious(self) -> bool:
        """Whether the difference puts a classifier at a disadvantage."""
        return self.auroc >= SUSPICIOUS and self.low > 0.5

    @property
    def warning(self) -> str:
        """What to make of it, in words."""
        return (
            f"whole-picture looks (colour, contrast, sharpness, size) tell train/good from test/good with an "
            f"AUROC of {self.auroc:.2f} ({self.low:.2f} to {self.high:.2f}): a classifier may learn that "
            "difference in place of the defect and look worse than it is, because it then calls goods of the "
            "test part abnormal; take both parts under the same light and settings"
        )

    def to_json(self) -> bytes:
        """Return the text kept beside the data's manifest."""
        return write_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Shortcut:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: it is something else, of another schema, or not as it was written.
        """
        return typed(cls, read_document(data, "shortcut.json"), "shortcut.json")


def looks(picture: NDArray[np.uint8]) -> Looks:
    """Return a picture's statistics, (20,): size, colours, contrast, sharpness and noise of the whole.

    Args:
        picture: (H, W, 3) uint8.
    """
    height, width = picture.shape[:2]
    small = np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
    grey = _mean_of_channels(small)
    fine = _mean_of_channels(picture[height // 4 : height // 4 + 256, width // 4 : width // 4 + 256])
    colours = [f(small[..., channel]) for channel in range(3) for f in (np.mean, np.std)]
    return np.array(
        [
            math.log(height),
            math.log(width),
            *colours,
            *np.percentile(grey, (1, 10, 50, 90, 99)),
            *(_steps(grey, axis) for axis in (0, 1)),
            *(_steps(grey[::8, ::8], axis) for axis in (0, 1)),
            *(_steps(fine, axis) for axis in (0, 1)),
            np.count_nonzero(picture == 255) / picture.size,
        ]
    )


def _mean_of_channels(picture: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean over the last axis of (h, w, 3), four times as fast as numpy's own of three numbers."""
    return np.asarray((picture[..., 0].astype(np.float64) + picture[..., 1] + picture[..., 2]) / 3)


def discriminate(train: Sequence[Looks], test: Sequence[Looks]) -> Shortcut | None:
    """Return how well a linear discriminant tells the parts apart; None with fewer than five of one.

    Five folds, stratified; the AUROC is computed inside each and averaged, as all curve figures here.
    """
    if min(len(train), len(test)) < _FOLDS:
        return None
    inputs, parts = np.stack([*train, *test]), np.repeat([0, 1], (len(train), len(test)))
    folds = _dealt(parts)
    found = []
    for fold in range(_FOLDS):
        held = folds == fold
        scores = inputs[held] @ _direction(inputs[~held], parts[~held])
        found.append(FoldScores.of(parts[held], scores, scores))
    interval = stratified_bootstrap(found, seed=_SEED, resamples=_RESAMPLES).interval_a(0.95)
    return Shortcut(interval.value, interval.low, interval.high, len(train), len(test))


def _dealt(parts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each picture's fold: dealt out in random order, part by part."""
    rng, folds = np.random.default_rng(_SEED), np.empty(len(parts), dtype=np.int64)
    for part in (0, 1):
        places = rng.permutation(np.flatnonzero(parts == part))
        folds[places] = np.arange(len(places)) % _FOLDS
    return folds


def _direction(inputs: Looks, parts: NDArray[np.int64]) -> Looks:
    """Return Fisher's discriminant, shrunk: the way from train to test that noise within them allows."""
    scale = np.maximum(inputs.std(axis=0), 1e-9)
    train, test = (inputs[parts == part] / scale for part in (0, 1))
    within = [part - part.mean(axis=0) for part in (train, test)]
    rows = np.concatenate(within)
    covariance = rows.T @ rows / len(rows) + _SHRINKAGE * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(covariance, test.mean(axis=0) - train.mean(axis=0)) / scale)


def _steps(grey: NDArray[np.float64], axis: int) -> float:
    """Return the logarithm of the mean step between neighbours: sharpness, or noise."""
    steps = np.abs(np.diff(grey, axis=axis))
    return math.log1p(float(steps.mean())) if steps.size else 0.0
