"""Detectors that are trained by gradient steps: one loop for all, and the methods that a model fills in.

The loop is not the classifiers': the order of random draws decides the bits of a fit, and theirs differs.
"""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from defectbench.errors import BugError
from defectbench.metrics.image import image_auroc
from defectbench.models.base import (
    FitCallback,
    ModelSettings,
    ModelSize,
    Pictures,
    Prediction,
    Progress,
    Resumable,
    TrainingData,
    check_goods,
    check_tuning,
)
from defectbench.models.features import backbone, device
from defectbench.models.training import checkpoint
from defectbench.models.training.epoch import BestEpoch, Epoch
from defectbench.models.training.micro_batches import MicroBatcher

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from.

    Attributes:
        images: (b, 3, size, size), prepared.
        labels: (b,) float32, 0 good, 1 abnormal.
        masks: (b, size, size) float32, 1 where the defect is.
        step: how many steps were taken before.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    step: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long a fit takes.

    Attributes:
        epochs: how many.
        steps: optimiser steps in all.
    """

    epochs: int
    steps: int

    @classmethod
    def of(cls, settings: ModelSettings, per_epoch: int) -> Schedule:
        """Return the settings' epochs, cut where the setting ``steps``, if it has one, is used up first."""
        steps = settings.epochs * per_epoch
        if "steps" in settings.options:
            steps = min(steps, settings.whole("steps"))
        return cls(math.ceil(steps / per_epoch), steps)


@dataclass(frozen=True)
class Optimisation:
    """What moves the weights: optimisers, and schedules of their rates by step or by epoch.

    Attributes:
        clip: largest norm of the gradient; 0 for any.
    """

    optimisers: Sequence[Optimizer]
    by_step: Sequence[LRScheduler] = ()
    by_epoch: Sequence[LRScheduler] = ()
    clip: float = 0.0


class GradientDetector(Resumable):
    """A detector trained by gradient steps on the goods. A model is a class with a few small methods.

    A fit can be gone on with from any step: what a model keeps beside its network's own state it gives by
    :meth:`get_extra_state`.

    It ends after its epochs. With tuning pictures (holdout only) their image AUROC is taken after every
    epoch, which costs a forward pass over them; the first epoch with the highest one is kept, and where
    ``patience`` is above 0 the fit ends once it has not risen for so many epochs.
    """

    frozen: ClassVar[tuple[str, ...]] = ()
    """Parts of the network that a fit never changes: always in eval mode, and not saved."""
    adds_up: ClassVar[bool] = False
    """Whether :meth:`loss` is a sum over the pictures; else it is a mean."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.device = device.resolve(settings.device)
        self._held: Any = None
        self._ready = False

    @abstractmethod
    def build(self) -> nn.Module:
        """Return the network on the CPU, with the seed's initial weights where it has no others."""

    @abstractmethod
    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return optimisers and schedules."""

    @abstractmethod
    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the loss of a step, a scalar."""

    @abstractmethod
    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw score and heat map, one number and (.., h, w), of one prepared picture."""

    def prepared(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return (b, size, size, 3) uint8 pictures as the network takes them, on the device."""
        return backbone.normalised(pictures, self.network, self.device)

    def batch_size(self) -> int:
        """Return how many pictures a step shows."""
        return self.settings.whole("batch_size")

    def epoch_indices(self, training: TrainingData) -> NDArray[np.int64]:
        """Return which pictures an epoch shows, in any order; one may be shown several times."""
        return np.arange(len(training.pictures))

    def before_training(self, model: Any, images: Iterator[Tensor]) -> None:
        """Do what precedes the first step, with the shown pictures in batches; nothing by default."""

    def before_epoch(self, model: Any, images: Iterator[Tensor]) -> None:
        """Do what precedes each epoch; nothing by default."""

    def calibrate(self, model: Any, training: TrainingData) -> None:
        """Take what scores need, before each tuning and after the last step; nothing by default.

        The network is in eval mode. Nothing may be drawn, so that tuning does not move the training.
        """

    def get_extra_state(self, model: Any) -> State:
        """Return what the fit goes on with beside the network's own state; nothing by default."""
        return {}

    def set_extra_state(self, model: Any, state: State) -> None:
        """Put back what :meth:`get_extra_state` gave."""

    def check(self, training: TrainingData) -> None:
        """Raise DataError unless the training set is one for this model."""
        check_goods(training)
        check_tuning(training)

    def model(self) -> Any:
        """Return the network, built on first use, in eval mode."""
        if self._held is None:
            with device.repeatable(self.settings.seed, "cpu"):
                model = self.build()
            for name in self.frozen:
                model.get_submodule(name).requires_grad_(False)
            self._held = model.to(self.device).eval()
        return self._held

    @property
    def network(self) -> nn.Module:
        """The backbone that says how pictures are standardised."""
        return self._network

    @network.setter
    def network(self, network: nn.Module) -> None:
        self._network = network

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Train; reports after every step and every tuning picture."""
        self._train(training, report, None)

    def resume(self, training: TrainingData, report: FitCallback, saved: Path) -> None:
        """Go on training from a step that was saved."""
        self._train(training, report, saved)

    def _train(self, training: TrainingData, report: FitCallback, saved: Path | None) -> None:
        """Fit from the beginning, or from what ``saved`` holds."""
        self.check(training)
        self._held = None
        model = self.model()
        with device.repeatable(self.settings.seed, self.device):
            loop = _DetectorTraining(self, model, training, report)
            if saved is not None:
                loop.restore(saved)
            loop.run()
            model.eval()
            self.calibrate(model, training)
        self._ready = True

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield raw score and heat map, one picture at a time."""
        yield from self.predictions(self._fitted(), pictures)

    def predictions(self, model: Any, pictures: Pictures) -> Iterator[Prediction]:
        """Yield what ``model``, in eval mode, finds; draws nothing."""
        for index in range(len(pictures)):
            with torch.no_grad():
                score, heat_map = self.score(model, self.prepared(pictures[index][None]))
            map_ = heat_map.reshape(heat_map.shape[-2:]).cpu().numpy().astype(np.float32)
            yield Prediction(float(score), map_)

    def _fitted(self) -> Any:
        """Return the trained network; BugError before a fit or a load."""
        if not self._ready:
            raise BugError(f"{type(self).__name__} was asked for results before fit or load")
        return self.model()

    def trained_state(self, model: Any) -> State:
        """Return the live state of all that a fit changes."""
        kept_out = tuple(f"{name}." for name in self.frozen)
        return {key: v for key, v in model.state_dict().items() if not key.startswith(kept_out)}

    def load_trained_state(self, model: Any, state: Mapping[str, Tensor]) -> None:
        """Put a state into the network; what is frozen stays."""
        lacking, foreign = model.load_state_dict(dict(state), strict=False)
        lost = [key for key in lacking if not key.startswith(tuple(f"{name}." for name in self.frozen))]
        if lost or foreign:
            raise BugError(f"{type(self).__name__}: state lacks {lost[:3]}, and has foreign {foreign[:3]}")

    def save(self, path: Path) -> None:
        """Write what was trained as safetensors; what is frozen is rebuilt from the settings."""
        state = self.trained_state(self._fitted())
        save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, path)

    def load(self, path: Path) -> None:
        """Read what was trained."""
        self.load_trained_state(self.model(), load_file(path, device=self.device))
        self._ready = True

    def size(self) -> ModelSize:
        """Count all parameters, and the products of matrices and convolutions of one pass."""
        model, side = self._fitted(), self.settings.image_size
        inputs = torch.zeros(1, 3, side, side, device=self.device)
        flops = backbone.count_flops(lambda images: self.score(model, images), inputs)
        return ModelSize(backbone.count(model), flops)


class _DetectorTraining:
    """The epochs: steps, tuning figures. All that a next step depends on can be saved."""

    def __init__(
        self, detector: GradientDetector, model: Any, training: TrainingData, report: FitCallback
    ) -> None:
        self._detector = detector
        self._model = model
        self._training = training
        self._report = report
        self._size = detector.batch_size()
        self._epoch_indices = detector.epoch_indices(training)
        self._schedule = Schedule.of(detector.settings, math.ceil(len(self._epoch_indices) / self._size))
        self._rng = np.random.default_rng(detector.settings.seed)
        self._optimisation = detector.optimisation(model, self._schedule)
        self._batcher = MicroBatcher(model, self._size, self._rng, adds_up=detector.adds_up)
        self._steps = 0
        self._done = 0
        self._now: Epoch | None = None
        self._best = BestEpoch()

    def run(self) -> None:
        """Train until the epochs or the patience are used up; the model ends with the best state, if any."""
        if not self._steps:
            self._detector.before_training(self._model, self._in_order())
        while self._done < self._schedule.epochs and not self._best.over(self._detector.settings.patience):
            if self._now is None:
                self._detector.before_epoch(self._model, self._in_order())
                self._now = Epoch(self._rng.permutation(self._epoch_indices))
            self._take_steps(self._now)
            self._end(self._now)
        if self._best.state:
            self._detector.load_trained_state(self._model, self._best.state)

    def _in_order(self) -> Iterator[Tensor]:
        """Yield all pictures in batches."""
        for chosen in self._cut(np.unique(self._epoch_indices)):
            yield self._images(chosen)
            self._tick()

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return an order's batches; the last may be smaller."""
        return [order[start : start + self._size] for start in range(0, len(order), self._size)]

    def _images(self, chosen: Iterable[int]) -> Tensor:
        """Return the chosen pictures, prepared."""
        return self._detector.prepared(np.stack([self._training.pictures[int(i)] for i in chosen]))

    def _batch(self, chosen: NDArray[np.int64]) -> Batch:
        """Return what a step learns from; pictures without a mask get one of zeros."""
        images, training = self._images(chosen), self._training
        labels = torch.from_numpy(training.labels[chosen]).to(images)
        masks = torch.zeros_like(images[:, 0])
        for row, place in enumerate(chosen):
            if int(place) in training.masks:
                masks[row] = torch.from_numpy(np.ascontiguousarray(training.masks[int(place)])).to(masks)
        return Batch(images, labels, masks, self._steps)

    def _take_steps(self, now: Epoch) -> None:
        """Take the epoch's steps that are left."""
        self._model.train()
        for name in self._detector.frozen:
            self._model.get_submodule(name).eval()
        for chosen in self._cut(now.order)[len(now.losses) :]:
            if self._steps == self._schedule.steps:
                return
            now.losses.append(self._step(chosen))
            self._steps += 1
            self._tick()

    def _step(self, chosen: NDArray[np.int64]) -> float:
        """Take one optimiser step and return its loss."""
        optimisation = self._optimisation
        loss = self._batcher.gradients(
            chosen, lambda part: self._detector.loss(self._model, self._batch(part))
        )
        # After all micro-batches: the norm is that of the whole batch's gradient.
        if optimisation.clip:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), optimisation.clip)
        for optimiser in optimisation.optimisers:
            optimiser.step()
        for scheduler in optimisation.by_step:
            scheduler.step()
        return loss

    def _end(self, now: Epoch) -> None:
        """Take the epoch's figures and close it."""
        figures = {"train_loss": float(np.mean(now.losses)), **self._batcher.figures()}
        if self._training.tuning is not None:
            figures["tuning_auroc"] = self._tune(self._training.tuning)
            self._best.see(figures["tuning_auroc"], self._detector.trained_state(self._model))
        # Last: a fit that was saved among the tuning pictures takes this epoch's end anew.
        with warnings.catch_warnings():
            # A fit that goes on from there has taken no step in this process, and torch misses it.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            for scheduler in self._optimisation.by_epoch:
                scheduler.step()
        self._done, self._now = self._done + 1, None
        self._report_figures(figures)

    def _tune(self, pictures: Pictures) -> float:
        """Return the tuning pictures' image AUROC; draws nothing, so training goes on as without."""
        scores = []
        model = self._model.eval()
        self._detector.calibrate(model, self._training)
        for prediction in self._detector.predictions(model, pictures):
            scores.append(prediction.score)
            self._tick()
        return image_auroc(self._training.tuning_labels, np.array(scores))

    def _tick(self) -> None:
        """Report a piece of work without figures."""
        self._report_figures({})

    def _report_figures(self, figures: Mapping[str, float]) -> None:
        """Report a step, with figures at the end of an epoch."""
        self._report(Progress(self._done, self._schedule.epochs, figures, self._save))

    def _schedulers(self) -> list[LRScheduler]:
        """Return all schedules, in the order in which they are saved."""
        return [*self._optimisation.by_step, *self._optimisation.by_epoch]

    def _save(self, path: Path) -> None:
        """Write all that the next step depends on."""
        now, best = self._now, self._best
        # The names are those of checkpoints that lie in stores already.
        state = {
            "learnt": self._detector.trained_state(self._model),
            # Before the first epoch there is none.
            "carried": self._detector.get_extra_state(self._model) if now or self._steps else {},
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisation.optimisers],
            "schedules": [_schedule_state(scheduler) for scheduler in self._schedulers()],
            "generators": checkpoint.generators(self._rng, self._detector.device),
            "room": self._batcher.state(),
            "steps": self._steps,
            "done": self._done,
            "now": now and {"order": torch.from_numpy(now.order), "losses": now.losses},
            "best": {"auroc": best.figures[0], "waited": best.waited, "state": best.state or {}},
        }
        checkpoint.write_checkpoint(path, state)

    def restore(self, path: Path) -> None:
        """Take up a fit where it was saved; CheckpointError where the file is no such fit."""
        with checkpoint.restoring(path) as state:
            self._detector.load_trained_state(self._model, state["learnt"])
            for optimiser, own in zip(self._optimisation.optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(own)
            for scheduler, own in zip(self._schedulers(), state["schedules"], strict=True):
                scheduler.load_state_dict(own)
            self._steps, self._done, now = state["steps"], state["done"], state["now"]
            if now is not None:
                self._now = Epoch(now["order"].numpy(), now["losses"])
            if state["carried"]:
                extra = {key: value.to(self._detector.device) for key, value in state["carried"].items()}
                self._detector.set_extra_state(self._model, extra)
            best = state["best"]
            self._best = BestEpoch((best["auroc"], 0.0), best["waited"], best["state"] or None)
            self._batcher.restore(state["room"])
            checkpoint.restore_generators(state["generators"], self._rng, self._detector.device)


def _schedule_state(scheduler: LRScheduler) -> dict[str, Any]:
    """Return where a schedule is; a table of rates is not saved, because it is made with the schedule."""
    state: dict[str, Any] = scheduler.state_dict()
    return {name: value for name, value in state.items() if not isinstance(value, np.ndarray)}
