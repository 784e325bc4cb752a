"""GLASS in a holdout: the epoch with the best tuning AUROC is kept, and training itself is not moved.

About 20 s, most of it the import of anomalib and the noise of the anomalies.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from defectbench import catalog
from defectbench.errors import DataError
from defectbench.metrics.image import image_auroc
from defectbench.models.base import ModelSettings, Progress, TrainingData
from defectbench.models.detectors.glass import Glass
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training.gradient_detector import BestEpoch

pytestmark = pytest.mark.torch

SIDE = 64
EPOCHS = 6


def pictures(number: int, seed: int, defect: bool = False) -> NDArray[np.uint8]:
    """Coarse noise; with ``defect`` a faint square, so that no epoch tells all of them apart."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 196, size=(number, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    values = coarse + rng.normal(0, 10, coarse.shape)
    if defect:
        values[:, 24:40, 24:40] += rng.choice([-25, 25], (number, 1, 1, 1))
    return np.clip(values, 0, 255).astype(np.uint8)


GOODS = pictures(4, 1)
TUNING = ArrayPictures(np.concatenate([pictures(8, 2), pictures(8, 3, defect=True)]))
TUNING_LABELS = np.repeat([0, 1], 8)


def training_data(tuned: bool = True) -> TrainingData:
    labels = np.zeros(len(GOODS), np.int64)
    if not tuned:
        return TrainingData(ArrayPictures(GOODS), labels)
    return TrainingData(ArrayPictures(GOODS), labels, TUNING, TUNING_LABELS)


def model_settings(epochs: int = EPOCHS, patience: int = 0) -> ModelSettings:
    own: dict[str, catalog.Setting] = {
        "backbone": "test_resnet.r160_in1k",
        "batch_size": 4,
        "learning_rate": 3e-3,
    }
    return ModelSettings(
        {**catalog.find("glass").settings, **own}, SIDE, epochs, patience, seed=3, device="cpu"
    )


def fit(wanted: ModelSettings, taught: TrainingData) -> tuple[Glass, list[Progress]]:
    told: list[Progress] = []
    model = Glass(wanted)
    model.fit(taught, told.append)
    return model, told


def curve(told: list[Progress], name: str) -> list[float]:
    return [progress.figures[name] for progress in told if name in progress.figures]


def scores(model: Glass) -> list[float]:
    return [prediction.score for prediction in model.predict(TUNING)]


def parts(model: Glass) -> dict[str, torch.Tensor]:
    return model.trained_state(model.model())


@pytest.fixture(scope="module")
def tuned() -> tuple[Glass, list[Progress]]:
    return fit(model_settings(), training_data())


def test_glass_keeps_the_first_of_the_best_epochs(tuned: tuple[Glass, list[Progress]]) -> None:
    model, told = tuned
    aurocs = curve(told, "tuning_auroc")
    assert len(aurocs) == EPOCHS
    best = int(np.argmax(aurocs)) + 1
    assert best < EPOCHS, "the last epoch is the best: this case cannot tell what is kept"
    assert image_auroc(TUNING_LABELS, np.array(scores(model))) == max(aurocs)
    # The kept state is that of a fit which ends there, bit for bit.
    ended, _ = fit(model_settings(best), training_data(tuned=False))
    assert scores(ended) == scores(model)
    assert all(torch.equal(value, parts(ended)[key]) for key, value in parts(model).items())


def test_glass_trains_with_tuning_pictures_as_without(tuned: tuple[Glass, list[Progress]]) -> None:
    model, told = fit(model_settings(), training_data(tuned=False))
    assert curve(told, "train_loss") == curve(tuned[1], "train_loss")
    assert not curve(told, "tuning_auroc")
    assert scores(model) != scores(tuned[0])


def test_glass_gives_the_same_twice_with_tuning_pictures(tuned: tuple[Glass, list[Progress]]) -> None:
    again, told = fit(model_settings(), training_data())
    assert told == tuned[1]
    assert scores(again) == scores(tuned[0])


def test_glass_stops_when_its_patience_is_used_up(tuned: tuple[Glass, list[Progress]]) -> None:
    aurocs = curve(tuned[1], "tuning_auroc")
    ends = next(e for e in range(1, EPOCHS) if aurocs[e] <= max(aurocs[:e])) + 1
    assert ends < EPOCHS, "the AUROC only rises: this case cannot tell a stop"
    model, told = fit(model_settings(patience=1), training_data())
    assert curve(told, "tuning_auroc") == aurocs[:ends]
    assert image_auroc(TUNING_LABELS, np.array(scores(model))) == max(aurocs[:ends])


def test_glass_waits_from_the_last_rise() -> None:
    best, seen = BestEpoch(), []
    for auroc in (0.5, 0.4, 0.6, 0.6, 0.6):
        best.see(auroc, {})
        seen.append(best.over(2))
    assert seen == [False, False, False, False, True]


def test_glass_refuses_tuning_pictures_of_one_class() -> None:
    taught = TrainingData(
        ArrayPictures(GOODS), np.zeros(len(GOODS), np.int64), TUNING, np.zeros(16, np.int64)
    )
    with pytest.raises(DataError, match="needs 1 of each"):
        fit(model_settings(), taught)
