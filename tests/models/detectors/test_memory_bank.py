from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from defectbench import catalog
from defectbench.errors import DataError, UsageError
from defectbench.models.base import Model, ModelSettings, TrainingData
from defectbench.models.detectors.anomalib_models import padim, patchcore
from defectbench.models.detectors.glass import Glass
from defectbench.models.detectors.memory_bank import Padim, Patchcore
from defectbench.models.features import backbone
from defectbench.models.pictures.images import ArrayPictures

pytestmark = pytest.mark.torch

SIDE = 64
BACKBONE = "test_resnet.r160_in1k"


def pictures(number: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, size=(number, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)


def model_settings(name: str, **settings: catalog.Setting) -> ModelSettings:
    entry = catalog.find(name)
    return ModelSettings(
        {**entry.settings, "backbone": BACKBONE, **settings}, SIDE, 2, 0, seed=3, device="cpu"
    )


M = TypeVar("M", bound=Model)


def fit(model: M, taught: NDArray[np.uint8]) -> M:
    training_data = TrainingData(ArrayPictures(taught), np.zeros(len(taught), np.int64))
    model.fit(training_data, lambda progress: None)
    return model


def compare(ours: Model, model: torch.nn.Module, network: torch.nn.Module) -> None:
    """Assert that scores and maps are those of anomalib's model, picture by picture."""
    shown = pictures(4, 9)
    with torch.no_grad():
        expected = model(backbone.normalised(shown, network, "cpu"))
    for index, prediction in enumerate(ours.predict(ArrayPictures(shown))):
        assert prediction.score == pytest.approx(float(expected.pred_score.flatten()[index]), rel=1e-4)
        theirs = expected.anomaly_map[index].squeeze().numpy()
        np.testing.assert_allclose(prediction.heat_map, theirs, rtol=1e-4, atol=1e-5)


def test_padim_agrees_with_anomalib() -> None:
    wanted = model_settings("padim", features=30)
    taught = pictures(8, 1)
    ours = fit(Padim(wanted), taught)
    network: Any = backbone.create(BACKBONE, wanted)
    theirs = padim.PadimModel(backbone=network, layers=["layer1", "layer2", "layer3"], n_features=30)
    theirs.idx = ours._model().idx
    theirs.train()
    theirs(backbone.normalised(taught, network, "cpu"))
    theirs.fit()
    compare(ours, theirs.eval(), network)


@pytest.mark.parametrize("neighbours", [1, 9])
def test_patchcore_agrees_with_anomalib(neighbours: int) -> None:
    wanted = model_settings("patchcore", coreset=1.0, neighbours=neighbours)
    taught = pictures(3, 1)
    ours = fit(Patchcore(wanted), taught)
    network: Any = backbone.create(BACKBONE, wanted)
    theirs = patchcore.PatchcoreModel(layers=["layer2", "layer3"], backbone=network, num_neighbors=neighbours)
    theirs.train()
    theirs(backbone.normalised(taught, network, "cpu"))
    theirs.memory_bank = torch.vstack(theirs.embedding_store)
    compare(ours, theirs.eval(), network)


def test_patchcore_keeps_its_share_of_the_patches() -> None:
    taught = pictures(5, 1)
    all_of_them = fit(Patchcore(model_settings("patchcore", coreset=1.0)), taught)._fitted()["memory_bank"]
    tenth = fit(Patchcore(model_settings("patchcore", coreset=0.1)), taught)._fitted()["memory_bank"]
    assert len(tenth) == len(all_of_them) // 10
    assert {tuple(row) for row in tenth.tolist()} <= {tuple(row) for row in all_of_them.tolist()}


@pytest.mark.parametrize("share", [0.0, 1.5, -1.0])
def test_patchcore_refuses_a_share_that_is_none(share: float) -> None:
    with pytest.raises(UsageError, match="coreset"):
        fit(Patchcore(model_settings("patchcore", coreset=share)), pictures(2, 1))


def test_padim_refuses_a_single_picture() -> None:
    with pytest.raises(DataError, match="covariance"):
        fit(Padim(model_settings("padim", features=30)), pictures(1, 1))


def test_glass_scores_in_the_order_of_anomalib() -> None:
    wanted = model_settings("glass", layers=("layer2", "layer3"), batch_size=4)
    model = fit(Glass(wanted), pictures(5, 1))
    shown = pictures(4, 9)
    network: Any = backbone.create(BACKBONE, wanted)
    with torch.no_grad():
        theirs = model.model()(backbone.normalised(shown, network, "cpu"))
    ours = list(model.predict(ArrayPictures(shown)))
    sigmoids = 1 / (1 + np.exp(-np.array([prediction.score for prediction in ours])))
    np.testing.assert_allclose(sigmoids, theirs.pred_score.numpy(), rtol=1e-4)
    for prediction, heat_map in zip(ours, theirs.anomaly_map.numpy(), strict=True):
        np.testing.assert_allclose(prediction.heat_map, heat_map, rtol=1e-3, atol=1e-5)


def test_glass_trains_all_but_its_backbone() -> None:
    wanted = model_settings("glass", batch_size=4)
    untaught = Glass(wanted).model().state_dict()
    taught = fit(Glass(wanted), pictures(5, 1)).model().state_dict()
    moved = {key.split(".")[0] for key in taught if not torch.equal(taught[key], untaught[key])}
    assert moved == {"discriminator", "projection"}
