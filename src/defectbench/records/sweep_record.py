"""``sweeps/<name>.json``: what a sweep consists of, for everyone who reads its results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from defectbench.catalog import Family
from defectbench.errors import DataError, MissingInputError, UsageError, nearest
from defectbench.protocols.base import Split
from defectbench.protocols.detection import HOLDOUT
from defectbench.stores.base import Store
from defectbench.stores.layout import SWEEPS, second_part, sweep_key
from defectbench.util.documents import STRICT, read_document, typed, write_document

_IN_JSON = {"rotate_defects": "defect_turns"}
"""Field of a split -> its name in the record, where it is another: version 0.1.0 wrote it so."""

_MODELS = "contestants"
"""What version 0.1.0 called the record's ``models``."""
_FIELDS = {written: name for name, written in _IN_JSON.items()}


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

    __pydantic_config__: ClassVar[Any] = STRICT

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

    __pydantic_config__: ClassVar[Any] = STRICT

    category: str
    split: Split


@dataclass(frozen=True, slots=True)
class Reading:
    """A table entry: a cell's predictions, read through a split.

    Attributes:
        label: of the model.
        split: place in the record's ``splits``.
        cell: key.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

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

    __pydantic_config__: ClassVar[Any] = STRICT

    name: str
    dataset: str
    document: Mapping[str, Any]
    models: tuple[SweepModel, ...]
    contenders: tuple[str, str] | None
    digests: Mapping[str, str]
    cells: Mapping[str, str]
    splits: tuple[CategorySplit, ...]
    readings: tuple[Reading, ...]
    notes: tuple[str, ...] = ()

    def narrowed(self, narrowing: Narrowing) -> list[str]:
        """Return the keys of the cells that are meant, as :func:`narrow_cells` does."""
        allowed = ({each.label for each in self.models}, set(self.categories))
        return narrow_cells(narrowing, self.cells, models_of(self), allowed)

    @property
    def categories(self) -> tuple[str, ...]:
        """The sweep's categories in order."""
        return tuple(self.digests)

    def to_json(self) -> bytes:
        """Return the text of ``sweeps/<name>.json``."""
        own = {_MODELS if name == "models" else name: value for name, value in asdict(self).items()}
        for placed in own["splits"]:
            placed["split"] = {_IN_JSON.get(name, name): value for name, value in placed["split"].items()}
        # Without blanks: a record of ten thousand readings is read by every command.
        return write_document(own, indent=None)

    @classmethod
    def from_json(cls, data: bytes) -> Record:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: it is no record, of another schema, or not as it was written; or its holdout is that of
                an earlier version, which let goods of the test part train.
        """
        what = "the sweep's record"
        document = read_document(data, what)
        document["models"] = document.pop(_MODELS, None)
        document["splits"] = [_renamed(item) for item in _listed(document.get("splits"))]
        record = typed(cls, document, what)
        _check_holdout(record.splits)
        _check_places(record)
        return record


def _listed(value: Any) -> list[Any]:
    """Return the value where it is a list; what is none is left for the reader to refuse."""
    return value if isinstance(value, list) else [value]


def _renamed(item: Any) -> Any:
    """Return a split with the names of its fields for those in the record."""
    if not isinstance(item, dict) or not isinstance(item.get("split"), dict):
        return item
    return {**item, "split": {_FIELDS.get(name, name): value for name, value in item["split"].items()}}


def _check_places(record: Record) -> None:
    """Refuse a record whose parts name others that it does not have."""
    labels = {each.label for each in record.models}
    for reading in record.readings:
        if not 0 <= reading.split < len(record.splits):
            raise DataError(f"the sweep's record is damaged: it has no split {reading.split}")
        if reading.cell not in record.cells or reading.label not in labels:
            raise DataError(
                f"the sweep's record is damaged: no cell {reading.cell} of {reading.label!r} in it"
            )
    unread = record.cells.keys() - {reading.cell for reading in record.readings}
    foreign = set(record.cells.values()) - record.digests.keys()
    if unread or foreign:
        raise DataError(f"the sweep's record is damaged: nothing says what {min(unread or foreign)} is")


def _check_holdout(splits: Sequence[CategorySplit]) -> None:
    """Refuse a holdout of an earlier version: there the classifier's goods were more than the detector's."""
    goods: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for placed in splits:
        if placed.split.condition == HOLDOUT:
            goods[placed.category].add(placed.split.goods)
    if any(len(learnt) > 1 for learnt in goods.values()):
        raise DataError(
            "the sweep's record is of an earlier version, whose holdout let goods of the test part train, "
            "unlike the original study's: run the sweep again"
        )


def read_record(store: Store, name: str) -> Record:
    """Return a sweep's record.

    Raises:
        MissingInputError: the store knows no such sweep; names those it knows.
    """
    blob = store.find(sweep_key(name))
    if blob is None:
        known = [second_part(key) for key in store.keys(SWEEPS) if key.endswith(".json")]
        hint = (
            nearest(name, known)
            if known
            else "it has none yet: `defectbench run SWEEP` or `defectbench submit SWEEP` makes one"
        )
        raise MissingInputError(f"no sweep {name!r} in {store.url}; {hint}")
    try:
        record = Record.from_json(blob.data)
    except DataError as error:
        raise DataError(f"{sweep_key(name)}: {error}; run or plan the sweep again") from error
    if record.name != name:
        raise DataError(f"{sweep_key(name)} is the record of {record.name!r}: run the sweep again")
    return record


def models_of(record: Record) -> dict[str, str]:
    """Return each cell's model, by the label that the sweep gives it."""
    found: dict[str, str] = {}
    for reading in record.readings:
        found.setdefault(reading.cell, reading.label)
    return found


@dataclass(frozen=True, slots=True)
class Narrowing:
    """Which cells of a sweep are meant; nothing named means all.

    Attributes:
        models: the sweep's labels.
        cells: how their keys start.
    """

    models: Sequence[str] = ()
    categories: Sequence[str] = ()
    cells: Sequence[str] = ()


WHOLE = Narrowing()
"""All cells."""


def narrow_cells(
    narrowing: Narrowing,
    cells: Mapping[str, str],
    labels: Mapping[str, str],
    allowed: tuple[Set[str], Set[str]],
) -> list[str]:
    """Return the keys of the cells that are meant, in order.

    Args:
        cells: key -> category.
        labels: key -> the sweep's label of the model.
        allowed: the sweep's models and its categories, those without a cell too.

    Raises:
        UsageError: a name or key that the sweep does not have.
    """
    models, categories, starts = narrowing.models, narrowing.categories, narrowing.cells
    _check_known("model", models, allowed[0])
    _check_known("category", categories, allowed[1])
    for start in starts:
        if not any(key.startswith(start) for key in cells):
            raise UsageError(f"no cell {start!r} in this sweep: `defectbench plan SWEEP` lists them")
    return [
        key
        for key, category in cells.items()
        if (not models or labels[key] in models)
        and (not categories or category in categories)
        and (not starts or any(key.startswith(start) for start in starts))
    ]


def _check_known(what: str, names: Sequence[str], allowed: Set[str]) -> None:
    """Refuse a name that the sweep does not have; names the nearest."""
    for name in names:
        if name not in allowed:
            raise UsageError(f"unknown {what} {name!r}; {nearest(name, allowed)}")
