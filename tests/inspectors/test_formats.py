"""Published weights as their authors wrap and name them: the same keys and shapes, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from defectbench import catalog
from defectbench.errors import DataError
from defectbench.inspectors import backbone, formats
from defectbench.inspectors.anomalib_models import efficientad
from defectbench.inspectors.base import Recipe
from defectbench.inspectors.efficientad import EfficientAd
from stand_ins import DINO, SWIN

pytestmark = pytest.mark.torch

State = dict[str, Tensor]
FIXRES = "tf_efficientnet_b0.fixres_ns_jft_in1k"
RESNET = "resnet18.tv_in1k"
TINYVIT = "tiny_vit_5m_224.dist_in22k_ft_in1k"


def made(name: str, path: Path | None = None, side: int = 64, outputs: int | None = 1) -> nn.Module:
    weights = {} if path is None else {"w": path}
    return backbone.create(name, Recipe({}, side, 0, 0, 5, weights, device="cpu"), outputs=outputs)


def published(name: str, side: int = 64) -> State:
    """A published state: the network's keys with numbers that no seed gives."""
    generator = torch.Generator().manual_seed(7)
    state = made(name, side=side, outputs=None).state_dict()
    return {
        key: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value + 9
        for key, value in state.items()
    }


def wrapped_by_fixres(state: State) -> object:
    """What FixRes' trainer saves of a network that is spread over several GPUs."""
    model = {f"module.{key}": value for key, value in state.items()}
    return {
        "epoch": 1,
        "accuracy": 0.85,
        "model": model,
        "optimizer": {"state": {}},
        "lr_scheduler": {"a": 1},
    }


def without_counters(state: State) -> State:
    """As torchvision's older files are."""
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def with_mask_token(state: State) -> State:
    """As DINOv2's own file is: no head, and the token that stood for hidden patches."""
    trunk = {key: value for key, value in state.items() if not key.startswith("head.")}
    return {**trunk, "mask_token": torch.rand(1, 384)}


def by_the_tinyvit_authors(state: State) -> object:
    """Their stages end with the downsampling, their convolution is `c`, and the head lies beside its norm."""
    depths = {"stages.0": "layers.0", "stages.1": "layers.1", "stages.2": "layers.2", "stages.3": "layers.3"}
    found: State = {}
    for key, value in state.items():
        for stage, layer in depths.items():
            below = f"layers.{int(stage[-1]) - 1}.downsample."
            key = key.replace(f"{stage}.downsample.", below).replace(f"{stage}.blocks", f"{layer}.blocks")
        key = key.replace("patch_embed.conv1.", "patch_embed.seq.0.")
        key = key.replace("patch_embed.conv2.", "patch_embed.seq.2.")
        key = key.replace(".conv.weight", ".c.weight")
        found[key.replace("head.norm.", "norm_head.").replace("head.fc.", "head.")] = value
    assert {
        "patch_embed.seq.2.bn.running_var",
        "layers.0.blocks.1.conv3.c.weight",
        "layers.2.downsample.conv2.c.weight",
        "layers.3.blocks.0.local_conv.c.weight",
        "layers.1.blocks.0.attn.attention_biases",
        "norm_head.weight",
        "head.bias",
    } <= found.keys()
    return {"model": found}


def by_the_swin_authors(state: State) -> object:
    """Their stages end with the downsampling, the tables are kept, and the head is plain."""
    found: State = {"layers.0.blocks.1.attn_mask": torch.zeros(4, 64, 64)}
    found["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(64, 64, dtype=torch.int64)
    found["layers.0.blocks.0.attn.relative_coords_table"] = torch.zeros(1, 15, 15, 2)
    for key, value in state.items():
        for stage in (1, 2, 3):
            key = key.replace(f"layers.{stage}.downsample.", f"layers.{stage - 1}.downsample.")
        found[key.replace("head.fc.", "head.")] = value
    return {"model": found}


FILES: dict[str, tuple[str, Callable[[State], object]]] = {
    "fixres": (FIXRES, wrapped_by_fixres),
    "fixres-flat": (FIXRES, dict),
    "noisystudent": ("tf_efficientnet_b0.ns_jft_in1k", dict),
    "torchvision": (RESNET, without_counters),
    "dinov2": (DINO, with_mask_token),
    "tinyvit": (TINYVIT, by_the_tinyvit_authors),
    "tinyvit-timm": (TINYVIT, lambda state: {"model": state}),
    "swinv2": (SWIN, by_the_swin_authors),
    "efficientnetv2": ("test_efficientnet.r160_in1k", lambda state: {"state_dict": state}),
    "convnext": ("test_convnext.r160_in1k", dict),
}


@pytest.mark.parametrize("kind", FILES)
def test_published_file_is_read_key_by_key(kind: str, tmp_path: Path) -> None:
    name, write = FILES[kind]
    side = 518 if name == DINO else 224 if name == TINYVIT else 64
    state = published(name, side)
    torch.save(write(state), tmp_path / "file.pth")
    loaded = made(name, tmp_path / "file.pth", side).state_dict()
    head = made(name, side=side).pretrained_cfg["classifier"]
    trunk = [key for key in loaded if not key.startswith(f"{head}.")]
    assert len(loaded) > len(trunk) > 0.9 * len(loaded)
    for key in trunk:
        if kind != "torchvision" or not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded[key], state[key]), key
    assert loaded[f"{head}.weight"].shape[0] == 1


@pytest.mark.parametrize("name", [FIXRES, RESNET, TINYVIT])
def test_timm_s_own_file_is_read(name: str, tmp_path: Path) -> None:
    side = 224 if name == TINYVIT else 64
    state = published(name, side)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "model.safetensors")
    loaded = made(name, tmp_path / "model.safetensors", side, outputs=None).state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


@pytest.mark.parametrize(("side", "windows"), [(512, [16, 32, 16]), (200, [16, 13, 7]), (64, [8, 4, 2])])
def test_tinyvit_windows_are_no_wider_than_the_picture(side: int, windows: list[int]) -> None:
    model = made("tiny_vit_21m_512.dist_in22k_ft_in1k", side=side)
    assert [stage.blocks[0].window_size for stage in list(model.stages)[1:]] == windows


def test_tinyvit_biases_of_short_distances_are_kept_in_narrower_windows(tmp_path: Path) -> None:
    state = published(TINYVIT, 224)
    torch.save(state, tmp_path / "tiny.pth")
    wide, narrow = made(TINYVIT, tmp_path / "tiny.pth", 224), made(TINYVIT, tmp_path / "tiny.pth", 64)
    for place, (own, cut) in ((2, (14, 4)), (3, (7, 2))):
        theirs, ours = (model.stages[place].blocks[0].attn for model in (wide, narrow))
        expected = theirs.get_attention_biases("cpu").unflatten(1, (own, own)).unflatten(3, (own, own))
        found = ours.get_attention_biases("cpu").unflatten(1, (cut, cut)).unflatten(3, (cut, cut))
        assert torch.equal(found, expected[:, :cut, :cut, :cut, :cut])


def teacher(path: Path | None = None) -> nn.Module:
    """EfficientAD's teacher, at a width that leaves a channel or two inside."""
    entry = catalog.find("efficientad-s")
    weights = {} if path is None else {"efficientad-teacher-small": path}
    recipe = Recipe({**entry.settings, "width": 1 / 128}, 256, 0, 0, 5, weights, device="cpu")
    model = EfficientAd(recipe).build()
    assert isinstance(model, efficientad.EfficientAdModel)
    return model.teacher


def test_efficientad_s_teacher_is_read_key_by_key(tmp_path: Path) -> None:
    state = {key: torch.rand(value.shape) for key, value in teacher().state_dict().items()}
    assert {"conv1.weight", "conv4.bias"} <= state.keys()
    torch.save(state, tmp_path / "pretrained_teacher_small.pth")
    loaded = teacher(tmp_path / "pretrained_teacher_small.pth").state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_another_network_than_efficientad_s_teacher_is_refused_with_the_keys(tmp_path: Path) -> None:
    state = {f"trunk.{key}": value for key, value in teacher().state_dict().items()}
    torch.save(state, tmp_path / "wrong.pth")
    with pytest.raises(DataError) as caught:
        teacher(tmp_path / "wrong.pth")
    lacking, foreign, *_ = caught.value.problems
    assert lacking.startswith("weights file wrong.pth does not fit efficientad-teacher-small: it lacks ")
    assert "conv1.weight" in lacking
    assert "it has foreign" in foreign
    assert "trunk.conv1" in foreign


def test_dinov2_positions_are_brought_to_the_size_of_the_pictures(tmp_path: Path) -> None:
    torch.save(with_mask_token(published(DINO, 518)), tmp_path / "dino.pth")
    assert made(DINO, tmp_path / "dino.pth", 56).state_dict()["pos_embed"].shape == (1, 1 + 4 * 4, 384)


@pytest.mark.parametrize("kind", ["fixres", "tinyvit", "dinov2", "swinv2", "convnext"])
def test_file_of_another_network_is_refused_with_the_keys_that_differ(kind: str, tmp_path: Path) -> None:
    name, _ = FILES[kind]
    torch.save(published(RESNET), tmp_path / "wrong.pth")
    with pytest.raises(DataError) as caught:
        made(name, tmp_path / "wrong.pth", 56 if name == DINO else 64)
    lacking, foreign, *_ = caught.value.problems
    assert lacking.startswith(f"weights file wrong.pth does not fit {name}: it lacks ")
    assert "it has foreign" in foreign
    assert any(f" {key}" in foreign for key in ("bn1.running_mean,", "layer1.0.bn1.bias,"))
    assert all(len(line) < 500 for line in caught.value.problems)


def test_file_of_another_width_is_refused_with_the_shapes(tmp_path: Path) -> None:
    state = published(FIXRES)
    state["conv_stem.weight"] = state["conv_stem.weight"][:8]
    torch.save(wrapped_by_fixres(state), tmp_path / "narrow.pth")
    with pytest.raises(DataError, match=r"other shapes at 1 keys.*conv_stem.weight \(8, 3.*\(32, 3"):
        made(FIXRES, tmp_path / "narrow.pth")


def test_every_network_of_the_catalog_is_known_to_timm() -> None:
    import timm

    for entry in catalog.ENTRIES:
        if network := entry.settings.get("architecture"):
            known = backbone.timm_name(str(network))
            assert timm.get_pretrained_cfg(known, allow_unregistered=False) is not None, network


def test_keys_that_agree_are_no_problem() -> None:
    formats.check_keys({"a": torch.zeros(2)}, {"a": torch.ones(2)}, "file")
