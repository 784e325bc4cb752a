"""A fit from its beginning, or from where an earlier attempt saved it; the end is the same, bit for bit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from defectbench.errors import CheckpointError, DeadlineError, StoppedError
from defectbench.models.base import FitCallback, Model, Progress, Resumable, TrainingData
from defectbench.models.pictures.timed import TimedPictures
from defectbench.records.predictions import HistoryPoint
from defectbench.util.memory import PeakMemory

_RESUMED = (StoppedError, DeadlineError)
"""What ends a fit that may be gone on with: later, or with more time allowed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FitState:
    """How far a fit is; beside it lies a file that the model wrote.

    Attributes:
        fitted: it has ended, and the file is that of :meth:`Model.save`; else of :attr:`Progress.save`.
        done, total: as the fit reported last.
        steps: optimiser steps, or other pieces of work, that it reported.
        seconds: its time so far in all attempts; before its end without what it waited for features.
        attempts: how many processes had a part in it.
        peak_memory_bytes: the largest of theirs.
        device: where it runs.
        history: its learning curves so far.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    fitted: bool = False
    done: int = 0
    total: int = 0
    steps: int = 0
    seconds: float = 0.0
    attempts: int = 0
    peak_memory_bytes: int = 0
    device: str = ""
    history: tuple[HistoryPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedFit:
    """A fit that an earlier attempt saved."""

    saved: FitState
    path: Path


class Checkpointer(Protocol):
    """Where fits are kept for a next attempt."""

    every: float
    """Seconds between two times."""

    def due(self) -> bool:
        """Whether it is time to."""

    def save(self, saved: FitState, write: Callable[[Path], None]) -> None:
        """Keep it; where that fails the fit goes on all the same."""

    def find(self) -> SavedFit | None:
        """Return what was kept last, or None where there is nothing to go on from."""


class NoCheckpoints:
    """Keeps nothing."""

    every = float("inf")

    def due(self) -> bool:
        """Never."""
        return False

    def save(self, saved: FitState, write: Callable[[Path], None]) -> None:
        """Do nothing."""

    def find(self) -> SavedFit | None:
        """Find nothing."""
        return None


@dataclass
class Fitted:
    """A fit that has ended.

    Attributes:
        kept: a next attempt can begin with the scores.
    """

    model: Model
    saved: FitState
    kept: bool = False

    @contextmanager
    def saved_by(self, checkpointer: Checkpointer) -> Iterator[None]:
        """Keep the fitted state, once, where it is time or the block is stopped: around each score."""
        if checkpointer.due():
            self.save(checkpointer)
        try:
            yield
        except _RESUMED:
            self.save(checkpointer)
            raise

    def save(self, checkpointer: Checkpointer) -> None:
        """Keep the fitted state, unless it is kept."""
        if not self.kept:
            checkpointer.save(self.saved, self.model.save)
        self.kept = True


@dataclass(frozen=True)
class Fitting:
    """One fit.

    Attributes:
        make: gives a fresh model.
        memory: measures this process.
        report: called with every step; what it raises ends the fit.
    """

    make: Callable[[], Model]
    training: TrainingData
    checkpointer: Checkpointer
    memory: PeakMemory
    report: FitCallback

    def run(self, model: Model) -> Fitted:
        """Fit ``model``, fresh from ``make``, or go on with what an earlier attempt kept."""
        found = self.checkpointer.find()
        if found is not None:
            try:
                return self._go_on(model, found)
            except CheckpointError as error:
                log.warning("the checkpoint is of no use, the fit starts anew: %s", error)
                model = self.make()
        current = _FitRun(self, FitState(device=model.device))
        model.fit(current.training, current.report)
        return self._ended(model, current)

    def _go_on(self, model: Model, found: SavedFit) -> Fitted:
        """Take up a saved fit, ended or under way; CheckpointError where it is none of this model's."""
        saved = found.saved
        if saved.device != model.device:
            raise CheckpointError(f"it was made on {saved.device}, this is {model.device}")
        if saved.fitted:
            return Fitted(_loaded(model, found.path), saved, kept=True)
        if not isinstance(model, Resumable):
            raise CheckpointError(f"{type(model).__name__} does not resume")
        log.info("the fit goes on from %d of %d, step %d", saved.done, saved.total, saved.steps)
        current = _FitRun(self, saved)
        model.resume(current.training, current.report, found.path)
        return self._ended(model, current)

    def _ended(self, model: Model, current: _FitRun) -> Fitted:
        """Return the fit, kept at once where losing it would cost more than a checkpoint's interval."""
        fitted = Fitted(model, current.ended())
        if current.lasted >= self.checkpointer.every:
            fitted.save(self.checkpointer)
        return fitted


def _loaded(model: Model, path: Path) -> Model:
    """Return the model with its saved fitted state."""
    try:
        model.load(path)
    except Exception as error:  # each library says in its own way that it cannot read a file
        raise CheckpointError(f"no fitted model ({type(error).__name__}: {error})") from error
    log.info("the fit had ended before: scoring only")
    return model


class _FitRun:
    """What happens between a fit's first step in this process and its last.

    Attributes:
        lasted: seconds that the whole fit really took; once it has ended.
    """

    def __init__(self, fitting: Fitting, before: FitState) -> None:
        self._fitting = fitting
        self._metered = TimedPictures(fitting.training.pictures)
        self._now = replace(before, attempts=before.attempts + 1)
        self._points = list(before.history)
        self._before = before.seconds
        self._started = time.perf_counter()
        self._saving = 0.0
        self.lasted = 0.0

    @property
    def training(self) -> TrainingData:
        """The training set, its features' cost noted."""
        return replace(self._fitting.training, pictures=self._metered)

    def report(self, progress: Progress) -> None:
        """Note a step, keep the fit where it is time, pass the step on."""
        self._points += (HistoryPoint(progress.done, name, float(v)) for name, v in progress.figures.items())
        self._now = replace(self._now, done=progress.done, total=progress.total, steps=self._now.steps + 1)
        # Before the step is reported: the report may end the process.
        kept = self._fitting.checkpointer.due() and self._keep(progress)
        try:
            self._fitting.report(progress)
        except _RESUMED:
            if not kept:
                self._keep(progress)
            raise

    def _keep(self, progress: Progress) -> bool:
        """Keep the fit where it can be gone on with from here; return whether."""
        if progress.save is None:
            return False
        started = time.perf_counter()
        self._fitting.checkpointer.save(self._state(), progress.save)
        self._saving += time.perf_counter() - started
        return True

    def ended(self) -> FitState:
        """Return the fit's state at its end, its time as if no feature had been cached."""
        state = self._state()
        self.lasted = state.seconds + self._metered.waited
        return replace(state, fitted=True, seconds=self.lasted + self._metered.correction())

    def _state(self) -> FitState:
        """Return how far the fit is now."""
        # Saving and waiting for shared features are not the model's own time; `ended` puts the features back.
        spent = time.perf_counter() - self._started - self._saving - self._metered.waited
        return replace(
            self._now,
            seconds=self._before + spent,
            peak_memory_bytes=max(self._now.peak_memory_bytes, self._fitting.memory.so_far()),
            history=tuple(self._points),
        )
