"""Dinomaly on anomalib's torch model."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from defectbench.errors import UsageError
from defectbench.models.detectors.anomalib_models import StableAdamW, WarmCosineScheduler, dinomaly, replaced
from defectbench.models.features import backbone
from defectbench.models.features.tokens import TokenExtractor
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

_CLIP = 0.1
_WARMUP = 100


class Dinomaly(GradientDetector):
    """Dinomaly (Guo et al. 2024): a transformer decoder behind a noisy bottleneck gives back DINOv2's tokens.

    StableAdamW (amsgrad), 100 steps of warm-up, a cosine down to a tenth of the rate, gradients clipped.
    Score: the mean of the highest hundredth of the smoothed map.

    Settings: ``backbone`` (a DINOv2 of timm's, small, base or large), ``decoder_depth``, ``steps``,
    ``batch_size``, ``learning_rate``, ``weight_decay``.
    """

    frozen = ("encoder",)

    def build(self) -> nn.Module:
        """Return anomalib's model over our encoder, its trained parts initialised as there."""
        settings = self.settings
        name = settings.text("backbone")
        if not any(size in name for size in ("small", "base", "large")):
            raise UsageError(f"setting backbone: {name!r}; a small, base or large DINOv2 is allowed")
        self.network = backbone.create(name, settings, any_size=True)

        def tokens(layers: list[str], **_: object) -> nn.Module:
            return TokenExtractor(self.network, layers, prefix=True, norm=False)

        with replaced(dinomaly, "TimmFeatureExtractor", tokens):
            # It asks a hub for its encoder in the constructor: the tokens of ours take that place.
            model: Any = dinomaly.DinomalyModel(
                encoder_name=name, decoder_depth=settings.whole("decoder_depth", least=8)
            )
        for module in (*model.bottleneck.modules(), *model.decoder.modules()):
            _initialise(module)
        return cast(nn.Module, model)

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser and schedule."""
        rate = self.settings.number("learning_rate")
        optimiser = StableAdamW(
            [*model.bottleneck.parameters(), *model.decoder.parameters()],
            lr=rate,
            weight_decay=self.settings.number("weight_decay"),
            amsgrad=True,
        )
        # A fit of fewer steps than the warm-up must still have a step to fall in.
        warmup = max(0, min(_WARMUP, schedule.steps - 1))
        scheduler = WarmCosineScheduler(
            optimiser,
            base_value=rate,
            final_value=rate / 10,
            total_iters=schedule.steps,
            warmup_iters=warmup,
        )
        return Optimisation((optimiser,), by_step=(scheduler,), clip=_CLIP)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the cosine distance, in whose gradient well-learnt places count a tenth."""
        return cast(Tensor, model(batch.images, global_step=batch.step))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return anomalib's score and map."""
        found = model(images)
        return found.pred_score, found.anomaly_map


def _initialise(module: nn.Module) -> None:
    """Set a layer's initial weights, as anomalib's trainer does before training."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
