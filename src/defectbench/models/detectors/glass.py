"""GLASS on anomalib's torch model: its training step, without its trainer; raw scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from defectbench.models.detectors.anomalib_models import glass, replaced
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training import textures
from defectbench.models.training.gradient_detector import (
    Batch,
    GradientDetector,
    Optimisation,
    Schedule,
    State,
)

TEXTURES = "dtd"
"""Of which local anomalies are made."""


@dataclass(frozen=True, slots=True)
class _Centred:
    """What anomalib's ``calculate_center`` takes from a loader."""

    image: Tensor


class Glass(GradientDetector):
    """GLASS (Chen et al. 2024): a discriminator of features against anomalies synthesised around them.

    As anomalib's training step: AdamW on the discriminator at twice the learning rate, Adam with weight
    decay 1e-5 on the projection, the centre taken again before each epoch. Local anomalies are pasted from
    the Describable Textures data set, as the authors'; with ``weights: none`` from scikit-image's
    photographs. Differs in one thing: the backbone is never trained, also where its weights are random.

    The score is the discriminator's largest logit over the patches: anomalib gives its sigmoid, in which
    high scores tie. The heat map is anomalib's smoothed map of sigmoids.

    Settings: ``backbone`` (timm's name), ``layers``, ``batch_size``, ``learning_rate``.
    """

    frozen = ("forward_modules",)

    def build(self) -> nn.Module:
        """Return anomalib's model over our backbone."""
        settings = self.settings
        self.network = backbone.create(settings.text("backbone"), textures.without(settings, TEXTURES))
        config: Any = self.network.pretrained_cfg
        maps = FeatureMaps(self.network, settings.texts("layers"))
        with replaced(glass, "TimmFeatureExtractor", lambda **_: maps):
            model: nn.Module = glass.GlassModel(
                input_shape=(settings.image_size, settings.image_size),
                backbone=settings.text("backbone"),
                layers=list(settings.texts("layers")),
                normalize_mean=list(config["mean"]),
                normalize_std=list(config["std"]),
            )
        return model

    @cached_property
    def _textures(self) -> list[Path]:
        """Pictures, asked for by a fit alone: a fitted model is loaded without them."""
        return textures.pictures(self.settings, TEXTURES)

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return an optimiser for each of the two parts."""
        rate = self.settings.number("learning_rate")
        return Optimisation(
            (
                torch.optim.AdamW(model.discriminator.parameters(), lr=2 * rate),
                torch.optim.Adam(model.projection.parameters(), lr=rate, weight_decay=1e-5),
            )
        )

    def before_epoch(self, model: Any, images: Iterator[Tensor]) -> None:
        """Take the centre of the good features."""
        model.calculate_center((_Centred(batch) for batch in images), self.device)

    def get_extra_state(self, model: Any) -> State:
        """Return the centre."""
        return {"centre": model.center}

    def set_extra_state(self, model: Any, state: State) -> None:
        """Put the centre back."""
        model.center = state["centre"]

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the sum of anomalib's losses."""
        model.augmentor.anomaly_source_paths = self._textures
        with textures.quiet():
            *_, loss = model(batch.images)
        return cast(Tensor, loss)

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest logit and anomalib's map."""
        logits: list[Tensor] = []
        # anomalib gives the sigmoid alone, and float32's sigmoid is 1 for every logit above 17.
        hook = model.discriminator.tail[0].register_forward_hook(lambda *passed: logits.append(passed[2]))
        try:
            heat_map = model(images).anomaly_map
        finally:
            hook.remove()
        return logits[0].max(), heat_map
