"""State dicts as training scripts wrap them, read without running a pickle."""

from __future__ import annotations

import argparse
import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from defectbench.errors import DataError
from defectbench.models.features import weight_formats

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.ones(2)}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


def read_back(content: Any, path: Path, *, older: bool = False) -> dict[str, torch.Tensor]:
    torch.save(content, path, _use_new_zipfile_serialization=not older)
    return weight_formats.read_weights(path)


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


@pytest.mark.parametrize(
    "key", ["state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "state_dict.model"]
)
def test_state_dict_is_found_in_its_wrapper(key: str, tmp_path: Path) -> None:
    content: Any = collections.OrderedDict(STATE)
    for part in reversed(key.split(".")):
        content = {part: content, "epoch": 3, "metric": np.float64(0.9), "optimizer": {"lr": 1e-3}}
    for older in (False, True):
        assert same(read_back(content, tmp_path / "net.pth", older=older))


@pytest.mark.parametrize(
    "prefix",
    ["", "model.", "_orig_mod.", "module.", "module.model.", "_orig_mod.module.", "model._orig_mod."],
)
def test_state_dict_loses_what_stands_before_every_key(prefix: str, tmp_path: Path) -> None:
    assert same(read_back(prefixed(prefix), tmp_path / "net.pth"))
    save_file(prefixed(prefix), tmp_path / "net.safetensors")
    assert same(weight_formats.read_weights(tmp_path / "net.safetensors"))


def test_state_dict_keeps_what_stands_before_some_keys(tmp_path: Path) -> None:
    mixed = {**prefixed("model."), "loss.weight": torch.ones(1)}
    assert read_back(mixed, tmp_path / "net.pth").keys() == mixed.keys()


def test_checkpoint_of_timms_training_is_read(tmp_path: Path) -> None:
    options = argparse.Namespace(model="resnet18", lr=0.1, opt_betas=[0.9, 0.99], amp=True, resume="")
    content = {
        "epoch": 9, "arch": "resnet18", "state_dict": STATE, "version": 2, "args": options,
        "optimizer": {"state": {0: {"momentum": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
        "state_dict_ema": {key: value + 1 for key, value in STATE.items()}, "metric": np.float32(81.5),
    }  # fmt: skip
    assert same(read_back(content, tmp_path / "net.pth"))
    del content["state_dict"]
    assert torch.equal(read_back(content, tmp_path / "net.pth")["conv.bias"], STATE["conv.bias"] + 1)


class Trap:
    """Leaves a file behind where its pickle is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "run")


def test_checkpoint_with_foreign_classes_is_refused_and_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "trap": Trap(tmp_path / "sprung")}, tmp_path / "net.pth")
    with pytest.raises(DataError, match=r"net\.pth: holds more than tensors \(getattr\), which is never run"):
        weight_formats.read_weights(tmp_path / "net.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(DataError, match=r"whole\.pth: holds more than tensors"):
        weight_formats.read_weights(tmp_path / "whole.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"state_dict": {"a": "b"}}, torch.zeros(3), 7])
def test_file_without_a_state_dict_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"net\.pth: no mapping from keys to tensors"):
        read_back(content, tmp_path / "net.pth")
