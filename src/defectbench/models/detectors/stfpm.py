"""STFPM on anomalib's torch model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from defectbench.models.detectors.anomalib_models import STFPMLoss, replaced, stfpm
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

_STUDENT = 1_000_003
"""Added to the seed for the student, whose initial weights must not be those of a random teacher."""


class Stfpm(GradientDetector):
    """STFPM (Wang et al. 2021): a student that learns a frozen teacher's feature pyramid.

    SGD with momentum 0.9 and weight decay. Score: the largest value of the map, in which the layers'
    distances are multiplied.

    Settings: ``backbone`` (timm's name), ``layers``, ``batch_size``, ``learning_rate``, ``weight_decay``.
    """

    frozen = ("teacher_model",)
    adds_up = True

    def build(self) -> nn.Module:
        """Return anomalib's model over our teacher, and a student of the same kind."""
        settings = self.settings
        name, layers = settings.text("backbone"), settings.texts("layers")
        self.network = backbone.create(name, settings)
        untrained = replace(settings, weights={}, seed=settings.seed + _STUDENT)
        parts = iter(
            (
                FeatureMaps(self.network, layers),
                FeatureMaps(backbone.create(name, untrained), layers, learns=True),
            )
        )
        with replaced(stfpm, "TimmFeatureExtractor", lambda **_: next(parts)):
            model: nn.Module = stfpm.STFPMModel(layers=layers, backbone=name)
        return model

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser."""
        optimiser = torch.optim.SGD(
            model.student_model.parameters(),
            lr=self.settings.number("learning_rate"),
            momentum=0.9,
            weight_decay=self.settings.number("weight_decay"),
        )
        return Optimisation((optimiser,))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the distance of the normalised features, added over pictures and layers."""
        return cast(Tensor, STFPMLoss()(*model(batch.images)))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map's largest value and the map."""
        found = model(images)
        return found.pred_score, found.anomaly_map
