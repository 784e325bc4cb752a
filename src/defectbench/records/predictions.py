"""The scores that one fit gave the images, and its learning curves, as parquet.

Scores of two cells are on different scales: a :class:`Predictions` holds one cell's rows and no more.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, fields
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from defectbench.data.manifest import UNKNOWN_LABEL
from defectbench.errors import DataError, MissingInputError

if TYPE_CHECKING:
    import pyarrow

Role = Literal["held_out", "validation", "calibration", "uncertain"]
"""What an image was to a fit: no influence on it; tuned it; one of the calibration goods."""

ROLES: tuple[Role, ...] = get_args(Role)
EXPLANATION = ("pixel_auroc", "pixel_ap", "pointing_hit", "iou")
"""Columns that only abnormal images with a mask have; null elsewhere."""

_PREDICTIONS = {
    "cell": "string",
    "image_id": "string",
    "label": "int8",
    "defect_type": "string",
    "role": "string",
    "score": "double",
} | dict.fromkeys(EXPLANATION, "double")
_HISTORY = {"epoch": "int64", "name": "string", "value": "double"}
NAN = float("nan")
_MOST_ROWS, _LARGEST = 10_000_000, 1 << 30
"""Rows and bytes of one file: a file states them before anything is unpacked."""


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """One image, scored by one fit.

    Attributes:
        image_id: as in the manifest.
        label: 0 good, 1 abnormal; -1 where nobody is sure, in the role ``uncertain`` alone.
        defect_type: as in the manifest.
        role: what the image was to the fit.
        score: raw, higher = more abnormal.
        pixel_auroc, pixel_ap, pointing_hit, iou: of an abnormal image with a mask, else NaN.
    """

    image_id: str
    label: int
    defect_type: str
    role: Role
    score: float
    pixel_auroc: float = NAN
    pixel_ap: float = NAN
    pointing_hit: float = NAN
    iou: float = NAN


@dataclass(frozen=True, eq=False)
class Predictions:
    """All rows of one cell, by column, each (n,). NaN is the file's null.

    Raises:
        DataError: columns of different lengths, an image twice, a label or role that does not exist.
    """

    cell: str
    image_id: NDArray[np.str_]
    label: NDArray[np.int8]
    defect_type: NDArray[np.str_]
    role: NDArray[np.str_]
    score: NDArray[np.float64]
    pixel_auroc: NDArray[np.float64]
    pixel_ap: NDArray[np.float64]
    pointing_hit: NDArray[np.float64]
    iou: NDArray[np.float64]

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise DataError([f"predictions of cell {self.cell}: {problem}" for problem in problems])

    def __len__(self) -> int:
        return int(self.image_id.size)

    @cached_property
    def _place(self) -> dict[str, int]:
        """Image id -> row."""
        return {name: index for index, name in enumerate(self.image_id.tolist())}

    @property
    def scored(self) -> Set[str]:
        """The images' ids."""
        return self._place.keys()

    def select(self, ids: Sequence[str]) -> Predictions:
        """Return the rows of ``ids``, in that order.

        Raises:
            MissingInputError: the cell did not score one of them.
        """
        unknown = [name for name in ids if name not in self._place]
        if unknown:
            raise MissingInputError(
                f"cell {self.cell} has no score for {len(unknown)} of {len(ids)} images: "
                f"{', '.join(unknown[:5])}"
            )
        return self._take(np.array([self._place[name] for name in ids], dtype=np.int64))

    def of_role(self, role: Role) -> Predictions:
        """Return the rows of one role, in order."""
        return self._take(np.flatnonzero(self.role == role))

    def rows(self) -> tuple[PredictionRow, ...]:
        """Return the rows one by one."""
        return tuple(map(PredictionRow, *(getattr(self, name).tolist() for name in _columns())))

    def to_parquet(self) -> bytes:
        """Return the file ``predictions.parquet``; the same rows give the same bytes."""
        columns = {name: getattr(self, name) for name in _columns()}
        return _write(_PREDICTIONS, {"cell": [self.cell] * len(self), **columns})

    def _take(self, places: NDArray[np.int64]) -> Predictions:
        """Return the rows at these places, checked again."""
        return Predictions(self.cell, *(getattr(self, name)[places] for name in _columns()))

    @classmethod
    def of(cls, cell: str, rows: Iterable[PredictionRow]) -> Predictions:
        """Return the columns of ``rows``, in order."""
        listed = tuple(rows)
        return cls(cell, *(_column(name, [getattr(row, name) for row in listed]) for name in _columns()))

    @classmethod
    def from_parquet(cls, data: bytes) -> Predictions:
        """Read what :meth:`to_parquet` wrote.

        Raises:
            DataError: no parquet file, other columns or types, no rows, or rows of several cells.
        """
        return cls.from_parquets([data])[0]

    @classmethod
    def from_parquets(cls, files: Sequence[bytes]) -> list[Predictions]:
        """Read several cells' files; their columns are brought to numpy together, which halves the time.

        Raises:
            DataError: of any file what :meth:`from_parquet` raises.
        """
        import pyarrow as pa

        if not files:
            return []
        tables = [_parsed(_PREDICTIONS, data, "predictions") for data in files]
        whole = _without_nulls(_PREDICTIONS, pa.concat_tables(tables), "predictions", EXPLANATION)
        try:
            columns = [_array(whole, name) for name in _columns()]
            names = whole["cell"].to_pylist()
        except (pa.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"predictions: a text in it is no text: {error}") from error
        found, start = [], 0
        for table in tables:
            rows = slice(start, start := start + len(table))
            cells = sorted(set(names[rows]))
            if len(cells) != 1:
                raise DataError(f"predictions: expected the rows of one cell, got {len(cells)}: {cells[:5]}")
            found.append(cls(cells[0], *(column[rows] for column in columns)))
        return found


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One figure of a learning curve, after ``epoch`` epochs."""

    epoch: int
    name: str
    value: float


def history_to_parquet(points: Iterable[HistoryPoint]) -> bytes:
    """Return the file ``history.parquet``; the same points give the same bytes."""
    listed = tuple(points)
    return _write(_HISTORY, {name: [getattr(point, name) for point in listed] for name in _HISTORY})


def history_from_parquet(data: bytes) -> tuple[HistoryPoint, ...]:
    """Read what :func:`history_to_parquet` wrote.

    Raises:
        DataError: no parquet file, or other columns or types.
    """
    table = _without_nulls(_HISTORY, _parsed(_HISTORY, data, "history"), "history")
    return tuple(map(HistoryPoint, *(table[name].to_pylist() for name in ("epoch", "name", "value"))))


def _columns() -> tuple[str, ...]:
    """Return the names of the columns that hold a value for each image; ``cell`` is the same in all."""
    return tuple(field.name for field in fields(PredictionRow))


_KINDS = {"string": np.str_, "int8": np.int8, "double": np.float64}


def _column(name: str, values: list[Any]) -> NDArray[Any]:
    """Return values as a column in numpy."""
    return np.array(values, dtype=_KINDS[_PREDICTIONS[name]])


def _array(table: pyarrow.Table, name: str) -> NDArray[Any]:
    """Return a file's column in numpy; null becomes NaN."""
    return np.asarray(table[name].to_numpy(), dtype=_KINDS[_PREDICTIONS[name]])


def _problems(rows: Predictions) -> list[str]:
    """Say what is wrong with the columns."""
    lengths = {name: int(getattr(rows, name).size) for name in _columns()}
    if len(set(lengths.values())) > 1:
        return [f"columns differ in length: {lengths}"]
    names = rows.image_id.tolist()
    twice = sorted(name for name, number in Counter(names).items() if number > 1) if _repeats(names) else []
    problems = [f"image {name} is there more than once" for name in twice]
    roles = sorted(set(rows.role.tolist()) - set(ROLES))
    problems += [f"unknown role {role!r}; allowed: {', '.join(ROLES)}" for role in roles]
    sure = rows.role != "uncertain"
    labels = sorted(
        (set(rows.label[sure].tolist()) - {0, 1}) | (set(rows.label[~sure].tolist()) - {UNKNOWN_LABEL})
    )
    problems += [
        f"unknown label {label}; allowed: 0 (good), 1 (abnormal), -1 (uncertain)" for label in labels
    ]
    return problems


def _repeats(names: Sequence[str]) -> bool:
    """Whether a name is there twice; cheaper than counting, which only a faulty file needs."""
    return len(set(names)) < len(names)


def _schema(columns: dict[str, str]) -> pyarrow.Schema:
    """Return the columns as an Arrow schema; see :func:`_schema_of`."""
    return _schema_of(tuple(columns.items()))


@cache
def _schema_of(columns: tuple[tuple[str, str], ...]) -> pyarrow.Schema:
    """Build the schema once in a process: it costs as much as reading a small file."""
    import pyarrow as pa

    return pa.schema([pa.field(name, pa.type_for_alias(kind)) for name, kind in columns])


def _write(columns: dict[str, str], values: dict[str, Any]) -> bytes:
    """Write one row group with fixed options, so that nothing but the rows decides the bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(columns)
    arrays = [_arrow(values[field.name], field.type, field.name in EXPLANATION) for field in schema]
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(arrays, schema=schema)
    # Of a hundred rows, dictionaries, statistics and the schema once more are a third of the file and of the
    # time to read it.
    plain = {"use_dictionary": False, "write_statistics": False, "store_schema": False}
    parquet.write_table(table, buffer, compression="snappy", version="2.6", row_group_size=1 << 30, **plain)
    return buffer.getvalue()


def _arrow(values: Any, kind: Any, nullable: bool) -> Any:
    """Return values as an Arrow array, NaN as null where the column may have it."""
    import pyarrow as pa

    mask = np.isnan(values) if nullable else None
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return pa.array(listed, type=kind, mask=mask)


def _parsed(columns: dict[str, str], data: bytes, what: str) -> pyarrow.Table:
    """Read a file that has these columns and no others."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        groups = range(file.metadata.num_row_groups)
        size = sum(file.metadata.row_group(place).total_byte_size for place in groups)
        if file.metadata.num_rows > _MOST_ROWS or size > _LARGEST:
            raise DataError(f"{what}: {file.metadata.num_rows} rows of {size} bytes are more than are read")
        # No threads of its own: cells are read many at once.
        table = file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError) as error:
        raise DataError(f"{what}: not a parquet file: {error}") from error
    expected = _schema(columns)
    if table.schema.equals(expected):
        return table
    got = {field.name: str(field.type) for field in table.schema}
    problems = [f"{what}: column {name} is missing" for name in columns if name not in got]
    problems += [f"{what}: unknown column {name}" for name in got if name not in columns]
    problems += [
        f"{what}: column {name} is {got[name]}, expected {kind}"
        for name, kind in columns.items()
        if name in got and got[name] != kind
    ]
    if problems:
        raise DataError(problems)
    # Same columns in another order, or with other metadata: another writer's file is read too.
    return table.select(list(columns)).cast(expected)


def _without_nulls(
    columns: dict[str, str], table: pyarrow.Table, what: str, nullable: tuple[str, ...] = ()
) -> pyarrow.Table:
    """Return the table; DataError where a column has nulls that may have none."""
    problems = [
        f"{what}: column {name} has {table[name].null_count} nulls, none are allowed"
        for name in columns
        if name not in nullable and table[name].null_count
    ]
    if problems:
        raise DataError(problems)
    return table
