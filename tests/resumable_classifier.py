"""A small resumable classifier without torch, for tests of workers; as a program: defectbench with it.

``STEP_SECONDS`` makes each of its steps last; ``IMPORT_SECONDS`` its import, as torch's does. At step
``HANG_AT`` it hangs.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench import catalog
from defectbench.catalog import registry
from defectbench.errors import CheckpointError
from defectbench.models.base import (
    FitCallback,
    ModelSize,
    Pictures,
    Prediction,
    Progress,
    Resumable,
    TrainingData,
)

NAME = "filterbank-logreg"
"""The catalog's entry whose place it takes."""

EPOCHS, STEPS = 4, 10
PLACES = 4

_log = logging.getLogger("defectbench.stepper")


@dataclass
class State:
    """All that a next step depends on."""

    rng: np.random.Generator
    weights: NDArray[np.float64] = field(default_factory=lambda: np.zeros(PLACES**2))
    done: int = 0


class Stepper(Resumable):
    """Logistic regression on the pictures' blocks, by steps on single pictures, drawn at random and noisy."""

    def fit(self, training_data: TrainingData, report: FitCallback) -> None:
        self._run(training_data, report, State(np.random.default_rng(self.settings.seed)))

    def resume(self, training_data: TrainingData, report: FitCallback, saved: Path) -> None:
        state = State(np.random.default_rng())
        try:
            document = json.loads(saved.read_bytes())
            state.rng.bit_generator.state = document["rng"]
            state.weights, state.done = np.array(document["weights"]), document["done"]
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"no stepper: {error}") from error
        self._run(training_data, report, state)

    def _run(self, training_data: TrainingData, report: FitCallback, state: State) -> None:
        def save(path: Path) -> None:
            document = {"weights": state.weights.tolist(), "done": state.done}
            path.write_text(json.dumps({**document, "rng": state.rng.bit_generator.state}))

        while state.done < EPOCHS * STEPS:
            if str(state.done) == os.environ.get("HANG_AT"):
                threading.Event().wait()
            time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
            chosen = int(state.rng.integers(len(training_data.pictures)))
            shown = blocks(training_data.pictures[chosen]) + state.rng.normal(0, 0.1, PLACES**2)
            odds = 1 / (1 + np.exp(-shown @ state.weights))
            state.weights += 0.5 * (training_data.labels[chosen] - odds) * shown
            state.done += 1
            _log.info("step %d", state.done)
            ended = state.done % STEPS == 0
            figures = {"train_loss": float((state.weights**2).sum())} if ended else {}
            report(Progress(state.done // STEPS, EPOCHS, figures, save))
        self.weights = state.weights

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        for index in range(len(pictures)):
            time.sleep(float(os.environ.get("STEP_SECONDS", "0")))
            shown = blocks(pictures[index])
            share = (shown * self.weights).reshape(PLACES, PLACES).astype(np.float32)
            yield Prediction(float(shown @ self.weights), share)

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.weights.tolist()))

    def load(self, path: Path) -> None:
        self.weights = np.array(json.loads(path.read_bytes()))

    def size(self) -> ModelSize:
        return ModelSize(PLACES**2, None)


def blocks(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    side = picture.shape[0] // PLACES
    means = picture[: side * PLACES, : side * PLACES].reshape(PLACES, side, PLACES, side, 3).mean((1, 3, 4))
    return np.asarray(means.ravel() / 255.0 - 0.5)


def planted() -> dict[str, catalog.Entry]:
    """The catalog's entries by name, with the stepper in its place."""
    entry = replace(catalog.find(NAME), builder="resumable_classifier:Stepper", epochs=EPOCHS, resumes=True)
    return {**registry.by_name(), NAME: entry}


if __name__ == "__main__":
    registry.by_name().update(planted())
    from defectbench.__main__ import main

    main()
else:
    time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))
