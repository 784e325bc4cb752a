"""Ours against anomalib's own Engine: same pictures, same weights, same order, raw scores.

Each Lightning module is given a copy of our untaught network, because several would ask a hub for theirs; all
else is its own: training step, optimisers, schedules, what is in train mode. Its post-processor is left out,
because that scales the scores by the pictures they are of. docs/detectors.md says where ours differs on
purpose.

About 60 s, half of it anomalib's import.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from defectbench import catalog
from defectbench.models.base import Model, ModelSettings, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.detectors.anomalib_models import replaced
from defectbench.models.features import backbone
from defectbench.models.pictures.images import ArrayPictures
from defectbench.models.training import textures

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from anomalib.data import ImageBatch
    from anomalib.engine import Engine
    from anomalib.models.image.fastflow import lightning_model as fastflow
    from anomalib.models.image.glass import lightning_model as glass
    from anomalib.models.image.padim import lightning_model as padim
    from anomalib.models.image.patchcore import lightning_model as patchcore
    from anomalib.models.image.reverse_distillation import lightning_model as reverse_distillation
    from anomalib.models.image.stfpm import lightning_model as stfpm
    from anomalib.pre_processing import PreProcessor
    from lightning.pytorch import Callback
    from torchvision.transforms.v2 import Resize

pytestmark = [
    pytest.mark.torch,
    # Lightning counts workers, looks for checkpoints and finds the logger missing.
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

SIDE, PICTURES, BATCH, SEED = 64, 6, 3, 3
EPOCHS = 4
"""Of two steps each."""


def pictures(number: int, seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, size=(number, 8, 8, 3)).repeat(8, 1).repeat(8, 2)
    return np.clip(coarse + rng.normal(0, 10, coarse.shape), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Case:
    """A model of ours, and how anomalib makes and trains the same."""

    theirs: Any
    module: str
    network: str
    settings: dict[str, catalog.Setting] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Any], None] = lambda module: None
    epochs: int = EPOCHS


def as_published(module: Any) -> None:
    """Give anomalib's GLASS our textures; tell it to leave the backbone alone although it is random."""
    module.pre_trained = True
    module.model.augmentor.anomaly_source_paths = textures.pictures(ModelSettings({}, SIDE, 1, 0, SEED))


RESNET = {"backbone": "resnet18.tv_in1k"}
CASES = {
    "padim": Case(padim, "Padim", "PadimModel", {"features": 30}),
    "patchcore": Case(
        patchcore,
        "Patchcore",
        "PatchcoreModel",
        # All patches are kept: which ones a coreset takes depends on its first, random one.
        {**RESNET, "coreset": 1.0},
        {"coreset_sampling_ratio": 1.0},
    ),
    "reverse-distillation": Case(
        reverse_distillation,
        "ReverseDistillation",
        "ReverseDistillationModel",
        {**RESNET, "batch_size": BATCH},
    ),
    "stfpm": Case(
        stfpm,
        "Stfpm",
        "STFPMModel",
        # The paper's weight decay is a tenth of anomalib's.
        {"batch_size": BATCH, "weight_decay": 1e-3},
    ),
    "fastflow": Case(fastflow, "Fastflow", "FastflowModel", {**RESNET, "batch_size": BATCH, "flow_steps": 2}),
    "glass": Case(
        glass,
        "Glass",
        "GlassModel",
        # Its steps take longest of all.
        {"backbone": "test_resnet.r160_in1k", "batch_size": BATCH},
        prepare=as_published,
        epochs=2,
    ),
}


class Orders(torch.utils.data.Sampler[list[int]]):
    """Our loop's order of the pictures in each epoch, in batches."""

    def __init__(self, module: Any) -> None:
        rng = np.random.default_rng(SEED)
        self._orders = [rng.permutation(PICTURES) for _ in range(EPOCHS)]
        self._module = module

    def __len__(self) -> int:
        return PICTURES // BATCH

    def __iter__(self) -> Iterator[list[int]]:
        order = self._orders[self._module.current_epoch]
        return iter([part.tolist() for part in np.split(order, len(self))])


class Seeded(Callback):
    """Seeds torch where our loop does."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        torch.manual_seed(SEED)


def collated(images: list[Tensor]) -> ImageBatch:
    return ImageBatch(
        image=torch.stack(images),
        gt_label=torch.zeros(len(images), dtype=torch.bool),
        gt_mask=torch.zeros(len(images), SIDE, SIDE, dtype=torch.bool),
    )


def trained_by_anomalib(case: Case, network: Any, taught: Tensor, place: Path, epochs: int) -> Any:
    """Return the network as anomalib's Engine leaves it."""
    whole = {"post_processor": False, "evaluator": False, "visualizer": False}
    with replaced(case.theirs, case.network, lambda *_, **__: network):
        module = getattr(case.theirs, case.module)(
            pre_processor=PreProcessor(Resize((SIDE, SIDE))), **whole, **case.options
        )
    case.prepare(module)
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        list(taught),  # type: ignore[arg-type]
        batch_sampler=Orders(module),
        collate_fn=collated,
        generator=torch.Generator(),
    )
    engine = Engine(
        callbacks=[Seeded()],
        default_root_dir=place,
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        barebones=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    engine.fit(module, train_dataloaders=loader)
    return module.model.eval()


def network_of(model: Model) -> Any:
    return model.model() if hasattr(model, "model") else model._model()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", CASES)
def test_ours_scores_as_anomalib_does(name: str, tmp_path: Path) -> None:
    case, entry = CASES[name], catalog.find(name)
    model_settings = ModelSettings(
        {**entry.settings, **case.settings}, SIDE, case.epochs, 0, SEED, device="cpu"
    )
    ours, taught, shown = build_model(entry, model_settings), pictures(PICTURES, 1), pictures(4, 9)
    network = copy.deepcopy(network_of(ours)).train()
    before = copy.deepcopy(network.state_dict())
    ours.fit(TrainingData(ArrayPictures(taught), np.zeros(PICTURES, np.int64)), lambda progress: None)
    standard = backbone.create(str(model_settings.options["backbone"]), model_settings)
    with torch.random.fork_rng([]):
        theirs = trained_by_anomalib(
            case,
            network,
            backbone.normalised(taught, standard, "cpu"),
            tmp_path,
            case.epochs if entry.epochs else 1,
        )
    state = theirs.state_dict()
    if entry.epochs:
        assert any(not torch.equal(state[key], before[key]) for key in before), "the Engine trained nothing"
    with torch.no_grad():
        expected = theirs(backbone.normalised(shown, standard, "cpu"))
    scores = expected.pred_score.flatten().numpy()
    if name == "glass":  # ours gives the logit
        scores = np.log(scores / (1 - scores))
    found = list(ours.predict(ArrayPictures(shown)))
    np.testing.assert_allclose([one.score for one in found], scores, rtol=1e-4, atol=1e-4)
    for one, heat_map in zip(found, expected.anomaly_map.numpy(), strict=True):
        np.testing.assert_allclose(one.heat_map, heat_map.squeeze(), rtol=1e-3, atol=1e-4)
