"""EfficientAD in a holdout: its epochs are judged by scores like those that it gives in the end."""

from __future__ import annotations

import numpy as np
import pytest

import small_models
from defectbench import catalog
from defectbench.metrics.image import image_auroc
from defectbench.models.base import ModelSettings, Progress, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training import gradient_detector

pytestmark = pytest.mark.torch

SIDE = 256
PICTURES = np.random.default_rng(1).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)
TUNING, LABELS = ArrayPictures(PICTURES[2:]), np.array([0, 1, 0, 1])


def fitted(tuned: bool) -> tuple[list[float], list[Progress]]:
    """Scores of the tuning pictures after two epochs of one step, and what was told."""
    entry = catalog.find("efficientad-s")
    settings = {**entry.settings, **small_models.changes(entry)}
    model = build_model(entry, ModelSettings(settings, SIDE, 2, 0, 0, device="cpu"))
    told: list[Progress] = []
    training_data = TrainingData(ArrayPictures(PICTURES[:2]), np.zeros(2, np.int64))
    model.fit(
        TrainingData(training_data.pictures, training_data.labels, TUNING, LABELS)
        if tuned
        else training_data,
        told.append,
    )
    return [one.score for one in model.predict(TUNING)], told


def losses(told: list[Progress]) -> list[float]:
    return [progress.figures["train_loss"] for progress in told if progress.figures]


def test_epochs_are_judged_by_scores_on_the_scale_of_the_goods_set_aside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[list[float]] = []

    def seen(labels: np.ndarray, scores: np.ndarray) -> float:
        judged.append(scores.tolist())
        return image_auroc(labels, scores)

    monkeypatch.setattr(gradient_detector, "image_auroc", seen)
    scores, told = fitted(tuned=True)
    aurocs = [progress.figures["tuning_auroc"] for progress in told if progress.figures]
    assert scores == judged[int(np.argmax(aurocs))]
    _, others = fitted(tuned=False)
    assert losses(told) == losses(others), "judging an epoch moved the training"
