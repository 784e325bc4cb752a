"""timm networks as normal/abnormal classifiers: one logit, which is the log-odds of abnormal."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defectbench.errors import BugError
from defectbench.inspectors import backbone, device
from defectbench.inspectors.augment import augmented
from defectbench.inspectors.balance import class_weights, epoch_order
from defectbench.inspectors.base import (
    Inspection,
    Inspector,
    Lesson,
    Pictures,
    Progress,
    Recipe,
    Report,
    Size,
    check_labels,
    check_tuning,
)
from defectbench.inspectors.gradcam import Explainer
from defectbench.inspectors.versions import made_with
from defectbench.metrics import image_auroc

_SMALLEST_BATCH = 2
"""Batch normalisation cannot learn from one example."""


class TimmClassifier(Inspector):
    """A timm network, fine-tuned with AdamW under a cosine schedule with warm-up.

    Early stopping: after each epoch the tuning pictures' AUROC is taken; the best epoch's weights are kept
    (equal AUROC: the lower tuning loss), and the fit ends when the AUROC has not risen for ``patience``
    epochs. Without tuning pictures all epochs are run and the last weights are kept.

    Settings: ``architecture`` (timm's name), ``learning_rate``, ``weight_decay``, ``batch_size``,
    ``warmup_epochs``, ``freeze`` (train the head alone, on features that all cells share: no augmentation).
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.device = device.resolve(recipe.device)
        self._model: nn.Module | None = None

    def fit(self, lesson: Lesson, report: Report) -> None:
        """Fine-tune; reports after every step, with the epoch's figures at its end."""
        check_labels(lesson)
        check_tuning(lesson)
        model = self._create().to(self.device)
        with device.repeatable(self.recipe.seed, self.device):
            material = (
                _Frozen(model, lesson, self.recipe) if self._frozen() else _Whole(model, lesson, self.recipe)
            )
            _Training(material, lesson, self.recipe, report).run()
        self._model = model.eval()

    def _create(self) -> nn.Module:
        return backbone.create(self.recipe.text("architecture"), self.recipe, outputs=1)

    def _frozen(self) -> bool:
        return self.recipe.flag("freeze")

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        """Yield log-odds and Grad-CAM map, one picture at a time, in float32 on every device."""
        model = self._fitted()
        explain = Explainer(model)
        for index in range(len(pictures)):
            with device.repeatable(self.recipe.seed, self.device):
                inspection = explain(backbone.normalised(pictures[index][None], model, self.device))
            yield inspection

    def _fitted(self) -> nn.Module:
        if self._model is None:
            raise BugError("the classifier was asked for results before fit or load")
        return self._model

    def save(self, path: Path) -> None:
        """Write the network's state as safetensors."""
        save_file({key: value.cpu().contiguous() for key, value in self._fitted().state_dict().items()}, path)

    def load(self, path: Path) -> None:
        """Read the network's state."""
        model = self._create()
        model.load_state_dict(load_file(path))
        self._model = model.to(self.device).eval()

    def size(self) -> Size:
        """Count the network's parameters, and the products of matrices and convolutions of a forward pass."""
        model = self._fitted()
        side = self.recipe.image_size
        inputs = torch.zeros(1, 3, side, side, device=self.device)
        return Size(backbone.count(model), backbone.count_flops(model, inputs))


class _Material(Protocol):
    """What is trained, and on what."""

    module: nn.Module
    """Whose state is kept and restored."""

    def logits(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        """Return the training logits of the chosen training pictures, (b,) float32."""

    def tuning_logits(self) -> Tensor:
        """Return the logits of all tuning pictures, (m,) float32."""

    def train(self) -> None:
        """Switch to training mode."""


class _Whole:
    """The whole network on augmented pictures."""

    def __init__(self, model: nn.Module, lesson: Lesson, recipe: Recipe) -> None:
        self.module = model
        self._lesson = lesson
        self._turns = recipe.turns
        self._device = next(model.parameters()).device.type

    def train(self) -> None:
        self.module.train()

    def logits(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        pictures = self._lesson.pictures
        values = np.stack([augmented(pictures[int(i)], rng, turns=self._turns) for i in chosen])
        inputs = torch.from_numpy(values).to(self._device).permute(0, 3, 1, 2)
        return self._forward(backbone.standardised(inputs, self.module))

    def tuning_logits(self) -> Tensor:
        pictures = self._lesson.tuning
        if pictures is None:
            raise BugError("tuning logits asked for without tuning pictures")
        self.module.eval()
        with torch.no_grad():
            found = [
                self._forward(backbone.normalised(pictures[i][None], self.module, self._device))
                for i in range(len(pictures))
            ]
        return torch.cat(found)

    def _forward(self, inputs: Tensor) -> Tensor:
        """Return the logits; the trunk may run in bfloat16 on CUDA, the head always in float32."""
        network: Any = self.module
        with _mixed(self._device):
            features = network.forward_features(inputs)
        logits: Tensor = network.forward_head(features.float())
        return logits[:, 0]


def _mixed(kind: str) -> AbstractContextManager[object]:
    """Return automatic mixed precision where the device computes bfloat16, else nothing."""
    if kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()


class _Frozen:
    """The head alone, on the frozen trunk's pooled features, computed once a picture for all cells."""

    def __init__(self, model: nn.Module, lesson: Lesson, recipe: Recipe) -> None:
        network: Any = model
        self._trunk = network
        self._device = next(model.parameters()).device.type
        self.module: nn.Module = network.get_classifier()
        weights, libraries = backbone.weights_name(recipe), made_with("torch", "timm")
        self._name = f"pooled/{recipe.text('architecture')}/{weights}/{self._device}/{libraries}"
        self._training = self._features(lesson.pictures)
        self._tuning = None if lesson.tuning is None else self._features(lesson.tuning)

    def _features(self, pictures: Pictures) -> Tensor:
        found = np.stack(list(pictures.features(self._name, self._pooled)))
        return torch.from_numpy(found).to(self._device)

    def _pooled(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        self._trunk.eval()
        with torch.no_grad():
            inputs = backbone.normalised(pictures, self._trunk, self._device)
            pooled = self._trunk.forward_head(self._trunk.forward_features(inputs), pre_logits=True)
        values: NDArray[np.float32] = pooled.cpu().numpy()
        return values

    def train(self) -> None:
        self.module.train()

    def logits(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        logits: Tensor = self.module(self._training[torch.from_numpy(chosen).to(self._device)])
        return logits[:, 0]

    def tuning_logits(self) -> Tensor:
        if self._tuning is None:
            raise BugError("tuning logits asked for without tuning pictures")
        self.module.eval()
        with torch.no_grad():
            logits: Tensor = self.module(self._tuning)
        return logits[:, 0]


class _Training:
    """The epochs: order, steps, figures, early stopping."""

    def __init__(self, material: _Material, lesson: Lesson, recipe: Recipe, report: Report) -> None:
        self._material = material
        self._lesson = lesson
        self._recipe = recipe
        self._report = report
        self._rng = np.random.default_rng(recipe.seed)
        weights = class_weights(lesson.labels, recipe.balance if recipe.balance == "weights" else "none")
        self._weights = torch.from_numpy(weights).float()
        batches = len(self._batches(np.random.default_rng(recipe.seed)))
        warm_up = min(recipe.whole("warmup_epochs", 0), recipe.epochs // 2) * batches
        self._optimiser = _optimiser(material.module, recipe)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimiser, lambda step: cosine(step, warm_up, recipe.epochs * batches)
        )

    def run(self) -> None:
        """Train until the epochs or the patience are used up; the module ends with the best state."""
        best = (-math.inf, -math.inf)
        best_state: dict[str, Tensor] | None = None
        waited = 0
        for epoch in range(1, self._recipe.epochs + 1):
            rate = self._optimiser.param_groups[0]["lr"]
            figures = {"train_loss": self._epoch(epoch), "learning_rate": rate}
            if self._lesson.tuning is None:
                self._report(Progress(epoch, self._recipe.epochs, figures))
                continue
            auroc, loss = self._tune()
            waited = 0 if auroc > best[0] else waited + 1
            if (auroc, -loss) > best:
                best, best_state = (auroc, -loss), copy.deepcopy(self._material.module.state_dict())
            figures |= {"tuning_auroc": auroc, "tuning_loss": loss}
            self._report(Progress(epoch, self._recipe.epochs, figures))
            if waited >= self._recipe.patience > 0:
                break
        if best_state is not None:
            self._material.module.load_state_dict(best_state)

    def _epoch(self, epoch: int) -> float:
        """Run one epoch; return its mean loss."""
        self._material.train()
        losses = []
        for chosen in self._batches(self._rng):
            logits = self._material.logits(chosen, self._rng)
            loss = self._loss(logits, self._lesson.labels[chosen])
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            self._schedule.step()
            losses.append(float(loss.detach()))
            self._report(Progress(epoch - 1, self._recipe.epochs))
        return float(np.mean(losses))

    def _batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Return one epoch's batches; a last batch of one joins the one before it."""
        order = epoch_order(self._lesson.labels, self._recipe.balance, rng)
        size = self._recipe.whole("batch_size", _SMALLEST_BATCH)
        starts = list(range(0, len(order), size))
        if len(order) - starts[-1] < _SMALLEST_BATCH and len(starts) > 1:
            starts.pop()
        return np.split(order, starts[1:])

    def _loss(self, logits: Tensor, labels: NDArray[np.int64]) -> Tensor:
        truth = torch.from_numpy(labels)
        weights = self._weights[truth].to(logits.device)
        targets = truth.float().to(logits.device)
        return nn.functional.binary_cross_entropy_with_logits(logits, targets, weight=weights)

    def _tune(self) -> tuple[float, float]:
        """Return the tuning pictures' AUROC and mean loss."""
        logits = self._material.tuning_logits()
        labels = self._lesson.tuning_labels
        targets = torch.from_numpy(labels).float().to(logits.device)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, targets)
        return image_auroc(labels, logits.cpu().numpy()), float(loss)


def _optimiser(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW; biases and normalisations are not decayed."""
    plain = [p for p in module.parameters() if p.ndim <= 1]
    decayed = [p for p in module.parameters() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": recipe.number("weight_decay")},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.number("learning_rate"))


def cosine(step: int, warm_up: int, total: int) -> float:
    """Return the learning rate's factor: a linear rise over ``warm_up`` steps, then half a cosine down to 0.

    >>> [round(cosine(step, 2, 6), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))
