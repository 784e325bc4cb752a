"""UniNet on anomalib's torch model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from defectbench.models.detectors.anomalib_models import UniNetLoss, replaced, uninet
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule

_LAYERS = ("layer1", "layer2", "layer3")
_BACKBONES = ("resnet50", "wide_resnet50_2")
_TEMPERATURE = 0.1
_TARGET_RATE = 1e-6
_TINY = 1e-8
_AT_ONCE = 1 << 24
"""So many similarities are held at once; 64 MiB."""


class UniNet(GradientDetector):
    """UniNet (Wei et al. 2025): a student between a frozen teacher and one that adapts slowly.

    AdamW (amsgrad), the adapting teacher at a rate of 1e-6; rates fall to a fifth after 80 % of the epochs.
    Differs from anomalib in one thing: the frozen teacher stays in eval mode, as in the paper; anomalib's
    trainer puts it into train mode, in which its batch statistics drift. Its loss is computed in blocks.
    Score: the largest value of the smoothed map.

    Settings: ``backbone`` (resnet50 or wide_resnet50_2 of timm's), ``batch_size``, ``learning_rate``,
    ``weight_decay``.
    """

    frozen = ("teachers.source_teacher",)

    def build(self) -> nn.Module:
        """Return anomalib's model over two copies of our backbone."""
        settings = self.settings
        name = backbone.architecture(settings.text("backbone"), _BACKBONES)
        self.network = backbone.create(settings.text("backbone"), settings)
        adapting = backbone.create(settings.text("backbone"), settings)
        parts = iter((FeatureMaps(self.network, _LAYERS), FeatureMaps(adapting, _LAYERS, learns=True)))
        with replaced(uninet.Teachers, "_get_teacher", staticmethod(lambda _: next(parts))):
            model: nn.Module = uninet.UniNetModel(
                student_backbone=name, teacher_backbone=name, loss=GoodsLoss(temperature=_TEMPERATURE)
            )
        return model

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser and schedule; the classifying head keeps its weights."""
        rate = self.settings.number("learning_rate")
        groups: list[dict[str, Any]] = [
            {"params": [*model.student.parameters(), *model.bottleneck.parameters()]},
            {"params": list(model.dfs.parameters())},
            {"params": list(model.teachers.target_teacher.parameters()), "lr": _TARGET_RATE},
        ]
        optimiser = torch.optim.AdamW(
            groups, lr=rate, weight_decay=self.settings.number("weight_decay"), eps=1e-10, amsgrad=True
        )
        falls = [max(1, int(schedule.epochs * 0.8))]
        return Optimisation(
            (optimiser,), by_epoch=(torch.optim.lr_scheduler.MultiStepLR(optimiser, falls, gamma=0.2),)
        )

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the similarity losses of the goods."""
        return cast(Tensor, model(batch.images, labels=batch.labels))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest value of the smoothed map, and the map."""
        found = model(images)
        return found.pred_score, found.anomaly_map


class GoodsLoss(UniNetLoss):
    """Anomalib's loss of goods, where each place is compared with all others, in blocks of places.

    Only the share of a place's own similarity is used, and a picture of 512 px has 268 million of them a
    layer: anomalib holds several of each. Here a block's are computed again for the gradient.
    """

    def forward(
        self,
        student_features: Sequence[Tensor],
        teacher_features: Sequence[Tensor],
        margin: int = 1,
        mask: Tensor | None = None,
        stop_gradient: bool = False,
    ) -> Tensor:
        """Return the loss, a mean over pictures.

        Args:
            student_features, teacher_features: layer by layer, (b, channels, h, w).
            mask: labels (b,), all of them 0.
            stop_gradient: none flows into the teacher's.
        """
        total = torch.zeros((), device=student_features[0].device)
        for ours, theirs in zip(student_features, teacher_features, strict=True):
            rows = _directions(ours), _directions(theirs.detach() if stop_gradient else theirs)
            far = (1 - functional.cosine_similarity(*rows, dim=2)).mean()
            own = own_shares(*rows, self.temperature)
            contrast = -torch.log(own + _TINY).mean()
            total = total + far * self.lambda_weight + contrast * (1 - self.lambda_weight)
            total = total + functional.relu(margin - own).mean()
        return total


def _directions(features: Tensor) -> Tensor:
    """Return (b, channels, h, w) as unit vectors, (b, places, channels)."""
    return functional.normalize(features.flatten(2).transpose(1, 2), p=2, dim=2)


def own_shares(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    """Return (b, places): the similarity of a place to itself, over the sum of those to all places.

    Args:
        ours, theirs: (b, places, channels), unit vectors.
    """
    places = ours.shape[1]
    step = max(1, _AT_ONCE // (len(ours) * places))

    def of(block: Tensor, start: int) -> Tensor:
        similar = torch.exp(block @ theirs.transpose(1, 2) / temperature)
        # Row i of a block is place start + i, so its own similarity lies on that diagonal.
        own = similar.diagonal(offset=start, dim1=1, dim2=2)
        return own / (similar.sum(dim=2) + _TINY)

    # Checkpointed, a block's similarities are dropped and computed again in the backward pass.
    run = partial(checkpoint, of, use_reentrant=False) if step < places else of
    return torch.cat([run(ours[:, at : at + step], at) for at in range(0, places, step)], dim=1)
