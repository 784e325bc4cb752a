"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the abnormal logit, never scaled per picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.grad_cam import GradCAM
from torch import Tensor, nn

from defectbench.inspectors.base import Inspection


class RawGradCAM(GradCAM):  # type: ignore[misc]
    """grad-cam's GradCAM without its two scalings of each map to [0, 1].

    The library rectifies, resizes and scales a map in ``compute_cam_per_layer`` and scales again in
    ``aggregate_multi_layers``. Both are replaced: weights and weighted sum stay the library's, the map is
    rectified and keeps its own grid and range. Scaled maps would peak at 1 on good pictures too.
    """

    def __init__(self, model: nn.Module, target: nn.Module) -> None:
        # GradCAM's own constructor cannot ask for the input's gradient, which frozen parameters need.
        BaseCAM.__init__(self, model, [target], compute_input_gradient=True)

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


def target_layer(model: nn.Module) -> nn.Module:
    """Return the layer whose (b, channels, h, w) output is weighted: the last one with a spatial grid.

    TinyViT's last stage gives (b, tokens, channels), on which Grad-CAM goes wrong without a word: its last
    block's ``local_conv`` is (b, channels, h, w).
    """
    net: Any = model
    last: nn.Module
    match type(model).__name__:
        case "TinyVit":
            last = net.stages[-1].blocks[-1].local_conv
        case "ResNet":
            last = net.layer4[-1]
        case "MobileNetV3" | "EfficientNet":
            last = net.blocks[-1]
        case _:
            last = net.get_submodule(net.feature_info[-1]["module"])
    return last


class Explainer:
    """Scores pictures one at a time with a network of one logit, each with its Grad-CAM map."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model.eval().requires_grad_(False)
        self._cam = RawGradCAM(self._model, target_layer(model))

    def __call__(self, inputs: Tensor) -> Inspection:
        """Return log-odds and map of one picture, (1, 3, size, size)."""
        with torch.enable_grad():
            maps = self._cam(inputs, targets=[_abnormal])
        score = float(self._cam.outputs.detach().float()[0, 0])
        self._cam.activations_and_grads.clear()
        return Inspection(score, maps[0].astype(np.float32))


def _abnormal(output: Tensor) -> Tensor:
    """Return the abnormal logit of one picture's output, (1,) -> ()."""
    return output[0]
