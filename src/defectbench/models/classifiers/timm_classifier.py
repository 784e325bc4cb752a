"""timm networks as normal/abnormal classifiers: one logit, which is the log-odds of abnormal.

The loop is not the detectors': the order of random draws decides the bits of a fit, and theirs differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
    check_labels,
    check_tuning,
)
from defectbench.models.classifiers.gradcam import Explainer
from defectbench.models.features import backbone, device
from defectbench.models.features.versions import made_with
from defectbench.models.training import checkpoint
from defectbench.models.training.augment import augmented
from defectbench.models.training.balance import class_weights, epoch_order
from defectbench.models.training.epoch import BestEpoch, Epoch
from defectbench.models.training.micro_batches import LEAST, MicroBatcher

Tick = Callable[[], None]
"""Says that a piece of work is done; may raise."""


class TimmClassifier(Resumable):
    """A timm network, fine-tuned with AdamW under a cosine schedule with warm-up.

    Early stopping: after each epoch the tuning pictures' AUROC is taken; the best epoch's weights are kept
    (equal AUROC: the lower tuning loss), and the fit ends when the AUROC has not risen for ``patience``
    epochs. Without tuning pictures all epochs are run and the last weights are kept.

    Settings: ``architecture`` (timm's name), ``learning_rate``, ``weight_decay``, ``batch_size``,
    ``warmup_epochs``, ``freeze`` (train the head alone, on features that all cells share: no augmentation).
    """

    self_contained = True

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.device = device.resolve(settings.device)
        self._model: nn.Module | None = None

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Fine-tune; reports after every step and tuning picture, with the epoch's figures at its end."""
        self._train(training, report, None)

    def resume(self, training: TrainingData, report: FitCallback, saved: Path) -> None:
        """Go on fine-tuning from a step that was saved."""
        self._train(training, report, saved)

    def _train(self, training: TrainingData, report: FitCallback, saved: Path | None) -> None:
        """Fine-tune from the beginning, or from what ``saved`` holds."""
        check_labels(training)
        check_tuning(training)
        model = device.placed(self._create(), self.device)
        with device.repeatable(self.settings.seed, self.device):
            loop = _ClassifierTraining(
                self._part_to_train(model, training, report), training, self.settings, report
            )
            if saved is not None:
                loop.restore(saved)
            loop.run()
        self._model = model.eval()

    def _part_to_train(self, model: nn.Module, training: TrainingData, report: FitCallback) -> _Trainable:
        """Return what is trained: the whole network, or the head on cached features."""
        if not self._frozen():
            return _WholeNetwork(model, training, self.settings)
        return _HeadAlone(model, training, self.settings, lambda: report(Progress(0, self.settings.epochs)))

    def _create(self) -> nn.Module:
        """Return the network, built and with its initial or published weights."""
        return backbone.create(self.settings.text("architecture"), self.settings, outputs=1)

    def _frozen(self) -> bool:
        """Whether the head alone is trained."""
        return self.settings.flag("freeze")

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield log-odds and Grad-CAM map, one picture at a time, in float32 on every device.

        Of a frozen network the log-odds are the head's on the cached features.
        """
        model = self.network()
        explain = Explainer(model)
        known = self._scores_of_head(pictures) if self._frozen() else None
        for index in range(len(pictures)):
            with device.repeatable(self.settings.seed, self.device):
                prediction = explain(backbone.normalised(pictures[index][None], model, self.device))
            yield prediction if known is None else replace(prediction, score=next(known))

    def scores(self, pictures: Pictures) -> Iterator[float]:
        """Yield the log-odds alone: a forward pass each, or the head on the cached features."""
        if self._frozen():
            yield from self._scores_of_head(pictures)
            return
        model = self.network()
        for index in range(len(pictures)):
            with device.repeatable(self.settings.seed, self.device), torch.no_grad():
                logits = model(backbone.normalised(pictures[index][None], model, self.device))
            yield float(logits.float()[0, 0])

    def _scores_of_head(self, pictures: Pictures) -> Iterator[float]:
        """Yield the head's log-odds of each picture's cached features."""
        network: Any = self.network()
        head: nn.Module = network.get_classifier()
        for row in _PooledFeatures(network, self.settings).of(pictures):
            with torch.no_grad():
                logits = head(torch.from_numpy(np.array(row)).to(self.device)[None])
            yield float(logits.float()[0, 0])

    def network(self) -> nn.Module:
        """Return the fitted network, in eval mode: standardised pictures in, log-odds (b, 1) out."""
        if self._model is None:
            raise BugError("the classifier was asked for results before fit or load")
        return self._model

    def save(self, path: Path) -> None:
        """Write the network's state as safetensors."""
        save_file({key: value.cpu().contiguous() for key, value in self.network().state_dict().items()}, path)

    def load(self, path: Path) -> None:
        """Read the network's state."""
        model = self._create()
        model.load_state_dict(load_file(path))
        self._model = device.placed(model, self.device).eval()

    def size(self) -> ModelSize:
        """Count the network's parameters, and the products of matrices and convolutions of a forward pass."""
        model = self.network()
        side = self.settings.image_size
        inputs = torch.zeros(1, 3, side, side, device=self.device)
        return ModelSize(backbone.count(model), backbone.count_flops(model, inputs))


class _Trainable(Protocol):
    """What is trained, and on what."""

    module: nn.Module
    """Whose state is kept and restored."""

    def logits(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Return the training logits of the chosen training pictures, (b,) float32."""

    def tuning_logits(self, tick: Tick) -> Tensor:
        """Return the logits of all tuning pictures, (m,) float32; draws nothing, ticks after each."""

    def train(self) -> None:
        """Switch to training mode."""


class _WholeNetwork:
    """The whole network on augmented pictures."""

    def __init__(self, model: nn.Module, training: TrainingData, settings: ModelSettings) -> None:
        self.module = model
        self._training = training
        self._rotate_and_flip = settings.rotate_and_flip
        self._device = next(model.parameters()).device.type

    def train(self) -> None:
        self.module.train()

    def logits(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        pictures = self._training.pictures
        values = np.stack(
            [augmented(pictures[int(i)], rng, rotate_and_flip=self._rotate_and_flip) for i in chosen]
        )
        inputs = torch.from_numpy(values).to(self._device).permute(0, 3, 1, 2)
        return self._forward(backbone.standardised(inputs, self.module))

    def tuning_logits(self, tick: Tick) -> Tensor:
        pictures = self._training.tuning
        if pictures is None:
            raise BugError("tuning logits asked for without tuning pictures")
        self.module.eval()
        found = []
        for index in range(len(pictures)):
            with torch.no_grad():
                inputs = backbone.normalised(pictures[index][None], self.module, self._device)
                found.append(self._forward(inputs))
            tick()
        return torch.cat(found)

    def _forward(self, inputs: Tensor) -> Tensor:
        """Return the logits; the trunk may run in bfloat16 on CUDA, the head always in float32."""
        network: Any = self.module
        with _mixed(self._device):
            features = network.forward_features(inputs)
        # bfloat16 has 8 significant bits: log-odds in it would tie.
        logits: Tensor = network.forward_head(features.float())
        return logits[:, 0]


def _mixed(kind: str) -> AbstractContextManager[object]:
    """Return automatic mixed precision where the device computes bfloat16, else nothing."""
    if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


class _PooledFeatures:
    """A frozen trunk's pooled features, (width,) a picture, computed once for all cells."""

    def __init__(self, network: Any, settings: ModelSettings) -> None:
        self._network = network
        self._device = next(network.parameters()).device.type
        weights, libraries = backbone.weights_name(settings), made_with("torch", "timm")
        self._name = f"pooled/{settings.text('architecture')}/{weights}/{self._device}/{libraries}"

    def of(self, pictures: Pictures) -> Iterator[NDArray[np.float32]]:
        """Yield each picture's features, in order."""
        return pictures.features(self._name, self._pooled)

    def _pooled(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of a batch, (b, width)."""
        self._network.eval()
        with torch.no_grad():
            inputs = backbone.normalised(pictures, self._network, self._device)
            pooled = self._network.forward_head(self._network.forward_features(inputs), pre_logits=True)
        values: NDArray[np.float32] = pooled.cpu().numpy()
        return values


class _HeadAlone:
    """The head alone, on the frozen trunk's features."""

    def __init__(self, model: nn.Module, training: TrainingData, settings: ModelSettings, tick: Tick) -> None:
        network: Any = model
        self._device = next(model.parameters()).device.type
        self.module: nn.Module = network.get_classifier()
        self._pooled = _PooledFeatures(network, settings)
        self._training = self._features(training.pictures, tick)
        self._tuning = None if training.tuning is None else self._features(training.tuning, tick)

    def _features(self, pictures: Pictures, tick: Tick) -> Tensor:
        """Return the pictures' pooled features on the device, (n, width)."""
        found = []
        for row in self._pooled.of(pictures):
            found.append(row)
            tick()
        return torch.from_numpy(np.stack(found)).to(self._device)

    def train(self) -> None:
        self.module.train()

    def logits(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        logits: Tensor = self.module(self._training[torch.from_numpy(chosen).to(self._device)])
        return logits[:, 0]

    def tuning_logits(self, tick: Tick) -> Tensor:
        if self._tuning is None:
            raise BugError("tuning logits asked for without tuning pictures")
        self.module.eval()
        with torch.no_grad():
            logits: Tensor = self.module(self._tuning)
        return logits[:, 0]


class _ClassifierTraining:
    """The epochs: order, steps, figures, early stopping. All that a next step depends on can be saved."""

    def __init__(
        self, trainable: _Trainable, training: TrainingData, settings: ModelSettings, report: FitCallback
    ) -> None:
        self._trainable = trainable
        self._training = training
        self._settings = settings
        self._report = report
        self._rng = np.random.default_rng(settings.seed)
        self._device = next(trainable.module.parameters()).device.type
        weights = class_weights(
            training.labels, settings.balance if settings.balance == "weights" else "none"
        )
        self._weights = torch.from_numpy(weights).float()
        # A generator of its own: counting the batches must not move the training's draws.
        batches = len(self._batches(np.random.default_rng(settings.seed)))
        warm_up = min(settings.whole("warmup_epochs", 0), settings.epochs // 2) * batches
        self._batcher = MicroBatcher(trainable.module, settings.whole("batch_size", LEAST), self._rng)
        self._optimiser = _optimiser(trainable.module, settings)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: cosine(step, warm_up, settings.epochs * batches)
        )
        self._done = 0
        self._now: Epoch | None = None
        self._best = BestEpoch()

    def run(self) -> None:
        """Train until the epochs or the patience are used up; the module ends with the best state."""
        while self._done < self._settings.epochs and not self._best.over(self._settings.patience):
            if self._now is None:
                rate = self._optimiser.param_groups[0]["lr"]
                self._now = Epoch(np.concatenate(self._batches(self._rng)), rate=rate)
            self._steps(self._now)
            self._end(self._now)
        if self._best.state is not None:
            self._trainable.module.load_state_dict(self._best.state)

    def _steps(self, now: Epoch) -> None:
        """Take the epoch's steps that are left."""
        self._trainable.train()
        for chosen in self._cut(now.order)[len(now.losses) :]:
            loss = self._batcher.gradients(chosen, self._loss_of)
            self._optimiser.step()
            self._schedule.step()
            now.losses.append(loss)
            self._tick()

    def _loss_of(self, chosen: NDArray[np.int64]) -> Tensor:
        """Return the training loss of some pictures."""
        return self._loss(self._trainable.logits(chosen, self._rng), self._training.labels[chosen])

    def _end(self, now: Epoch) -> None:
        """Take the epoch's figures and close it."""
        figures = {"train_loss": float(np.mean(now.losses)), "learning_rate": now.rate}
        figures |= self._batcher.figures()
        if self._training.tuning is not None:
            auroc, loss = self._tune()
            self._best.see(auroc, self._trainable.module.state_dict(), loss)
            figures |= {"tuning_auroc": auroc, "tuning_loss": loss}
        self._done, self._now = self._done + 1, None
        self._report(Progress(self._done, self._settings.epochs, figures, self._save))

    def _tick(self) -> None:
        """Report a piece of work without figures."""
        self._report(Progress(self._done, self._settings.epochs, save=self._save))

    def _save(self, path: Path) -> None:
        """Write all that the next step depends on."""
        now = self._now
        # The names are those of checkpoints that lie in stores already.
        state = {
            "module": dict(self._trainable.module.state_dict()),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
            "generators": checkpoint.generators(self._rng, self._device),
            "done": self._done,
            "now": now and {"rate": now.rate, "order": torch.from_numpy(now.order), "losses": now.losses},
            "room": self._batcher.state(),
            "best": {"figures": self._best.figures, "waited": self._best.waited, "state": self._best.state},
        }
        checkpoint.write_checkpoint(path, state)

    def restore(self, path: Path) -> None:
        """Take up a fit where it was saved; CheckpointError where the file is no such fit."""
        with checkpoint.restoring(path) as state:
            self._trainable.module.load_state_dict(state["module"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._schedule.load_state_dict(state["schedule"])
            self._done, now = state["done"], state["now"]
            self._now = now and Epoch(now["order"].numpy(), now["losses"], now["rate"])
            self._best = BestEpoch(**state["best"])
            self._batcher.restore(state["room"])
            checkpoint.restore_generators(state["generators"], self._rng, self._device)

    def _batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return the batches of an epoch in an order that is drawn now."""
        return self._cut(epoch_order(self._training.labels, self._settings.balance, rng))

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return an order's batches; a last batch of one joins the one before it."""
        size = self._settings.whole("batch_size", LEAST)
        starts = list(range(0, len(order), size))
        if len(order) - starts[-1] < LEAST and len(starts) > 1:
            starts.pop()
        return np.split(order, starts[1:])

    def _loss(self, logits: Tensor, labels: NDArray[np.int64]) -> Tensor:
        """Return the weighted binary cross-entropy, a mean over the pictures."""
        truth = torch.from_numpy(labels)
        weights = self._weights[truth].to(logits.device)
        targets = truth.float().to(logits.device)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets, weight=weights)

    def _tune(self) -> tuple[float, float]:
        """Return the tuning pictures' AUROC and mean loss."""
        logits = self._trainable.tuning_logits(self._tick)
        labels = self._training.tuning_labels
        targets = torch.from_numpy(labels).float().to(logits.device)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return image_auroc(labels, logits.cpu().numpy()), float(loss)


def _optimiser(module: nn.Module, settings: ModelSettings) -> torch.optim.Optimizer:
    """Return AdamW; biases and normalisations are not decayed."""
    # Without decay on biases and normalisations, as He et al. 2019, arXiv:1812.01187, found best.
    plain = [p for p in module.parameters() if p.ndim <= 1]
    decayed = [p for p in module.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": settings.number("weight_decay")},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.number("learning_rate"))


def cosine(step: int, warm_up: int, total: int) -> float:
    """Return the learning rate's factor: a linear rise over ``warm_up`` steps, then half a cosine down to 0.

    >>> [round(cosine(step, 2, 6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
