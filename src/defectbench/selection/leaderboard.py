"""A table of published models: read, checked line by line, and held against the filters of a choice.

Column 1 is the model, column 2 its accuracy, column 3 its size, whatever they are called. Of the others only
those that :data:`FILTERS` names are read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from defectbench.errors import DataError, MissingInputError

HIGHEST_RANK = 300
MOST_MILLIONS = 100
PARAMETERS = "params_millions"
"""The column of parameters, in millions."""

_COLUMNS = 3
_SMALLEST, _LARGEST = 1e-9, 1e15


def _at_most(limit: float) -> Callable[[str], str | None]:
    """Return a filter that lets numbers up to ``limit`` pass and says why others do not."""
    return lambda text: f"{text} is above {limit:g}" if _number(text) > limit else None


def _filled(text: str) -> str | None:
    return None if text else "is empty"


FILTERS: Mapping[str, Callable[[str], str | None]] = MappingProxyType(
    {"rank": _at_most(HIGHEST_RANK), PARAMETERS: _at_most(MOST_MILLIONS), "code": _filled}
)
"""Column -> what a field of it has against the row, or None; ValueError where it is not what it must be."""

RULES: Mapping[str, str] = MappingProxyType(
    {
        "rank": f"at most {HIGHEST_RANK}",
        PARAMETERS: f"at most {MOST_MILLIONS}",
        "code": "not empty",
    }
)
"""Column -> its filter in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """One model of the table.

    Attributes:
        line: where it begins in the file, counted from 1.
        accuracy: 0 to 100, in the table's own unit.
        size: 1e-9 to 1e15, in the table's own unit.
        refused: what the filters have against it; empty for a row that passes.
    """

    line: int
    model: str
    accuracy: float
    size: float
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """A table as it was read.

    Attributes:
        file: its name.
        sha256: of its bytes.
        columns: the names of columns 1, 2 and 3.
        filters: the columns that filter, of those that the table has.
        rows: at least one, in the file's order; no model twice.
    """

    file: str
    sha256: str
    columns: tuple[str, str, str]
    filters: tuple[str, ...]
    rows: tuple[Row, ...]


def read(path: Path) -> Leaderboard:
    """Read a table.

    Raises:
        MissingInputError: no such file.
        DataError: all that is wrong with it, each with its line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingInputError(f"cannot read the table {path}: {error.strerror}") from error
    return parse(data, path.name)


def parse(data: bytes, file: str) -> Leaderboard:
    """Return the table that ``data`` holds; ``file`` names it in messages.

    Raises:
        DataError: all that is wrong with it, each with its line.
    """
    (line, header), *records = _records(data, file) or [(1, [])]
    _check_header(header, f"{file}:{line}")
    problems: list[str] = []
    rows: dict[str, Row] = {}
    for line, record in records:
        try:
            row = _row(line, header, record)
            if row.model in rows:
                first = rows[row.model].line
                raise ValueError(f"model {row.model!r} stands in line {first} too; once is allowed")
            rows[row.model] = row
        except ValueError as error:
            problems.append(f"{file}:{line}: {error}")
    if not records:
        problems.append(f"{file}: no row below the header; at least 1 is needed")
    if problems:
        raise DataError(problems)
    filters = tuple(name for name in FILTERS if name in header)
    digest = hashlib.sha256(data).hexdigest()
    return Leaderboard(file, digest, (header[0], header[1], header[2]), filters, tuple(rows.values()))


def _records(data: bytes, file: str) -> list[tuple[int, list[str]]]:
    """Return (line, stripped fields) of the records that are not blank."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}:{line}: not UTF-8 text: {error.reason}") from error
    return [found for found in _numbered(text, file) if any(found[1])]


def _numbered(text: str, file: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for record in reader:
            yield line, [field.strip() for field in record]
            line = reader.line_num + 1  # a quoted field may hold line ends
    except csv.Error as error:
        raise DataError(f"{file}:{line}: no CSV: {error}") from error


def _check_header(header: Sequence[str], place: str) -> None:
    if len(header) < _COLUMNS:
        got = ", ".join(header) or "none"
        raise DataError(
            f"{place}: columns {got}; at least {_COLUMNS} are needed, with commas between them: "
            "model, accuracy, size"
        )
    for number, meaning, wrong in ((2, "accuracy", tuple(FILTERS)), (3, "size", ("rank", "code"))):
        got = header[number - 1]
        if got in wrong:
            raise DataError(f"{place}: column {number} is {got!r}; it must be the {meaning}")
    twice = [name for name in FILTERS if header.count(name) > 1]
    if twice:
        raise DataError(f"{place}: column {twice[0]!r} stands there twice; once is allowed")


def _row(line: int, header: Sequence[str], record: Sequence[str]) -> Row:
    """Return a record as a row; raises ValueError that says what is wrong with it."""
    if len(record) != len(header):
        raise ValueError(f"{len(record)} fields; the header names {len(header)}")
    model, accuracy, size = record[:_COLUMNS]
    if not model or not model.isprintable():
        raise ValueError(f"{header[0]}: got {model!r}; a name of printable characters is allowed")
    named = dict(zip(header, record, strict=True))
    return Row(
        line,
        model,
        _within(header[1], accuracy, 0, 100),
        _within(header[2], size, _SMALLEST, _LARGEST),
        refusals({name: named[name] for name in FILTERS if name in named}),
    )


def refusals(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the filters have against these fields; raises ValueError for one that is no number.

    >>> refusals({"rank": "301", "params_millions": "21", "code": ""})
    ('rank 301 is above 300', 'code is empty')
    """
    found = []
    for name, text in fields.items():
        try:
            reason = FILTERS[name](text)
        except ValueError:
            raise ValueError(f"{name}: got {text!r}; a number is allowed, {RULES[name]} to pass") from None
        if reason:
            found.append(f"{name} {reason}")
    return tuple(found)


def _within(name: str, text: str, low: float, high: float) -> float:
    try:
        value = _number(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"{name}: got {text!r}; a number from {low:g} to {high:g} is allowed")
    return value


def _number(text: str) -> float:
    """Return a finite number; Python's own ``1_000`` is none in a table."""
    value = float("" if "_" in text else text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
