"""Files of published weights: how they are wrapped, and under which keys each author keeps them."""

from __future__ import annotations

import argparse
import math
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from defectbench.errors import DataError, MissingWeightsError

_SHOWN = 5
_WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema")
"""Keys below which a checkpoint keeps the network's weights, looked for one after the other."""
_BIASES = ".attention_biases"
_PARALLEL = "module."
"""What a network that was trained on several GPUs puts before its keys; FixRes' files have it."""
_AROUND = ("model.", "_orig_mod.", _PARALLEL)
"""What a network gets before all its keys inside another module, or from torch.compile."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return key -> tensor of a safetensors file or of a torch state dict (never running its pickle).

    Raises:
        MissingWeightsError: no such file.
        DataError: the file is neither.
    """
    if not path.is_file():
        raise MissingWeightsError(f"weights file {path} is not there")
    try:
        return _bare(load_file(path))
    # Not safetensors: torch's own format is tried next.
    except SafetensorError:
        pass
    found = _unwrapped(_loaded(path))
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise DataError(f"weights file {path.name}: no mapping from keys to tensors")
    return _bare({str(key).removeprefix(_PARALLEL): value for key, value in found.items()})


def _loaded(path: Path) -> object:
    """Return what torch.save wrote: plain data, tensors, what timm's training script adds, no other class."""
    try:
        with torch.serialization.safe_globals(_harmless()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise DataError(
                f"weights file {path.name}: neither safetensors nor a torch state dict"
            ) from error
        raise DataError(
            f"weights file {path.name}: holds more than tensors ({found[1]}), which is never run: save the "
            "network's state_dict() alone"
        ) from error
    except Exception as error:  # torch's unpickler raises whatever the bytes lead it to
        raise _unreadable(path) from error


def _unreadable(path: Path) -> DataError:
    """Return the error of a file in neither format."""
    return DataError(f"weights file {path.name}: neither safetensors nor a torch state dict")


def _harmless() -> list[Any]:
    """Return what timm's checkpoints hold beside tensors: options, and figures of NumPy's, old and new."""
    scalar: Any = np.float64(0).__reduce__()[0]
    figures = [scalar, (scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    return [argparse.Namespace, np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8")), *figures]


def _unwrapped(found: object) -> object:
    """Return the mapping that holds the weights."""
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    return found


def _bare(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state without what stands before every key of it."""
    while state and (around := next((p for p in _AROUND if all(k.startswith(p) for k in state)), None)):
        state = {key.removeprefix(around): value for key, value in state.items()}
    return state


def as_timm_has_it(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return the state under timm's keys, positions brought to the network's size, as timm itself would.

    Most of timm's networks can also read the file that their authors published; each has a function for it
    beside its class. A file of another network may break that function: its keys then show the difference.
    """
    # A key that only the TinyViT authors' files have.
    if "norm_head.weight" in state:
        state = {_tinyvit_key(key): value for key, value in state.items()}
    if "_conv_stem.weight" in state:
        state = _efficientnet(state, model)
    state = _narrowed(state, model.state_dict())
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return dict(convert(dict(state), model))
    except (KeyError, RuntimeError, ValueError, AttributeError, IndexError):
        return state


def _tinyvit_key(key: str) -> str:
    """Return timm's name of a key of the TinyViT authors, whose stages end with the downsampling.

    >>> _tinyvit_key("layers.0.downsample.conv1.c.weight"), _tinyvit_key("patch_embed.seq.2.bn.bias")
    ('stages.1.downsample.conv1.conv.weight', 'patch_embed.conv2.bn.bias')
    >>> _tinyvit_key("norm_head.weight"), _tinyvit_key("head.bias")
    ('head.norm.weight', 'head.fc.bias')
    """
    key = re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"stages.{int(m[1]) + 1}.downsample", key)
    key = re.sub(r"^layers\.", "stages.", key)
    key = re.sub(r"^patch_embed\.seq\.([02])\.", lambda m: f"patch_embed.conv{int(m[1]) // 2 + 1}.", key)
    key = re.sub(r"\.c\.weight$", ".conv.weight", key)
    return re.sub(r"^norm_head\.", "head.norm.", re.sub(r"^head\.", "head.fc.", key))


_EFFICIENTNET = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
"""Parts of EfficientNet-PyTorch's networks -> timm's; then of blocks that expand and that do not."""
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_SEPARABLE = {
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def _efficientnet(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return a state of EfficientNet-PyTorch (Melas-Kyriazi) under timm's keys; its blocks are in one row."""
    found = re.compile(r"blocks\.\d+\.\d+")
    blocks = [name for name, _ in model.named_modules() if found.fullmatch(name)]
    expanding = {int(key.split(".")[1]) for key in state if "._expand_conv." in key}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        part = key.split(".")
        if part[0] == "_blocks" and int(part[1]) < len(blocks):
            place = int(part[1])
            names = _EXPANDING if place in expanding else _SEPARABLE
            part = [blocks[place], names.get(part[2], part[2]), *part[3:]]
        else:
            part = [_EFFICIENTNET.get(part[0], part[0]), *part[1:]]
        renamed[".".join(part)] = value
    return renamed


def _narrowed(state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state with a TinyViT's attention biases cut to narrower windows.

    A bias belongs to a distance, (rows, columns) of a square; a narrower window has the shorter distances of
    the same square. timm would stretch the square instead, as for a network that is trained anew.
    """
    wide = {
        key: math.isqrt(expected[key].shape[1])
        for key, value in state.items()
        if key.endswith(_BIASES) and key in expected and value.shape[1] > expected[key].shape[1]
    }
    return state | {key: _corner(state[key], side) for key, side in wide.items()}


def _corner(biases: Tensor, side: int) -> Tensor:
    """Return the corner of (heads, n * n) that is (heads, side * side)."""
    square = biases.reshape(len(biases), math.isqrt(biases.shape[1]), -1)
    return square[:, :side, :side].flatten(1)


def check_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], what: str) -> None:
    """Raise DataError unless both have the same keys and shapes; the message names those that differ."""
    lacking = sorted(expected.keys() - state.keys())
    foreign = sorted(state.keys() - expected.keys())
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & state.keys())
        if expected[key].shape != state[key].shape
    ]
    problems = [
        f"{what}: {how} {len(keys)} keys, such as {', '.join(keys[:_SHOWN])}"
        for how, keys in (("it lacks", lacking), ("it has foreign", foreign), ("other shapes at", misshapen))
        if keys
    ]
    if problems:
        raise DataError(problems)
