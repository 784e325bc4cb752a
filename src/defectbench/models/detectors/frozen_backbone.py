"""What PaDiM and PatchCore share: patch features of a frozen backbone, computed once for all cells."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from defectbench.models.base import ModelSettings, Pictures
from defectbench.models.features import backbone
from defectbench.models.features.feature_maps import FeatureMaps
from defectbench.models.features.versions import made_with


class FrozenFeatures:
    """Feature maps of some layers of a backbone, as flat rows in the cache.

    Kept are the layers' own grids, one after the other: bringing them to one grid first would take three to
    four times the space.

    Args:
        extract: pictures in, layer -> (b, channels, h, w) out.
        after: applied to each layer's maps before they are kept.
        chosen: for each layer the channels to keep; all without it.
        kind: names ``after`` and ``chosen`` in the cache's key.
    """

    def __init__(
        self,
        network: nn.Module,
        extract: FeatureMaps,
        settings: ModelSettings,
        device: str,
        kind: str,
        after: nn.Module | None = None,
        chosen: dict[str, Tensor] | None = None,
    ) -> None:
        self._network = network
        self._extract = extract.to(device).eval()
        self._device = device
        self._after = after or nn.Identity()
        self._chosen = chosen or {}
        self._layers = settings.texts("layers")
        network_name, weights = settings.text("backbone"), backbone.weights_name(settings)
        libraries = made_with("torch", "timm", "anomalib")
        self._name = "/".join([kind, network_name, "+".join(self._layers), weights, device, libraries])
        self._shapes = self._shapes_at(settings.image_size)

    def _shapes_at(self, side: int) -> dict[str, tuple[int, int, int]]:
        """Return each layer's (channels, h, w) for pictures of ``side`` pixels."""
        maps = self._maps(np.zeros((1, side, side, 3), np.uint8))
        return {layer: (values.shape[1], values.shape[2], values.shape[3]) for layer, values in maps.items()}

    def _maps(self, pictures: NDArray[np.uint8]) -> dict[str, Tensor]:
        """Return layer -> maps (b, channels, h, w), pooled and reduced to the chosen channels."""
        with torch.no_grad():
            found = self._extract(backbone.normalised(pictures, self._network, self._device))
            maps = {layer: self._after(found[layer]) for layer in self._layers}
        return {
            layer: values[:, self._chosen[layer]] if layer in self._chosen else values
            for layer, values in maps.items()
        }

    def _rows(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return all layers' maps of each picture in one flat row, as the cache keeps them."""
        maps = self._maps(pictures)
        rows: NDArray[np.float32] = (
            torch.cat([maps[layer].flatten(1) for layer in self._layers], 1).cpu().numpy()
        )
        return rows

    def of(self, pictures: Pictures) -> Iterator[dict[str, Tensor]]:
        """Yield each picture's layer -> (1, channels, h, w), on the device."""
        for row in pictures.features(self._name, self._rows):
            values = torch.from_numpy(np.array(row, np.float32)).to(self._device)
            parts = torch.split(values, [int(np.prod(shape)) for shape in self._shapes.values()])
            yield {
                layer: part.view(1, *shape)
                for (layer, shape), part in zip(self._shapes.items(), parts, strict=True)
            }

    @property
    def places(self) -> int:
        """How many places the first layer's grid has."""
        _, height, width = next(iter(self._shapes.values()))
        return height * width

    def flops(self, side: int) -> int:
        """Return the operations of the backbone for one picture."""
        inputs = torch.zeros(1, 3, side, side, device=self._device)
        return backbone.count_flops(self._extract, inputs)
