"""What every model promises, held against one model with random weights and tiny pictures."""

from __future__ import annotations

import gc
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from defectbench.catalog import Entry, Setting
from defectbench.errors import DataError
from defectbench.models.base import Model, ModelSettings, Prediction, Progress, TrainingData
from defectbench.models.choose import build_model, load_class
from defectbench.models.pictures.images import ArrayPictures

Pixels = NDArray[np.uint8]


def textures(number: int, size: int, seed: int, defect: bool = False) -> Pixels:
    """Return striped noise, (number, size, size, 3); with ``defect`` a dark disc on each."""
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


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A model as its contract fits it.

    Two cases are equal where they are fitted alike, whatever their entries are called: one fit serves both.

    Attributes:
        changes: settings that keep the fit short, laid over the entry's own.
        side: of the pictures in pixels.
        epochs: of the fit.
    """

    entry: Entry
    changes: Mapping[str, Setting]
    side: int
    epochs: int
    text: str = field(init=False)

    def __post_init__(self) -> None:
        own = self.entry
        decides = (
            own.builder,
            own.family,
            own.patience,
            sorted(self.options.items()),
            self.side,
            self.epochs,
        )
        object.__setattr__(self, "text", repr(decides))

    def __eq__(self, other: object) -> bool:
        """Whether both are fitted alike."""
        return isinstance(other, ModelCase) and self.text == other.text

    def __hash__(self) -> int:
        """As :meth:`__eq__`."""
        return hash(self.text)

    @property
    def options(self) -> dict[str, Setting]:
        """The settings of the fit."""
        return {**self.entry.settings, **self.changes}

    def settings(self, seed: int = 0) -> ModelSettings:
        """Return what the model is built from: random weights, on the CPU."""
        return ModelSettings(self.options, self.side, self.epochs, self.entry.patience, seed, device="cpu")

    def build(self, seed: int = 0) -> Model:
        """Return the model, neither fitted nor loaded."""
        return build_model(self.entry, self.settings(seed))

    def training(self) -> TrainingData:
        """Return a few pictures: goods for a detector, else both classes, with two pictures to tune on."""
        if self.entry.family == "detector":
            return TrainingData(ArrayPictures(textures(5, self.side, 1)), np.zeros(5, np.int64))
        defects = textures(2, self.side, 3, defect=True)
        masks = {3: defects[0, :, :, 0] == 10, 4: defects[1, :, :, 0] == 10}
        return TrainingData(
            ArrayPictures(np.concatenate([textures(3, self.side, 1), defects])),
            np.array([0, 0, 0, 1, 1]),
            ArrayPictures(
                np.concatenate([textures(1, self.side, 2), textures(1, self.side, 4, defect=True)])
            ),
            np.array([0, 1]),
            masks if self.entry.family == "supervised" else {},
        )

    def shown(self) -> Pixels:
        """Return the pictures that are scored: two good ones, then one with a defect."""
        return _shown(self.side)


@lru_cache(maxsize=4)
def _shown(size: int) -> Pixels:
    """Return those pictures, drawn once for all tests of a size."""
    return np.concatenate([textures(2, size, 5), textures(1, size, 6, defect=True)])


@dataclass(frozen=True)
class FittedModel:
    """A fit, and all that it reported."""

    model: Model
    reports: tuple[Progress, ...]


# Tests come model by model, so one fit need be kept, and the one before it for a model that is fitted alike:
# a large network with its optimizer takes over a gigabyte.
@lru_cache(maxsize=2)
def fitted(case: ModelCase) -> FittedModel:
    """Return a fit, shared by the tests."""
    return _fit(case, 0, 0)


def _fit(case: ModelCase, seed: int, again: int) -> FittedModel:
    """Return a fit of its own; ``again`` asks for it under other global generators."""
    gc.collect()  # fits that no test needs any more lie in cycles
    load_class(case.entry)
    torch = sys.modules.get("torch")
    before = _disturbed(torch, again)
    reports: list[Progress] = []
    model = case.build(seed)
    model.fit(case.training(), reports.append)
    assert _state(torch) == before, "a fit moved a global generator of random numbers"
    return FittedModel(model, tuple(reports))


def _disturbed(torch: Any, seed: int) -> tuple[bytes, ...]:
    """Set the global generators, which a fit must not use; return their state."""
    np.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)
    return _state(torch)


def _state(torch: Any) -> tuple[bytes, ...]:
    """Return the global generators' state, of torch only where it is loaded."""
    own = np.random.get_state(legacy=False)["state"]["key"].tobytes()
    return (own,) if torch is None else (own, torch.random.get_rng_state().numpy().tobytes())


@lru_cache
def predicted(case: ModelCase, seed: int = 0, again: int = 0) -> tuple[Prediction, ...]:
    """Return what the fit makes of the shown pictures."""
    own = _fit(case, seed, again) if seed or again else fitted(case)
    return tuple(own.model.predict(ArrayPictures(case.shown())))


def same(one: tuple[Prediction, ...], other: tuple[Prediction, ...]) -> bool:
    """Whether all is equal, bit for bit."""
    return len(one) == len(other) and all(
        a.score == b.score and np.array_equal(a.heat_map, b.heat_map) for a, b in zip(one, other, strict=True)
    )


@contextmanager
def no_network() -> Iterator[list[object]]:
    """Refuse every connection and every name; yield the attempts. Any attempt fails the test.

    Threads that other tests left behind may still ask for servers of theirs on this machine: that alone is
    no attempt of the model's.
    """
    attempts: list[object] = []
    own = threading.current_thread()

    def refuse(*arguments: object, **_: object) -> None:
        if threading.current_thread() is own or "127.0.0.1" not in str(arguments):
            attempts.append(arguments)
        raise OSError("no network in tests")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield attempts
    assert not attempts, "a model asked the network"


class _ModelCases:
    """Which model is tested, and how its fit is kept short."""

    @pytest.fixture
    def entry(self) -> Entry:
        """The model's entry: ``defectbench.catalog.find("NAME")``, so that its registration is tested too."""
        raise NotImplementedError("give the fixture entry: a defectbench.catalog.Entry")

    @pytest.fixture
    def case(self, entry: Entry) -> ModelCase:
        """How it is fitted."""
        side = next(size for size in range(1, 1025) if entry.takes(size))
        return ModelCase(entry, self.changes(entry), side, self.epochs(entry))

    def changes(self, entry: Entry) -> Mapping[str, Setting]:
        """Return settings that keep the fits short; none by default."""
        return {}

    def epochs(self, entry: Entry) -> int:
        """Return how many epochs a fit runs: two, to see one follow the other."""
        return min(entry.epochs, 2)

    def draws(self, entry: Entry) -> bool:
        """Whether the seed changes the scores; by default of those that start from random weights."""
        return bool(entry.weights)

    @pytest.fixture(autouse=True)
    def asked(self) -> Iterator[list[object]]:
        """Nothing asks the network."""
        with no_network() as attempts:
            yield attempts


class ModelContract(_ModelCases):
    """Subclass it as ``TestMine`` and give the fixture ``entry``; see :meth:`changes` and :meth:`draws`."""

    def test_model_yields_one_finite_prediction_for_each_picture(self, case: ModelCase) -> None:
        found = predicted(case)
        assert len(found) == len(case.shown())
        for prediction in found:
            assert isinstance(prediction.score, float)
            assert np.isfinite(prediction.score)
            high, wide = prediction.heat_map.shape
            assert high == wide >= 2, "at the smallest size that the model takes the map must show a place"
            assert prediction.heat_map.dtype == np.float32
            assert np.isfinite(prediction.heat_map).all()

    def test_model_keeps_the_order_of_the_pictures(self, case: ModelCase) -> None:
        back = list(fitted(case).model.predict(ArrayPictures(case.shown()[::-1])))
        expected = [prediction.score for prediction in reversed(predicted(case))]
        assert len(set(expected)) > 1
        scores = [prediction.score for prediction in back]
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)

    def test_model_scores_a_picture_apart_from_the_others(self, case: ModelCase) -> None:
        for picture, together in zip(case.shown(), predicted(case), strict=True):
            [alone] = fitted(case).model.predict(ArrayPictures(picture[None]))
            # A frozen network's features are computed in batches, whose rounding depends on their size.
            room = 5e-5 if case.entry.settings.get("freeze") else 1e-5
            assert alone.score == pytest.approx(together.score, rel=room, abs=room)
            np.testing.assert_allclose(alone.heat_map, together.heat_map, rtol=1e-3, atol=1e-5)

    def test_model_loads_what_it_saved(self, case: ModelCase, tmp_path: Path) -> None:
        model = fitted(case).model
        model.save(tmp_path / "model")
        other = case.build()
        other.load(tmp_path / "model")
        assert same(tuple(other.predict(ArrayPictures(case.shown()))), predicted(case))
        # A resumed cell may have loaded its fit; its costs must not show it.
        assert other.size() == model.size()

    def test_model_gives_the_same_twice(self, case: ModelCase) -> None:
        assert same(predicted(case), predicted(case, again=1))

    def test_model_depends_on_the_seed_where_it_draws(self, case: ModelCase) -> None:
        assert same(predicted(case), predicted(case, seed=1)) != self.draws(case.entry)

    def test_model_reports_its_progress(self, case: ModelCase) -> None:
        reports = fitted(case).reports
        done = [progress.done for progress in reports]
        assert done == sorted(done)
        assert done, "a fit reports at least once: that is when it hears that it must stop"
        assert all(0 <= progress.done <= progress.total for progress in reports)
        if case.epochs:
            figures = [progress for progress in reports if progress.figures]
            assert [progress.done for progress in figures] == list(range(1, case.epochs + 1))
            assert all(np.isfinite(list(progress.figures.values())).all() for progress in figures)
            assert all("train_loss" in progress.figures for progress in figures)

    def test_model_stops_when_the_report_raises(self, case: ModelCase) -> None:
        calls: list[Progress] = []

        def stop(progress: Progress) -> None:
            calls.append(progress)
            raise InterruptedError

        with pytest.raises(InterruptedError):
            case.build().fit(case.training(), stop)
        assert len(calls) == 1

    def test_model_counts_what_it_weighs(self, case: ModelCase) -> None:
        size = fitted(case).model.size()
        assert size.parameters > 0
        assert size.flops is None or size.flops > 0


class ClassifierContract(ModelContract):
    """The contract of a ``classifier``: what :class:`ModelContract` asks, and more."""

    @pytest.mark.parametrize("label", [0, 1])
    def test_classifier_refuses_a_training_set_of_one_class(self, case: ModelCase, label: int) -> None:
        pictures = ArrayPictures(textures(3, case.side, 1))
        with pytest.raises(DataError, match="needs 1 of each"):
            case.build().fit(TrainingData(pictures, np.full(3, label)), lambda progress: None)

    def test_classifier_fits_without_tuning_pictures(self, case: ModelCase) -> None:
        training = case.training()
        reports: list[Progress] = []
        model = case.build()
        model.fit(TrainingData(training.pictures, training.labels), reports.append)
        assert all("tuning_auroc" not in progress.figures for progress in reports)
        assert np.isfinite(next(model.predict(ArrayPictures(case.shown()))).score)


class DetectorContract(ModelContract):
    """The contract of a ``detector``: what :class:`ModelContract` asks, and more."""

    def test_detector_refuses_defects(self, case: ModelCase) -> None:
        mixed = TrainingData(ArrayPictures(textures(2, case.side, 1)), np.array([0, 1]))
        with pytest.raises(DataError, match="learns from goods alone"):
            case.build().fit(mixed, lambda progress: None)

    def test_detector_refuses_an_empty_training_set(self, case: ModelCase) -> None:
        empty = ArrayPictures(np.zeros((0, case.side, case.side, 3), np.uint8))
        with pytest.raises(DataError, match="no training picture"):
            case.build().fit(TrainingData(empty, np.zeros(0, np.int64)), lambda progress: None)


class GrossDefectContract(_ModelCases):
    """For models that learn at once, beside their family's contract: a few gradient steps teach nothing."""

    def test_model_scores_a_gross_defect_highest(self, case: ModelCase) -> None:
        *goods, defect = (prediction.score for prediction in predicted(case))
        assert defect > max(goods)
