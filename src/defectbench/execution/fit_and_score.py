"""A cell's fit and scores, independent of where its files lie: no store, no lease, no tracker.

What the model is given is its training set and nothing else. Labels and masks of other images are read only
after the last score is in, for the columns of the predictions and for the figures.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench import catalog
from defectbench.data.manifest import UNCERTAIN, Manifest
from defectbench.errors import BugError, DataError
from defectbench.execution.fitting import Checkpointer, Fitting, NoCheckpoints
from defectbench.metrics.image import quantile_threshold, threshold_free
from defectbench.metrics.pixel import MapFigures, PixelPool, PixelQuantile, explain
from defectbench.models.base import Model, ModelSettings, Pictures, Prediction, Progress, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures, ImageSet
from defectbench.models.pictures.rotated import RotatedPictures
from defectbench.records.cell import Cell
from defectbench.records.predictions import HistoryPoint, PredictionRow, Predictions, Role
from defectbench.util.memory import PeakMemory

CALIBRATION_RATE = 0.05
"""False-alarm rate of the threshold that result.json states; a sweep's own rate is applied by its tables."""

# Maps are kept to be looked at; the figures are computed on whole ones.
_OVERLAY_SIDE = 256
_TIMED = 8
"""Pictures that the latency is measured on; fewer where they take longer than the next number."""
_TIMED_SECONDS = 2.0
_UNKNOWN = MapFigures(*(6 * (float("nan"),)))
_NO_MAP = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class CellOutcome:
    """What fitting and scoring a cell gives.

    Attributes:
        metrics, cost: name -> figure, as in result.json.
        heat_maps: the file ``heatmaps.npz``, or None where none were wanted.
        device: where the fit ran.
    """

    predictions: Predictions
    history: tuple[HistoryPoint, ...]
    metrics: Mapping[str, float]
    cost: Mapping[str, float]
    calibration_threshold: float
    heat_maps: bytes | None
    device: str


@dataclass(frozen=True, slots=True)
class CellProgress:
    """How far a cell is. ``phase`` is ``fitting`` or ``scoring``."""

    phase: str
    done: int
    total: int


CellCallback = Callable[[CellProgress], None]
"""Called with every step; what it raises ends the cell."""


@dataclass(frozen=True, slots=True)
class _Scored:
    image_id: str
    role: Role
    score: float
    explanation: MapFigures


def roles(cell: Cell, manifest: Manifest) -> dict[str, Role]:
    """Return image id -> role for all that the fit did not learn from, in the manifest's order.

    Calibration goods come first: the heat maps' threshold is theirs.
    """
    learnt = {name for name, _ in cell.fit.train}
    tune, calibration = set(cell.fit.tune), set(cell.fit.calibration)
    found: dict[str, Role] = {image.id: "calibration" for image in manifest.images if image.id in calibration}
    for image in manifest.images:
        if image.id in learnt or image.id in calibration:
            continue
        if image.id in tune:
            found[image.id] = "validation"
        elif image.part == "test":
            found[image.id] = "held_out"
        elif image.part == UNCERTAIN:
            found[image.id] = "uncertain"
    return found


def fit_and_score(
    cell: Cell,
    images: ImageSet,
    weights: Mapping[str, Path],
    device: str,
    report: CellCallback,
    checkpointer: Checkpointer | None = None,
) -> CellOutcome:
    """Fit the cell's model and score every image that it did not learn from.

    Args:
        weights: weights' name -> local file.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        checkpointer: keeps the fit for a next attempt, and gives what an earlier one kept; None for neither.

    Raises:
        DataError: a training set without a class that the model needs; a score that is not finite.
    """
    from threadpoolctl import threadpool_limits

    checkpointer = checkpointer or NoCheckpoints()
    settings = settings_of(cell, weights, device)

    def make() -> Model:
        return build_model(catalog.find(cell.fit.model), settings)

    with PeakMemory() as memory:
        model = make()
        # After the model's library is loaded: the limit reaches only the pools that are there.
        with threadpool_limits(cell.fit.threads):
            training = training_data_of(cell, images)

            def report_fit(step: Progress) -> None:
                report(CellProgress("fitting", step.done, step.total))

            fitted = Fitting(make, training, checkpointer, memory, report_fit).run(model)
            model = fitted.model

            def report_score(step: CellProgress) -> None:
                with fitted.saved_by(checkpointer):
                    report(step)

            outcome = _score(cell, model, images, report_score)
            latency = _latency(model, images)
    size, saved = model.size(), fitted.saved
    cost = {
        # Time and memory of all attempts: a cell that resumed must not look cheaper than one that did not.
        "fit_seconds": saved.seconds,
        "attempts": float(saved.attempts),
        "inference_seconds_per_image": latency,
        "images_per_second": 1 / latency,
        "parameters": float(size.parameters),
        "peak_memory_bytes": float(max(memory.peak, saved.peak_memory_bytes)),
    }
    if size.flops is not None:
        cost["flops"] = float(size.flops)
    return replace(outcome, history=saved.history, cost=cost)


def settings_of(cell: Cell, weights: Mapping[str, Path], device: str) -> ModelSettings:
    """Return what the cell's model is built from; arguments as in :func:`fit_and_score`."""
    fit = cell.fit
    return ModelSettings(
        options=fit.settings,
        image_size=fit.image_size,
        epochs=fit.epochs,
        patience=fit.patience,
        seed=fit.seed,
        weights=weights,
        weights_digest="+".join(fit.weights[name] for name in sorted(fit.weights)) or "none",
        device=device,
        balance=fit.balance,
        rotate_and_flip=fit.rotate_and_flip,
    )


def training_data_of(cell: Cell, images: ImageSet) -> TrainingData:
    """Return all that the cell's fit may see."""
    fit, known = cell.fit, images.manifest.by_id
    unknown = [name for name in (*(name for name, _ in fit.train), *fit.tune) if name not in known]
    if unknown:
        raise BugError(f"cell {cell.key} names images that its data do not have: {unknown[:3]}")
    pictures: Pictures = images.select([name for name, _ in fit.train])
    labels = np.array([label for _, label in fit.train], np.int64)
    masks = _masks(cell, images)
    if fit.rotate_defects:
        rotated = RotatedPictures(pictures, labels == 1)
        pictures, labels, masks = rotated, labels[rotated.places], rotated.masks(masks)
    return TrainingData(
        pictures=pictures,
        labels=labels,
        tuning=images.select(fit.tune) if fit.tune else None,
        tuning_labels=np.array([known[name].label for name in fit.tune], np.int64),
        masks=masks,
    )


def _masks(cell: Cell, images: ImageSet) -> dict[int, NDArray[np.bool_]]:
    """Return the masks of the defects that a supervised detector trains on as such, by their place."""
    if catalog.find(cell.fit.model).family != "supervised":
        return {}
    masks = {place: images.mask(name) for place, (name, label) in enumerate(cell.fit.train) if label == 1}
    return {place: mask for place, mask in masks.items() if mask is not None}


def _score(cell: Cell, model: Model, images: ImageSet, report: CellCallback) -> CellOutcome:
    """Score all images, then read labels and masks for the figures; history and cost are left empty."""
    parts = roles(cell, images.manifest)
    scored: list[_Scored] = []
    kept: list[NDArray[np.float32]] = []
    quantile, pool = PixelQuantile(), PixelPool()
    measurable = any(images.manifest.by_id[name].mask for name, role in parts.items() if role == "held_out")
    limit = float("nan")
    for name, prediction in _predictions(model, images, parts, measurable, cell.keep_heat_maps):
        report(CellProgress("scoring", len(scored), len(parts)))
        if not np.isfinite(prediction.score) or not np.isfinite(prediction.heat_map).all():
            raise DataError(f"{cell.fit.model} gave a score or heat map of {name} that is not finite")
        explanation, role = _UNKNOWN, parts[name]
        if role == "calibration":
            if measurable:
                quantile.add(prediction.heat_map, (images.size, images.size))
        else:
            if cell.keep_heat_maps:
                kept.append(_shrunk(prediction.heat_map))
            if measurable and role != "uncertain":
                # Calibration goods come first in ``parts``, so all of them are in by now.
                limit = quantile.value() if np.isnan(limit) else limit
                explanation = _explain(name, prediction, images, limit, pool if role == "held_out" else None)
        scored.append(_Scored(name, role, prediction.score, explanation))
    predictions = Predictions.of(cell.key, (_row(one, images.manifest) for one in scored))
    held_out = predictions.of_role("held_out")
    metrics = threshold_free(held_out.label, held_out.score) | _explained(held_out)
    calibration = predictions.of_role("calibration").score
    return CellOutcome(
        predictions=predictions,
        history=(),
        metrics=metrics | (_of_the_fit(scored, pool) if measurable else {}),
        cost={},
        calibration_threshold=quantile_threshold(calibration, CALIBRATION_RATE).threshold,
        heat_maps=_pack([s.image_id for s in scored if s.role != "calibration"], kept) if kept else None,
        device=model.device,
    )


def _predictions(
    model: Model, images: ImageSet, parts: Mapping[str, Role], measurable: bool, keep: bool
) -> Iterator[tuple[str, Prediction]]:
    """Yield each image's prediction in order; its map is empty where it is neither measured nor kept.

    A map can cost ten times what the score does, and most cells have no use for one.

    Args:
        parts: calibration goods come first.
        measurable: images have masks: calibration goods set the maps' threshold.
        keep: the cell keeps its heat maps, those of calibration goods excepted.
    """
    alone = [name for name, role in parts.items() if not (measurable or (keep and role != "calibration"))]
    mapped = [name for name in parts if name not in set(alone)]
    scores = model.scores(images.select(alone)) if alone else iter(())
    for name, score in zip(alone, scores, strict=True):
        yield name, Prediction(score, _NO_MAP)
    yield from zip(mapped, model.predict(images.select(mapped)) if mapped else (), strict=True)


def _latency(model: Model, images: ImageSet) -> float:
    """Return the seconds that scoring one picture takes, features included: nothing here is cached.

    Without its heat map, which a classifier makes in a pass of its own.
    """
    names = [image.id for image in images.manifest.images[:_TIMED]]
    view = images.select(names)
    seconds: list[float] = []
    for index in range(len(names)):
        # One at a time, as parts come down a line: in a longer list features are computed by the batch.
        picture = ArrayPictures(view[index][None])
        started = time.perf_counter()
        for _ in model.scores(picture):
            seconds.append(time.perf_counter() - started)
        if sum(seconds) > _TIMED_SECONDS:
            break
    return float(np.median(seconds))


def _explain(
    name: str, prediction: Prediction, images: ImageSet, limit: float, pool: PixelPool | None
) -> MapFigures:
    """Measure one heat map against its mask; feed the fit's pool where it is given.

    An abnormal image without a mask says nothing about its pixels, so it stays out.
    """
    mask = images.mask(name)
    if mask is None:
        if images.manifest.by_id[name].label == 0 and pool is not None:
            pool.add(prediction.heat_map, np.zeros((images.size, images.size), np.bool_))
        return _UNKNOWN
    if pool is not None:
        pool.add(prediction.heat_map, mask)
    return explain(prediction.heat_map, mask, limit)


def _row(one: _Scored, manifest: Manifest) -> PredictionRow:
    """Return a scored image's line of the predictions; its label is read here, after the last score."""
    image, figures = manifest.by_id[one.image_id], one.explanation
    return PredictionRow(
        image_id=one.image_id,
        label=image.label,
        defect_type=image.defect_type,
        role=one.role,
        score=float(one.score),
        pixel_auroc=figures.pixel_auroc,
        pixel_ap=figures.pixel_ap,
        pointing_hit=figures.pointing_hit,
        iou=figures.iou,
    )


def _of_the_fit(scored: Sequence[_Scored], pool: PixelPool) -> dict[str, float]:
    """Return the pixel figures that belong to the fit as a whole."""
    best = np.array([one.explanation.iou_oracle for one in scored if one.role == "held_out"])
    known = best[~np.isnan(best)]
    return pool.figures() | {"iou_oracle": float(known.mean()) if len(known) else float("nan")}


def _explained(rows: Predictions) -> dict[str, float]:
    """Average the per-image explanation figures over the rows that have them."""
    columns = {"pixel_auroc": rows.pixel_auroc, "pixel_ap": rows.pixel_ap}
    columns |= {"pointing": rows.pointing_hit, "iou": rows.iou}
    return {name: float(np.nanmean(values)) for name, values in columns.items() if not np.isnan(values).all()}


def _shrunk(heat_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring a map to 256 px a side at most, by block means, for overlays."""
    step = -(-max(heat_map.shape) // _OVERLAY_SIDE)
    if step == 1:
        return heat_map.astype(np.float32)
    height, width = (side // step * step for side in heat_map.shape)
    blocks = heat_map[:height, :width].reshape(height // step, step, width // step, step)
    shrunk: NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
    return shrunk


def _pack(ids: Sequence[str], maps: Sequence[NDArray[np.float32]]) -> bytes:
    """Return ``heatmaps.npz``: ids, and maps in float16 on one linear scale 0..1 for the whole cell.

    One scale a cell, never an image: scaled by itself every good image would show a red spot.
    """
    low, high = min(float(m.min()) for m in maps), max(float(m.max()) for m in maps)
    span = high - low or 1.0
    # float16 keeps 3 digits of 0..1: enough for an overlay, and half the size.
    stacked = np.stack([((m - low) / span).astype(np.float16) for m in maps])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, ids=np.array(ids), maps=stacked)
    return buffer.getvalue()
