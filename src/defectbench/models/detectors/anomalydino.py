"""AnomalyDINO: distance of DINOv2's patch tokens to those of the goods, with anomalib's score and map."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from defectbench.errors import BugError
from defectbench.models.base import (
    FitCallback,
    Model,
    ModelSettings,
    ModelSize,
    Pictures,
    Prediction,
    Progress,
    TrainingData,
    check_goods,
)
from defectbench.models.detectors.anomalib_models import AnomalyMapGenerator, anomalydino
from defectbench.models.features import backbone, device
from defectbench.models.features.tokens import TokenExtractor
from defectbench.models.features.versions import made_with

_ROWS = 65536
"""Bank rows that patches are compared with at a time: bounds the memory of a search."""


class AnomalyDino(Model):
    """AnomalyDINO (Damm et al. 2024): cosine distance of each patch to its nearest good patch.

    All good patches are kept, none is masked out and none is rotated: the paper's full-shot setting without
    its masks, which it chooses by category. Score: the mean of the highest hundredth of the distances. The
    search is ours, in blocks, so that no picture needs all distances at once.

    Settings: ``backbone`` (a DINOv2 of timm's), ``layer`` (its last block).
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self.device = device.resolve(settings.device)
        self._built: TokenExtractor | None = None
        self._bank: Tensor | None = None

    def _tokens(self) -> TokenExtractor:
        if self._built is None:
            name, layer = self.settings.text("backbone"), self.settings.text("layer")
            network = backbone.create(name, self.settings, any_size=True)
            built = TokenExtractor(network, [layer], prefix=False, norm=True)
            self._built = built.to(self.device).eval()
        return self._built

    def _compute(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the pictures' tokens at length 1, (b, places, width)."""
        extract = self._tokens()
        images = backbone.normalised(pictures, extract.network, self.device)
        [tokens] = extract(images).values()
        rows: NDArray[np.float32] = functional.normalize(tokens, dim=2).cpu().numpy()
        return rows

    def _features(self, pictures: Pictures) -> Iterator[NDArray[np.float32]]:
        weights = backbone.weights_name(self.settings)
        parts = (self.settings.text("backbone"), self.settings.text("layer"), weights, self.device)
        return pictures.features("/".join(["tokens", *parts, made_with("torch", "timm")]), self._compute)

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Keep all patches."""
        check_goods(training)
        total = len(training.pictures)
        bank: Tensor | None = None
        for index, rows in enumerate(self._features(training.pictures)):
            if bank is None:
                bank = torch.empty((total * len(rows), rows.shape[1]), device=self.device)
            bank[index * len(rows) : (index + 1) * len(rows)] = torch.from_numpy(rows)
            report(Progress(index + 1, total))
        self._bank = bank

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield anomalib's score and map, at the pictures' size."""
        side = self.settings.image_size
        bank, model = self._fitted(), anomalydino.AnomalyDINOModel
        smooth = AnomalyMapGenerator()
        for rows in self._features(pictures):
            distances = _nearest(torch.from_numpy(rows).to(self.device), bank)
            grid = round(len(distances) ** 0.5)
            score = model.mean_top1p(distances[None])
            heat_map = smooth(distances.view(1, 1, grid, grid), (side, side))
            yield Prediction(float(score), heat_map[0, 0].cpu().numpy().astype(np.float32))

    def _fitted(self) -> Tensor:
        if self._bank is None:
            raise BugError("AnomalyDino was asked for results before fit or load")
        return self._bank

    def save(self, path: Path) -> None:
        """Write the patches as safetensors."""
        save_file({"memory_bank": self._fitted().cpu().contiguous()}, path)

    def load(self, path: Path) -> None:
        """Read the patches."""
        self._bank = load_file(path, device=self.device)["memory_bank"].contiguous()

    def size(self) -> ModelSize:
        """Count the backbone's and the bank's numbers; operations of the backbone and of the search."""
        extract, bank, side = self._tokens(), self._fitted(), self.settings.image_size
        inputs = torch.zeros(1, 3, side, side, device=self.device)
        places = (side // extract.patch_size) ** 2
        return ModelSize(
            backbone.count(extract) + bank.numel(),
            backbone.count_flops(extract, inputs) + 2 * bank.numel() * places,
        )


def _nearest(rows: Tensor, bank: Tensor) -> Tensor:
    """Return each row's cosine distance to its nearest of the bank, 0 to 2."""
    best = torch.stack([(rows @ part.T).amax(1) for part in torch.split(bank, _ROWS)]).amax(0)
    return (1 - best).clamp(0, 2)
