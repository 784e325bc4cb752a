from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from defectbench import catalog
from defectbench.errors import ConfigurationError, DataError, MissingWeightsError, UsageError
from defectbench.metrics.image import image_auroc
from defectbench.models.base import ModelSettings, Progress, TrainingData
from defectbench.models.classifiers.timm_classifier import TimmClassifier, _ClassifierTraining
from defectbench.models.features import backbone, device
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training.augment import augmented

pytestmark = pytest.mark.torch

SIDE = 64
TINY = "test_efficientnet.r160_in1k"


def model_settings(
    weights: dict[str, Path] | None = None,
    *,
    epochs: int = 6,
    patience: int = 8,
    balance: str = "weights",
    rotate_and_flip: bool = False,
    **settings: catalog.Setting,
) -> ModelSettings:
    chosen = {**catalog.find("mobilenetv3-small").settings, "architecture": TINY, "batch_size": 8, **settings}
    return ModelSettings(
        chosen,
        SIDE,
        epochs,
        patience,
        0,
        weights or {},
        device="cpu",
        balance=balance,
        rotate_and_flip=rotate_and_flip,
    )


def marked(number: int, seed: int, defect: bool) -> np.ndarray:
    """Noise; a defect is a dark square in the upper left quarter."""
    found = np.random.default_rng(seed).integers(90, 166, size=(number, SIDE, SIDE, 3)).astype(np.uint8)
    if defect:
        found[:, 8:24, 8:24] = 0
    return found


def training_data(*, goods: int = 20, defects: int = 6, tuning: bool = True) -> TrainingData:
    pictures = ArrayPictures(np.concatenate([marked(goods, 1, False), marked(defects, 2, True)]))
    labels = np.array([0] * goods + [1] * defects)
    if not tuning:
        return TrainingData(pictures, labels)
    other = ArrayPictures(np.concatenate([marked(6, 3, False), marked(6, 4, True)]))
    return TrainingData(pictures, labels, other, np.array([0] * 6 + [1] * 6))


def taught(wanted: ModelSettings, what: TrainingData) -> tuple[TimmClassifier, list[Progress]]:
    told: list[Progress] = []
    model = TimmClassifier(wanted)
    model.fit(what, told.append)
    return model, told


@pytest.mark.parametrize(
    "settings",
    [{"learning_rate": 3e-3}, {"learning_rate": 0.1, "freeze": True}],
    ids=["fine-tuned", "frozen"],
)
@pytest.mark.parametrize("balance", ["weights", "oversample", "none"])
def test_classifier_learns_a_plain_defect(settings: dict[str, Any], balance: str) -> None:
    wanted = model_settings(epochs=12, balance=balance, **settings)
    model, _ = taught(wanted, training_data())
    shown = np.concatenate([marked(8, 5, False), marked(8, 6, True)])
    found = list(model.predict(ArrayPictures(shown)))
    assert image_auroc([0] * 8 + [1] * 8, [prediction.score for prediction in found]) > 0.9


@pytest.mark.parametrize("settings", [{}, {"learning_rate": 0.1, "freeze": True}], ids=["whole", "frozen"])
def test_scores_alone_are_those_beside_the_maps(settings: dict[str, Any]) -> None:
    model, _ = taught(model_settings(epochs=1, **settings), training_data())
    pictures = ArrayPictures(np.concatenate([marked(9, 5, False), marked(3, 6, True)]))
    found = list(model.predict(pictures))
    assert [prediction.score for prediction in found] == list(model.scores(pictures))
    assert all(prediction.heat_map.size for prediction in found)


def test_a_frozen_network_scores_from_features_that_are_computed_once() -> None:
    model, _ = taught(model_settings(epochs=1, learning_rate=0.1, freeze=True), training_data())
    pictures = ArrayPictures(marked(6, 5, False))
    computed: list[int] = []
    network: Any = model.network()
    network.conv_stem.register_forward_hook(lambda _m, inputs, _o: computed.append(len(inputs[0])))
    list(model.scores(pictures))
    assert computed == [6]


def test_classifier_meets_the_imbalance_as_told() -> None:
    """20 goods and 6 defects: counted more, shown more often, or left as they are."""
    goods = ArrayPictures(marked(8, 5, False))
    scores = {}
    for balance in ("weights", "oversample", "none"):
        model, _ = taught(
            model_settings(epochs=1, balance=balance, learning_rate=3e-3), training_data(tuning=False)
        )
        scores[balance] = np.array([prediction.score for prediction in model.predict(goods)])
        again, _ = taught(
            model_settings(epochs=1, balance=balance, learning_rate=3e-3), training_data(tuning=False)
        )
        assert [prediction.score for prediction in again.predict(goods)] == scores[balance].tolist()
    assert not np.allclose(scores["weights"], scores["none"])
    assert not np.allclose(scores["oversample"], scores["weights"])
    assert scores["none"].mean() < scores["weights"].mean(), "the rare class weighs less"


def test_classifier_keeps_the_best_epoch_and_stops_early() -> None:
    model, told = taught(model_settings(epochs=40, patience=2, learning_rate=3e-3), training_data())
    curve = [progress.figures["tuning_auroc"] for progress in told if progress.figures]
    assert len(curve) < 40
    assert len(curve) == 1 + int(np.argmax(curve)) + 2
    tuning = training_data().tuning
    assert tuning is not None
    scores = [prediction.score for prediction in model.predict(tuning)]
    assert image_auroc([0] * 6 + [1] * 6, scores) == max(curve)


def test_classifier_runs_all_epochs_without_tuning_pictures() -> None:
    _, told = taught(model_settings(epochs=3, patience=1), training_data(tuning=False))
    assert [progress.done for progress in told if progress.figures] == [1, 2, 3]


def test_classifier_refuses_tuning_pictures_of_one_class() -> None:
    what = training_data()
    tuning = ArrayPictures(marked(3, 3, False))
    with pytest.raises(DataError, match="3 good, 0 abnormal"):
        taught(model_settings(), TrainingData(what.pictures, what.labels, tuning, np.zeros(3, np.int64)))


@pytest.mark.parametrize("goods", [7, 11])
def test_classifier_never_steps_on_a_single_picture(goods: int) -> None:
    what = training_data(goods=goods, defects=2, tuning=False)
    training = _ClassifierTraining(
        cast(Any, _Material()), what, model_settings(batch_size=4), lambda progress: None
    )
    sizes = [len(batch) for batch in training._batches(np.random.default_rng(0))]
    assert min(sizes) >= 2
    assert sum(sizes) == goods + 2


class _Material:
    module: torch.nn.Module = torch.nn.Linear(2, 1)


def test_classifier_refuses_batches_of_one() -> None:
    with pytest.raises(UsageError, match="batch_size"):
        taught(model_settings(batch_size=1), training_data())


def test_classifier_logits_are_finer_than_probabilities() -> None:
    model, _ = taught(model_settings(epochs=20, learning_rate=1e-2), training_data(tuning=False))
    scores = [i.score for i in model.predict(ArrayPictures(marked(10, 8, True)))]
    assert len(set(scores)) == 10


def test_augmentation_turns_only_where_it_may() -> None:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:, : SIDE // 2] = 200
    rng = np.random.default_rng(0)
    for _ in range(20):
        values = augmented(picture, rng, rotate_and_flip=False)
        assert values.shape == (SIDE, SIDE, 3)
        assert values[:, :16].mean() > values[:, -16:].mean() + 0.5
    sides = {augmented(picture, rng, rotate_and_flip=True)[:, :16].mean() > 0.5 for _ in range(20)}
    assert sides == {True, False}


def test_weights_are_loaded_by_key_with_a_new_head(tmp_path: Path) -> None:
    source = timm.create_model(TINY, pretrained=False)
    torch.save(source.state_dict(), tmp_path / "torch.pth")
    save_file(source.state_dict(), tmp_path / "file.safetensors")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "wrapped.pth")
    for path in sorted(tmp_path.iterdir()):
        model = backbone.create(TINY, model_settings({"w": path}), outputs=1)
        assert torch.equal(model.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"])
        assert cast(Any, model).get_classifier().weight.shape[0] == 1


def test_weights_of_another_network_are_refused_by_key(tmp_path: Path) -> None:
    other = timm.create_model("test_resnet", pretrained=False)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=r"lacks .* such as .*\n.*foreign .* such as"):
        backbone.create(TINY, model_settings({"w": tmp_path / "other.safetensors"}), outputs=1)
    wider = {key: value[..., None] for key, value in timm.create_model(TINY).state_dict().items()}
    save_file(wider, tmp_path / "wider.safetensors")
    with pytest.raises(DataError, match="other shapes"):
        backbone.create(TINY, model_settings({"w": tmp_path / "wider.safetensors"}), outputs=1)


def test_weights_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("text", "list.pth"):
        with pytest.raises(DataError, match=name):
            backbone.create(TINY, model_settings({"w": tmp_path / name}), outputs=1)
    with pytest.raises(MissingWeightsError, match="not there"):
        backbone.create(TINY, model_settings({"w": tmp_path / "none"}), outputs=1)


def test_backbone_refuses_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="unknown timm network 'resnet5O'"):
        backbone.create("resnet5O", model_settings())


def test_device_is_refused_where_it_is_not() -> None:
    assert device.resolve("cpu") == "cpu"
    with pytest.raises(ConfigurationError, match="allowed: auto, cpu, cuda, mps"):
        device.resolve("gpu")
    for name, present in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if not present:
            with pytest.raises(ConfigurationError, match="not there"):
                device.resolve(name)


def test_repeatable_puts_everything_back() -> None:
    before = torch.random.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    with device.repeatable(1, "cpu"):
        first = torch.rand(3)
        assert torch.are_deterministic_algorithms_enabled()
    with device.repeatable(1, "cpu"):
        assert torch.equal(first, torch.rand(3))
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert torch.are_deterministic_algorithms_enabled() == before[1]
