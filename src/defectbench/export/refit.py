"""A cell's model once more: the store keeps none, so it is fitted again and held to the cell's scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench import catalog
from defectbench.catalog import Entry
from defectbench.data.manifest import Manifest
from defectbench.data.progress import ProgressCallback
from defectbench.data.unpacked import unpack
from defectbench.errors import ConfigurationError, MissingInputError, UsageError
from defectbench.execution import fit_and_score
from defectbench.execution.run_cell import read_cell
from defectbench.models.base import Model
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ImageSet
from defectbench.records.cell import Cell, find_cell
from defectbench.records.predictions import Predictions
from defectbench.records.result import Result, differing_versions, find_failure, find_result, read_predictions
from defectbench.stores.base import Store
from defectbench.weights import store as weights


@dataclass(frozen=True)
class FinishedCell:
    """A finished cell, and what its fit needs on this machine.

    Attributes:
        root: the category's pictures.
        files: weights' name -> local file.
    """

    cell: Cell
    result: Result
    predictions: Predictions
    manifest: Manifest
    root: Path
    files: Mapping[str, Path]
    cache: Path

    @property
    def entry(self) -> Entry:
        """The model's entry in the catalog."""
        return catalog.find(self.cell.fit.model)

    def images(self) -> ImageSet:
        """Return the category's pictures as the cell saw them."""
        fit = self.cell.fit
        return ImageSet(self.manifest, self.root, fit.image_size, self.cache, fit.threads)

    def paths(self) -> list[Path]:
        """Return the files of the pictures that the cell scored, in the order of its predictions."""
        return [self.root / self.manifest.by_id[name].path for name in self.predictions.image_id.tolist()]


def find_key(store: Store, start: str) -> str:
    """Return the key of the one cell whose key starts so.

    Raises:
        MissingInputError: there is none.
        UsageError: ``start`` is no part of a key, or there are several; some are named.
    """
    if not start.isalnum():
        raise UsageError(
            f"cell {start!r}: a key, or how it starts, as `defectbench plan SWEEP --format json` lists it"
        )
    key = find_cell(store, start)
    if key is None:
        raise MissingInputError(
            f"no cell {start} in {store.url}: `defectbench plan SWEEP --format json` lists a sweep's cells"
        )
    return key


def gather_cell(store: Store, key: str, cache: Path) -> FinishedCell:
    """Bring here what the cell's fit needs.

    Raises:
        MissingInputError: the cell is not finished, or its data are not there.
        MissingWeightsError: its weights are not there.
        ConfigurationError: this defectbench fits the model otherwise than the one that ran the cell.
    """
    cell, result = read_cell(store, key), find_result(store, key)
    if result is None:
        failure = find_failure(store, key)
        ended = f"failed ({failure.code}): {failure.message}" if failure else "has not finished"
        raise MissingInputError(f"cell {key} {ended}; only a finished cell can be exported")
    entry = catalog.find_of(cell.fit.model, cell.fit.package)
    if entry.fit_version != cell.fit.fit_version:
        raise ConfigurationError(
            f"cell {key} was fitted by version {cell.fit.fit_version} of {entry.name}'s fit, this "
            f"defectbench has {entry.fit_version}: run its sweep again, or export with the defectbench that "
            f"ran it, {result.versions.get('defectbench', 'unknown')}"
        )
    predictions = read_predictions(store, result)
    files = weights.fetch(store, cell.fit.weights, cache)
    root = unpack(store, cell.dataset, cell.category, cell.fit.data_digest, cache)
    manifest = Manifest.from_json((root / "manifest.json").read_bytes())
    return FinishedCell(cell, result, predictions, manifest, root, files, cache)


def fit_again(finished: FinishedCell, images: ImageSet, report: ProgressCallback) -> Model:
    """Fit the cell's model again, on the device where it was fitted.

    Raises:
        ConfigurationError: the device is not there, or a library is missing.
    """
    from threadpoolctl import threadpool_limits

    cell, device = finished.cell, finished.result.device
    try:
        model = build_model(finished.entry, fit_and_score.settings_of(cell, finished.files, device))
    except ConfigurationError as error:
        raise ConfigurationError(
            f"cell {cell.key} was fitted on {device}, and so must its export be: {error}"
        ) from error
    with threadpool_limits(cell.fit.threads):
        model.fit(
            fit_and_score.training_data_of(cell, images),
            lambda step: report("fitting", step.done, step.total),
        )
    return model


def score_again(
    finished: FinishedCell, model: Model, images: ImageSet, report: ProgressCallback
) -> NDArray[np.float64]:
    """Return the scores of all that the cell scored, by the way that the cell took."""
    from threadpoolctl import threadpool_limits

    names = finished.predictions.image_id.tolist()
    found: list[float] = []
    with threadpool_limits(finished.cell.fit.threads):
        for prediction in model.predict(images.select(names)):
            found.append(prediction.score)
            report("comparing", len(found), len(names))
    return np.array(found, np.float64)


def check_scores(finished: FinishedCell, found: NDArray[np.float64]) -> None:
    """Refuse a model that is not the cell's.

    Raises:
        ConfigurationError: a score differs in any bit; names what this machine has otherwise.
    """
    stored = finished.predictions.score
    # Bytes, because NaN is not equal to itself.
    if found.tobytes() == stored.tobytes():
        return
    off = np.flatnonzero(found != stored)
    largest = float(np.abs(found - stored).max())
    raise ConfigurationError(
        f"cell {finished.cell.key}: fitted again, {len(off)} of {len(stored)} scores are not those of the "
        f"cell (largest difference {largest:.3g}), so it would be another model, and nothing is written. "
        f"{_reason(finished.result)}"
    )


def _reason(result: Result) -> str:
    """Say what this machine has otherwise than the one that ran the cell."""
    other = differing_versions(result.versions)
    if other:
        return f"It was fitted with {', '.join(other)}: export it where these are installed"
    if result.device != "cpu":
        return (
            f"The versions are the same; some kernels of {result.device} have no deterministic form, and "
            "another card rounds otherwise: export it on the machine that ran it, or run the cell on the CPU"
        )
    return (
        "Versions and device are the same, so the processor rounds otherwise: export it on the machine that "
        "ran it, or run its sweep here into a store of its own"
    )
