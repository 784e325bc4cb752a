"""GLASS on anomalib's torch model: its training step, without its trainer; raw scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defectbench.errors import BugError
from defectbench.inspectors import backbone, device
from defectbench.inspectors.anomalib_models import GlassModel
from defectbench.inspectors.base import (
    Inspection,
    Inspector,
    Lesson,
    Pictures,
    Progress,
    Recipe,
    Report,
    Size,
    check_goods,
    check_tuning,
)
from defectbench.metrics import image_auroc

_TRAINED = ("projection", "discriminator")


@dataclass(frozen=True, slots=True)
class _Batch:
    """What anomalib's ``calculate_center`` takes from a loader."""

    image: Tensor


class _Best:
    """The trained parts' state at the highest tuning AUROC seen, and how long ago that was."""

    def __init__(self, model: Any, patience: int) -> None:
        self._model = model
        self._patience = patience
        self._auroc = -math.inf
        self._waited = 0
        self._state: dict[str, Any] = {}

    def see(self, auroc: float) -> None:
        """Note an epoch's figure; equal figures leave the earlier epoch the best."""
        self._waited += 1
        if auroc > self._auroc:
            self._auroc, self._waited = auroc, 0
            self._state = {part: copy.deepcopy(getattr(self._model, part).state_dict()) for part in _TRAINED}

    @property
    def over(self) -> bool:
        """Whether the patience is used up."""
        return self._waited >= self._patience > 0

    def restore(self) -> None:
        """Put the best state back; nothing happens where no figure was seen."""
        for part, state in self._state.items():
            getattr(self._model, part).load_state_dict(state)


class Glass(Inspector):
    """GLASS (Chen et al. 2024): a discriminator of features against anomalies synthesised around them.

    As anomalib's training step: AdamW on the discriminator at twice the learning rate, Adam with weight
    decay 1e-5 on the projection, the centre taken again before each epoch, Perlin noise as the texture of
    local anomalies (no texture data set). Differs in one thing: the backbone is never trained, also where
    its weights are random.

    Without tuning pictures it ends after its epochs. With them (holdout only) their image AUROC is taken
    after every epoch, which costs a forward pass over them; the first epoch with the highest one is kept,
    and where ``patience`` is above 0 the fit ends once it has not risen for so many epochs.

    The score is the discriminator's largest logit over the patches: anomalib gives its sigmoid, in which
    high scores tie. The heat map is anomalib's smoothed map of sigmoids.

    Settings: ``backbone`` (timm's name), ``layers``, ``batch_size``, ``learning_rate``.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.device = device.resolve(recipe.device)
        self._held: Any = None
        self._ready = False

    def _model(self) -> Any:
        """Return anomalib's model, built with the seed's initial weights on first use."""
        if self._held is None:
            recipe = self.recipe
            network = backbone.create(recipe.text("backbone"), recipe)
            config: Any = network.pretrained_cfg
            with device.repeatable(recipe.seed, "cpu"):
                model = GlassModel(
                    input_shape=(recipe.image_size, recipe.image_size),
                    backbone=cast(str, network),
                    layers=list(recipe.texts("layers")),
                    normalize_mean=list(config["mean"]),
                    normalize_std=list(config["std"]),
                )
            self._network: nn.Module = network
            self._held = model.to(self.device).eval()
        return self._held

    def fit(self, lesson: Lesson, report: Report) -> None:
        """Train projection and discriminator; reports after every step and every tuning picture."""
        check_goods(lesson)
        check_tuning(lesson)
        self._held = None
        model = self._model()
        rng = np.random.default_rng(self.recipe.seed)
        optimisers = self._optimisers(model)
        best = _Best(model, self.recipe.patience)
        with device.repeatable(self.recipe.seed, self.device):
            for epoch in range(1, self.recipe.epochs + 1):
                model.calculate_center(self._batches(lesson.pictures, None, epoch, report), self.device)
                loss = self._epoch(model, optimisers, lesson.pictures, rng, epoch, report)
                figures = {"train_loss": loss}
                if lesson.tuning is not None:
                    figures["tuning_auroc"] = self._tune(model, lesson, epoch, report)
                    best.see(figures["tuning_auroc"])
                report(Progress(epoch, self.recipe.epochs, figures))
                if best.over:
                    break
        best.restore()
        model.eval()
        self._ready = True

    def _tune(self, model: Any, lesson: Lesson, epoch: int, report: Report) -> float:
        """Return the tuning pictures' image AUROC; draws nothing, so training goes on as without."""
        if lesson.tuning is None:
            raise BugError("a tuning figure was asked for without tuning pictures")
        scores = []
        for inspection in self._inspections(model.eval(), lesson.tuning):
            scores.append(inspection.score)
            report(Progress(epoch - 1, self.recipe.epochs))
        return image_auroc(lesson.tuning_labels, np.array(scores))

    def _optimisers(self, model: Any) -> tuple[torch.optim.Optimizer, ...]:
        rate = self.recipe.number("learning_rate")
        return (
            torch.optim.AdamW(model.discriminator.parameters(), lr=2 * rate),
            torch.optim.Adam(model.projection.parameters(), lr=rate, weight_decay=1e-5),
        )

    def _epoch(
        self,
        model: Any,
        optimisers: tuple[torch.optim.Optimizer, ...],
        pictures: Pictures,
        rng: np.random.Generator,
        epoch: int,
        report: Report,
    ) -> float:
        """Run one epoch; return its mean loss."""
        model.train()
        model.forward_modules.eval()
        losses = []
        for batch in self._batches(pictures, rng, epoch, report):
            for optimiser in optimisers:
                optimiser.zero_grad(set_to_none=True)
            *_, loss = model(batch.image)
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            losses.append(float(loss.detach()))
        return float(np.mean(losses))

    def _batches(
        self, pictures: Pictures, rng: np.random.Generator | None, epoch: int, report: Report
    ) -> Iterator[_Batch]:
        """Yield all pictures in batches, shuffled by ``rng`` or in order; reports after each."""
        order = np.arange(len(pictures)) if rng is None else rng.permutation(len(pictures))
        size = self.recipe.whole("batch_size")
        for start in range(0, len(order), size):
            chosen = np.stack([pictures[int(i)] for i in order[start : start + size]])
            yield _Batch(backbone.normalised(chosen, self._network, self.device))
            report(Progress(epoch - 1, self.recipe.epochs))

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        """Yield the largest logit and anomalib's map, one picture at a time."""
        yield from self._inspections(self._fitted(), pictures)

    def _inspections(self, model: Any, pictures: Pictures) -> Iterator[Inspection]:
        logits: list[Tensor] = []
        hook = model.discriminator.tail[0].register_forward_hook(lambda *passed: logits.append(passed[2]))
        try:
            for index in range(len(pictures)):
                logits.clear()
                with torch.no_grad():
                    inputs = backbone.normalised(pictures[index][None], self._network, self.device)
                    heat_map = model(inputs).anomaly_map
                yield Inspection(float(logits[0].max()), heat_map[0].cpu().numpy().astype(np.float32))
        finally:
            hook.remove()

    def _fitted(self) -> Any:
        if not self._ready:
            raise BugError("Glass was asked for results before fit or load")
        return self._model()

    def save(self, path: Path) -> None:
        """Write projection and discriminator as safetensors; the backbone comes again from the recipe."""
        model = self._fitted()
        state = {
            f"{part}.{key}": value.cpu().contiguous()
            for part in _TRAINED
            for key, value in getattr(model, part).state_dict().items()
        }
        save_file(state, path)

    def load(self, path: Path) -> None:
        """Read projection and discriminator."""
        model, state = self._model(), load_file(path)
        for part in _TRAINED:
            own = {key.removeprefix(f"{part}."): v for key, v in state.items() if key.startswith(f"{part}.")}
            getattr(model, part).load_state_dict(own)
        model.eval()
        self._ready = True

    def size(self) -> Size:
        """Count all parameters, and the products of matrices and convolutions of one pass."""
        model, side = self._fitted(), self.recipe.image_size
        inputs = torch.zeros(1, 3, side, side, device=self.device)
        return Size(backbone.count(model), backbone.count_flops(model, inputs))
