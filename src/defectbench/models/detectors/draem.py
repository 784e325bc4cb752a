"""DRAEM on anomalib's torch model and anomaly generator."""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms.v2 import RandomSolarize

from defectbench.models.detectors.anomalib_models import DraemLoss, PerlinAnomalyGenerator, draem
from defectbench.models.features import backbone
from defectbench.models.training import textures
from defectbench.models.training.gradient_detector import (
    Batch,
    GradientDetector,
    Optimisation,
    Schedule,
    State,
)

_BLEND = (0.1, 1.0)
_FALLS = [400, 600]


class Draem(GradientDetector):
    """DRAEM (Zavrtanik et al. 2021): one network restores pictures with pasted textures, one marks them.

    Adam, rates a tenth after 400 and 600 epochs, everything trained from the seed's weights. Half of the
    pictures get a texture of the Describable Textures data set; with ``weights: none`` of scikit-image's
    photographs. Score: the largest log-odds of the segmentation; the map is of these: anomalib gives their
    softmax, in which high scores tie.

    Settings: ``channels`` (of the reconstructing network's first block; the other has half as many),
    ``batch_size``, ``learning_rate``.
    """

    def build(self) -> nn.Module:
        """Return anomalib's model in the wanted width."""
        channels = self.settings.whole("channels", least=2)
        with torch.device("meta"):  # its two networks are always of the published width
            model: nn.Module = draem.DraemModel()
        # Built without memory above and replaced here, in the wanted width.
        model.reconstructive_subnetwork = draem.ReconstructiveSubNetwork(base_width=channels)
        model.discriminative_subnetwork = draem.DiscriminativeSubNetwork(
            in_channels=6, out_channels=2, base_width=channels // 2
        )
        return model

    @cached_property
    def _faults(self) -> Any:
        """The generator of faults, for fits alone: a fitted model is loaded without its textures."""
        faults: Any = PerlinAnomalyGenerator(blend_factor=_BLEND)
        faults.anomaly_source_paths = textures.pictures(self.settings)
        return faults

    def get_extra_state(self, model: Any) -> State:
        """Return what the generator drew when it was made, at the first step."""
        if "_faults" not in self.__dict__:
            return {}
        return {"threshold": torch.tensor(self._solarize().threshold)}

    def set_extra_state(self, model: Any, state: State) -> None:
        """Make the generator, and put back what it drew."""
        self._solarize().threshold = float(state["threshold"])

    def _solarize(self) -> Any:
        """Return the only one of the generator's transforms that draws when it is made."""
        return next(each for each in self._faults.augmenters.transforms if isinstance(each, RandomSolarize))

    def prepared(self, pictures: NDArray[np.uint8]) -> Tensor:
        """Return the pictures in [0, 1]."""
        return backbone.scaled(pictures, self.device)

    def optimisation(self, model: Any, schedule: Schedule) -> Optimisation:
        """Return anomalib's optimiser and schedule."""
        optimiser = torch.optim.Adam(model.parameters(), lr=self.settings.number("learning_rate"))
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimiser, _FALLS, gamma=0.1)
        return Optimisation((optimiser,), by_epoch=(scheduler,))

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the squared and structural errors of the restoring, and the segmentation's focal loss."""
        with textures.quiet():
            changed, mask = self._faults(batch.images)
        restored, prediction = model(changed)
        return cast(Tensor, DraemLoss()(batch.images, restored, mask, prediction))

    def score(self, model: Any, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the largest log-odds and their map."""
        restored = model.reconstructive_subnetwork(images)
        logits = model.discriminative_subnetwork(torch.cat([images, restored], 1))
        odds = logits[:, 1] - logits[:, 0]
        return odds.max(), odds
