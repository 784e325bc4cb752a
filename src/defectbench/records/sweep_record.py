"""``sweeps/<name>.json``: what a sweep consists of, for everyone who reads its results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from defectbench.catalog import Family
from defectbench.errors import DataError
from defectbench.protocols.base import Split

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class SweepModel:
    """A model of the sweep.

    Attributes:
        label: its name in tables.
        model: catalog name.
        weights: ``none``, ``pretrained``, ``file`` or ``not needed``.
        changed: settings that are not the catalog's, which a report must name.
        package: the package that it comes from, ``name==version``; empty for this one.
    """

    label: str
    model: str
    family: Family
    weights: str
    image_size: int
    changed: Mapping[str, Any]
    package: str = ""


@dataclass(frozen=True, slots=True)
class CategorySplit:
    """A split of one category."""

    category: str
    split: Split


@dataclass(frozen=True, slots=True)
class Reading:
    """A table entry: a cell's predictions, read through a split.

    Attributes:
        label: of the contestant.
        split: place in the record's ``splits``.
        cell: key.
    """

    label: str
    seed: int
    split: int
    cell: str


@dataclass(frozen=True)
class Record:
    """A sweep, expanded.

    Attributes:
        document: the sweep's keys as they were read, overrides laid over them.
        contenders: labels of (classifier, detector) that the verdict is about, in the sweep's order; None
            where a family is missing.
        digests: category -> data digest.
        cells: every distinct cell's key -> its category, in the order of running.
        notes: what the protocols were asked for and cannot do on a category, in words.
    """

    name: str
    dataset: str
    document: Mapping[str, Any]
    contestants: tuple[SweepModel, ...]
    contenders: tuple[str, str] | None
    digests: Mapping[str, str]
    cells: Mapping[str, str]
    splits: tuple[CategorySplit, ...]
    readings: tuple[Reading, ...]
    notes: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """The sweep's categories in order."""
        return tuple(self.digests)

    def to_json(self) -> bytes:
        """Return the text of ``sweeps/<name>.json``."""
        return json.dumps({"schema": SCHEMA, **asdict(self)}, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: it is no record, or of another schema.
        """
        try:
            document = json.loads(data)
            schema = document.pop("schema")
            if schema != SCHEMA:
                raise DataError(f"the sweep's record has schema {schema!r}, this version reads {SCHEMA}")
            contenders = document.pop("contenders")
            return cls(
                contestants=tuple(SweepModel(**item) for item in document.pop("contestants")),
                contenders=tuple(contenders) if contenders else None,
                splits=tuple(_read_split(item) for item in document.pop("splits")),
                readings=tuple(Reading(**item) for item in document.pop("readings")),
                notes=tuple(document.pop("notes", ())),
                **document,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"not a sweep's record: {error}; run or plan the sweep again") from error


def _read_split(item: Any) -> CategorySplit:
    split: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in item["split"].items()
    }
    return CategorySplit(item["category"], Split(**split))


def path(name: str) -> str:
    """Return the store's key of a sweep's record."""
    return f"sweeps/{name}.json"
