"""Feature maps of any timm family, held equal to timm's own where timm gives them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra train: make sync")

import timm  # noqa: E402

from defectbench.errors import UsageError  # noqa: E402
from defectbench.models.features.feature_maps import FeatureMaps  # noqa: E402

pytestmark = pytest.mark.torch

FAMILIES = (
    "convnext_atto",
    "densenet121",
    "edgenext_xx_small",
    "efficientvit_b0",
    "ghostnet_050",
    "mobilenetv3_small_050",
    "mobileone_s0",
    "regnetx_002",
    "resnet18",
    "swin_tiny_patch4_window7_224",
    "tf_efficientnet_lite0",
    "tf_mobilenetv3_small_minimal_100",
    "tiny_vit_5m_224",
)


def made(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options).eval()


def pictures(side: int) -> Any:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, side, side)).astype(np.float32))


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_those_that_timm_gives(name: str) -> None:
    network = made(name)
    stages = [stage["module"] for stage in network.feature_info[1:4]]
    inputs = pictures(224)
    timms = made(name, features_only=True, out_indices=(1, 2, 3))
    # Some are drawn otherwise without a head: under equal names they get ours.
    timms.load_state_dict(network.state_dict(), strict=False)
    with torch.no_grad():
        theirs = timms(inputs)
    ours = FeatureMaps(network, stages)
    found = ours(inputs)
    assert list(found) == stages
    last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
    for layer, width, expected in zip(stages, ours.out_dims, theirs, strict=True):
        if last:
            expected = expected.permute(0, 3, 1, 2)
        assert found[layer].shape[1] == width
        assert torch.equal(found[layer], expected)


def test_tokens_are_laid_out_as_a_map() -> None:
    network = made("vit_tiny_patch16_224")
    found = FeatureMaps(network, ["blocks.3"])(pictures(224))["blocks.3"]
    assert found.shape == (2, 192, 14, 14)
    network = made("vit_tiny_patch16_224")
    with torch.no_grad():
        theirs = network.forward_intermediates(
            pictures(224), indices=[3], norm=False, intermediates_only=True
        )
    assert torch.equal(found, theirs[0])


def test_what_comes_after_the_last_layer_is_taken_out() -> None:
    network = made("resnet18")
    whole = sum(value.numel() for value in network.parameters())
    maps = FeatureMaps(network, ["layer2", "layer1"])
    kept = [name for name, _ in maps.feature_extractor.named_parameters()]
    assert not any(name.startswith(("layer3", "layer4", "fc")) for name in kept)
    assert sum(value.numel() for value in maps.parameters()) < whole / 10
    assert list(maps(pictures(64))) == ["layer2", "layer1"]


def test_a_pyramid_that_learns_has_gradients_and_statistics_of_its_own() -> None:
    maps: Any = FeatureMaps(made("tf_efficientnet_lite0"), ["blocks.2"], learns=True).train()
    before = maps.feature_extractor.bn1.running_mean.clone()
    maps(pictures(64))["blocks.2"].sum().backward()
    assert maps.feature_extractor.conv_stem.weight.grad.abs().sum() > 0
    assert not torch.equal(maps.feature_extractor.bn1.running_mean, before)
    still: Any = FeatureMaps(made("tf_efficientnet_lite0"), ["blocks.2"]).train()
    before = still.feature_extractor.bn1.running_mean.clone()
    assert not still(pictures(64))["blocks.2"].requires_grad
    assert torch.equal(still.feature_extractor.bn1.running_mean, before)


@pytest.mark.parametrize("layer", ["layer9", "", "blocks.2.conv_pw"])
def test_a_layer_that_is_not_there_is_refused_with_those_that_are(layer: str) -> None:
    with pytest.raises(UsageError, match="its stages end with act1, layer1, layer2, layer3, layer4"):
        FeatureMaps(made("resnet18"), [layer])


def test_a_layer_without_a_map_is_refused() -> None:
    with pytest.raises(UsageError, match="'fc' gives no feature map; its stages end with"):
        FeatureMaps(made("resnet18"), ["fc"])
