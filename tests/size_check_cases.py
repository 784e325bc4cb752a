"""Inspectors that have something against a size, and entries that name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from defectbench import catalog
from defectbench.catalog import Entry
from defectbench.models.base import FitCallback, Model, ModelSize, Pictures, Prediction, TrainingData


class Easy(Model):
    """Gives each picture's brightness, whatever its size."""

    def fit(self, training_data: TrainingData, report: FitCallback) -> None:
        self.learnt = len(training_data.pictures)

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        for index in range(len(pictures)):
            grey = pictures[index].mean(-1).astype(np.float32)
            yield Prediction(float(grey.mean()), grey)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:  # by its name numpy would add a suffix
            np.savez(file, learnt=self.learnt)

    def load(self, path: Path) -> None:
        self.learnt = int(np.load(path)["learnt"])

    def size(self) -> ModelSize:
        return ModelSize(self.learnt, None)


class Fixed(Easy):
    """Takes 64 x 64 alone, as networks do whose positions are learnt."""

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        if self.settings.image_size != 64:
            raise AssertionError(f"Input height ({self.settings.image_size}) doesn't match model (64).")
        yield from super().predict(pictures)


class Broken(Easy):
    """Takes nothing."""

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        raise ValueError("unreadable\nat any size")


class Large(Easy):
    """Finds no room, as torch says it."""

    def fit(self, training_data: TrainingData, report: FitCallback) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


class Larger(Easy):
    """Finds no room, as numpy says it."""

    def fit(self, training_data: TrainingData, report: FitCallback) -> None:
        raise MemoryError("Unable to allocate 9 GiB")


class Endless(Easy):
    """Gives no number."""

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        for prediction in super().predict(pictures):
            yield replace(prediction, score=float("nan"))


def entry(builder: str, **changes: object) -> Entry:
    """Return the entry of a class of this module, or of another ``module:class``."""
    place = builder if ":" in builder else f"size_check_cases:{builder}"
    found = replace(catalog.find("filterbank-knn"), name="case", builder=place, image_size=64, extra="train")
    return replace(found, **changes)  # type: ignore[arg-type]
