from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from defectbench.metrics.image import image_auroc
from defectbench.models.base import ModelSettings, TrainingData
from defectbench.models.baselines import FilterBankClassifier, FilterBankDetector
from defectbench.models.features import filterbank
from defectbench.models.pictures.images import ArrayPictures

SIDE = 128
RECIPE = ModelSettings({"neighbours": 1, "bank": 4000, "penalty": 1.0}, SIDE, 0, 0, seed=0)


def crops(number: int, seed: int, depth: float = 0.0) -> NDArray[np.uint8]:
    """Crops of a photograph of bricks; with ``depth`` a soft dark spot somewhere."""
    photograph, rng = data.brick().astype(np.float64), np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    found = []
    for _ in range(number):
        top, left = rng.integers(0, photograph.shape[0] - SIDE, 2)
        grey = photograph[top : top + SIDE, left : left + SIDE] * rng.uniform(0.95, 1.05)
        cy, cx = rng.integers(20, SIDE - 20, 2)
        grey = grey - depth * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 5**2))
        found.append(np.repeat(np.clip(grey, 0, 255)[..., None], 3, 2))
    return np.stack(found).astype(np.uint8)


def test_detector_finds_subtle_spots() -> None:
    detector = FilterBankDetector(RECIPE)
    detector.fit(TrainingData(ArrayPictures(crops(25, 1)), np.zeros(25, np.int64)), lambda progress: None)
    shown = np.concatenate([crops(15, 2), crops(15, 3, depth=60)])
    scores = [prediction.score for prediction in detector.predict(ArrayPictures(shown))]
    assert image_auroc([0] * 15 + [1] * 15, scores) > 0.9


def test_classifier_finds_subtle_spots_and_splits_its_score_over_the_places() -> None:
    classifier = FilterBankClassifier(RECIPE)
    taught = ArrayPictures(np.concatenate([crops(25, 1), crops(15, 4, depth=60)]))
    classifier.fit(TrainingData(taught, np.array([0] * 25 + [1] * 15)), lambda progress: None)
    shown = np.concatenate([crops(15, 2), crops(15, 3, depth=60)])
    found = list(classifier.predict(ArrayPictures(shown)))
    assert image_auroc([0] * 15 + [1] * 15, [prediction.score for prediction in found]) > 0.85
    intercept = float(classifier._fitted()["intercept"])
    for prediction in found:
        assert prediction.heat_map.sum() + intercept == pytest.approx(prediction.score, abs=1e-3)


@pytest.mark.parametrize(
    ("balance", "weight"), [("weights", "balanced"), ("oversample", "balanced"), ("none", None)]
)
def test_classifier_is_scikit_learns_on_the_pooled_features(balance: str, weight: str | None) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    from defectbench.models.baselines import _pool

    pictures = np.concatenate([crops(10, 1), crops(6, 4, depth=60)])
    labels = np.array([0] * 10 + [1] * 6)
    classifier = FilterBankClassifier(replace(RECIPE, balance=balance))
    classifier.fit(TrainingData(ArrayPictures(pictures), labels), lambda progress: None)
    state = classifier._fitted()
    white = ((filterbank.describe(pictures) - state["centre"]) / state["scale"]) @ state["whitener"]
    pooled = np.stack([_pool(picture).sum((0, 1)) for picture in white])
    # The colours of grey pictures are rounding and no more; StandardScaler would blow them up.
    inputs = StandardScaler().fit_transform(pooled[:, pooled.std(0) > 1e-6])
    reference = LogisticRegression(C=1.0, class_weight=weight, max_iter=5000, tol=1e-6).fit(inputs, labels)
    scores = [prediction.score for prediction in classifier.predict(ArrayPictures(pictures))]
    np.testing.assert_allclose(scores, reference.decision_function(inputs), rtol=1e-3, atol=1e-3)


def test_detector_points_at_the_defect() -> None:
    detector = FilterBankDetector(RECIPE)
    detector.fit(TrainingData(ArrayPictures(crops(25, 1)), np.zeros(25, np.int64)), lambda progress: None)
    picture = crops(1, 7)
    picture[0, 60:68, 30:38] = 0
    [prediction] = detector.predict(ArrayPictures(picture))
    row, column = np.unravel_index(np.argmax(prediction.heat_map), prediction.heat_map.shape)
    assert abs(row * filterbank.CELL - 60) <= filterbank.CELL
    assert abs(column * filterbank.CELL - 30) <= filterbank.CELL


@pytest.mark.parametrize("size", [32, 100, 128])
def test_filter_bank_describes_any_size(size: int) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype(np.uint8)
    found = filterbank.describe(pictures)
    side = filterbank.grid_side(size)
    assert found.shape == (2, side, side, filterbank.CHANNELS)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_filter_bank_describes_a_picture_of_one_colour() -> None:
    assert np.isfinite(filterbank.describe(np.zeros((1, 64, 64, 3), np.uint8))).all()


def test_filter_bank_answers_to_its_wavelength_and_orientation() -> None:
    x = np.arange(SIDE)
    stripes = np.tile(127 + 100 * np.sin(2 * np.pi * x / 8), (SIDE, 1))
    picture = np.repeat(stripes[..., None], 3, 2).astype(np.uint8)
    energies = filterbank.describe(picture[None])[0, 4:-4, 4:-4, :12].mean((0, 1))
    assert int(np.argmax(energies)) == 4  # second wavelength, first orientation
