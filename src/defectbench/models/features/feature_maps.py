"""Feature maps of some layers of any timm network, taken as the network computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from defectbench.errors import UsageError, nearest

_MAP, _TOKENS = 4, 3
"""Dimensions of a feature map and of a transformer's tokens, with the batch."""


class _StoppedEarlyError(Exception):
    """Every layer that is asked for has given its output: the rest of the network is not computed."""


class FeatureMaps(nn.Module):
    """Pictures in, layer -> feature map (b, channels, h, w) out.

    It takes the place of anomalib's TimmFeatureExtractor, which traces a network that is handed over with
    torch.fx; networks whose padding depends on the picture (all ``tf_*``) cannot be traced. Here the layers'
    outputs are caught as they are computed, so the values are the network's own. Maps with the channels last
    (Swin) are turned, a transformer's tokens are laid out as the map that they are, less those that stand for
    no place.

    The layers after the last one that is asked for are taken out of the network.

    Args:
        network: a timm network.
        layers: names of its modules, as in ``network.named_modules()``.
        learns: gradients flow and batch statistics are taken in training; else it is always in eval mode.

    Raises:
        UsageError: the network has no such layer, or its output is no map.
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], *, learns: bool = False) -> None:
        super().__init__()
        self.feature_extractor = network
        self.layers = list(layers)
        self.learns = learns
        there = dict(network.named_modules())
        for layer in self.layers:
            if layer not in there or not layer:
                raise UsageError(f"setting layers: {_unknown(network, layer)}")
        self._take_out_the_rest()
        found = self._once()
        self.out_dims = [found[layer].shape[1] for layer in self.layers]

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return layer -> map of (b, 3, size, size) pictures, standardised for the network."""
        if self.learns:
            return self._maps(inputs)
        self.feature_extractor.eval()
        with torch.no_grad():
            return self._maps(inputs)

    def _maps(self, inputs: Tensor) -> dict[str, Tensor]:
        network: Any = self.feature_extractor
        found: dict[str, Tensor] = {}
        wanted = set(self.layers)

        def keep(layer: str, output: object) -> None:
            found[layer] = self._as_map(layer, output)
            if found.keys() >= wanted:
                raise _StoppedEarlyError

        hooks = [
            network.get_submodule(layer).register_forward_hook(
                lambda _module, _inputs, output, layer=layer: keep(layer, output)
            )
            for layer in wanted
        ]
        try:
            network(inputs)
        except _StoppedEarlyError:
            pass
        finally:
            for hook in hooks:
                hook.remove()
        return {layer: found[layer] for layer in self.layers}

    def _as_map(self, layer: str, output: object) -> Tensor:
        network: Any = self.feature_extractor
        if isinstance(output, Tensor) and output.ndim == _MAP:
            last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
            return output.permute(0, 3, 1, 2).contiguous() if last else output
        if isinstance(output, Tensor) and output.ndim == _TOKENS:
            places = output[:, int(getattr(network, "num_prefix_tokens", 0)) :]
            side = int(places.shape[1] ** 0.5)
            if side * side == places.shape[1]:
                return places.transpose(1, 2).reshape(len(places), -1, side, side)
        raise UsageError(
            f"setting layers: {layer!r} gives no feature map; {_offered(network) or 'name another layer'}"
        )

    def _take_out_the_rest(self) -> None:
        """Put nothing in the place of the layers that are never reached: they would be held and counted."""
        ran: set[nn.Module] = set()
        hooks = [
            module.register_forward_pre_hook(lambda module, _: ran.add(module))
            for module in self.feature_extractor.modules()
        ]
        self._once()
        for hook in hooks:
            hook.remove()
        for parent in (self.feature_extractor, *self.feature_extractor.children()):
            if parent is self.feature_extractor or isinstance(parent, nn.Sequential | nn.ModuleList):
                for name, child in list(parent.named_children()):
                    if ran.isdisjoint(child.modules()):
                        setattr(parent, name, nn.Identity())

    def _once(self) -> dict[str, Tensor]:
        """Return the maps of an empty picture, leaving the network's mode and statistics as they are."""
        training = self.feature_extractor.training
        self.feature_extractor.eval()
        device = next(self.feature_extractor.parameters()).device
        with torch.no_grad():
            found = self._maps(torch.zeros(1, 3, *_side(self.feature_extractor), device=device))
        self.feature_extractor.train(training)
        return found


def _side(network: Any) -> tuple[int, int]:
    """Return the size of a picture that the network takes."""
    built_for = getattr(getattr(network, "patch_embed", None), "img_size", None)
    height, width = built_for or network.pretrained_cfg["input_size"][1:]
    return int(height), int(width)


def _offered(network: Any) -> str:
    """Say which layers end a stage of the network; empty where timm does not know."""
    stages = [str(stage["module"]) for stage in getattr(network, "feature_info", ()) or ()]
    return f"its stages end with {', '.join(stages)}" if stages else ""


def _unknown(network: Any, layer: str) -> str:
    names = [name for name, _ in network.named_modules() if name]
    return f"no layer {layer!r} in this network; {_offered(network) or nearest(layer, names)[:300]}"
