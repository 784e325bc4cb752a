"""Patch tokens of a vision transformer, as anomalib's token models want them, from our own weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from defectbench.errors import UsageError


class TokenExtractor(nn.Module):
    """Replaces anomalib's TimmFeatureExtractor with ``output_fmt="NLC"``, which asks a hub.

    Args:
        network: timm's transformer, built with ``dynamic_img_size``.
        layers: ``blocks.N``; their tokens are given, (b, tokens, width).
        prefix: class and register tokens come first.
        norm: the network's last norm is applied to each layer's tokens.

    Raises:
        UsageError: the network is no such transformer.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], *, prefix: bool, norm: bool) -> None:
        super().__init__()
        inside: Any = network
        if not hasattr(network, "forward_intermediates") or not hasattr(network, "num_prefix_tokens"):
            raise UsageError(f"setting backbone: {type(network).__name__} has no tokens; take a timm ViT")
        self.network = inside
        self.patch_size = int(inside.patch_embed.patch_size[0])
        self.num_register_tokens = int(inside.num_prefix_tokens) - 1
        self._layers = list(layers)
        self._indices = [int(layer.rpartition(".")[2]) for layer in layers]
        self._prefix = prefix
        self._norm = norm

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return layer -> tokens, without gradients."""
        with torch.no_grad():
            found = self.network.forward_intermediates(
                images,
                indices=self._indices,
                norm=self._norm,
                return_prefix_tokens=self._prefix,
                output_fmt="NLC",
                intermediates_only=True,
            )
        tokens = [torch.cat((one[1], one[0]), 1) if self._prefix else one for one in found]
        return dict(zip(self._layers, tokens, strict=True))
