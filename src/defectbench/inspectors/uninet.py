"""UniNet on anomalib's torch model."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from defectbench.inspectors import backbone
from defectbench.inspectors.anomalib_models import UniNetLoss, extractor, replaced, uninet
from defectbench.inspectors.stepped import Batch, Course, Stepped, Teaching

_LAYERS = ("layer1", "layer2", "layer3")
_TAUGHT = ("resnet50", "wide_resnet50_2")
_TEMPERATURE = 0.1
_TARGET_RATE = 1e-6


class UniNet(Stepped):
    """UniNet (Wei et al. 2025): a student between a frozen teacher and one that adapts slowly.

    AdamW (amsgrad), the adapting teacher at a rate of 1e-6; rates fall to a fifth after 80 % of the epochs.
    Differs from anomalib in one thing: the frozen teacher stays in eval mode, as in the paper; anomalib's
    trainer puts it into train mode, in which its batch statistics drift. Score: the largest value of the
    smoothed map.

    Settings: ``backbone`` (resnet50 or wide_resnet50_2 of timm's), ``batch_size``, ``learning_rate``,
    ``weight_decay``.
    """

    frozen = ("teachers.source_teacher",)

    def build(self) -> nn.Module:
        """Return anomalib's model over two copies of our backbone."""
        recipe = self.recipe
        name = backbone.architecture(recipe.text("backbone"), _TAUGHT)
        self.network = backbone.create(recipe.text("backbone"), recipe)
        adapting = backbone.create(recipe.text("backbone"), recipe)
        parts = iter((extractor(self.network, _LAYERS), extractor(adapting, _LAYERS, learns=True)))
        with replaced(uninet.Teachers, "_get_teacher", staticmethod(lambda _: next(parts))):
            model: nn.Module = uninet.UniNetModel(
                student_backbone=name, teacher_backbone=name, loss=UniNetLoss(temperature=_TEMPERATURE)
            )
        return model

    def teaching(self, model: Any, course: Course) -> Teaching:
        """Return anomalib's optimiser and schedule; the classifying head keeps its weights."""
        rate = self.recipe.number("learning_rate")
        groups: list[dict[str, Any]] = [
            {"params": [*model.student.parameters(), *model.bottleneck.parameters()]},
            {"params": list(model.dfs.parameters())},
            {"params": list(model.teachers.target_teacher.parameters()), "lr": _TARGET_RATE},
        ]
        optimiser = torch.optim.AdamW(
            groups, lr=rate, weight_decay=self.recipe.number("weight_decay"), eps=1e-10, amsgrad=True
        )
        falls = [max(1, int(course.epochs * 0.8))]
        return Teaching(
            (optimiser,), by_epoch=(torch.optim.lr_scheduler.MultiStepLR(optimiser, falls, gamma=0.2),)
        )

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the similarity losses of the goods."""
        return cast(Tensor, model(batch.images, labels=batch.labels))

    def judge(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest value of the smoothed map, and the map."""
        found = model(images)
        return found.pred_score, found.anomaly_map
