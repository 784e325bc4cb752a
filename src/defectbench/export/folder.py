"""The folder of an exported model, written whole or not at all, and only after its scores were the cell's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectbench.data.progress import ProgressCallback
from defectbench.errors import UsageError
from defectbench.export import refit
from defectbench.export.bundle import (
    CARD,
    DOCUMENT,
    ONNX,
    Bundle,
    ExportCheck,
    HeatScale,
    OperatingThreshold,
    digests,
    load_model,
    weights_path,
)
from defectbench.export.card import write_card
from defectbench.export.refit import FinishedCell
from defectbench.export.scores import ExportedModel
from defectbench.metrics.image import quantile_threshold
from defectbench.models.base import Model
from defectbench.models.pictures.images import FilePictures
from defectbench.util.files import copy_synced, disk_errors, folder_written_whole
from defectbench.util.image_io import FULL, Intensity

_STATE = "state"
_SAMPLED = 64
"""Places a side of each heat map that the overlays' scale is taken from."""
_ONNX_CHECKED = 32
_UNCHECKED = ExportCheck(0, 0, 0.0, 0, 0.0)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What is asked for.

    Attributes:
        false_alarm_rate: that the threshold is set for.
        onnx: whether a classifier's graph is written, where the model can have one.
        remarks: further sentences for the card's results.
    """

    out: Path
    false_alarm_rate: float
    onnx: bool
    remarks: tuple[str, ...] = ()


def check_out(out: Path) -> None:
    """Raise UsageError unless a model may be written there: a new or empty folder, or an earlier export."""
    with disk_errors(out):
        if out.exists() and not out.is_dir():
            raise UsageError(f"--out {out}: is a file; name a folder")
        there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        if there and not (out / DOCUMENT).is_file():
            raise UsageError(
                f"--out {out}: holds {there[0]}, which no export wrote; name a new or an empty folder"
            )


def write_export(finished: FinishedCell, request: ExportRequest, report: ProgressCallback) -> Bundle:
    """Fit the cell's model again, hold it to the cell's scores, and write the folder ``request.out``.

    Raises:
        UsageError: the folder holds something else.
        ConfigurationError: the model comes out otherwise here, or a library or the device is missing.
    """
    check_out(request.out)
    onnx = request.onnx and has_graph(finished)
    # Links may lead elsewhere: the draft must lie on the target's own disk.
    target = request.out.resolve()
    with disk_errors(request.out), folder_written_whole(target) as draft:
        images = finished.images()
        model = refit.fit_again(finished, images, report)
        bundle = _write_state(finished, request, model, draft)
        bundle = _checked(
            finished, ExportedModel(bundle, load_model(bundle, draft, finished.result.device)), draft, report
        )
        if bundle.proof.equal < bundle.proof.images:
            refit.check_scores(finished, refit.score_again(finished, model, images, report))
        if onnx:
            bundle = _with_graph(finished, bundle, model, draft)
        (draft / DOCUMENT).write_bytes(bundle.to_json())
        (draft / CARD).write_text(
            write_card(finished, bundle, _sizes(draft), request.remarks), encoding="utf-8"
        )
    return bundle


def has_graph(finished: FinishedCell) -> bool:
    """Whether the cell's model can be an ONNX graph; ConfigurationError where only a library is missing."""
    if finished.cell.family != "classifier" or "architecture" not in finished.entry.settings:
        return False  # decided by the catalog where it can be: torch takes seconds to import
    from defectbench.models.classifiers import onnx_graph

    if not onnx_graph.takes(finished.entry):
        return False
    onnx_graph.check_extra()
    return True


def _write_weights(finished: FinishedCell, draft: Path) -> None:
    """Write the networks that the state leaves out; pictures are for fits alone."""
    pictures = {item.name for item in finished.entry.weights if item.kind == "pictures"}
    for name in finished.files.keys() - pictures:
        (draft / weights_path(name)).parent.mkdir(exist_ok=True)
        with finished.files[name].open("rb") as file:
            copy_synced(file, draft / weights_path(name))


def _write_state(finished: FinishedCell, request: ExportRequest, model: Model, draft: Path) -> Bundle:
    """Write the fitted state and the weights that it needs; return the document, not yet checked."""
    model.save(draft / _STATE)
    with (draft / _STATE).open("rb") as file:
        # By what is in it: numpy's arrays are a zip, which starts with PK.
        state = _STATE + (".npz" if file.read(2) == b"PK" else ".safetensors")
    (draft / _STATE).rename(draft / state)
    if not model.self_contained:
        _write_weights(finished, draft)
    cell, fit = finished.cell, finished.cell.fit
    return Bundle(
        cell=cell.key,
        model=fit.model,
        family=cell.family,
        dataset=cell.dataset,
        category=cell.category,
        data_digest=fit.data_digest,
        settings=fit.settings,
        image_size=fit.image_size,
        epochs=fit.epochs,
        patience=fit.patience,
        seed=fit.seed,
        threads=fit.threads,
        balance=fit.balance,
        fit_version=fit.fit_version,
        weights_kind=cell.weights_kind,
        weights=fit.weights,
        preprocessing=_preprocessing(finished),
        threshold=_threshold(finished, request.false_alarm_rate),
        heat=HeatScale(0.0, 1.0),  # set by the check, which makes the heat maps
        proof=_UNCHECKED,
        device=finished.result.device,
        versions=finished.result.versions,
        files=digests(draft),
        state=state,
        package=fit.package,
    )


def _threshold(finished: FinishedCell, rate: float) -> OperatingThreshold:
    """Return the threshold for a false-alarm rate; None in it without calibration goods."""
    goods = finished.predictions.of_role("calibration").score
    found = quantile_threshold(goods, rate)
    if not len(goods):
        return OperatingThreshold(None, rate, None, 0)
    return OperatingThreshold(found.threshold, rate, found.false_alarm_rate, len(goods))


def _preprocessing(finished: FinishedCell) -> dict[str, Any]:
    """Return what happens to a picture, in numbers."""
    settings = finished.cell.fit.settings
    network = settings.get("architecture", settings.get("backbone"))
    scale = finished.manifest.intensity
    steps: dict[str, Any] = {
        # The key is a part of model.json's format.
        "turned": "as its EXIF orientation says",
        "colours": f"RGB of 8 bits (grey three times, {_deep_grey(scale)}, transparent pixels over white)",
        "size": finished.cell.fit.image_size,
        "resampling": "bilinear, antialiased, by Pillow; the aspect ratio is not kept",
    }
    if scale != FULL:
        steps["intensity"] = scale.text
    if network is not None:
        from defectbench.models.features import backbone

        steps |= {"scaled_by": 1 / 255, **backbone.standardisation(str(network))}
    return steps


def _deep_grey(scale: Intensity) -> str:
    """Say how grey of more than 8 bits becomes 8."""
    return "16-bit grey over 257" if scale == FULL else f"grey of more than 8 bits: {scale.words}"


def _checked(finished: FinishedCell, model: ExportedModel, draft: Path, report: ProgressCallback) -> Bundle:
    """Score what the cell scored, with the folder alone; return the document with proof and heat scale."""
    paths, stored = finished.paths(), finished.predictions.score
    found: list[float] = []
    places: list[NDArray[np.float32]] = []
    hottest: list[float] = []
    for prediction in model.predict(FilePictures(paths, model.bundle.image_size, model.bundle.intensity)):
        found.append(prediction.score)
        places.append(_sampled(prediction.heat_map))
        hottest.append(float(prediction.heat_map.max()))
        report("checking", len(found), len(paths))
    # From the middle of all values to almost the highest: single hot pixels must not set the scale.
    low, high = np.quantile(np.concatenate(places), (0.5, 0.99))
    got, threshold = np.array(found), model.bundle.threshold
    changed = sum(threshold.call(a) != threshold.call(b) for a, b in zip(got, stored, strict=True))
    proof = ExportCheck(
        images=len(stored),
        equal=int((got == stored).sum()),
        largest_difference=float(np.abs(got - stored).max()),
        calls_changed=changed,
        pattern_score=model.pattern_score(),
    )
    goods = np.array(hottest)[finished.predictions.role == "calibration"]
    marked = quantile_threshold(goods, threshold.asked).threshold if len(goods) else None
    return replace(model.bundle, proof=proof, heat=HeatScale(float(low), float(high), marked))


def _sampled(heat_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a regular sample of a heat map: its values, not their places, set the scale."""
    step = -(-max(heat_map.shape) // _SAMPLED)
    return heat_map[::step, ::step].ravel()


def _with_graph(finished: FinishedCell, bundle: Bundle, model: Model, draft: Path) -> Bundle:
    """Write the ONNX graph and hold it to the cell's log-odds."""
    from defectbench.models.classifiers import onnx_graph

    onnx_graph.write_graph(model, draft / ONNX)
    paths, stored = finished.paths(), finished.predictions.score
    chosen = np.unique(np.linspace(0, len(paths) - 1, _ONNX_CHECKED).astype(np.int64))
    pictures = FilePictures([paths[place] for place in chosen], bundle.image_size, bundle.intensity)
    found = onnx_graph.log_odds(draft / ONNX, pictures, bundle.threads)
    largest = onnx_graph.check_graph(found, stored[chosen])
    proof = replace(bundle.proof, onnx_images=len(found), onnx_largest_difference=largest)
    return replace(bundle, proof=proof, files=digests(draft), opset=onnx_graph.OPSET)


def _sizes(draft: Path) -> Iterator[tuple[str, int]]:
    """Yield (path below the folder, bytes) of its files."""
    for name in digests(draft):
        yield name, (draft / name).stat().st_size
