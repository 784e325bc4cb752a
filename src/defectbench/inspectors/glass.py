"""GLASS on anomalib's torch model: its training step, without its trainer; raw scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from defectbench.errors import BugError
from defectbench.inspectors import backbone, checkpoint, device
from defectbench.inspectors.anomalib_models import GlassModel
from defectbench.inspectors.base import (
    Inspection,
    Lesson,
    Pictures,
    Progress,
    Recipe,
    Report,
    Resumable,
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


@dataclass
class _Best:
    """The trained parts' state at the highest tuning AUROC seen, and how long ago that was."""

    auroc: float = -math.inf
    waited: int = 0
    state: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def see(self, auroc: float, model: Any) -> None:
        """Note an epoch's figure; equal figures leave the earlier epoch the best."""
        self.waited += 1
        if auroc > self.auroc:
            self.auroc, self.waited = auroc, 0
            self.state = {part: checkpoint.copied(state) for part, state in _trained(model).items()}

    def over(self, patience: int) -> bool:
        """Whether the patience is used up."""
        return self.waited >= patience > 0


def _trained(model: Any) -> dict[str, dict[str, Tensor]]:
    """Return the live states of the parts that are trained."""
    return {part: dict(getattr(model, part).state_dict()) for part in _TRAINED}


def _restore(model: Any, state: dict[str, dict[str, Tensor]]) -> None:
    for part, own in state.items():
        getattr(model, part).load_state_dict(own)


class Glass(Resumable):
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
        self._train(lesson, report, None)

    def resume(self, lesson: Lesson, report: Report, saved: Path) -> None:
        """Go on training from a step that was saved."""
        self._train(lesson, report, saved)

    def _train(self, lesson: Lesson, report: Report, saved: Path | None) -> None:
        check_goods(lesson)
        check_tuning(lesson)
        self._held = None
        model = self._model()
        with device.repeatable(self.recipe.seed, self.device):
            training = _Training(self, model, lesson, report)
            if saved is not None:
                training.restore(saved)
            training.run()
        model.eval()
        self._ready = True

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        """Yield the largest logit and anomalib's map, one picture at a time."""
        yield from self.inspections(self._fitted(), pictures)

    def prepared(self, pictures: Pictures, chosen: Iterable[int]) -> Tensor:
        """Return some of the pictures as the backbone takes them, on the device."""
        values = np.stack([pictures[int(i)] for i in chosen])
        return backbone.normalised(values, self._network, self.device)

    def inspections(self, model: Any, pictures: Pictures) -> Iterator[Inspection]:
        """Yield what ``model``, in eval mode, finds; draws nothing."""
        logits: list[Tensor] = []
        hook = model.discriminator.tail[0].register_forward_hook(lambda *passed: logits.append(passed[2]))
        try:
            for index in range(len(pictures)):
                logits.clear()
                with torch.no_grad():
                    heat_map = model(self.prepared(pictures, [index])).anomaly_map
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
            for part, own in _trained(model).items()
            for key, value in own.items()
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


@dataclass
class _Epoch:
    """An epoch under way.

    Attributes:
        centre: of the good features, taken at its beginning.
        order: the pictures in the order in which they come, (n,).
        losses: one for each batch that is done, so it tells the place in the order, too.
    """

    centre: Tensor
    order: NDArray[np.int64]
    losses: list[float] = field(default_factory=list)


class _Training:
    """The epochs: centre, steps, tuning figures. All that a next step depends on can be saved."""

    def __init__(self, glass: Glass, model: Any, lesson: Lesson, report: Report) -> None:
        self._glass = glass
        self._model = model
        self._lesson = lesson
        self._report = report
        self._epochs = glass.recipe.epochs
        self._size = glass.recipe.whole("batch_size")
        self._rng = np.random.default_rng(glass.recipe.seed)
        rate = glass.recipe.number("learning_rate")
        self._optimisers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.AdamW(model.discriminator.parameters(), lr=2 * rate),
            torch.optim.Adam(model.projection.parameters(), lr=rate, weight_decay=1e-5),
        )
        self._done = 0
        self._now: _Epoch | None = None
        self._best = _Best()

    def run(self) -> None:
        """Train until the epochs or the patience are used up; the model ends with the best state, if any."""
        while self._done < self._epochs and not self._best.over(self._glass.recipe.patience):
            if self._now is None:
                self._model.calculate_center(self._in_order(), self._glass.device)
                order = self._rng.permutation(len(self._lesson.pictures))
                self._now = _Epoch(self._model.center, order)
            self._steps(self._now)
            self._end(self._now)
        _restore(self._model, self._best.state)

    def _in_order(self) -> Iterator[_Batch]:
        """Yield all pictures in batches, for the centre."""
        for chosen in self._cut(np.arange(len(self._lesson.pictures))):
            yield _Batch(self._glass.prepared(self._lesson.pictures, chosen))
            self._tick()

    def _cut(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        return [order[start : start + self._size] for start in range(0, len(order), self._size)]

    def _steps(self, now: _Epoch) -> None:
        """Take the epoch's steps that are left."""
        self._model.train()
        self._model.forward_modules.eval()
        for chosen in self._cut(now.order)[len(now.losses) :]:
            for optimiser in self._optimisers:
                optimiser.zero_grad(set_to_none=True)
            *_, loss = self._model(self._glass.prepared(self._lesson.pictures, chosen))
            loss.backward()
            for optimiser in self._optimisers:
                optimiser.step()
            now.losses.append(float(loss.detach()))
            self._tick()

    def _end(self, now: _Epoch) -> None:
        """Take the epoch's figures and close it."""
        figures = {"train_loss": float(np.mean(now.losses))}
        if self._lesson.tuning is not None:
            figures["tuning_auroc"] = self._tune(self._lesson.tuning)
            self._best.see(figures["tuning_auroc"], self._model)
        self._done, self._now = self._done + 1, None
        self._report(Progress(self._done, self._epochs, figures, self._save))

    def _tune(self, pictures: Pictures) -> float:
        """Return the tuning pictures' image AUROC; draws nothing, so training goes on as without."""
        scores = []
        for inspection in self._glass.inspections(self._model.eval(), pictures):
            scores.append(inspection.score)
            self._tick()
        return image_auroc(self._lesson.tuning_labels, np.array(scores))

    def _tick(self) -> None:
        self._report(Progress(self._done, self._epochs, save=self._save))

    def _save(self, path: Path) -> None:
        now, best = self._now, self._best
        state = {
            "trained": _trained(self._model),
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
            "generators": checkpoint.generators(self._rng, self._glass.device),
            "done": self._done,
            "now": now and {"centre": now.centre, "order": torch.from_numpy(now.order), "losses": now.losses},
            "best": {"auroc": best.auroc, "waited": best.waited, "state": best.state},
        }
        checkpoint.write(path, state)

    def restore(self, path: Path) -> None:
        """Take up a fit where it was saved; CheckpointError where the file is no such fit."""
        with checkpoint.restoring(path) as state:
            _restore(self._model, state["trained"])
            for optimiser, own in zip(self._optimisers, state["optimisers"], strict=True):
                optimiser.load_state_dict(own)
            self._done, now = state["done"], state["now"]
            if now is not None:
                self._now = _Epoch(now["centre"].to(self._glass.device), now["order"].numpy(), now["losses"])
                self._model.center = self._now.centre
            self._best = _Best(**state["best"])
            checkpoint.restore_generators(state["generators"], self._rng, self._glass.device)
