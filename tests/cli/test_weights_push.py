"""``weights push`` reads a file before it stores it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from defectbench.__main__ import run
from defectbench.models.checks import weights_check
from defectbench.stores.directory import DirectoryStore

NET = "resnet18.tv_in1k"

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def network() -> dict[str, Any]:
    """The state dict of timm's resnet18, random."""
    import timm

    state: dict[str, Any] = timm.create_model("resnet18", pretrained=False).state_dict()
    return state


def pushed(content: Any, tmp_path: Path, name: str = NET) -> int:
    import torch

    torch.save(content, tmp_path / "net.pth")
    return run(["weights", "push", name, str(tmp_path / "net.pth"), "--store", str(tmp_path / "store")])


def stored(tmp_path: Path) -> list[str]:
    return list(DirectoryStore(tmp_path / "store").keys("weights/"))


def test_push_takes_a_training_checkpoint(network: dict[str, Any], tmp_path: Path) -> None:
    content = {"epoch": 1, "args": argparse.Namespace(lr=0.1), "state_dict_ema": network}
    assert pushed(content, tmp_path) == 0
    assert len(stored(tmp_path)) == 1


def test_push_refuses_another_network_and_names_the_nearest(
    network: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed(network, tmp_path, "wide_resnet50_2.tv_in1k") == 65
    said = capsys.readouterr().err
    for text in (
        "net.pth does not fit wide_resnet50_2.tv_in1k",
        "it lacks 1",
        "other shapes at",
        f"those of {NET}",
    ):
        assert text in said
    assert stored(tmp_path) == []


def test_push_refuses_a_state_dict_that_lacks_a_layer(
    network: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pushed({key: value for key, value in network.items() if "layer4" not in key}, tmp_path) == 65
    assert "net.pth does not fit resnet18.tv_in1k: it lacks" in capsys.readouterr().err
    assert stored(tmp_path) == []


def test_push_says_that_a_head_is_anothers(
    network: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {**network, "fc.weight": network["fc.weight"][:2], "fc.bias": network["fc.bias"][:2]}
    assert pushed(own, tmp_path) == 65, "the catalog's users of this network are detectors"
    assert "other shapes at 2 keys, such as fc.bias (2,)" in capsys.readouterr().err
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"<!DOCTYPE html><title>502</title>\n" * 50, "an HTML page"),
        (b"404: Not Found", "a text (404: Not Found)"),
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    ],
)
def test_push_refuses_a_page_without_loading_torch(
    data: bytes,
    what: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_check, "run_module", None)
    (tmp_path / "page.pth").write_bytes(data)
    assert run(["weights", "push", NET, str(tmp_path / "page.pth"), "--store", str(tmp_path / "store")]) == 65
    said = capsys.readouterr().err
    assert "page.pth" in said
    assert what in said
    assert stored(tmp_path) == []


def test_push_without_torch_says_that_keys_were_not_checked(
    network: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_check, "find_spec", lambda name: None)
    assert pushed(network, tmp_path) == 0
    assert "its keys were not checked: not installed here: torch, timm" in capsys.readouterr().err
    assert len(stored(tmp_path)) == 1


def test_push_that_runs_out_of_time_stores_nothing(
    network: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weights_check, "SECONDS", 0.01)
    assert pushed(network, tmp_path) == 75
    assert "could not be checked, because its process had not ended" in capsys.readouterr().err
    assert stored(tmp_path) == []
