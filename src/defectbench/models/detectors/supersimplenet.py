"""SuperSimpleNet on anomalib's torch model, trained on goods alone or on labelled defects as well."""

from __future__ import annotations

from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from defectbench.errors import DataError
from defectbench.models.base import TrainingData, check_tuning
from defectbench.models.detectors.anomalib_models import SSNLoss, replaced, supersimplenet
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.training.gradient_detector import Batch, GradientDetector, Optimisation, Schedule


class SuperSimpleNet(GradientDetector):
    """SuperSimpleNet (Rolih et al. 2025): faults are noise on features; one head segments, one classifies.

    As the journal's extension (doi:10.1007/s10845-025-02680-8), anomalib's default: the classifying head sees
    the backbone's features, the segmenting head adapted ones; in the first paper (arXiv:2408.03143) both see
    adapted ones. AdamW, rates times 0.4 after 80 % and 90 % of the epochs. Score and map are logits: anomalib
    gives their sigmoids, in which high scores tie.

    Settings: ``backbone`` (timm's name), ``layers``, ``batch_size``, ``learning_rate``.
    """

    frozen = ("feature_extractor",)
    supervised: ClassVar[bool] = False

    def build(self) -> nn.Module:
        """Return anomalib's model over our backbone."""
        settings = self.settings
        self.network = backbone.create(settings.text("backbone"), settings)
        layers = list(settings.texts("layers"))
        features = FeatureMaps(self.network, layers)
        with replaced(supersimplenet, "TimmFeatureExtractor", lambda **_: features):
            model: nn.Module = supersimplenet.SupersimplenetModel(
                layers=layers, stop_grad=not self.supervised
            )
        return model

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser and schedule; the heads learn twice as fast as the adaptor."""
        rate = self.settings.number("learning_rate")
        optimiser = torch.optim.AdamW(
            [
                {"params": model.adaptor.parameters(), "lr": rate},
                {"params": model.segdec.parameters(), "lr": 2 * rate, "weight_decay": 1e-5},
            ]
        )
        falls = [int(schedule.epochs * 0.8), int(schedule.epochs * 0.9)]
        # A fall at epoch 0 would lower the rate before the first step.
        scheduler = MultiStepLR(optimiser, [max(1, fall) for fall in falls], gamma=0.4)
        return Optimisation((optimiser,), by_epoch=(scheduler,), clip=1.0 if self.supervised else 0.0)

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return focal losses of both heads and the truncated L1 of the map."""
        found = model(images=batch.images, masks=batch.masks, labels=batch.labels)
        return cast(Tensor, SSNLoss()(*found))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the classifying head's logit, and the smoothed map of the segmenting head's."""
        features = model.feature_extractor(images)
        heat_map, score = model.segdec(seg_features=model.adaptor(features), cls_features=features)
        return score, model.anomaly_map_generator(heat_map, final_size=images.shape[-2:])


class SupervisedSuperSimpleNet(SuperSimpleNet):
    """The same, trained on labelled defects and their masks as well: a supervised detector.

    Gradients are clipped to 1 and flow between the heads. Unless ``balance`` is ``none`` an epoch shows each
    defect as often as it takes to show as many defects as goods.
    """

    supervised = True

    def check(self, training: TrainingData) -> None:
        """Raise DataError unless there are goods, and every defect has its mask."""
        check_tuning(training)
        defects = np.flatnonzero(training.labels)
        if len(defects) in (0, len(training.labels)):
            raise DataError(
                f"training pictures: {len(training.labels) - len(defects)} good, {len(defects)} abnormal; a "
                "supervised detector needs 1 of each or more"
            )
        unmasked = [place for place in defects if not training.masks.get(int(place), np.zeros(1)).any()]
        if unmasked:
            raise DataError(
                f"{len(unmasked)} of {len(defects)} training defects have no mask, or an empty one: a "
                "supervised detector learns from defects and their masks"
            )

    def epoch_indices(self, training: TrainingData) -> NDArray[np.int64]:
        """Return the goods, and the defects over and over until they are as many."""
        goods, defects = np.flatnonzero(training.labels == 0), np.flatnonzero(training.labels)
        more = 0 if self.settings.balance == "none" else max(0, len(goods) - len(defects))
        return np.concatenate([goods, defects, np.resize(defects, more)])
