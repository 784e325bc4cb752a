"""The folder of an exported model: ``model.json`` says all that scoring needs and names the other files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectbench import catalog
from defectbench.catalog import Family, Setting
from defectbench.errors import ConfigurationError, DataError, MissingInputError, UsageError
from defectbench.models.base import Model, ModelSettings
from defectbench.models.choose import build_model
from defectbench.util.files import disk_errors
from defectbench.util.image_io import FULL, Intensity
from defectbench.weights.store import digest_of

SCHEMA = 1
DOCUMENT = "model.json"
CARD = "README.md"
ONNX = "model.onnx"
_KIND = "defectbench model"
_WEIGHTS = "weights/"


@dataclass(frozen=True, slots=True)
class OperatingThreshold:
    """Where good ends.

    Attributes:
        value: a picture is called abnormal when its score lies above; None without calibration goods.
        asked: the false-alarm rate that it was set for.
        false_alarm_rate: what it keeps: a new good part scores above with at most this probability.
        goods: calibration goods that it comes from; rates are resolved in steps of 1/(goods + 1).
    """

    value: float | None
    asked: float
    false_alarm_rate: float | None
    goods: int

    def call(self, score: float) -> str | None:
        """Return ``abnormal`` or ``good``, or None where there is no threshold."""
        if self.value is None:
            return None
        return "abnormal" if score > self.value else "good"


@dataclass(frozen=True, slots=True)
class HeatScale:
    """One scale for the heat maps of all pictures.

    Attributes:
        low, high: what overlays draw as cold and as hottest.
        marked: a good part has a pixel above it no more often than ``threshold`` lets it be called abnormal;
            None without calibration goods.
    """

    low: float
    high: float
    marked: float | None = None

    def scaled(self, heat_map: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return a map on this scale: 0 is cold, 1 hottest, values beyond are kept."""
        return np.asarray((heat_map.astype(np.float64) - self.low) / (self.high - self.low or 1.0))


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """How the folder was checked before it got its name.

    Attributes:
        images: scores of the cell that were computed again with the folder alone.
        equal: those that were equal to the last bit; the others differ in rounding only.
        largest_difference: over all of them.
        calls_changed: pictures that the threshold calls otherwise.
        onnx_images, onnx_largest_difference: the same of ``model.onnx``; None without it.
        pattern_score: of :func:`pattern`, so that another machine can find out whether it rounds alike.
    """

    images: int
    equal: int
    largest_difference: float
    calls_changed: int
    pattern_score: float
    onnx_images: int | None = None
    onnx_largest_difference: float | None = None


@dataclass(frozen=True)
class Bundle:
    """All of ``model.json``.

    Attributes:
        preprocessing: how a file becomes what the model is fed, in numbers.
        weights: weights' name -> SHA-256, as in the cell.
        device: where the cell was fitted.
        versions: of the libraries that fitted it.
        files: path below the folder -> SHA-256; without the card and the document itself.
        state: which of them the model loads.
        opset: of ``model.onnx``, or None without it.
        package: the package that the model comes from, ``name==version``; empty for ours.
    """

    cell: str
    model: str
    family: Family
    dataset: str
    category: str
    data_digest: str
    settings: Mapping[str, Setting]
    image_size: int
    epochs: int
    patience: int
    seed: int
    threads: int
    balance: str
    fit_version: int
    weights_kind: str
    weights: Mapping[str, str]
    preprocessing: Mapping[str, Any]
    threshold: OperatingThreshold
    heat: HeatScale
    proof: ExportCheck
    device: str
    versions: Mapping[str, str]
    files: Mapping[str, str]
    state: str
    opset: int | None = None
    package: str = ""

    @property
    def intensity(self) -> Intensity:
        """The scale of grey of more than 8 bits that the model was trained with."""
        return Intensity.parse(str(self.preprocessing.get("intensity", FULL.text)))

    def to_json(self) -> bytes:
        """Return the text of ``model.json``."""
        document = {"kind": _KIND, "schema": SCHEMA, **asdict(self)}
        return json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Bundle:
        """Read what :meth:`to_json` wrote.

        Args:
            name: what an error message calls the file.

        Raises:
            DataError: it is something else, or of another schema.
        """
        try:
            document: dict[str, Any] = json.loads(data)
            kind, schema = document.pop("kind"), document.pop("schema")
            if kind != _KIND or schema != SCHEMA:
                raise DataError(f"{name}: is {kind!r} of schema {schema!r}; {_KIND!r} of {SCHEMA} is read")
            parts = {"threshold": OperatingThreshold, "heat": HeatScale, "proof": ExportCheck}
            made = {key: part(**document.pop(key)) for key, part in parts.items()}
            settings = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in document.pop("settings").items()
            }
            bundle = cls(settings=settings, **made, **document)
            _ = bundle.intensity
        except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
            raise DataError(f"{name}: not the {DOCUMENT} of an exported model ({error})") from error
        return bundle

    def model_settings(self, folder: Path, device: str) -> ModelSettings:
        """Return what the model is built from, its weights from the folder."""
        found = {name: folder / name for name in self.files if name.startswith(_WEIGHTS)}
        return ModelSettings(
            options=self.settings,
            image_size=self.image_size,
            epochs=self.epochs,
            patience=self.patience,
            seed=self.seed,
            weights={name.removeprefix(_WEIGHTS): path for name, path in found.items()},
            weights_digest="+".join(self.files[name] for name in sorted(found)) or "none",
            device=device,
            balance=self.balance,
        )


def weights_path(name: str) -> str:
    """Return where a folder keeps a weights file."""
    return _WEIGHTS + name


def read_bundle(folder: Path) -> Bundle:
    """Return the model that an export wrote, every file of it checked against its SHA-256.

    Raises:
        MissingInputError: there is no such folder, or no model in it.
        DataError: its files are not what ``model.json`` says; all of them are named.
    """
    document = folder / DOCUMENT
    if not document.is_file():
        raise MissingInputError(
            f"{folder}: no {DOCUMENT} there; name a folder that `defectbench export` wrote"
        )
    with disk_errors(document):
        bundle = Bundle.from_json(document.read_bytes(), str(document))
    problems = []
    for name, digest in {**bundle.files, bundle.state: bundle.files.get(bundle.state, "")}.items():
        path = folder / name
        # The document may be anybody's: no name in it may lead out of the folder.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            problems.append(f"{document}: names a file outside its folder: {name!r}")
        elif not path.is_file():
            problems.append(f"{path}: is missing")
        elif digest_of(path) != digest:
            problems.append(f"{path}: is not what {DOCUMENT} says; export the cell again")
    if problems:
        raise DataError(problems)
    return bundle


def load_model(bundle: Bundle, folder: Path, device: str) -> Model:
    """Return the folder's model, fitted.

    Raises:
        ConfigurationError: this version of defectbench fits the model otherwise, or a library is missing.
        UsageError: this version has no such model.
        MissingWeightsError: the package that the model comes from is not here in its version.
    """
    entry = catalog.find_of(bundle.model, bundle.package)
    if entry.fit_version != bundle.fit_version:
        raise ConfigurationError(
            f"{bundle.model} was exported with version {bundle.fit_version} of its fit, this defectbench has "
            f"{entry.fit_version}: use defectbench {bundle.versions.get('defectbench', '?')}, or export anew"
        )
    model = build_model(entry, bundle.model_settings(folder, device))
    model.load(folder / bundle.state)
    return model


def digests(folder: Path) -> dict[str, str]:
    """Return path below the folder -> SHA-256 for all its files."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_of(path) for path in paths}
