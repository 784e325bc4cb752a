"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the abnormal logit, never scaled per picture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.grad_cam import GradCAM
from torch import Tensor, nn

from defectbench.models.base import Prediction


class RawGradCAM(GradCAM):  # type: ignore[misc]
    """grad-cam's GradCAM without its two scalings of each map to [0, 1].

    The library rectifies, resizes and scales a map in ``compute_cam_per_layer`` and scales again in
    ``aggregate_multi_layers``. Both are replaced: weights and weighted sum stay the library's, the map is
    rectified and keeps its own grid and range. Scaled maps would peak at 1 on good pictures too.
    """

    def __init__(self, model: nn.Module, target: TargetLayer) -> None:
        # GradCAM's own constructor cannot ask for the input's gradient, which frozen parameters need.
        BaseCAM.__init__(
            self, model, [target.layer], reshape_transform=target.as_map, compute_input_gradient=True
        )

    def compute_cam_per_layer(
        self, input_tensor: Tensor, targets: list[Any], eigen_smooth: bool
    ) -> list[NDArray[np.float32]]:
        """Return the target layer's rectified maps, [(b, h, w)]."""
        held = self.activations_and_grads
        activations = held.activations[0].numpy()
        gradients = held.gradients[0].numpy()
        cam = self.get_cam_image(
            input_tensor, self.target_layers[0], targets, activations, gradients, eigen_smooth
        )
        return [np.maximum(cam, 0)]

    def aggregate_multi_layers(self, cam_per_target_layer: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the one layer's maps, (b, h, w)."""
        return cam_per_target_layer[0]


@dataclass(frozen=True, slots=True)
class TargetLayer:
    """Where a map is taken.

    Attributes:
        layer: whose output is weighted.
        as_map: brings that output to (b, channels, h, w); None where it is so.
    """

    layer: nn.Module
    as_map: Callable[[Tensor], Tensor] | None = None


def target_of(model: nn.Module) -> TargetLayer:
    """Return the last layer with a spatial grid that the logit depends on.

    Layers that give tokens or put channels last would lead Grad-CAM astray without a word. TinyViT's last
    stage gives (b, tokens, channels), so its last block's ``local_conv`` is taken, which is
    (b, channels, h, w). Swin gives (b, h, w, channels). A vision transformer whose head reads the class token
    alone does not depend on the patches' tokens after the last block, but on those that its attention reads.
    """
    net: Any = model
    match type(model).__name__:
        case "TinyVit":
            return TargetLayer(net.stages[-1].blocks[-1].local_conv)
        case "ResNet":
            return TargetLayer(net.layer4[-1])
        case "MobileNetV3" | "EfficientNet":
            return TargetLayer(net.blocks[-1])
        case "SwinTransformerV2" | "SwinTransformer":
            return TargetLayer(net.layers[-1].blocks[-1], _channels_first)
        case "VisionTransformer":
            return TargetLayer(net.blocks[-1].norm1, partial(_patches, prefix=net.num_prefix_tokens))
        case _:
            return TargetLayer(net.get_submodule(net.feature_info[-1]["module"]))


def _channels_first(values: Tensor) -> Tensor:
    """(b, h, w, channels) -> (b, channels, h, w)."""
    return values.permute(0, 3, 1, 2)


def _patches(values: Tensor, prefix: int) -> Tensor:
    """(b, prefix + side * side, channels) -> (b, channels, side, side): pictures are square."""
    batch, tokens, channels = values.shape
    side = math.isqrt(tokens - prefix)
    return values[:, prefix:].transpose(1, 2).reshape(batch, channels, side, side)


class Explainer:
    """Scores pictures one at a time with a network of one logit, each with its Grad-CAM map."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model.eval().requires_grad_(False)
        self._cam = RawGradCAM(self._model, target_of(model))

    def __call__(self, inputs: Tensor) -> Prediction:
        """Return log-odds and map of one picture, (1, 3, size, size)."""
        with torch.enable_grad():
            maps = self._cam(inputs, targets=[_abnormal])
        score = float(self._cam.outputs.detach().float()[0, 0])
        self._cam.activations_and_grads.clear()
        return Prediction(score, maps[0].astype(np.float32))


def _abnormal(output: Tensor) -> Tensor:
    """Return the abnormal logit of one picture's output, (1,) -> ()."""
    return output[0]
