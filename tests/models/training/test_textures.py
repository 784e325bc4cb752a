from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectbench import catalog
from defectbench.data.synthetic.scenes import SCENES
from defectbench.errors import DataError, MissingWeightsError, TryAgainError
from defectbench.models.base import Model, ModelSettings, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training import textures


def model_settings(**weights: Path) -> ModelSettings:
    return ModelSettings({}, 32, 1, 0, 0, weights=weights)


def tar_of(folder: Path, names: tuple[str, ...], colour: tuple[int, int, int] = (10, 20, 30)) -> Path:
    (folder / "in").mkdir(parents=True)
    path = folder / "digest"
    with tarfile.open(path, "w") as archive:
        for name in names:
            Image.new("RGB", (40, 20), colour).save(folder / "in" / name, format="PNG")
            archive.add(folder / "in" / name, f"images/{name}")
    return path


def test_without_weights_pictures_are_photographs_that_no_synthetic_product_is_made_of() -> None:
    found = textures.pictures(model_settings())
    assert [path.name for path in found] == list(textures.PHOTOGRAPHS)
    assert all(path.is_file() for path in found)
    assert not {scene.photograph for scene in SCENES.values()} & set(textures.PHOTOGRAPHS)


def test_pictures_of_a_tar_are_unpacked_once_and_sorted(tmp_path: Path) -> None:
    tar = tar_of(tmp_path, ("b.png", "a.png", "readme.txt"))
    found = textures.pictures(model_settings(dtd=tar))
    assert [path.name for path in found] == ["a.png", "b.png"]
    tar.write_bytes(b"gone")
    assert textures.pictures(model_settings(other=Path("net"), dtd=tar), "dtd") == found


def test_a_file_that_holds_no_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none").write_bytes(b"no tar")
    with pytest.raises(DataError, match="dtd: none is no tar of pictures"):
        textures.pictures(model_settings(dtd=tmp_path / "none"))
    with pytest.raises(DataError, match="has no picture"):
        textures.pictures(model_settings(dtd=tar_of(tmp_path, ("readme.txt",))))
    with pytest.raises(MissingWeightsError, match="no pictures imagenette: got dtd"):
        textures.pictures(model_settings(dtd=tmp_path / "none"), "imagenette")


def test_a_texture_is_the_middle_of_a_picture(tmp_path: Path) -> None:
    found = textures.pictures(model_settings(dtd=tar_of(tmp_path, ("a.png",))))
    shown = textures.Textures(found, 16)
    assert len(shown) == 1
    assert shown[0].shape == (16, 16, 3)
    assert np.array_equal(shown[0][0, 0], [10, 20, 30])


@pytest.mark.torch
def test_a_fitted_model_is_loaded_without_the_textures_it_was_taught_by(tmp_path: Path) -> None:
    entry = catalog.find("draem")
    settings = {**entry.settings, "channels": 2, "batch_size": 2}
    goods = ArrayPictures(np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8))
    taught = build_model(entry, ModelSettings(settings, 64, 1, 0, 0, device="cpu"))
    taught.fit(TrainingData(goods, np.zeros(2, np.int64)), lambda progress: None)
    taught.save(tmp_path / "state")
    lacking = ModelSettings(settings, 64, 1, 0, 0, device="cpu", weights={"dtd": tmp_path / "gone"})
    loaded = build_model(entry, lacking)
    loaded.load(tmp_path / "state")
    assert [one.score for one in loaded.predict(goods)] == [one.score for one in taught.predict(goods)]
    with pytest.raises(TryAgainError, match="gone"):
        build_model(entry, lacking).fit(TrainingData(goods, np.zeros(2, np.int64)), lambda progress: None)


NET = "test_resnet.r160_in1k"
GOODS = ArrayPictures(np.random.default_rng(0).integers(0, 255, (2, 48, 48, 3), np.uint8))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a network that is as good as untaught."""
    import timm
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / NET
    save_file(timm.create_model(NET, pretrained=False).state_dict(), path)
    return path


def glass(weights: dict[str, Path]) -> Model:
    entry = catalog.find("glass")
    settings = {**entry.settings, "backbone": NET, "batch_size": 2, "learning_rate": 3e-3}
    return build_model(entry, ModelSettings(settings, 48, 1, 0, 0, device="cpu", weights=weights))


def taught(weights: dict[str, Path]) -> Model:
    model = glass(weights)
    model.fit(TrainingData(GOODS, np.zeros(2, np.int64)), lambda progress: None)
    return model


def scores(model: Model) -> list[float]:
    return [one.score for one in model.predict(GOODS)]


@pytest.mark.torch
def test_glass_pastes_the_textures_and_is_loaded_without_them(network: Path, tmp_path: Path) -> None:
    dark = taught({NET: network, "dtd": tar_of(tmp_path / "dark", ("a.png", "b.png"))})
    white = tar_of(tmp_path / "white", ("a.png", "b.png"), (250, 250, 250))
    assert scores(taught({NET: network, "dtd": white})) != scores(dark), "the textures moved nothing"
    dark.save(tmp_path / "state")
    for weights in ({NET: network}, {NET: network, "dtd": tmp_path / "gone"}):
        loaded = glass(weights)
        loaded.load(tmp_path / "state")
        assert scores(loaded) == scores(dark)


@pytest.mark.torch
def test_glass_is_not_taught_without_its_textures_or_its_backbone(network: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeightsError, match=f"no pictures dtd: got {NET}"):
        taught({NET: network})
    with pytest.raises(MissingWeightsError, match="weights of a network are needed beside the pictures dtd"):
        taught({"dtd": tmp_path / "digest"})


def test_pictures_that_were_damaged_on_this_machine_are_unpacked_again(tmp_path: Path) -> None:
    tar = tar_of(tmp_path, ("a.png", "b.png"))
    found = textures.pictures(model_settings(dtd=tar))
    whole = [path.read_bytes() for path in found]
    folder = tar.with_name(f"{tar.name}.pictures")
    for damage in (
        lambda: found[0].write_bytes(whole[0][:-9]),
        lambda: found[1].unlink(),
        lambda: (folder / ".index.json").write_text("[]"),
        lambda: (folder / ".index.json").unlink(),
        lambda: folder.rename(tmp_path / "away") and folder.write_text(""),
    ):
        damage()
        assert textures.pictures(model_settings(dtd=tar)) == found
        assert [path.read_bytes() for path in found] == whole
