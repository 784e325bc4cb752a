"""timm networks from local files: nothing here asks a hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from timm.models.tiny_vit import TinyVit
from torch import Tensor, nn

from defectbench.errors import UsageError, nearest
from defectbench.models.base import ModelSettings
from defectbench.models.features import weight_formats
from defectbench.models.features.device import repeatable

_TAGS = {"fixres_ns_jft_in1k": "ns_jft_in1k"}
"""Tags of weights that timm does not have -> the tag whose network and normalisation are theirs."""
_COUNTER = "num_batches_tracked"

DECODED = ("resnet18", "resnet34", "resnet50", "resnet101", "wide_resnet50_2", "wide_resnet101_2")
"""Those for which anomalib has a decoder."""


def create(
    name: str, settings: ModelSettings, outputs: int | None = None, *, any_size: bool = False
) -> nn.Module:
    """Return timm's network ``name`` in float32 on the CPU, in eval mode.

    The settings' weights file is loaded by key; without one the initial weights come from the settings' seed.

    Args:
        outputs: units of a new head in place of the published one; None keeps the published head.
        any_size: a transformer that is published for one size is built for that one, and fits its places to
            the pictures; without it, it is built for the settings' size.

    Raises:
        UsageError: timm knows no such network.
        MissingWeightsError: the file is not there.
        DataError: the file holds other weights; the keys that differ are named.
    """
    if not timm.is_model(name.partition(".")[0]):
        raise UsageError(f"unknown timm network {name!r}; {nearest(name, timm.list_models())[:300]}")
    options: dict[str, Any] = {} if outputs is None else {"num_classes": outputs}
    known = timm_name(name)
    options |= {"dynamic_img_size": True} if any_size else _size_option(known, settings)
    model = _built(known, settings.seed, options)
    if windows := _narrower(model, settings.image_size):
        model = _built(known, settings.seed, options | windows)
    path = _file_of(settings)
    if path is not None:
        _load(model, path, name, new_head=outputs is not None)
    return model.eval()


def _built(name: str, seed: int, options: dict[str, Any]) -> nn.Module:
    with repeatable(seed, "cpu"):
        model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model


def _narrower(model: nn.Module, side: int) -> dict[str, Any]:
    """Return ``window_sizes`` for a TinyViT whose windows are wider than what a stage has of the picture.

    timm would pad such a stage with zeros that take part in the attention: at 128 px that is nine tenths of
    what a network with the windows of 512 px computes. Empty where none is too wide, as at its own size.
    """
    if not isinstance(model, TinyVit):
        return {}
    stages: list[Any] = list(model.stages)[1:]
    strides: list[Any] = [info["reduction"] for info in model.feature_info[1:]]
    own = [stage.blocks[0].window_size for stage in stages]
    fitting = [min(size, -(-side // stride)) for size, stride in zip(own, strides, strict=True)]
    # The first stage convolves: its number stands for nothing.
    return {} if fitting == own else {"window_sizes": [fitting[0], *fitting]}


def architecture(name: str, allowed: Sequence[str]) -> str:
    """Return timm's name less the tag of its weights, where it is one of ``allowed``.

    Raises:
        UsageError: the model is not made for such a backbone.
    """
    plain = name.partition(".")[0]
    if plain not in allowed:
        raise UsageError(f"setting backbone: {name!r}; allowed: {', '.join(allowed)}, with a tag or without")
    return plain


def timm_name(name: str) -> str:
    """Return the name by which timm builds the network of weights that it may not have.

    >>> timm_name("tf_efficientnet_b3.fixres_ns_jft_in1k"), timm_name("resnet18.tv_in1k")
    ('tf_efficientnet_b3.ns_jft_in1k', 'resnet18.tv_in1k')
    """
    network, dot, tag = name.partition(".")
    return network + dot + _TAGS.get(tag, tag)


def _size_option(name: str, settings: ModelSettings) -> dict[str, Any]:
    """Return ``img_size`` for a network that is built for one size, nothing for the others."""
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    fixed = config is not None and bool(getattr(config, "fixed_input_size", False))
    return {"img_size": settings.image_size} if fixed else {}


def _file_of(settings: ModelSettings) -> Path | None:
    """Return the settings' one weights file, or None for random weights."""
    if not settings.weights:
        return None
    if len(settings.weights) > 1:
        raise UsageError(f"one weights file expected, got {', '.join(sorted(settings.weights))}")
    return next(iter(settings.weights.values()))


def fill(model: nn.Module, path: Path, name: str) -> None:
    """Load a file into a network that is not timm's; DataError names the keys that differ."""
    _load(model, path, name, new_head=False)


def _load(model: nn.Module, path: Path, name: str, *, new_head: bool) -> None:
    state = weight_formats.as_timm_has_it(weight_formats.read_weights(path), model)
    expected = model.state_dict()
    # Files older than torch 0.4.1 do not count batches, and nothing here reads the count.
    state |= {key: expected[key] for key in expected.keys() - state.keys() if key.endswith(_COUNTER)}
    if new_head:
        heads = _head_keys(model)
        state = {key: value for key, value in state.items() if not key.startswith(_head_name(model))}
        state |= {key: expected[key] for key in heads}
    weight_formats.check_keys(expected, state, f"weights file {path.name} does not fit {name}")
    model.load_state_dict(state)


def _head_name(model: nn.Module) -> str:
    config: Any = model.pretrained_cfg
    return f"{config['classifier']}."


def _head_keys(model: nn.Module) -> list[str]:
    """Return the keys of the head's weights."""
    return [key for key in model.state_dict() if key.startswith(_head_name(model))]


def normalised(pictures: NDArray[np.uint8], model: nn.Module, device: str) -> Tensor:
    """Return (b, size, size, 3) uint8 pictures as (b, 3, size, size) float32, standardised for it."""
    return standardised(scaled(pictures, device), model)


def scaled(pictures: NDArray[np.uint8], device: str) -> Tensor:
    """Return (b, size, size, 3) uint8 pictures as (b, 3, size, size) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).to(device).permute(0, 3, 1, 2).float() / 255.0


def standardised(values: Tensor, model: nn.Module) -> Tensor:
    """Return (b, 3, size, size) float32 in [0, 1], less the network's mean, over its deviation."""
    config: Any = model.pretrained_cfg
    mean = torch.tensor(config["mean"], device=values.device).view(1, 3, 1, 1)
    deviation = torch.tensor(config["std"], device=values.device).view(1, 3, 1, 1)
    return ((values - mean) / deviation).contiguous()


def standardisation(name: str) -> dict[str, list[float]]:
    """Return the mean and the deviation of each channel, in [0, 1], that timm's network ``name`` expects."""
    config: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return {"mean": [float(v) for v in config.mean], "deviation": [float(v) for v in config.std]}


def weights_name(settings: ModelSettings) -> str:
    """Name the weights for a feature cache: their digest, or the seed of random ones."""
    return f"random-{settings.seed}" if not settings.weights else settings.weights_digest


def count(model: nn.Module) -> int:
    """Return how many parameters the network has."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_flops(model: Callable[[Tensor], object], inputs: Tensor) -> int:
    """Return the operations of one forward pass: those of products of matrices and of convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    return int(counter.get_total_flops())
