"""A table's rows as files: CSV for people and spreadsheets, Parquet for programs."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    import pyarrow as pa


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute; an apostrophe before it makes it text."""


def as_files(name: str, rows: Sequence[Any], kind: type) -> Iterator[tuple[str, bytes]]:
    """Yield a table's files: (name, content)."""
    yield f"{name}.csv", to_csv(rows, kind).encode()
    yield f"{name}.parquet", to_parquet(rows, kind)


def to_csv(rows: Sequence[Any], kind: type) -> str:
    """Return rows of the dataclass ``kind`` as CSV: fields as header, NaN empty, lists joined by ``;``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(kind)])
    writer.writerows([[_plain(value) for value in asdict(row).values()] for row in rows])
    return text.getvalue()


def to_parquet(rows: Sequence[Any], kind: type) -> bytes:
    """Return the table of :func:`to_arrow` as Parquet."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(to_arrow(rows, kind), buffer, compression="zstd")
    return buffer.getvalue()


def to_arrow(rows: Sequence[Any], kind: type) -> pa.Table:
    """Return rows of the dataclass ``kind`` as a table: typed columns, NaN null, lists as lists."""
    import pyarrow as pa

    schema = pa.schema([(name, _type(hint)) for name, hint in get_type_hints(kind).items()])
    columns = {name: [_defined(getattr(row, name)) for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def _type(hint: Any) -> pa.DataType:
    """Return the column type of a field.

    >>> str(_type(tuple[float, ...])), str(_type(Literal["a"] | None))
    ('list<element: double>', 'string')
    """
    import pyarrow as pa

    if get_origin(hint) in (Union, UnionType):
        return _type(next(each for each in get_args(hint) if each is not type(None)))
    if get_origin(hint) is tuple:
        return pa.list_(pa.field("element", _type(get_args(hint)[0])))
    if get_origin(hint) is Literal:
        return pa.string()
    return {str: pa.string(), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}[hint]


def _defined(value: Any) -> Any:
    """Return the value, None for NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _plain(value: Any) -> Any:
    """Return the value as CSV holds it."""
    if isinstance(value, tuple):
        return ";".join(str(_plain(item)) for item in value)
    defined = _defined(value)
    if isinstance(defined, str) and defined.startswith(_FORMULA):
        return f"'{defined}"
    return "" if defined is None else defined
