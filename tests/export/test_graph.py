"""Exports that need torch: a timm classifier with its ONNX graph, a detector with its backbone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from defectbench.errors import ConfigurationError
from defectbench.execution.worker import Worker
from defectbench.export import folder, refit
from defectbench.export.bundle import CARD, ONNX, Bundle, read_bundle
from defectbench.export.scores import ExportedModel, PictureFile
from defectbench.models.base import ModelSettings
from defectbench.models.classifiers import onnx_graph
from defectbench.models.features import backbone
from defectbench.models.pictures.images import FilePictures
from defectbench.records.result import find_result
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.util.shutdown import Stop
from fakes import put_category

pytestmark = pytest.mark.torch

SIDE = 64
NETWORK = "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder with ``store`` and ``cache``, and model -> key of a finished cell of one tiny network each."""
    place = tmp_path_factory.mktemp("graph")
    store = DirectoryStore(place / "store")
    put_category(store, "parts", "bolt", 9, 6, 6, ("crack", "stain"), True)
    torch.manual_seed(5)
    save_file(timm.create_model(NETWORK, pretrained=False).state_dict(), place / "own.safetensors")
    document = {
        "name": "small",
        "data": {"dataset": "parts"},
        "models": [
            {"name": "mobilenetv3-small", "architecture": NETWORK, "epochs": 2, "batch_size": 4},
            {"name": "padim", "backbone": NETWORK, "features": 20, "layers": ["layer1", "layer2"]},
        ],
        "seeds": [0],
        "weights": str(place / "own.safetensors"),
        "image_size": SIDE,
        "threads": 1,
        "protocols": {"detection": {"folds": 3}},
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("small.yaml", {})), store)
    chosen = {cell.fit.model: key for key, cell in plan.cells.items()}
    plans.write_plan(plan, store, list(chosen.values()))
    worker = Worker(store, place / "cache", "cpu", None, Stop(), lambda event: None)
    assert worker.run(list(chosen.values())) == 0
    return place, chosen


def gathered(bench: tuple[Path, dict[str, str]], model: str) -> refit.FinishedCell:
    place, chosen = bench
    return refit.gather_cell(DirectoryStore(place / "store"), chosen[model], place / "cache")


def silent(what: str, done: int, total: int) -> None:
    """Hear nothing."""


Exported = tuple[refit.FinishedCell, Path, Bundle]


@pytest.fixture(scope="module")
def exports(bench: tuple[Path, dict[str, str]]) -> dict[str, Exported]:
    """Model -> its cell, its folder, and what stands in it."""
    found = {}
    for model in bench[1]:
        finished, out = gathered(bench, model), bench[0] / f"out-{model}"
        found[model] = (
            finished,
            out,
            folder.write_export(finished, folder.ExportRequest(out, 0.05, onnx=True), silent),
        )
    return found


@pytest.fixture(params=["mobilenetv3-small", "padim"])
def exported(request: pytest.FixtureRequest, exports: dict[str, Exported]) -> Exported:
    """Each model's export."""
    return exports[request.param]


def test_a_folder_alone_scores_the_cells_pictures_as_the_cell_did(
    exported: Exported,
) -> None:
    finished, out, bundle = exported
    pictures = [PictureFile(path, path.name) for path in finished.paths()]
    model = ExportedModel.open(out, "cpu")
    # One by one, as parts come down a line.
    found = [next(model.score([picture])).score for picture in pictures]
    assert found == finished.predictions.score.tolist()
    assert (bundle.proof.equal, bundle.proof.calls_changed) == (len(pictures), 0)
    assert read_bundle(out) == bundle
    assert model.drift() == 0


def test_the_folder_holds_what_its_model_needs_and_no_more(
    exported: Exported,
) -> None:
    _, out, bundle = exported
    more = {"mobilenetv3-small": ONNX, "padim": f"weights/{NETWORK}"}[bundle.model]
    assert bundle.files.keys() == {"state.safetensors", more}
    card = (out / CARD).read_text()
    assert "not in the catalog: ask who made the file" in card
    steps = bundle.preprocessing
    assert (steps["mean"], steps["deviation"]) == tuple(backbone.standardisation(NETWORK).values())
    assert "mean (0.5, 0.5, 0.5), deviation (0.5, 0.5, 0.5)" in card
    assert ("opset 18" in card) == (ONNX in bundle.files)


def test_the_standardisation_is_the_networks_own() -> None:
    network = backbone.create("mobilenetv3_small_050", ModelSettings({}, SIDE, 0, 0, seed=0, device="cpu"))
    config, stated = (
        cast(Any, network).pretrained_cfg,
        backbone.standardisation("mobilenetv3_small_050.lamb_in1k"),
    )
    assert (stated["mean"], stated["deviation"]) == (list(config["mean"]), list(config["std"]))
    assert stated["mean"] == [0.485, 0.456, 0.406]


def test_the_graph_gives_the_cells_log_odds(exports: dict[str, Exported]) -> None:
    finished, out, bundle = exports["mobilenetv3-small"]
    wanted = finished.predictions.score
    found = onnx_graph.log_odds(out / ONNX, FilePictures(finished.paths(), SIDE), 1)
    apart = np.abs(found - wanted)
    assert np.ptp(wanted) > 0
    assert apart.max() <= 1e-4
    assert (bundle.proof.onnx_images, bundle.proof.onnx_largest_difference) == (len(found), apart.max())
    with pytest.raises(ConfigurationError, match=r"differ from torch's by up to 0\.5"):
        onnx_graph.check_graph(found + 0.5, found)


def test_a_missing_extra_is_named_before_anything_is_fitted(
    bench: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, told = gathered(bench, "mobilenetv3-small"), []
    there = importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else there(name)
        )
        with pytest.raises(ConfigurationError, match="onnxruntime is not installed: uv sync --extra export"):
            folder.write_export(
                finished,
                folder.ExportRequest(tmp_path / "model", 0.05, onnx=True),
                lambda *step: told.append(step),
            )
        assert not told
        bundle = folder.write_export(
            finished, folder.ExportRequest(tmp_path / "model", 0.05, onnx=False), silent
        )
    assert ONNX not in bundle.files
    assert find_result(DirectoryStore(bench[0] / "store"), bundle.cell) is not None


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU that the test must miss")
def test_a_device_that_is_not_there_is_named(bench: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    finished = gathered(bench, "padim")
    object.__setattr__(finished.result, "device", "cuda")
    with pytest.raises(ConfigurationError, match="was fitted on cuda, and so must its export be"):
        folder.write_export(finished, folder.ExportRequest(tmp_path / "model", 0.05, onnx=True), silent)
    assert not list(tmp_path.iterdir())
