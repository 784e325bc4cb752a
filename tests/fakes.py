"""Made-up sweeps: real manifests, splits, plans and files, with predictions from a random generator.

So what reads a sweep's results (collect, report, trackers, status) can be tested without any training.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from defectbench.data.manifest import GOOD, Image, Manifest, make_manifest
from defectbench.errors import ExitCode
from defectbench.metrics.image import quantile_threshold, threshold_free
from defectbench.records.cell import Cell
from defectbench.records.predictions import HistoryPoint, PredictionRow, Predictions, Role, history_to_parquet
from defectbench.records.result import Failure, Result
from defectbench.records.sweep_record import Record
from defectbench.stores.base import Store
from defectbench.stores.layout import archive_key, cell_key, manifest_key
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.plan import Plan
from defectbench.util.documents import read_document, write_document
from defectbench.util.image_io import mask_png

MODELS = ("filterbank-logreg", "mobilenetv3-small", "filterbank-knn", "padim")
DEFECT_TYPES = ("crack", "scratch", "stain")
Planted = Callable[[Cell, Image], float]
SIDE = 32
"""Pixels of a made-up picture."""

MAP_SIDE = 16
VERSIONS = {"defectbench": "0.1.0", "numpy": np.__version__, "python": "3.11"}


def rewrite(store: Store, key: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a stored document and seal it again, as if it had been written so."""
    document = read_document(store.get(key).data, key)
    change(document)
    store.put(key, write_document(document))


def made_up_sweep(
    store: Store,
    *,
    name: str = "madeup",
    dataset: str = "parts",
    categories: Sequence[str] = ("grass", "brick"),
    models: Sequence[str | Mapping[str, Any]] = MODELS,
    folds: int = 3,
    seeds: Sequence[int] = (0,),
    skill: Mapping[str, float] | None = None,
    training_goods: int = 25,
    goods: int = 12,
    defects: int = 12,
    defect_types: Sequence[str] = DEFECT_TYPES,
    masks: bool = True,
    heat_maps: bool = False,
    drift: float = 0.0,
    unfinished: int = 0,
    failed: int = 0,
    planted: Planted | None = None,
    odd: Mapping[str, Mapping[str, Any]] | None = None,
    **keys: Any,
) -> Record:
    """Put a sweep with finished cells into the store and return its record.

    Args:
        skill: model's label, or ``label/category``, -> how far the mean score of its defects lies above that
            of the goods, in standard deviations; 1.5 where nothing is said.
        training_goods, goods, defects: pictures of each category; a fifth of the first calibrates.
        drift: how far scores of the test part lie above those of the training part, as on another day.
        unfinished: the last so many cells have no result; ``failed``: so many before these failed for good.
        planted: how far the score of an image lies above that of the goods, in standard deviations, cell by
            cell; takes the place of ``skill``.
        odd: category -> what of :func:`put_category` is otherwise there.
        keys: other keys of the sweep's file, ``protocols`` among them.
    """
    usual = {
        "training_goods": training_goods,
        "goods": goods,
        "defects": defects,
        "defect_types": defect_types,
        "masks": masks,
    }
    for category in categories:
        put_category(store, dataset, category, **{**usual, **(odd or {}).get(category, {})})
    document = {
        "name": name,
        "data": {"dataset": dataset, "categories": list(categories)},
        "models": list(models),
        "weights": "none",
        "seeds": list(seeds),
        "protocols": {"detection": {"folds": folds}},
        **keys,
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("made-up.yaml", {})), store)
    plans.write_plan(plan, store, list(plan.cells), replace=True)
    done = len(plan.cells) - unfinished - failed
    for place, (key, cell) in enumerate(plan.cells.items()):
        if place < done:
            finish(store, plan, cell, skill or {}, heat_maps, drift, planted)
        elif place < done + failed:
            failure = Failure(ExitCode.DATA, "made up: the pictures are wrong", "Traceback: made up", 1)
            store.put(cell_key(key, "failure.json"), failure.to_json())
    return plan.record()


def put_category(
    store: Store,
    dataset: str,
    category: str,
    training_goods: int = 25,
    goods: int = 12,
    defects: int = 12,
    defect_types: Sequence[str] = DEFECT_TYPES,
    masks: bool = True,
    any_orientation: bool | None = None,
) -> Manifest:
    """Put a category of small pictures into the store, as ``data import`` would."""
    names = [("train", GOOD, index) for index in range(training_goods)]
    names += [("test", GOOD, index) for index in range(goods)]
    names += [
        ("test", defect_types[index % len(defect_types)], index // len(defect_types))
        for index in range(defects)
    ]
    files: dict[str, bytes] = {}
    images = [_image(category, part, kind, index, masks, files) for part, kind, index in names]
    manifest = replace(make_manifest(dataset, category, images), any_orientation=any_orientation)
    store.put(archive_key(dataset, category, manifest.digest), _tar(manifest, files))
    store.put(manifest_key(dataset, category), manifest.to_json())
    return manifest


def finish(
    store: Store,
    plan: Plan,
    cell: Cell,
    skill: Mapping[str, float],
    heat_maps: bool = False,
    drift: float = 0.0,
    planted: Planted | None = None,
) -> Result:
    """Write what a worker writes for a finished cell, and return the result."""
    label = plan.labels[cell.key]
    shift = skill.get(f"{label}/{cell.category}", skill.get(label, 1.5))
    manifest = Manifest.from_json(store.get(f"datasets/{cell.dataset}/{cell.category}/manifest.json").data)
    predictions = Predictions.of(cell.key, list(_predict(cell, manifest, shift, drift, planted)))
    files = {
        "1/predictions.parquet": predictions.to_parquet(),
        "1/history.parquet": history_to_parquet(_history(cell)),
    }
    if heat_maps and cell.keep_heat_maps:
        files["1/heatmaps.npz"] = _heat_maps(predictions, manifest)
    for name, data in files.items():
        store.put(cell_key(cell.key, name), data)
    result = _result(cell, predictions, {name: _sha256(data) for name, data in files.items()})
    store.put(cell_key(cell.key, "result.json"), result.to_json())
    return result


def _rng(*names: object) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256("/".join(map(str, names)).encode()).digest()))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _image(category: str, part: str, kind: str, index: int, masks: bool, files: dict[str, bytes]) -> Image:
    """Return the record of one picture and put its files' bytes into ``files``."""
    name = f"{part}/{kind}/{index:03}"
    rng = _rng(category, name)
    pixels = rng.integers(90, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    mask_path = mask_sha256 = None
    if kind != GOOD:
        mask = np.zeros((SIDE, SIDE), bool)
        row, column = rng.integers(4, SIDE - 10, 2)
        mask[row : row + 6, column : column + 6] = True
        pixels[mask] = (30, 30, 30)
        if masks:
            mask_path = f"ground_truth/{kind}/{index:03}_mask.png"
            files[mask_path] = mask_png(mask)
            mask_sha256 = _sha256(files[mask_path])
    buffer = io.BytesIO()
    Pillow.fromarray(pixels).save(buffer, "PNG")
    files[f"{name}.png"] = buffer.getvalue()
    return Image(
        id=name,
        path=f"{name}.png",
        sha256=_sha256(files[f"{name}.png"]),
        part="train" if part == "train" else "test",
        label=int(kind != GOOD),
        defect_type=kind,
        width=SIDE,
        height=SIDE,
        mask=mask_path,
        mask_sha256=mask_sha256,
    )


def _tar(manifest: Manifest, files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in [("manifest.json", manifest.to_json()), *sorted(files.items())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _predict(
    cell: Cell, manifest: Manifest, shift: float, drift: float, planted: Planted | None
) -> Iterator[PredictionRow]:
    """Score what the fit did not learn from: every cell on a scale of its own."""
    rng = _rng("scores", cell.key)
    offset, scale = rng.normal(), float(np.exp(rng.normal()))
    learnt = {name for name, _ in cell.fit.train}
    calibration, tune = set(cell.fit.calibration), set(cell.fit.tune)
    for image in manifest.images:
        if image.id in learnt or (image.part == "train" and image.id not in calibration):
            continue
        # How hard a picture is, all models agree in part: paired figures differ from unpaired ones.
        ease = _rng("ease", cell.category, image.id).normal()
        moved = planted(cell, image) if planted else shift * image.label
        moved += drift * (image.part == "test")
        score = offset + scale * (0.7 * ease + 0.7 * rng.normal() + moved)
        role: Role = (
            "calibration" if image.id in calibration else "validation" if image.id in tune else "held_out"
        )
        explanation = _explain(rng, shift) if image.mask else {}
        yield PredictionRow(image.id, image.label, image.defect_type, role, score, **explanation)


def _explain(rng: np.random.Generator, shift: float) -> dict[str, float]:
    base = 1 / (1 + np.exp(-shift))
    return {
        "pixel_auroc": float(np.clip(base + 0.1 * rng.normal(), 0, 1)),
        "pixel_ap": float(np.clip(base / 2 + 0.1 * rng.normal(), 0, 1)),
        "pointing_hit": float(rng.random() < base),
        "iou": float(np.clip(base / 3 + 0.1 * rng.normal(), 0, 1)),
    }


def _history(cell: Cell) -> list[HistoryPoint]:
    return [
        HistoryPoint(epoch, name, value / epoch)
        for epoch in range(1, (3 if cell.fit.epochs else 0) + 1)
        for name, value in (("loss", 0.9), ("tuning_auroc", 0.8))
    ]


def _heat_maps(predictions: Predictions, manifest: Manifest) -> bytes:
    """Return ``heatmaps.npz``: warm around the middle, on one scale for the whole cell."""
    rows = [row for row in predictions.rows() if row.role != "calibration"]
    maps = np.stack([_heat_map(manifest.category, row.image_id, row.score) for row in rows])
    low, high = float(maps.min()), float(maps.max())
    scaled = ((maps - low) / (high - low)).astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=np.array([row.image_id for row in rows]), maps=scaled)
    return buffer.getvalue()


def _heat_map(category: str, name: str, score: float) -> NDArray[np.float64]:
    rng = _rng("heat", category, name)
    rows, columns = np.mgrid[0:MAP_SIDE, 0:MAP_SIDE]
    middle = rng.integers(3, MAP_SIDE - 3, 2)
    warm = np.exp(-((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2) / 12)
    return np.asarray(score + 3 * warm)


def _result(cell: Cell, predictions: Predictions, files: Mapping[str, str]) -> Result:
    rng = _rng("cost", cell.key)
    held_out, calibration = predictions.of_role("held_out"), predictions.of_role("calibration")
    metrics = threshold_free(held_out.label, held_out.score)
    if not np.isnan(held_out.pixel_auroc).all():
        metrics |= {"pixel_auroc_pooled": 0.9, "pixel_ap_pooled": 0.4, "aupro": 0.7}
    seconds = float(0.01 + 0.01 * rng.random())
    return Result(
        cell=cell.key,
        model=cell.fit.model,
        family=cell.family,
        dataset=cell.dataset,
        category=cell.category,
        seed=cell.fit.seed,
        image_size=cell.fit.image_size,
        weights={"kind": cell.weights_kind, **cell.fit.weights},
        threads=cell.fit.threads,
        data_digest=cell.fit.data_digest,
        metrics=metrics,
        cost={
            "fit_seconds": float(2 + 3 * rng.random()),
            "inference_seconds_per_image": seconds,
            "images_per_second": 1 / seconds,
            "parameters": 1_500_000.0,
            "flops": 2.5e8,
            "peak_memory_bytes": 1.2e9,
        },
        calibration_threshold=quantile_threshold(calibration.score, 0.05).threshold
        if len(calibration)
        else None,
        versions=VERSIONS,
        device="cpu",
        files=files,
    )
