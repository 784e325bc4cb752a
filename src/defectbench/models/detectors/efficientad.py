"""EfficientAD on anomalib's torch model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from defectbench.errors import MissingWeightsError
from defectbench.models.base import TrainingData, set_aside
from defectbench.models.detectors.anomalib_models import efficientad
from defectbench.models.features import backbone
from defectbench.models.training import textures
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

IMAGENETTE = "imagenette"
"""The pictures on which the student must not follow the teacher."""

_OUTPUTS = 384
_GREY = 0.3
_QUANTILES = 0.9, 0.995
_SAMPLED = 2**24


class EfficientAd(GradientDetector):
    """EfficientAD (Batzner et al. 2023): a student that imitates a teacher, and an autoencoder beside it.

    One picture a step, Adam with weight decay 1e-5, the rate a tenth in the last twentieth of the steps. A
    tenth of the goods is never learnt from: the quantiles that put both maps on one scale are taken on it, in
    a holdout before each epoch is scored.
    The student is kept from imitating the teacher on other pictures: imagenette, or, with ``weights: none``,
    scikit-image's photographs. Score: the largest value of the mean of both maps.

    Settings: ``width`` (share of the published channels), ``steps``, ``learning_rate``, ``weight_decay``.
    """

    frozen = ("teacher",)
    kind: ClassVar[str] = "small"

    def build(self) -> nn.Module:
        """Return anomalib's model, the teacher's weights loaded."""
        model: Any = efficientad.EfficientAdModel(
            teacher_out_channels=_OUTPUTS, model_size=efficientad.EfficientAdModelSize(self.kind)
        )
        width = self.settings.number("width")
        if width != 1:
            _narrow(model.teacher, width)
            _narrow(model.student, width)
        teacher = f"efficientad-teacher-{self.kind}"
        if self.settings.weights:
            if teacher not in self.settings.weights:
                got = ", ".join(sorted(self.settings.weights))
                raise MissingWeightsError(f"EfficientAD needs the weights {teacher}; got {got}")
            backbone.fill(model.teacher, self.settings.weights[teacher], teacher)
        for parameter in (*model.mean_std.parameters(), *model.quantiles.parameters()):
            parameter.requires_grad_(False)
        return cast(nn.Module, model)

    @cached_property
    def _others(self) -> textures.Textures:
        """Pictures of anything else, asked for by a fit alone: a fitted model is loaded without them."""
        return textures.Textures(textures.pictures(self.settings, IMAGENETTE), self.settings.image_size)

    def prepared(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return the pictures in [0, 1]; the networks standardise them."""
        return backbone.scaled(pictures, self.device)

    def batch_size(self) -> int:
        """Return 1: the hardest places are looked for in one picture at a time."""
        return 1

    def epoch_indices(self, training: TrainingData) -> NDArray[np.int64]:
        """Return nine tenths of the goods."""
        return set_aside(len(training.pictures), self.settings.seed)[0]

    def before_training(self, model: Any, images: Iterator[Tensor]) -> None:
        """Take mean and deviation of the teacher's channels."""
        number, added, squared = 0, 0.0, 0.0
        for batch in images:
            with torch.no_grad():
                found = model.teacher(batch).double()
            number += found[:, 0].numel()
            added, squared = added + found.sum((0, 2, 3)), squared + (found**2).sum((0, 2, 3))
        # Sums in float64: over all goods float32 would lose what the deviation is made of.
        mean = cast(Tensor, added) / number
        deviation = torch.sqrt((cast(Tensor, squared) / number - mean**2).clamp_min(1e-12))
        model.mean_std["mean"].data = mean.float().view(1, -1, 1, 1)
        model.mean_std["std"].data = deviation.float().view(1, -1, 1, 1)

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser and schedule."""
        optimiser = torch.optim.Adam(
            [*model.student.parameters(), *model.ae.parameters()],
            lr=self.settings.number("learning_rate"),
            weight_decay=self.settings.number("weight_decay"),
        )
        fall = max(1, int(0.95 * schedule.steps))
        return Optimisation(
            (optimiser,), by_step=(torch.optim.lr_scheduler.StepLR(optimiser, fall, gamma=0.1),)
        )

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the sum of anomalib's three losses."""
        return cast(Tensor, sum(model(batch=batch.images, batch_imagenet=self._other())))

    def _other(self) -> Tensor:
        """Return a picture that does not show the product, grey three times out of ten."""
        index = int(torch.randint(len(self._others), (1,)))
        image = backbone.scaled(self._others[index][None], self.device)
        # Drawn from torch's generator, which :func:`device.repeatable` seeds.
        if float(torch.rand(1)) < _GREY:
            weights = torch.tensor([0.2989, 0.587, 0.114], device=image.device).view(1, 3, 1, 1)
            image = (image * weights).sum(1, keepdim=True).expand_as(image)
        return image

    def calibrate(self, model: Any, training: TrainingData) -> None:
        """Take the quantiles of both maps on the goods that were set aside."""
        maps: list[tuple[Tensor, Tensor]] = []
        for place in set_aside(len(training.pictures), self.settings.seed)[1]:
            with torch.no_grad():
                maps.append(model.get_maps(self.prepared(training.pictures[int(place)][None])))
        # Both maps are brought to one scale, 0 at the 90 % quantile and 0.1 at the 99.5 % (section 3.4).
        for name, found in zip(("st", "ae"), zip(*maps, strict=True), strict=True):
            values = _sampled(torch.cat([one.flatten() for one in found]))
            for end, share in zip(("qa", "qb"), _QUANTILES, strict=True):
                model.quantiles[f"{end}_{name}"].data = torch.quantile(values, share)

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest value of the map, and the map."""
        found = model(images)
        return found.pred_score, found.anomaly_map


class EfficientAdMedium(EfficientAd):
    """EfficientAD-M: the same with the larger networks."""

    kind = "medium"


def _sampled(values: Tensor) -> Tensor:
    """Return the values, thinned evenly where there are more than torch's quantile takes."""
    return values[:: -(-len(values) // _SAMPLED)]


def _narrow(network: nn.Module, share: float) -> None:
    """Give a patch description network fewer channels inside; what goes in and comes out stays."""
    convolutions = [name for name, module in network.named_children() if isinstance(module, nn.Conv2d)]
    entering = 3
    for name in convolutions:
        wide = cast(nn.Conv2d, getattr(network, name))
        last = name == convolutions[-1]
        leaving = wide.out_channels if last else max(1, round(wide.out_channels * share))
        kernel, padding = cast(tuple[int, int], wide.kernel_size), cast(tuple[int, int], wide.padding)
        setattr(network, name, nn.Conv2d(entering, leaving, kernel, padding=padding))
        entering = leaving
