"""Reverse Distillation on anomalib's torch model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from defectbench.models.detectors.anomalib_models import (
    AnomalyMapGenerationMode,
    ReverseDistillationLoss,
    replaced,
    reverse_distillation,
)
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule


class ReverseDistillation(GradientDetector):
    """Reverse Distillation (Deng & Li 2022): a decoder that learns to give back a frozen encoder's features.

    Adam on bottleneck and decoder with betas (0.5, 0.99), as anomalib; the authors' code has (0.5, 0.999).
    Score: the largest value of the map, in which the layers' cosine distances are added and smoothed.

    Settings: ``backbone`` (a resnet of timm's), ``layers``, ``batch_size``, ``learning_rate``.
    """

    frozen = ("encoder",)

    def build(self) -> nn.Module:
        """Return anomalib's model over our encoder."""
        settings = self.settings
        name = backbone.architecture(settings.text("backbone"), backbone.DECODED)
        self.network = backbone.create(settings.text("backbone"), settings)
        encoder = FeatureMaps(self.network, settings.texts("layers"))
        with replaced(reverse_distillation, "TimmFeatureExtractor", lambda **_: encoder):
            model: nn.Module = reverse_distillation.ReverseDistillationModel(
                backbone=name,
                input_size=(settings.image_size, settings.image_size),
                layers=settings.texts("layers"),
                anomaly_map_mode=AnomalyMapGenerationMode.ADD,
            )
        return model

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser."""
        learning = [*model.decoder.parameters(), *model.bottleneck.parameters()]
        rate = self.settings.number("learning_rate")
        return Optimisation((torch.optim.Adam(learning, lr=rate, betas=(0.5, 0.99)),))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the cosine distance of encoder and decoder, added over the layers."""
        return cast(Tensor, ReverseDistillationLoss()(*model(batch.images)))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map's largest value and the map."""
        found = model(images)
        return found.pred_score, found.anomaly_map
