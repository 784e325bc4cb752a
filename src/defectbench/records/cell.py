"""A cell: one fit. Its key hashes all that decides it, so that equal fits are one fit."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from defectbench.catalog import Family, Setting
from defectbench.data.manifest import canonical_json
from defectbench.errors import DataError, UsageError
from defectbench.stores.base import Store
from defectbench.stores.layout import CELLS, SPEC, second_part
from defectbench.util.documents import STRICT, read_document, typed, write_document

# 80 bits: a billion cells collide with a chance of less than one in a million.
_KEY_LENGTH = 20
_IN_JSON = {"rotate_and_flip": "turns", "rotate_defects": "defect_turns"}
"""Field -> its name in spec.json, where it is another: keys hash the names that version 0.1.0 wrote."""
_SHOWN = 8


@dataclass(frozen=True)
class Fit:
    """All that decides a fit; nothing else may enter the key.

    Attributes:
        data_digest: of the manifest.
        train: (image id, training label), in order. A contaminating defect is labelled 0.
        tune: ids of labelled images that end the fit early; empty for none.
        calibration: ids of the training goods that no fit sees; in contamination some are defects.
        model: catalog name.
        settings: the catalog's settings with the sweep's overrides.
        weights: weights' name -> SHA-256 of the file; empty for random weights and for models without.
        fit_version: of the catalog's entry.
        rotate_and_flip: both classes may be rotated by 90 degrees and mirrored.
        rotate_defects: each defect is shown at four rotations, goods are not (the original study's holdout).
        package: the package that the model comes from, ``name==version``; empty for this one.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    data_digest: str
    train: tuple[tuple[str, int], ...]
    tune: tuple[str, ...]
    calibration: tuple[str, ...]
    model: str
    settings: Mapping[str, Setting]
    weights: Mapping[str, str]
    fit_version: int
    image_size: int
    epochs: int
    patience: int
    seed: int
    threads: int
    balance: str
    rotate_and_flip: bool = False
    rotate_defects: bool = False
    package: str = ""

    def key(self) -> str:
        """Return the name of the fit: 20 hex digits of the SHA-256 over its canonical JSON."""
        return hashlib.sha256(canonical_json(self.to_document())).hexdigest()[:_KEY_LENGTH]

    def to_document(self) -> dict[str, Any]:
        """Return what the key is a hash of, and what ``spec.json`` keeps of it.

        ``package`` only where there is one: the keys of our own models go without it.
        """
        plain = {_IN_JSON.get(name, name): value for name, value in asdict(self).items()}
        if not self.package:
            del plain["package"]
        return plain


@dataclass(frozen=True)
class Cell:
    """A fit, and what a worker must know beside it.

    Attributes:
        family: of the model.
        dataset, category: where the data lie in the store.
        weights_kind: ``none``, ``pretrained``, ``file``, or ``not needed``; for people.
        keep_heat_maps: whether overlays will be wanted.
        deadline: seconds of running time that the cell may take over all its attempts; None for no limit.
        sweep: the sweep that wrote the spec, for the tracker.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    fit: Fit
    family: Family
    dataset: str
    category: str
    weights_kind: str
    keep_heat_maps: bool = True
    deadline: float | None = None
    sweep: str = ""
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.fit.key())

    def to_json(self) -> bytes:
        """Return the text of ``spec.json``."""
        return write_document({**asdict(self), "fit": self.fit.to_document()}, sort_keys=True)

    @classmethod
    def from_json(cls, data: bytes) -> Cell:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: it is no spec, of another schema, not as it was written, or its key does not hold.
        """
        document = read_document(data, SPEC)
        key, fit = document.pop("key", None), document.get("fit")
        if isinstance(fit, dict):
            names = {written: name for name, written in _IN_JSON.items()}
            document["fit"] = {names.get(name, name): value for name, value in fit.items()}
        cell = typed(cls, document, SPEC)
        if cell.key != key:
            raise DataError(f"spec.json states key {key}, its contents give {cell.key}: plan the sweep again")
        return cell


def find_cell(store: Store, start: str) -> str | None:
    """Return the key of the one cell whose key starts so; None where there is none.

    Raises:
        UsageError: several cells start so; some are named.
    """
    if not start.isalnum():  # no part of a key, and a slash would search elsewhere in the store
        return None
    keys = sorted({second_part(key) for key in store.keys(f"{CELLS}{start}")})
    if len(keys) > 1:
        # A short start may match thousands.
        more = ", ..." if len(keys) > _SHOWN else ""
        raise UsageError(
            f"{len(keys)} cells start with {start!r}: {', '.join(keys[:_SHOWN])}{more}; say more of it"
        )
    return keys[0] if keys else None
