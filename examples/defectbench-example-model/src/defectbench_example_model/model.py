"""The model: how far a picture's small grey thumbnail lies from those of the goods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.neighbors import NearestNeighbors

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
)


class ThumbnailKnn(Model):
    """Distance to the nearest good thumbnails.

    Settings: ``neighbours`` (the mean over how many nearest), ``thumbnail`` (its side in pixels).
    """

    self_contained = True

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._goods = np.zeros((0, 0), np.float32)

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Keep the goods' thumbnails. The report may raise: that ends the fit."""
        check_goods(training)
        found = []
        for index in range(len(training.pictures)):
            found.append(self._thumbnail(training.pictures[index]))
            report(Progress(index + 1, len(training.pictures)))
        self._goods = np.stack(found)

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield the mean distance, and the squared difference from the nearest good as heat map."""
        count = min(self.settings.whole("neighbours"), len(self._goods))
        search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(self._goods)
        side = self.settings.whole("thumbnail")
        for index in range(len(pictures)):
            thumbnail = self._thumbnail(pictures[index])
            distances, places = search.kneighbors(thumbnail[None])
            difference = (thumbnail - self._goods[places[0, 0]]) ** 2
            yield Prediction(float(distances.mean()), difference.reshape(side, side))

    def save(self, path: Path) -> None:
        """Write the thumbnails as npz."""
        with path.open("wb") as file:
            np.savez(file, allow_pickle=False, goods=self._goods)

    def load(self, path: Path) -> None:
        """Read the thumbnails."""
        with np.load(path, allow_pickle=False) as arrays:
            self._goods = arrays["goods"]

    def size(self) -> ModelSize:
        """Count the numbers kept; a multiplication and two additions for each of them."""
        return ModelSize(self._goods.size, 3 * self._goods.size)

    def _thumbnail(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the picture in grey and small, as one row of numbers from 0 to 1."""
        side = self.settings.whole("thumbnail")
        small = Image.fromarray(picture).convert("L").resize((side, side), Image.Resampling.BOX)
        return (np.asarray(small) / 255).astype(np.float32).reshape(-1)
