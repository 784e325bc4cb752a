"""A fit that goes on from any step ends as one that nobody disturbed, bit for bit.

About 60 s, half of it imports and GLASS's noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import small_models
from defectbench import catalog
from defectbench.errors import CheckpointError
from defectbench.models.base import ModelSettings, Progress, Resumable, TrainingData
from defectbench.models.choose import build_model, load_class
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training import checkpoint

pytestmark = pytest.mark.torch

SIDE = 48


def pictures(number: int, seed: int, defect: bool = False, side: int = SIDE) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    blocks = np.arange(side) * 6 // side
    values = rng.integers(60, 196, size=(number, 6, 6, 3))[:, blocks][:, :, blocks] + rng.normal(
        0, 10, (number, side, side, 3)
    )
    if defect:
        values[:, side // 3 : side // 2, side // 3 : side // 2] += rng.choice([-40, 40], (number, 1, 1, 1))
    return np.clip(values, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """A model, made small, how long its fit is, and how many goods and defects it learns from.

    One of a kind is tried thoroughly; what shares its loop, at the places where they differ.
    """

    model: str
    settings: Mapping[str, catalog.Setting]
    epochs: int
    patience: int = 0
    tuned: bool = True
    balance: str = "weights"
    side: int = SIDE
    learns: tuple[int, int] = (14, 5)
    thoroughly: bool = True

    def make(self) -> Resumable:
        entry = catalog.find(self.model)
        settings = {**entry.settings, **self.settings}
        model_settings = ModelSettings(
            settings,
            self.side,
            self.epochs,
            self.patience,
            3,
            device="cpu",
            balance=self.balance,
            rotate_and_flip=True,
        )
        model = build_model(entry, model_settings)
        assert isinstance(model, Resumable)
        return model

    def training_data(self) -> TrainingData:
        goods, defects = self.learns
        shown = self.pictures((goods, 1), (defects, 2))
        labels = np.repeat([0, 1], self.learns)
        masks: dict[int, NDArray[np.bool_]] = {}
        if catalog.find(self.model).family == "supervised":
            mask = np.zeros((self.side, self.side), np.bool_)
            mask[self.side // 3 : self.side // 2, self.side // 3 : self.side // 2] = True
            masks = {goods + place: mask for place in range(defects)}
        if not self.tuned:
            return TrainingData(shown, labels, masks=masks)
        return TrainingData(shown, labels, self.pictures((3, 3), (3, 4)), np.repeat([0, 1], 3), masks=masks)

    def pictures(self, goods: tuple[int, int], defects: tuple[int, int]) -> ArrayPictures:
        """So many goods and defects, each drawn from a seed."""
        return ArrayPictures(
            np.concatenate([pictures(*goods, side=self.side), pictures(*defects, True, self.side)])
        )


SMALL = {"batch_size": 4, "learning_rate": 3e-3}
CASES = {
    "resnet": Case("resnet50", {"architecture": "test_resnet.r160_in1k", **SMALL}, 3),
    "mobilenet": Case(
        "mobilenetv3-small",
        {"architecture": "mobilenetv3_small_050.lamb_in1k", **SMALL},
        3,
        balance="oversample",
    ),
    "untuned": Case("resnet50", {"architecture": "test_resnet.r160_in1k", **SMALL}, 3, tuned=False),
    "patient": Case("resnet50", {"architecture": "test_resnet.r160_in1k", **SMALL}, 8, patience=2),
    "frozen": Case(
        "resnet50",
        {"architecture": "test_resnet.r160_in1k", **SMALL, "learning_rate": 0.1, "freeze": True},
        4,
    ),
    "tinyvit": Case("tinyvit-21m-512", {"architecture": "tiny_vit_5m_224.dist_in22k_ft_in1k", **SMALL}, 2),
    "glass": Case(
        "glass",
        {"backbone": "test_resnet.r160_in1k", "batch_size": 2, "learning_rate": 3e-3},
        3,
        learns=(4, 0),
    ),
}


def detector_case(entry: catalog.Entry) -> Case:
    """A short fit of a trained detector: three epochs of two steps, rates that fall between them."""
    settings = dict(small_models.DETECTORS[entry.name])
    batch = settings.get("batch_size", entry.settings.get("batch_size", 1))
    assert isinstance(batch, int)
    if "batch_size" in entry.settings:
        settings["batch_size"] = min(batch, 2)
    if "steps" in entry.settings:
        settings["steps"] = 1000
    defects = 2 if entry.family == "supervised" else 0
    return Case(
        entry.name, settings, 3, side=small_models.side(entry, SIDE), learns=(4, defects), thoroughly=False
    )


CASES |= {
    entry.name: detector_case(entry)
    for entry in catalog.ENTRIES
    if entry.resumes and entry.family != "classifier" and entry.name not in CASES
}


THOROUGH = [name for name, case in CASES.items() if case.thoroughly]


@dataclass(frozen=True)
class Run:
    """What a fit gave, and what it told."""

    told: list[Progress]
    scores: list[float]
    state: Mapping[str, torch.Tensor]

    @property
    def figures(self) -> list[Progress]:
        return [progress for progress in self.told if progress.figures]


def nowhere(path: Path) -> None:
    """Stands for what could be saved."""


def listener(told: list[Progress]) -> Callable[[Progress], None]:
    """What keeps a fit's words, and not the network and its optimiser, which each of them could save."""
    return lambda progress: told.append(replace(progress, save=progress.save and nowhere))


def ran(case: Case, told: list[Progress], fit: Callable[[Resumable], None], place: Path) -> Run:
    model = case.make()
    fit(model)
    scores = [prediction.score for prediction in model.predict(case.pictures((2, 5), (2, 6)))]
    model.save(place / "model")
    return Run(told, scores, load_file(place / "model"))


@pytest.fixture(scope="module", params=CASES)
def undisturbed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Run]:
    case = CASES[request.param]
    told: list[Progress] = []
    place = tmp_path_factory.mktemp("model")
    return case, ran(case, told, lambda model: model.fit(case.training_data(), listener(told)), place)


def same(one: Run, other: Run) -> bool:
    """Whether two fits ended alike, bit for bit."""
    return one.scores == other.scores and all(
        torch.equal(value, other.state[key]) for key, value in one.state.items()
    )


def saved_at(case: Case, places: list[int], folder: Path) -> list[Progress]:
    """Fit, saving at some of the steps; return what was told."""
    told: list[Progress] = []

    def report(progress: Progress) -> None:
        if len(told) in places and progress.save is not None:
            progress.save(folder / str(len(told)))
        listener(told)(progress)

    case.make().fit(case.training_data(), report)
    return told


def choose(case: Case, told: list[Progress]) -> list[int]:
    """Steps to save at: in the first epoch, all over the second, at their ends, and at the end of all."""
    ends = [place for place, progress in enumerate(told) if progress.figures]
    begun = next(place for place, progress in enumerate(told) if progress.save is not None)
    second = range(ends[0] + 1, ends[1] + 1)
    inside = {second[len(second) * part // 5] for part in range(5)}
    if not case.thoroughly:  # before the first step, at one, and among the tuning pictures
        return sorted({begun, second[1], second[-2]})
    return sorted({begun, ends[0] // 2, *inside, ends[0], ends[1], ends[-1]})


def test_a_fit_goes_on_from_any_step(undisturbed: tuple[Case, Run], tmp_path: Path) -> None:
    case, whole = undisturbed
    places = choose(case, whole.told)
    assert saved_at(case, places, tmp_path) == whole.told, "saving moved the fit"
    found = sorted(int(path.name) for path in tmp_path.iterdir())
    assert len(found) >= (6 if case.thoroughly else 3)
    for place in found:
        told: list[Progress] = []

        def go_on(model: Resumable, place: int = place, told: list[Progress] = told) -> None:
            model.resume(case.training_data(), listener(told), tmp_path / str(place))

        resumed = ran(case, told, go_on, tmp_path)
        assert same(resumed, whole), f"step {place} of {len(whole.told)}"
        past = sum(bool(progress.figures) for progress in whole.told[: place + 1])
        assert resumed.figures == whole.figures[past:]


class StopError(Exception):
    """Ends a fit."""


@pytest.mark.parametrize("undisturbed", THOROUGH, indirect=True)
def test_a_fit_may_be_stopped_again_and_again(undisturbed: tuple[Case, Run], tmp_path: Path) -> None:
    case, whole = undisturbed
    figures: list[Progress] = []
    left = 0

    def report(progress: Progress) -> None:
        nonlocal left
        if progress.figures:
            listener(figures)(progress)
        left -= progress.save is not None
        if left == 0 and progress.save is not None:
            progress.save(tmp_path / "saved")
            raise StopError

    def go_on(model: Resumable) -> None:
        if (tmp_path / "saved").exists():
            model.resume(case.training_data(), report, tmp_path / "saved")
        else:
            model.fit(case.training_data(), report)

    for steps in (3, 4, 6):
        left = steps
        with pytest.raises(StopError):
            go_on(case.make())
    resumed = ran(case, [], go_on, tmp_path)
    assert same(resumed, whole)
    assert figures == whole.figures


@pytest.mark.parametrize("undisturbed", THOROUGH, indirect=True)
def test_an_unreadable_checkpoint_is_refused_and_the_fit_may_begin_anew(
    undisturbed: tuple[Case, Run], tmp_path: Path
) -> None:
    case, whole = undisturbed
    step = next(place for place, progress in enumerate(whole.told) if progress.save is not None)
    saved_at(case, [step], tmp_path)
    good = (tmp_path / str(step)).read_bytes()
    torch.save({"module": {}}, tmp_path / "other")
    torch.save(Exploit(tmp_path / "pwned"), tmp_path / "exploit")
    (tmp_path / "short").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty").touch()
    for name in ("other", "exploit", "short", "empty", "none"):
        model = case.make()
        with pytest.raises(CheckpointError):
            model.resume(case.training_data(), lambda progress: None, tmp_path / name)
    assert not (tmp_path / "pwned").exists()
    told: list[Progress] = []

    def again(model: Resumable) -> None:
        with pytest.raises(CheckpointError):
            model.resume(case.training_data(), lambda progress: None, tmp_path / "short")
        model.fit(case.training_data(), listener(told))

    assert same(ran(case, told, again, tmp_path), whole)
    assert told == whole.told


class Exploit:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_generators_go_on_where_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    torch.manual_seed(1)
    rng.random(3), torch.rand(3)
    checkpoint.write_checkpoint(tmp_path / "state", checkpoint.generators(rng, "cpu"))
    expected = rng.random(3).tolist(), torch.rand(3).tolist()
    with checkpoint.restoring(tmp_path / "state") as state:
        checkpoint.restore_generators(state, rng, "cpu")
    assert (rng.random(3).tolist(), torch.rand(3).tolist()) == expected


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_the_catalog_says_which_models_resume(entry: catalog.Entry) -> None:
    assert issubclass(load_class(entry), Resumable) == entry.resumes
    tried = {catalog.find(case.model).builder for case in CASES.values()}
    assert not entry.resumes or entry.builder in tried
