"""A table of published models: read, checked line by line, and held against the filters of a choice.

Column 1 is the model, column 2 its accuracy, column 3 its size or popularity, whatever they are called. Of
the others only those that :data:`FILTERS` names are read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from defectbench.errors import DataError, MissingInputError

Kind = Literal["classifiers", "detectors"]
HIGHEST_RANK: Mapping[Kind, int] = MappingProxyType({"classifiers": 300, "detectors": 100})
"""The last rank of a leaderboard that passes."""

MOST_MILLIONS = 100
FEWEST_STARS = 20
PARAMETERS = "params_millions"
"""The column of parameters, in millions."""

STARS = "stars"
"""The column of how well known a model's code is."""

_COLUMNS = 3
_SMALLEST, _LARGEST = 1e-9, 1e15


@dataclass(frozen=True, slots=True)
class Filter:
    """What a field must be for its row to pass.

    Attributes:
        rule: the filter in words.
        against: what a field has against its row, or None; ValueError where it is not what it must be.
    """

    rule: str
    against: Callable[[str], str | None]


def _at_most(limit: float) -> Filter:
    """Return a filter that lets numbers up to ``limit`` pass."""
    return Filter(
        f"at most {limit:g}", lambda text: f"{text} is above {limit:g}" if _number(text) > limit else None
    )


def _at_least(limit: float) -> Filter:
    """Return a filter that lets numbers from ``limit`` on pass."""
    return Filter(
        f"at least {limit:g}", lambda text: f"{text} is below {limit:g}" if _number(text) < limit else None
    )


_ALIKE = {
    PARAMETERS: _at_most(MOST_MILLIONS),
    STARS: _at_least(FEWEST_STARS),
    "code": Filter("not empty", lambda text: None if text else "is empty"),
}

FILTERS: Mapping[Kind, Mapping[str, Filter]] = MappingProxyType(
    {kind: MappingProxyType({"rank": _at_most(rank), **_ALIKE}) for kind, rank in HIGHEST_RANK.items()}
)
"""Family -> column -> its filter."""


@dataclass(frozen=True, slots=True)
class LeaderboardRow:
    """One model of the table.

    Attributes:
        line: where it begins in the file, counted from 1.
        accuracy: 0 to 100, in the table's own unit.
        size: column 3, a size or a popularity: 1e-9 to 1e15, in the table's own unit.
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
        filters: column -> its filter in words, for the columns of the table that filter.
        rows: at least one, in the file's order; no model twice.
    """

    file: str
    sha256: str
    columns: tuple[str, str, str]
    filters: Mapping[str, str]
    rows: tuple[LeaderboardRow, ...]


def read_leaderboard(path: Path, kind: Kind) -> Leaderboard:
    """Read a table of ``kind``, which decides its filters.

    Raises:
        MissingInputError: no such file.
        DataError: all that is wrong with it, each with its line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingInputError(f"cannot read the table {path}: {error.strerror}") from error
    return parse_leaderboard(data, path.name, kind)


def parse_leaderboard(data: bytes, file: str, kind: Kind) -> Leaderboard:
    """Return the table that ``data`` holds; ``file`` names it in messages.

    Raises:
        DataError: all that is wrong with it, each with its line.
    """
    (line, header), *records = _records(data, file) or [(1, [])]
    _check_header(header, f"{file}:{line}", FILTERS[kind])
    problems: list[str] = []
    rows: dict[str, LeaderboardRow] = {}
    for line, record in records:
        try:
            row = _row(line, header, record, kind)
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
    filters = {name: own.rule for name, own in FILTERS[kind].items() if name in header}
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


def _check_header(header: Sequence[str], place: str, filters: Collection[str]) -> None:
    if len(header) < _COLUMNS:
        got = ", ".join(header) or "none"
        raise DataError(
            f"{place}: columns {got}; at least {_COLUMNS} are needed, with commas between them: "
            "model, accuracy, size or popularity"
        )
    for number, meaning, wrong in ((2, "accuracy", filters), (3, "size or popularity", ("rank", "code"))):
        got = header[number - 1]
        if got in wrong:
            raise DataError(f"{place}: column {number} is {got!r}; it must be the {meaning}")
    twice = [name for name in filters if header.count(name) > 1]
    if twice:
        raise DataError(f"{place}: column {twice[0]!r} stands there twice; once is allowed")


def _row(line: int, header: Sequence[str], record: Sequence[str], kind: Kind) -> LeaderboardRow:
    """Return a record as a row; raises ValueError that says what is wrong with it."""
    if len(record) != len(header):
        raise ValueError(f"{len(record)} fields; the header names {len(header)}")
    model, accuracy, size = record[:_COLUMNS]
    if not model or not model.isprintable():
        raise ValueError(f"{header[0]}: got {model!r}; a name of printable characters is allowed")
    named = dict(zip(header, record, strict=True))
    return LeaderboardRow(
        line,
        model,
        _within(header[1], accuracy, 0, 100),
        _within(header[2], size, _SMALLEST, _LARGEST),
        refusals({name: named[name] for name in FILTERS[kind] if name in named}, kind),
    )


def refusals(fields: Mapping[str, str], kind: Kind) -> tuple[str, ...]:
    """Return what the filters have against these fields; raises ValueError for one that is no number.

    >>> refusals({"rank": "301", "params_millions": "21", "code": ""}, "classifiers")
    ('rank 301 is above 300', 'code is empty')
    >>> refusals({"rank": "101", "stars": "19"}, "detectors")
    ('rank 101 is above 100', 'stars 19 is below 20')
    """
    found = []
    for name, text in fields.items():
        try:
            reason = FILTERS[kind][name].against(text)
        except ValueError:
            rule = FILTERS[kind][name].rule
            raise ValueError(f"{name}: got {text!r}; a number is allowed, {rule} to pass") from None
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
