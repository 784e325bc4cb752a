"""What every model of the catalog owes, by enumeration: a new entry is tested by being there."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

import small_models
from defectbench import catalog
from defectbench.errors import DataError
from defectbench.models.base import Model, ModelSettings, Prediction, Progress, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures
from small_models import side

pytestmark = pytest.mark.torch

NAMES = [entry.name for entry in catalog.ENTRIES]
CLASSIFIERS = [entry.name for entry in catalog.ENTRIES if entry.family == "classifier"]
DETECTORS = [entry.name for entry in catalog.ENTRIES if entry.family == "detector"]
SMALL: dict[str, catalog.Setting] = {"bank": 40, "batch_size": 8, "features": 20}
"""Settings that keep fits short; an entry takes those that it has."""


def epochs(entry: catalog.Entry) -> int:
    """Two, to see one follow the other; one for those whose steps take long, or that count them."""
    return min(entry.epochs, 2 if entry.image_size <= 288 and "steps" not in entry.settings else 1)


def textures(number: int, size: int, seed: int, defect: bool = False) -> np.ndarray:
    """Striped noise; with ``defect`` a dark disc."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    found = []
    for _ in range(number):
        grey = 128 + 40 * np.sin((x + 0.5 * y) / 3 + rng.uniform(0, 6)) + rng.normal(0, 8, (size, size))
        if defect:
            cy, cx = rng.integers(size // 4, 3 * size // 4, 2)
            grey[(y - cy) ** 2 + (x - cx) ** 2 < (size / 6) ** 2] = 10
        found.append(np.clip(np.stack([grey, grey * 0.9, grey * 0.8], -1), 0, 255).astype(np.uint8))
    return np.stack(found)


def model_settings(entry: catalog.Entry, seed: int = 0) -> ModelSettings:
    settings = {name: SMALL.get(name, value) for name, value in entry.settings.items()}
    settings |= small_models.changes(entry)
    return ModelSettings(settings, side(entry), epochs(entry), entry.patience, seed, device="cpu")


def training_data(entry: catalog.Entry) -> TrainingData:
    size = side(entry)
    if entry.family == "detector":
        return TrainingData(ArrayPictures(textures(5, size, 1)), np.zeros(5, np.int64))
    defects = textures(2, size, 3, defect=True)
    return TrainingData(
        ArrayPictures(np.concatenate([textures(3, size, 1), defects])),
        np.array([0, 0, 0, 1, 1]),
        ArrayPictures(np.concatenate([textures(1, size, 2), textures(1, size, 4, defect=True)])),
        np.array([0, 1]),
        {3: defects[0, :, :, 0] == 10, 4: defects[1, :, :, 0] == 10} if entry.family == "supervised" else {},
    )


@lru_cache(maxsize=4)
def shown(name: str) -> np.ndarray:
    size = side(catalog.find(name))
    return np.concatenate([textures(2, size, 5), textures(1, size, 6, defect=True)])


def fitted(name: str, seed: int = 0, again: int = 0) -> tuple[Model, tuple[Progress, ...]]:
    """A fit, shared by the tests; ``again`` names another one of the same, under other global generators."""
    return _fitted(twin(name), seed, again)


def twin(name: str) -> str:
    """The first entry that is fitted alike: entries of one smaller network need one fit."""
    entry = catalog.find(name)
    return next(
        other.name
        for other in catalog.ENTRIES
        if (other.builder, epochs(other), other.patience) == (entry.builder, epochs(entry), entry.patience)
        and model_settings(other) == model_settings(entry)
    )


# Tests come model by model, so few fits need be kept; all of them would fill the memory.
@lru_cache(maxsize=4)
def _fitted(name: str, seed: int, again: int) -> tuple[Model, tuple[Progress, ...]]:
    import torch

    torch.manual_seed(again)
    np.random.seed(again)
    before = torch.random.get_rng_state(), np.random.get_state(legacy=False)["state"]["key"].copy()
    entry = catalog.find(name)
    told: list[Progress] = []
    model = build_model(entry, model_settings(entry, seed))
    model.fit(training_data(entry), told.append)
    assert torch.equal(before[0], torch.random.get_rng_state()), "a fit moved torch's global generator"
    assert np.array_equal(before[1], np.random.get_state(legacy=False)["state"]["key"]), (
        "a fit moved numpy's global generator"
    )
    return model, tuple(told)


def predicted(name: str, seed: int = 0, again: int = 0) -> tuple[Prediction, ...]:
    return _inspected(twin(name), seed, again)


@lru_cache
def _inspected(name: str, seed: int, again: int) -> tuple[Prediction, ...]:
    model, _ = fitted(name, seed, again)
    return tuple(model.predict(ArrayPictures(shown(name))))


def same(one: tuple[Prediction, ...], other: tuple[Prediction, ...]) -> bool:
    """Whether all is equal, bit for bit."""
    return all(
        a.score == b.score and np.array_equal(a.heat_map, b.heat_map) for a, b in zip(one, other, strict=True)
    )


def each(names: list[str]) -> pytest.MarkDecorator:
    """Parametrise over models so that pytest runs one model's tests after the other's."""
    return pytest.mark.parametrize("name", names, scope="module")


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Nothing asks the network: every attempt is refused, noted, and fails the test."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield attempts
    assert not attempts


@each(NAMES)
def test_inspector_yields_one_finite_inspection_for_each_picture(name: str) -> None:
    found = predicted(name)
    assert len(found) == len(shown(name))
    for prediction in found:
        assert isinstance(prediction.score, float)
        assert np.isfinite(prediction.score)
        high, wide = prediction.heat_map.shape
        assert high == wide >= 2, "at the smallest size that the model takes the map must show a place"
        assert prediction.heat_map.dtype == np.float32
        assert np.isfinite(prediction.heat_map).all()


@each(NAMES)
def test_inspector_keeps_the_order_of_the_pictures(name: str) -> None:
    model, _ = fitted(name)
    turned = list(model.predict(ArrayPictures(shown(name)[::-1])))
    expected = [prediction.score for prediction in reversed(predicted(name))]
    assert len(set(expected)) > 1
    np.testing.assert_allclose([prediction.score for prediction in turned], expected, rtol=1e-5, atol=1e-5)


@each(NAMES)
def test_inspector_scores_a_picture_apart_from_the_others(name: str) -> None:
    model, _ = fitted(name)
    for picture, together in zip(shown(name), predicted(name), strict=True):
        [alone] = model.predict(ArrayPictures(picture[None]))
        assert alone.score == pytest.approx(together.score, rel=1e-5, abs=1e-5)
        np.testing.assert_allclose(alone.heat_map, together.heat_map, rtol=1e-3, atol=1e-5)


@each(NAMES)
def test_inspector_loads_what_it_saved(name: str, tmp_path: Path) -> None:
    model, _ = fitted(name)
    model.save(tmp_path / "model")
    entry = catalog.find(name)
    other = build_model(entry, model_settings(entry))
    other.load(tmp_path / "model")
    assert same(tuple(other.predict(ArrayPictures(shown(name)))), predicted(name))
    # A resumed cell may have loaded its fit; its costs must not show it.
    assert other.size() == model.size()


@each(NAMES)
def test_inspector_gives_the_same_twice(name: str) -> None:
    assert same(predicted(name), predicted(name, again=1))


@each(NAMES)
def test_inspector_depends_on_the_seed_where_it_draws(name: str) -> None:
    entry = catalog.find(name)
    draws = bool(entry.weights) or "bank" in entry.settings
    assert same(predicted(name), predicted(name, seed=1)) != draws


@each(NAMES)
def test_inspector_reports_its_progress(name: str) -> None:
    _, told = fitted(name)
    done = [progress.done for progress in told]
    assert done == sorted(done)
    assert all(0 <= progress.done <= progress.total for progress in told)
    if last := epochs(catalog.find(name)):
        figures = [progress for progress in told if progress.figures]
        assert [progress.done for progress in figures] == list(range(1, last + 1))
        assert all(np.isfinite(list(progress.figures.values())).all() for progress in figures)
        assert all("train_loss" in progress.figures for progress in figures)


@each(NAMES)
def test_inspector_stops_when_the_report_raises(name: str) -> None:
    entry = catalog.find(name)
    calls: list[Progress] = []

    def stop(progress: Progress) -> None:
        calls.append(progress)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        build_model(entry, model_settings(entry)).fit(training_data(entry), stop)
    assert len(calls) == 1


@each(NAMES)
def test_inspector_counts_what_it_weighs(name: str) -> None:
    size = fitted(name)[0].size()
    assert size.parameters > 0
    assert size.flops is None or size.flops > 1000


@each(CLASSIFIERS)
@pytest.mark.parametrize("label", [0, 1])
def test_classifier_refuses_a_lesson_of_one_class(name: str, label: int) -> None:
    entry = catalog.find(name)
    pictures = ArrayPictures(textures(3, side(entry), 1))
    with pytest.raises(DataError, match="needs 1 of each"):
        build_model(entry, model_settings(entry)).fit(
            TrainingData(pictures, np.full(3, label)), lambda progress: None
        )


@each(CLASSIFIERS)
def test_classifier_fits_without_tuning_pictures(name: str) -> None:
    entry = catalog.find(name)
    taught = training_data(entry)
    told: list[Progress] = []
    model = build_model(entry, model_settings(entry))
    model.fit(TrainingData(taught.pictures, taught.labels), told.append)
    assert all("tuning_auroc" not in progress.figures for progress in told)
    assert np.isfinite(next(model.predict(ArrayPictures(shown(name)))).score)


@each(DETECTORS)
def test_detector_refuses_defects_and_an_empty_lesson(name: str) -> None:
    entry = catalog.find(name)
    size = side(entry)
    with pytest.raises(DataError, match="learns from goods alone"):
        build_model(entry, model_settings(entry)).fit(
            TrainingData(ArrayPictures(textures(2, size, 1)), np.array([0, 1])), lambda progress: None
        )
    empty = ArrayPictures(np.zeros((0, size, size, 3), np.uint8))
    with pytest.raises(DataError, match="no training picture"):
        build_model(entry, model_settings(entry)).fit(
            TrainingData(empty, np.zeros(0, np.int64)), lambda progress: None
        )


# Those that are trained step by step are left out: a few steps from random weights teach nothing.
@each([*(name for name in DETECTORS if not catalog.find(name).epochs), "filterbank-logreg"])
def test_inspector_scores_a_gross_defect_highest(name: str) -> None:
    *goods, defect = (prediction.score for prediction in predicted(name))
    assert defect > max(goods)


def test_build_names_the_missing_extra() -> None:
    code = """
import sys
sys.modules["timm"] = None
from defectbench import catalog
from defectbench.errors import ConfigurationError
from defectbench.models.base import ModelSettings
from defectbench.models.choose import build_model
entry = catalog.find("mobilenetv3-small")
try:
    build_model(entry, ModelSettings(entry.settings, 64, 1, 1, 0))
except ConfigurationError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the extra 'train', but timm is not installed: uv sync --extra train" in ended.stdout
