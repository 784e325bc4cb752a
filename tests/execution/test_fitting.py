"""A fit that is kept, found again and gone on with, apart from stores: what counts and what is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from defectbench import catalog
from defectbench.errors import DeadlineError, StoppedError
from defectbench.execution.fitting import FitState, Fitted, Fitting, SavedFit
from defectbench.models.base import Model, ModelSettings, Progress, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures
from defectbench.util.memory import PeakMemory
from resumable_classifier import EPOCHS, NAME, STEPS, Stepper, planted

RECIPE = ModelSettings({"penalty": 1.0}, 32, EPOCHS, 0, 7)


@dataclass
class Drawer:
    """Keeps fits in a folder, at the steps that it is told to."""

    folder: Path
    at: tuple[int, ...] = ()
    every: float = float("inf")
    found: SavedFit | None = None
    kept: list[FitState] = field(default_factory=list)
    asked: int = 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked in self.at

    def save(self, saved: FitState, write: Callable[[Path], None]) -> None:
        write(self.folder / "kept")
        self.kept.append(saved)

    def find(self) -> SavedFit | None:
        return self.found


class StopError(Exception):
    """Ends a fit."""


@pytest.fixture
def training_data() -> TrainingData:
    rng = np.random.default_rng(0)
    return TrainingData(
        ArrayPictures(rng.integers(0, 256, (12, 32, 32, 3)).astype(np.uint8)), np.repeat([0, 1], [8, 4])
    )


def fitting(
    training_data: TrainingData,
    drawer: Drawer,
    tell: Callable[[Progress], None] = lambda progress: None,
    make: Callable[[], Model] = lambda: Stepper(RECIPE),
) -> Fitting:
    return Fitting(make, training_data, drawer, PeakMemory(), tell)


def weights(fitted: Fitted) -> list[float]:
    assert isinstance(fitted.model, Stepper)
    return list(fitted.model.weights)


def same(one: FitState, other: FitState) -> bool:
    """Whether two fits' ends are the same, costs apart."""
    return without_costs(one) == without_costs(other)


def without_costs(state: FitState) -> FitState:
    return replace(state, seconds=0.0, attempts=0, peak_memory_bytes=0)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that a fit is timed by."""
    made = Clock()
    monkeypatch.setattr("time.perf_counter", made)
    return made


@pytest.mark.parametrize("step", [1, STEPS - 1, STEPS, STEPS + 3, EPOCHS * STEPS])
def test_a_fit_that_was_kept_ends_the_same(
    step: int, training_data: TrainingData, tmp_path: Path, clock: Clock
) -> None:
    whole = fitting(training_data, Drawer(tmp_path)).run(Stepper(RECIPE))
    assert whole.saved.attempts == 1
    drawer = Drawer(tmp_path, (step,))

    def tell(progress: Progress) -> None:
        if drawer.kept:
            raise StopError

    with pytest.raises(StopError):
        fitting(training_data, drawer, tell).run(Stepper(RECIPE))
    [saved] = drawer.kept
    assert (saved.steps, saved.done, saved.attempts, saved.fitted) == (step, step // STEPS, 1, False)
    assert len(saved.history) == step // STEPS
    saved = replace(saved, seconds=1000.0, peak_memory_bytes=1 << 60)

    def tick(progress: Progress) -> None:
        clock.now += 1

    again = Drawer(tmp_path, found=SavedFit(saved, tmp_path / "kept"))
    resumed = fitting(training_data, again, tick).run(Stepper(RECIPE))
    assert weights(resumed) == weights(whole)
    assert same(resumed.saved, whole.saved)
    assert resumed.saved.attempts == 2
    assert resumed.saved.seconds == 1000.0 + EPOCHS * STEPS - step
    assert resumed.saved.peak_memory_bytes == 1 << 60


def test_a_fit_counts_neither_its_saving_nor_its_waiting_twice(
    training_data: TrainingData, tmp_path: Path, clock: Clock
) -> None:
    class Slow(Drawer):
        def save(self, saved: FitState, write: Callable[[Path], None]) -> None:
            clock.now += 1000
            super().save(saved, write)

    drawer = Slow(tmp_path, (5, 6))
    fitted = fitting(training_data, drawer).run(Stepper(RECIPE))
    assert len(drawer.kept) == 2
    assert fitted.saved.seconds == 0.0


def test_a_long_fit_is_kept_at_its_end_and_then_only_scored(
    training_data: TrainingData, tmp_path: Path
) -> None:
    drawer = Drawer(tmp_path, every=0.0)
    whole = fitting(training_data, drawer).run(Stepper(RECIPE))
    [saved] = drawer.kept
    assert saved.fitted
    assert whole.kept

    def tell(progress: Progress) -> None:
        raise AssertionError("it was fitted again")

    drawer = Drawer(tmp_path, every=0.0, found=SavedFit(saved, tmp_path / "kept"))
    loaded = fitting(training_data, drawer, tell).run(Stepper(RECIPE))
    assert weights(loaded) == weights(whole)
    assert loaded.saved == whole.saved
    with pytest.raises(StoppedError), loaded.saved_by(drawer):
        raise StoppedError
    assert not drawer.kept, "what lies there already was kept again"


@pytest.mark.parametrize("ends", [StoppedError, DeadlineError])
def test_a_stop_keeps_the_fit_at_the_step_at_which_it_is_heard(
    ends: type[Exception], training_data: TrainingData, tmp_path: Path
) -> None:
    heard = 0

    def tell(progress: Progress) -> None:
        nonlocal heard
        heard += 1
        if heard == 7:
            raise ends

    for drawer in (Drawer(tmp_path), Drawer(tmp_path, (7,))):
        heard = 0
        with pytest.raises(ends):
            fitting(training_data, drawer, tell).run(Stepper(RECIPE))
        assert [saved.steps for saved in drawer.kept] == [7]


def test_a_short_fit_is_kept_when_the_scoring_is_stopped_or_lasts(
    training_data: TrainingData, tmp_path: Path
) -> None:
    for drawer in (Drawer(tmp_path), Drawer(tmp_path, (EPOCHS * STEPS + 2,))):
        fitted = fitting(training_data, drawer).run(Stepper(RECIPE))
        with fitted.saved_by(drawer):
            assert not drawer.kept
        with pytest.raises(StoppedError), fitted.saved_by(drawer):
            raise StoppedError
        assert [saved.fitted for saved in drawer.kept] == [True]


@pytest.mark.parametrize(
    ("saved", "content", "says"),
    [
        (FitState(device="cuda"), "", "it was made on cuda, this is cpu"),
        (FitState(device="cpu"), "garbage", "no stepper"),
        (FitState(device="cpu", fitted=True), "garbage", "no fitted model"),
        (FitState(device="cpu", fitted=True), None, "no fitted model"),
    ],
)
def test_a_checkpoint_of_no_use_is_said_and_the_fit_starts_anew(
    saved: FitState,
    content: str | None,
    says: str,
    training_data: TrainingData,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = fitting(training_data, Drawer(tmp_path)).run(Stepper(RECIPE))
    if content is not None:
        (tmp_path / "kept").write_text(content)
    drawer = Drawer(tmp_path, found=SavedFit(replace(saved, attempts=3), tmp_path / "kept"))
    anew = fitting(training_data, drawer).run(Stepper(RECIPE))
    assert says in caplog.text
    assert "the fit starts anew" in caplog.text
    assert weights(anew) == weights(whole)
    assert same(anew.saved, whole.saved)
    assert anew.saved.attempts == 1


def test_a_model_that_does_not_resume_starts_anew(
    training_data: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = catalog.find("filterbank-logreg")
    assert not entry.resumes

    def make() -> Model:
        return build_model(entry, RECIPE)

    drawer = Drawer(tmp_path, at=tuple(range(1000)))
    fitted = fitting(training_data, drawer, make=make).run(make())
    assert not drawer.kept, "nothing can be kept in the middle of it"
    drawer.found = SavedFit(FitState(device="cpu"), tmp_path / "none")
    again = fitting(training_data, drawer, make=make).run(make())
    assert "FilterBankClassifier does not resume" in caplog.text
    shown = training_data.pictures
    scores = [[i.score for i in one.model.predict(shown)] for one in (fitted, again)]
    assert scores[0] == scores[1]


def test_a_fit_that_goes_on_says_from_where(
    training_data: TrainingData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    drawer = Drawer(tmp_path, (STEPS + 3,))
    fitting(training_data, drawer).run(Stepper(RECIPE))
    drawer.found = SavedFit(drawer.kept[0], tmp_path / "kept")
    fitting(training_data, drawer).run(Stepper(RECIPE))
    assert f"the fit goes on from 1 of {EPOCHS}, step {STEPS + 3}" in caplog.text


def test_the_stepper_is_in_the_catalogs_place() -> None:
    assert isinstance(build_model(planted()[NAME], RECIPE), Stepper)
