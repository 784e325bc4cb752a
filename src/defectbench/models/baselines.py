"""Two models without weights, one of each family, that keep the deep ones honest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectbench.errors import BugError
from defectbench.models.base import (
    FitCallback,
    Model,
    ModelSettings,
    ModelSize,
    Pictures,
    Prediction,
    Progress,
    TrainingData,
    check_goods,
    check_labels,
)
from defectbench.models.features import filterbank
from defectbench.models.training.balance import class_weights

Array = NDArray[np.float32]

_FFT_COST = 5
"""Operations of a complex FFT of N points: about 5 N log2 N."""


class _FilterBankModel(Model):
    """What both share: features from the cache, and the fitted arrays as an npz file."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._state: dict[str, NDArray[Any]] = {}

    def save(self, path: Path) -> None:
        """Write the fitted arrays as npz."""
        self._fitted()
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, **self._state)

    def load(self, path: Path) -> None:
        """Read the fitted arrays."""
        with np.load(path, allow_pickle=False) as arrays:
            self._state = {name: arrays[name] for name in arrays.files}

    def _fitted(self) -> dict[str, NDArray[Any]]:
        """Return the fitted arrays; BugError before a fit or a load."""
        if not self._state:
            raise BugError(f"{type(self).__name__} was asked for results before fit or load")
        return self._state

    def _training_features(self, pictures: Pictures, report: FitCallback) -> Array:
        """Return the training pictures' features, (n, places, places, channels)."""
        found = []
        for features in pictures.features(filterbank.EXTRACTOR, filterbank.describe):
            found.append(features)
            report(Progress(len(found), len(pictures)))
        return np.stack(found)

    def _white(self, features: Array) -> NDArray[np.float64]:
        """Return features (..., channels) scaled and whitened as the fit found them."""
        state = self._state
        scaled = ((features - state["centre"]) / state["scale"]).astype(np.float64)
        white: NDArray[np.float64] = scaled @ state["whitener"]
        return white

    def _bank_flops(self) -> int:
        """Return the operations of all filters on one picture."""
        side = self.settings.image_size
        transforms = filterbank.CHANNELS // 2
        return int(_FFT_COST * transforms * side**2 * math.log2(side**2))


class FilterBankDetector(_FilterBankModel):
    """Distance of each place to its nearest good place, in features whitened by the training goods.

    Settings: ``neighbours`` (the mean over how many nearest), ``bank`` (how many good places are kept; drawn
    by the seed).
    """

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Scale the features by the goods' median and spread, whiten them, and keep a bank of good places."""
        check_goods(training)
        places = self._training_features(training.pictures, report).reshape(-1, filterbank.CHANNELS)
        self._state = _whitening(places)
        keep = min(self.settings.whole("bank"), len(places))
        rows = np.sort(np.random.default_rng(self.settings.seed).permutation(len(places))[:keep])
        self._state["bank"] = self._white(places[rows]).astype(np.float32)

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield the distances as heat map; the score is the mean of the largest four per cent of them."""
        self._fitted()
        for features in pictures.features(filterbank.EXTRACTOR, filterbank.describe):
            heat_map = self._distances(features)
            ordered = np.sort(heat_map, axis=None)
            # A defect covers few places: the mean of all would drown it, the maximum alone is noisy.
            top = max(1, round(0.04 * ordered.size))
            yield Prediction(float(ordered[-top:].astype(np.float64).mean()), heat_map)

    def _distances(self, features: Array) -> Array:
        """Return each place's distance to the bank, (places, places)."""
        white = self._white(features.reshape(-1, filterbank.CHANNELS)).astype(np.float32)
        near = _nearest(white, self._fitted()["bank"], self.settings.whole("neighbours"))
        return near.reshape(features.shape[:2])

    def size(self) -> ModelSize:
        """Count the bank's numbers and the scaling; operations of the filters and of the search."""
        state = self._fitted()
        places = filterbank.grid_side(self.settings.image_size) ** 2
        search = 2 * places * filterbank.CHANNELS * (len(state["bank"]) + filterbank.CHANNELS)
        return ModelSize(sum(array.size for array in state.values()), self._bank_flops() + search)


class FilterBankClassifier(_FilterBankModel):
    """Logistic regression on how far the picture's most unusual places deviate.

    Features are whitened by all training pictures, whatever their labels: what is whitened by the goods alone
    makes those very goods look even, so that a fit on shuffled labels still learns "unusual is abnormal".
    Each is pooled to the mean of its two per cent largest absolute values: defects are local, and may be
    lighter or darker than their surroundings. That is a sum over places, so the log-odds split exactly into a
    share of each place: the heat map. (The pooling was chosen on the synthetic data, seed 0; against means,
    squares and tails of features that are not whitened it raised the AUROC by 0.05 to 0.2.)

    Settings: ``penalty`` (the L2 penalty's strength, the inverse of scikit-learn's C).
    """

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Fit the regression on the training pictures; the tuning pictures are not used."""
        check_labels(training)
        features = self._training_features(training.pictures, report)
        self._state = _whitening(features.reshape(-1, filterbank.CHANNELS))
        pooled = np.stack([_pool(self._white(picture)).sum((0, 1)) for picture in features])
        mean, deviation = pooled.mean(0), pooled.std(0)
        # Whitened features vary by about 1: what varies less is rounding, of grey pictures' colours.
        deviation[deviation < 1e-6] = 1.0
        weights, intercept = self._regress((pooled - mean) / deviation, training.labels)
        weights = weights / deviation
        self._state |= {"weights": weights, "intercept": np.array(intercept - float(mean @ weights))}

    def _regress(
        self, inputs: NDArray[np.float64], labels: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], float]:
        """Return the coefficients and the intercept of the regularised regression."""
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1.0 / self.settings.number("penalty"), max_iter=5000, tol=1e-6)
        model.fit(inputs, labels, sample_weight=class_weights(labels, self.settings.balance)[labels])
        return model.coef_[0], float(model.intercept_[0])

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield the log-odds, and each place's share as map: it sums to the log-odds less the intercept."""
        state = self._fitted()
        for features in pictures.features(filterbank.EXTRACTOR, filterbank.describe):
            shares = _pool(self._white(features)) @ state["weights"]
            yield Prediction(float(shares.sum() + state["intercept"]), shares.astype(np.float32))

    def size(self) -> ModelSize:
        """Count weights and scaling; operations of the filters (the regression's are few beside them)."""
        return ModelSize(sum(array.size for array in self._fitted().values()), self._bank_flops())


def _whitening(places: Array) -> dict[str, NDArray[Any]]:
    """Return what scales places (n, channels) by their medians and spreads, and then whitens them."""
    centre, scale = _robust(places)
    return {
        "centre": centre,
        "scale": scale,
        "whitener": _whitener(((places - centre) / scale).astype(np.float64)),
    }


def _robust(places: Array) -> tuple[Array, Array]:
    """Return each feature's median and its median absolute deviation, scaled to a normal's deviation."""
    centre = np.median(places, axis=0)
    # 1.4826 is 1 over 0.6745, the normal's 75 % quantile: for a normal this is its standard deviation.
    spread = 1.4826 * np.median(np.abs(places - centre), axis=0)
    spread = np.where(spread < 1e-6, places.std(axis=0), spread)
    return centre, np.where(spread < 1e-6, 1.0, spread).astype(np.float32)


def _whitener(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what makes the goods' covariance the identity; a tenth of the mean variance is added."""
    covariance = np.cov(scaled, rowvar=False)
    # Without it directions that the goods hardly vary in would be blown up to noise.
    ridge = 0.1 * np.trace(covariance) / len(covariance)
    values, vectors = np.linalg.eigh(covariance + ridge * np.eye(len(covariance)))
    whitener: NDArray[np.float64] = vectors / np.sqrt(values)
    return whitener


def _nearest(queries: Array, bank: Array, neighbours: int) -> Array:
    """Return each query's mean Euclidean distance to its nearest ``neighbours`` rows of the bank, (q,)."""
    # |q - b|^2 = q^2 - 2 q b + b^2: one matrix product for all pairs.
    squared = (queries**2).sum(1)[:, None] - 2 * queries @ bank.T + (bank**2).sum(1)
    count = min(neighbours, len(bank))
    near = np.partition(squared, count - 1, axis=1)[:, :count]
    # Rounding may leave a squared distance below 0.
    distances: Array = np.sqrt(np.maximum(near, 0)).mean(1).astype(np.float32)
    return distances


def _pool(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each place's part of the pooled features, (places, places, channels)."""
    rows, columns, channels = white.shape
    flat = np.abs(white.reshape(-1, channels))
    top = max(1, round(0.02 * len(flat)))
    parts = np.zeros_like(flat)
    chosen = np.argsort(flat, axis=0, kind="stable")[-top:]
    np.put_along_axis(parts, chosen, np.take_along_axis(flat, chosen, 0) / top, 0)
    return parts.reshape(rows, columns, channels)
