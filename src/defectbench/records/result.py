"""``result.json`` and ``failure.json``: how a cell ended."""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from defectbench.catalog import Family
from defectbench.errors import DataError, ExitCode, MissingInputError, UsageError
from defectbench.records.predictions import Predictions
from defectbench.stores.base import Store, check_key
from defectbench.stores.layout import FAILURE, RESULT, cell_key, failure_key, result_key
from defectbench.util.documents import STRICT, read_document, typed, write_document

PREDICTIONS = "predictions.parquet"
_LIBRARIES = (
    "defectbench",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "torch",
    "torchvision",
    "timm",
    "anomalib",
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """A finished cell.

    Attributes:
        weights: kind, and the digest of each file.
        metrics: name -> figure over the held-out rows; threshold-free ones and the pixel figures. A figure
            that is not defined (one class only, no masks) is not there.
        cost: name -> figure.
        calibration_threshold: the quantile of the calibration goods at a false-alarm rate of 5 %, or None.
        files: path below the cell -> SHA-256.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    cell: str
    model: str
    family: Family
    dataset: str
    category: str
    seed: int
    image_size: int
    weights: Mapping[str, Any]
    threads: int
    data_digest: str
    metrics: Mapping[str, float]
    cost: Mapping[str, float]
    calibration_threshold: float | None
    versions: Mapping[str, str]
    device: str
    files: Mapping[str, str]

    def to_json(self) -> bytes:
        """Return the text of ``result.json``. Figures that are not finite are left out: JSON has none."""
        document = asdict(self)
        for name in ("metrics", "cost"):
            document[name] = {key: value for key, value in document[name].items() if math.isfinite(value)}
        return write_document(document, sort_keys=True)

    @classmethod
    def from_json(cls, data: bytes) -> Result:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: it is no result, of another schema, not as it was written, or names no predictions.
        """
        result = typed(cls, read_document(data, RESULT), RESULT)
        # Finished means that the files are there: a result without any is none.
        if result.file(PREDICTIONS) is None:
            raise DataError(f"{RESULT} is damaged: it names no {PREDICTIONS}")
        for place in result.files:
            try:
                check_key(place)
            except UsageError as error:
                raise DataError(f"{RESULT} is damaged: {error}") from error
        return result

    def file(self, name: str) -> str | None:
        """Return the path below the cell of the finished attempt's file, or None where it has none."""
        # The attempt is a part of the path, and only the finished one's files are named.
        return next((path for path in self.files if path.endswith("/" + name)), None)


@dataclass(frozen=True, slots=True)
class Failure:
    """A cell that a second try cannot mend.

    Attributes:
        code: exit code.
        attempt: fence number.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    code: ExitCode
    message: str
    traceback: str
    attempt: int

    def to_json(self) -> bytes:
        """Return the text of ``failure.json``."""
        return write_document(asdict(self))

    @classmethod
    def from_json(cls, data: bytes) -> Failure:
        """Read what :meth:`to_json` wrote; DataError where something else lies there."""
        return typed(cls, read_document(data, FAILURE), FAILURE)


def find_result(store: Store, key: str) -> Result | None:
    """Return a cell's result, or None where it has none.

    Raises:
        DataError: ``result.json`` is damaged or another cell's.
    """
    blob = store.find(result_key(key))
    if blob is None:
        return None
    try:
        result = Result.from_json(blob.data)
    except DataError as error:
        raise DataError(f"{result_key(key)}: {error}") from error
    if result.cell != key:
        raise DataError(f"{result_key(key)} is of cell {result.cell}")
    return result


def find_verified_result(store: Store, key: str) -> Result | None:
    """Return a cell's result where it is there and verified: every file that it names has its SHA-256."""
    try:
        found = read_verified(store, key)
    except (DataError, MissingInputError) as error:
        log.warning("cell %s has a result that is not verified, and runs again: %s", key, error)
        return None
    return None if found is None else found[0]


def read_verified(store: Store, key: str) -> tuple[Result, bytes] | None:
    """Return a cell's result and its predictions' file, every file verified; None where it has no result.

    Raises:
        DataError, MissingInputError: what is damaged or lost. The cell is not finished.
    """
    result = find_result(store, key)
    if result is None:
        return None
    predictions, wanted = b"", result.file(PREDICTIONS)
    # Reading is verifying: a store that lost or cut a file must not count the cell as finished.
    for place in result.files:
        data = _read_place(store, result, place)
        if place == wanted:
            predictions = data
    return result, predictions


def read_file(store: Store, result: Result, name: str) -> bytes:
    """Return the contents of a result's file, checked against its SHA-256.

    Raises:
        DataError: the result names no such file, or the file is not what the result says.
    """
    place = result.file(name)
    if place is None:
        raise DataError(f"cell {result.cell} has no {name}")
    return _read_place(store, result, place)


def _read_place(store: Store, result: Result, place: str) -> bytes:
    """Return the contents of the file at a path below the cell, checked against its SHA-256."""
    data = store.get(cell_key(result.cell, place)).data
    if hashlib.sha256(data).hexdigest() != result.files[place]:
        raise DataError(f"{cell_key(result.cell, place)} is not what its result.json says: retry the cell")
    return data


def read_predictions(store: Store, result: Result) -> Predictions:
    """Return a result's predictions, checked against its SHA-256."""
    return Predictions.from_parquet(read_file(store, result, PREDICTIONS))


def find_failure(store: Store, key: str) -> Failure | None:
    """Return how the cell failed for good, or None.

    Raises:
        DataError: ``failure.json`` is damaged; says what to do.
    """
    blob = store.find(failure_key(key))
    try:
        return None if blob is None else Failure.from_json(blob.data)
    except DataError as error:
        raise DataError(f"{failure_key(key)}: {error}; `defectbench retry` or `run` removes it") from error


def finished_cells(store: Store, cells: Sequence[str]) -> set[str]:
    """Return the cells whose result is there and verified."""
    results = store.each(lambda key: find_verified_result(store, key), cells)
    return {key for key, result in zip(cells, results, strict=True) if result is not None}


def forget_failures(store: Store, cells: Sequence[str]) -> None:
    """Remove the failure records of cells that are to be tried again."""
    for key in cells:
        store.delete(failure_key(key))


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions of Python and of each library that may decide a fit's bits, if it is there.

    Args:
        more: further distributions, such as the one that the model comes from.
    """
    found = {"python": platform.python_version()}
    for name in dict.fromkeys((*_LIBRARIES, *more)):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def differing_versions(made: Mapping[str, str]) -> list[str]:
    """Return in words which libraries have other versions here than something was ``made`` with."""
    here = versions(made)
    names = sorted(name for name in {*made, *here} if made.get(name) != here.get(name))
    return [f"{name} {made.get(name, 'none')} (here {here.get(name, 'none')})" for name in names]
