"""SimpleNet, written from its paper (Liu et al. 2023, arXiv:2303.15140): anomalib has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

_HIDDEN = 1024
_NOISE = 0.015
_TRUNCATION = 0.5
_SMOOTHING = 4.0


class _SimpleNet(nn.Module):
    """Feature extractor, adaptor and discriminator of section 3; works on rows, one a place."""

    def __init__(self, extract: nn.Module, widths: Sequence[int]) -> None:
        super().__init__()
        width = sum(widths)
        self.extract = extract
        self.adaptor = nn.Linear(width, width)
        self.discriminator = nn.Sequential(
            nn.Linear(width, _HIDDEN),
            nn.BatchNorm1d(_HIDDEN),
            nn.LeakyReLU(0.2),
            nn.Linear(_HIDDEN, 1, bias=False),
        )
        for module in self.discriminator:
            if isinstance(module, nn.Linear):
                nn.init.xavier_normal_(module.weight)
        nn.init.xavier_normal_(self.adaptor.weight)

    def features(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return adapted features, (b * h * w, width), and (h, w): each place with its neighbours."""
        first, *others = (functional.avg_pool2d(v, 3, 1, 1) for v in self.extract(images).values())
        side: tuple[int, int] = (first.shape[2], first.shape[3])
        grown = [functional.interpolate(v, size=side, mode="bilinear") for v in others]
        rows = torch.cat([first, *grown], 1).permute(0, 2, 3, 1).flatten(0, 2)
        return self.adaptor(rows), side


class SimpleNet(GradientDetector):
    """SimpleNet (Liu et al. 2023): a discriminator of adapted features against the same with Gaussian noise.

    Adam with weight decay 1e-5, the discriminator at twice the adaptor's rate, truncated L1 loss. The
    authors' code picks the epoch with the best AUROC on the test set: this one ends after its epochs. Score:
    the discriminator's largest output, its sign changed, over the places; the map is smoothed (sigma 4).

    Settings: ``backbone`` (timm's name), ``layers``, ``batch_size``, ``learning_rate``.
    """

    frozen = ("extract",)

    def build(self) -> nn.Module:
        """Return the network over our backbone."""
        settings = self.settings
        self.network = backbone.create(settings.text("backbone"), settings)
        features = FeatureMaps(self.network, settings.texts("layers"))
        return _SimpleNet(features, features.out_dims)

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return one optimiser for both parts."""
        rate = self.settings.number("learning_rate")
        groups = [
            {"params": model.adaptor.parameters(), "lr": rate},
            {"params": model.discriminator.parameters(), "lr": 2 * rate},
        ]
        return Optimisation((torch.optim.Adam(groups, weight_decay=1e-5),))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the truncated L1 loss (equation 7): goods above the truncation, noisy ones below it."""
        good, _ = model.features(batch.images)
        outputs = model.discriminator(torch.cat([good, good + _NOISE * torch.randn_like(good)]))
        of_good, of_noisy = outputs[: len(good)], outputs[len(good) :]
        loss: Tensor = (_TRUNCATION - of_good).relu().mean() + (_TRUNCATION + of_noisy).relu().mean()
        return loss

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest of the places' scores, and their map at the picture's size."""
        rows, side = model.features(images)
        # The discriminator gives goods the larger outputs; scores rise with abnormality.
        scores = -model.discriminator(rows)
        heat_map = functional.interpolate(
            scores.view(1, 1, *side), size=images.shape[-2:], mode="bilinear", align_corners=False
        )
        return scores.max(), _smoothed(heat_map)


def _smoothed(heat_map: Tensor) -> Tensor:
    """Return a (1, 1, h, w) map after a Gaussian with edges repeated."""
    # Cut at four sigmas, as scipy's gaussian_filter does by default.
    reach = int(4 * _SMOOTHING + 0.5)
    places = torch.arange(-reach, reach + 1, device=heat_map.device, dtype=heat_map.dtype)
    kernel = torch.exp(-0.5 * (places / _SMOOTHING) ** 2)
    kernel = kernel / kernel.sum()
    wide = functional.pad(heat_map, (reach,) * 4, mode="replicate")
    return functional.conv2d(functional.conv2d(wide, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
