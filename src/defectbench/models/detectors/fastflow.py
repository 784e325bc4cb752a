"""FastFlow on anomalib's torch model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from defectbench.models.detectors.anomalib_models import FastflowLoss, fastflow
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

_LAYERS = ("layer1", "layer2", "layer3")
_BACKBONES = ("resnet18", "wide_resnet50_2")


class _Pyramid(nn.Module):
    """The layers' feature maps as a list."""

    def __init__(self, extract: nn.Module) -> None:
        super().__init__()
        self.extract = extract

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.extract(images).values())


class FastFlow(GradientDetector):
    """FastFlow (Yu et al. 2021): normalising flows over the features of a frozen backbone.

    Adam with weight decay 1e-5. Score: the largest value of the map, less the mean probability of the
    features at each place.

    Settings: ``backbone`` (resnet18 or wide_resnet50_2 of timm's), ``flow_steps``, ``batch_size``,
    ``learning_rate``, ``weight_decay``.
    """

    frozen = ("feature_extractor",)

    def build(self) -> nn.Module:
        """Return anomalib's model over our backbone."""
        settings = self.settings
        side, name = settings.image_size, backbone.architecture(settings.text("backbone"), _BACKBONES)
        self.network = backbone.create(settings.text("backbone"), settings)
        model: nn.Module = fastflow.FastflowModel(
            input_size=(side, side),
            backbone=name,
            pre_trained=False,
            flow_steps=settings.whole("flow_steps"),
        )
        model.feature_extractor = _Pyramid(FeatureMaps(self.network, _LAYERS))
        return model

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser."""
        optimiser = torch.optim.Adam(
            model.parameters(),
            lr=self.settings.number("learning_rate"),
            weight_decay=self.settings.number("weight_decay"),
        )
        return Optimisation((optimiser,))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the negative log-likelihood, added over the layers."""
        return cast(Tensor, FastflowLoss()(*model(batch.images)))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map's largest value and the map."""
        found = model(images)
        return found.pred_score, found.anomaly_map
