"""A device that is too small: the step is taken again with less at once, and ends as one that fits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import small_models
from defectbench import catalog
from defectbench.errors import TryAgainError
from defectbench.models.base import ModelSettings, Progress, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.classifiers import timm_classifier
from defectbench.models.classifiers.timm_classifier import TimmClassifier
from defectbench.models.detectors import stfpm
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training import gradient_detector, micro_batches
from defectbench.models.training.micro_batches import MicroBatcher

pytestmark = pytest.mark.torch

SIDE, BATCH = 32, 8
BATCH_NORM, LAYER_NORM = "test_efficientnet.r160_in1k", "test_convnext.r160_in1k"
State = dict[str, torch.Tensor]


def training_data() -> TrainingData:
    rng = np.random.default_rng(1)
    shown = rng.integers(0, 256, (19, SIDE, SIDE, 3), np.uint8)
    tuning = ArrayPictures(rng.integers(0, 256, (4, SIDE, SIDE, 3), np.uint8))
    return TrainingData(ArrayPictures(shown), np.arange(19) % 2, tuning, np.array([0, 1, 0, 1]))


def fitted(network: str, place: Path) -> tuple[State, list[Progress]]:
    """Two epochs of batches of 8, 8 and 3."""
    settings = {**catalog.find("resnet50").settings, "architecture": network, "batch_size": BATCH}
    model = TimmClassifier(ModelSettings(settings, SIDE, 2, 0, 0, device="cpu"))
    told: list[Progress] = []
    model.fit(training_data(), told.append)
    model.save(place / "model")
    return load_file(place / "model"), told


def same(one: State, other: State) -> bool:
    return all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bool], list[int]]:
    """Make a device on which more than so many pictures do not fit, unless activations are not kept."""

    def make(limit: int, saving_helps: bool) -> list[int]:
        tried: list[int] = []
        forward = timm_classifier._WholeNetwork.logits

        def logits(
            self: timm_classifier._WholeNetwork, chosen: np.ndarray, rng: np.random.Generator
        ) -> torch.Tensor:
            found = forward(self, chosen, rng)  # draws, and moves the averages of batch normalisation
            tried.append(len(chosen))
            saves = any(getattr(part, "grad_checkpointing", False) for part in self.module.modules())
            if len(chosen) > limit and not (saving_helps and saves):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore words.")
            return found

        monkeypatch.setattr(timm_classifier._WholeNetwork, "logits", logits)
        return tried

    return make


def begun_with(pictures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fits begin with fewer pictures at once, and with what is tried before them."""

    class Begun(MicroBatcher):
        def __init__(
            self, module: torch.nn.Module, batch: int, rng: np.random.Generator, *, adds_up: bool = False
        ) -> None:
            super().__init__(module, batch, rng, adds_up=adds_up)
            self.restore({"pictures": pictures, "saving": True})

    for module in (timm_classifier, gradient_detector):
        monkeypatch.setattr(module, "MicroBatcher", Begun)


@pytest.mark.parametrize("network", [BATCH_NORM, LAYER_NORM])
def test_fit_that_ran_out_of_memory_is_one_in_parts(
    network: str, small: Callable[[int, bool], list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried = small(3, False)
    state, told = fitted(network, tmp_path)
    assert tried[:4] == [8, 8, 4, 2], "whole, without kept activations, in two parts, in four"
    assert max(tried[4:]) == 3
    figures = [progress.figures for progress in told if progress.figures]
    assert [of["pictures_at_once"] for of in figures] == [2, 2]
    begun_with(2, monkeypatch)
    parts, others = fitted(network, tmp_path)
    assert same(state, parts)
    assert told == others


def test_fit_without_kept_activations_is_the_same(
    small: Callable[[int, bool], list[int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, undisturbed = fitted(BATCH_NORM, tmp_path)
    tried = small(3, True)
    state, told = fitted(BATCH_NORM, tmp_path)
    assert tried[:3] == [8, 8, 8]
    assert same(state, whole)
    assert told == undisturbed
    assert all("pictures_at_once" not in progress.figures for progress in told)


def test_gradients_in_parts_are_the_batch_s_where_nothing_is_normalised_over_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, whole = fitted(LAYER_NORM, tmp_path)
    begun_with(3, monkeypatch)
    _, parts = fitted(LAYER_NORM, tmp_path)
    losses = [
        [progress.figures["train_loss"] for progress in told if progress.figures] for told in (whole, parts)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def taught(place: Path) -> tuple[State, list[Progress]]:
    """Two epochs of a detector that is trained step by step, in batches of 4 and 2."""
    entry = catalog.find("stfpm")
    settings = {**entry.settings, **small_models.changes(entry)}
    model = build_model(entry, ModelSettings(settings, 64, 2, 0, 0, device="cpu"))
    told: list[Progress] = []
    shown = np.random.default_rng(1).integers(0, 256, (6, 64, 64, 3), np.uint8)
    model.fit(TrainingData(ArrayPictures(shown), np.zeros(6, np.int64)), told.append)
    model.save(place / "model")
    return load_file(place / "model"), told


def test_detector_that_ran_out_of_memory_is_one_in_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, undisturbed = taught(tmp_path)
    tried: list[int] = []
    loss = stfpm.Stfpm.loss

    def small(self: stfpm.Stfpm, model: object, batch: gradient_detector.Batch) -> torch.Tensor:
        found = loss(self, model, batch)
        tried.append(len(batch.images))
        if len(batch.images) > 3:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
        return found

    monkeypatch.setattr(stfpm.Stfpm, "loss", small)
    state, told = taught(tmp_path)
    assert tried[:4] == [4, 2, 2, 2]
    assert [progress.figures["pictures_at_once"] for progress in told if progress.figures] == [2, 2]
    begun_with(2, monkeypatch)
    parts, others = taught(tmp_path)
    assert same(state, parts)
    assert told == others
    assert not same(state, whole)
    assert all("pictures_at_once" not in progress.figures for progress in undisturbed)


def gradients(detector: gradient_detector.GradientDetector, at_once: int) -> tuple[float, State]:
    """Loss and gradients of a batch of 5, so many pictures at once; no network normalises over the batch."""
    torch.manual_seed(1)
    model = detector.model().train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    shown = np.random.default_rng(1).integers(0, 256, (5, 64, 64, 3), np.uint8)

    def loss(part: np.ndarray) -> torch.Tensor:
        images = detector.prepared(shown[part])
        return detector.loss(
            model, gradient_detector.Batch(images, torch.zeros(len(part)), images[:, 0] * 0, 0)
        )

    one = MicroBatcher(model, 5, np.random.default_rng(0), adds_up=detector.adds_up)
    one.pictures = at_once
    found = one.gradients(np.arange(5), loss)
    return found, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["stfpm", "reverse-distillation", "fastflow", "cfa", "draem", "uninet"])
def test_gradients_in_parts_are_the_batch_s_for_detectors_whose_loss_is_by_picture(name: str) -> None:
    entry = catalog.find(name)
    detector = build_model(
        entry, ModelSettings({**entry.settings, **small_models.changes(entry)}, 64, 2, 0, 0, device="cpu")
    )
    assert isinstance(detector, gradient_detector.GradientDetector)
    if name == "cfa":
        detector.before_training(detector.model(), iter([torch.zeros(1, 3, 64, 64)]))
    if name == "draem":
        assert detector._faults is not None  # type: ignore[attr-defined]  # draws once
    loss, whole = gradients(detector, 5)
    in_parts, parts = gradients(detector, 3)
    assert in_parts == pytest.approx(loss, rel=1e-4)
    assert parts.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-3, atol=float(value.abs().max()) * 1e-3 + 1e-8)


def test_device_that_has_no_room_for_two_says_what_to_do(
    small: Callable[[int, bool], list[int]], tmp_path: Path
) -> None:
    tried = small(1, False)
    with pytest.raises(TryAgainError, match=r"2 pictures at once .*2.00 GiB.\): use a smaller image_size"):
        fitted(BATCH_NORM, tmp_path)
    assert tried == [8, 8, 4, 2]


def test_another_error_is_not_taken_for_want_of_memory() -> None:
    tried: list[int] = []

    def loss(part: np.ndarray) -> torch.Tensor:
        tried.append(len(part))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        MicroBatcher(torch.nn.Linear(1, 1), 8, np.random.default_rng(0)).gradients(np.arange(8), loss)
    assert tried == [8]


def test_parts_hold_no_single_picture_and_no_more_than_fit() -> None:
    module = torch.nn.Linear(1, 1)
    for pictures in (2, 3, 4, 8):
        for number in range(2, 18):
            one = MicroBatcher(module, 16, np.random.default_rng(0))
            one.pictures = pictures
            parts = one.parts(np.arange(number))
            assert np.array_equal(np.concatenate(parts), np.arange(number))
            assert min(map(len, parts)) >= 2
            assert max(map(len, parts)) <= max(pictures, 3)
    whole = MicroBatcher(module, 16, np.random.default_rng(0))
    assert [len(part) for part in whole.parts(np.arange(17))] == [17]


def test_network_that_cannot_checkpoint_says_so() -> None:
    assert not micro_batches.set_checkpointing(torch.nn.Linear(1, 1))
