"""CFA on anomalib's torch model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from defectbench.models.detectors.anomalib_models import CfaLoss, cfa, replaced
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

_LAYERS = ("layer1", "layer2", "layer3")
_BACKBONES = ("resnet18", "wide_resnet50_2")
_NEIGHBOURS = 3
_RADIUS = 1e-5
_AT_ONCE = 1 << 24
"""So many distances are held at once; 64 MiB."""


class Cfa(GradientDetector):
    """CFA (Lee et al. 2022): patch features drawn to the nearest of the goods' mean features.

    The mean features are taken once, before training, with the descriptor's initial weights. AdamW (amsgrad).
    Every patch is compared with as many means as there are patches: 268 million distances at 512 px.
    Loss and map need the nearest alone, so they are taken in blocks, and again when the gradient asks for
    them; anomalib holds all of them. Score: the largest value of the smoothed map.

    Settings: ``backbone`` (resnet18 or wide_resnet50_2 of timm's), ``batch_size``, ``learning_rate``,
    ``weight_decay``.
    """

    frozen = ("feature_extractor",)

    def build(self) -> nn.Module:
        """Return anomalib's model over our backbone."""
        settings = self.settings
        name = backbone.architecture(settings.text("backbone"), _BACKBONES)
        self.network = backbone.create(settings.text("backbone"), settings)
        features = FeatureMaps(self.network, _LAYERS)
        with replaced(cfa, "get_feature_extractor", lambda *_: features):
            model: nn.Module = cfa.CfaModel(
                backbone=name,
                gamma_c=1,
                gamma_d=1,
                num_nearest_neighbors=_NEIGHBOURS,
                num_hard_negative_features=_NEIGHBOURS,
                radius=_RADIUS,
            )
        return model

    def before_training(self, model: Any, images: Iterator[Tensor]) -> None:
        """Take the mean features of the goods, (channels, places); a batch counts as one, as in anomalib."""
        mean: Tensor | None = None
        for number, batch in enumerate(images):
            with torch.no_grad():
                now = model.descriptor(model.feature_extractor(batch)).mean(0)
            mean = now if mean is None else (mean * number + now) / (number + 1)
        model.memory_bank = cast(Tensor, mean).flatten(1)

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser."""
        optimiser = torch.optim.AdamW(
            model.descriptor.parameters(),
            lr=self.settings.number("learning_rate"),
            weight_decay=self.settings.number("weight_decay"),
            amsgrad=True,
        )
        return Optimisation((optimiser,))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return attraction to the nearest means and repulsion from the next ones."""
        with torch.no_grad():
            features = model.feature_extractor(batch.images)
        distances = nearest(model, model.descriptor(features))
        return cast(Tensor, CfaLoss(_NEIGHBOURS, _NEIGHBOURS, _RADIUS)(distances))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map's largest value and the map."""
        features = model.descriptor(model.feature_extractor(images))
        # Rounding may leave a squared distance below zero, whose root is not a number.
        distance = nearest(model, features).clamp_min(0)
        heat_map = model.anomaly_map_generator(
            distance=distance, scale=features.shape[-2:], image_size=images.shape[-2:]
        )
        return heat_map.max(), heat_map


def nearest(model: Any, features: Tensor) -> Tensor:
    """Return the squared distances of each place's features to its nearest means, rising.

    Args:
        features: (b, channels, h, w).

    Returns:
        (b, h * w, 2 * neighbours).
    """
    rows = features.flatten(2).transpose(1, 2)
    step = max(1, _AT_ONCE // model.memory_bank.shape[1])

    def of(block: Tensor) -> Tensor:
        distances: Tensor = model.compute_distance(block[None])[0]
        return distances.topk(2 * _NEIGHBOURS, largest=False).values

    ends = tuple(range(step, rows.shape[0] * rows.shape[1], step))
    # Checkpointed, a block's distances are dropped and computed again in the backward pass.
    run = partial(checkpoint, of, use_reentrant=False) if ends else of
    found = [run(block) for block in rows.flatten(0, 1).tensor_split(ends)]
    return torch.cat(found).reshape(*rows.shape[:2], -1)
