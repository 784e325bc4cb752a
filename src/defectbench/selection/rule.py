"""The rule by which a study chooses a model from a table: accuracy against the logarithm of size.

A row stays a candidate when no other has strictly higher accuracy and strictly smaller size. A least-squares
line of accuracy over log(size) goes through the candidates; the one farthest above it is chosen, once a real
forward pass has shown that it takes the size of pictures that is wanted. If it does not, its row is dropped
and the rule applied again.

*Farthest above* is the vertical distance; the perpendicular one differs by one factor for all, so it chooses
the same. The unit of size moves the line sideways and changes no distance. One candidate, or several of one
size, have no slope: the line is level then, at their mean. Distances within :data:`LEVEL` of the largest
count as equal; then higher accuracy decides, then smaller size, then the name in alphabetical order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from defectbench.catalog import BY_TABLE_NAME, Entry
from defectbench.errors import DataError, UsageError
from defectbench.models.checks.size_check import TRAINING_PICTURES, SizeCheckResult
from defectbench.selection.leaderboard import PARAMETERS, Leaderboard, Row, refusals

Kind = Literal["classifiers", "detectors"]
Ask = Callable[[Sequence[str]], Mapping[str, SizeCheckResult]]
"""Catalog names -> what their models make of a picture of :data:`SIDE`."""

SIDE = 512
"""Pixels a side that the chosen model must take."""

LEVEL = 1e-9
"""Distances from the line, in units of accuracy, that differ by less count as equal."""

NOT_CHECKED = f"{SIDE}: not checked"
PASSED = f"{SIDE}: passed"


@dataclass(frozen=True, slots=True)
class Line:
    """Accuracy = ``intercept`` + ``slope`` x ln(size)."""

    slope: float
    intercept: float

    def at(self, size: float) -> float:
        """Return the accuracy that the line gives for a size."""
        return self.intercept + self.slope * math.log(size)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that no other dominates, and how far above the line it lies, in units of accuracy."""

    row: Row
    residual: float


@dataclass(frozen=True, slots=True)
class Excluded:
    """A row that is no candidate, and why."""

    row: Row
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rule makes of some rows.

    Attributes:
        candidates: at least one, best first: the first is chosen.
        line: through the candidates; None where there is one alone.
        excluded: the other rows, in the table's order.
        decided: in words, what the chosen row has before the next.
    """

    candidates: tuple[Candidate, ...]
    line: Line | None
    excluded: tuple[Excluded, ...]
    decided: str

    @property
    def chosen(self) -> Row:
        """The row that is chosen."""
        return self.candidates[0].row


@dataclass(frozen=True, slots=True)
class Measured:
    """The same rule on the parameters, in millions, that models of the catalog have.

    Attributes:
        choice: None where no model could be measured, or none passes.
        missing: model -> why its parameters are not known.
        words: what it chooses, and how that differs from the choice by the table's own size.
    """

    choice: Choice | None
    missing: Mapping[str, str]
    words: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice from one table.

    Attributes:
        board: the table.
        entries: model -> the name of its entry in the catalog, for those that have one.
        checks: model -> :data:`PASSED`, :data:`NOT_CHECKED`, or ``512: failed`` with the reason.
        measured: for detectors whose table has no parameters; else None.
    """

    kind: Kind
    board: Leaderboard
    choice: Choice
    entries: Mapping[str, str]
    checks: Mapping[str, str]
    measured: Measured | None


def select(
    board: Leaderboard, kind: Kind, ask: Ask, catalog: Mapping[str, Entry] = BY_TABLE_NAME
) -> Selection:
    """Choose from a table. ``ask`` is called only about models that the catalog has.

    Args:
        catalog: the table's name of a model -> its entry.

    Raises:
        UsageError: the table has a model of the other family.
        DataError: no row passes the filters, or none that does takes the size.
        TryAgainError, ConfigurationError, BugError: the chosen model could not be asked.
    """
    entries = _entries(board, kind, catalog)
    by_parameters = kind == "detectors" and PARAMETERS not in board.columns
    asked = [entries[row.model].name for row in board.rows if row.model in entries and not row.refused]
    told = dict(ask(asked)) if by_parameters and asked else {}
    dropped: dict[str, str] = {}
    choice = _choose_passing(board, dropped)
    while (entry := entries.get(choice.chosen.model)) is not None:
        if entry.name not in told:
            told |= ask([entry.name])
        answer = told[entry.name]
        if answer.error is not None:
            raise answer.error
        if answer.takes:
            break
        dropped[choice.chosen.model] = f"does not take {SIDE} x {SIDE} pixels: {answer.says}"
        choice = _choose_passing(board, dropped)
    probes = {model: told[entry.name] for model, entry in entries.items() if entry.name in told}
    checks = {row.model: _check(probes.get(row.model)) for row in board.rows}
    measured = _measure(board, choice, probes, entries) if by_parameters else None
    names = {model: entry.name for model, entry in entries.items()}
    return Selection(kind, board, choice, names, checks, measured)


def _entries(board: Leaderboard, kind: Kind, catalog: Mapping[str, Entry]) -> dict[str, Entry]:
    """Return model -> its entry, for those that the catalog has."""
    found = {row.model: catalog[row.model] for row in board.rows if row.model in catalog}
    for row in board.rows:
        entry = found.get(row.model)
        if entry is not None and (entry.family == "classifier") != (kind == "classifiers"):
            other = "classifiers" if kind == "detectors" else "detectors"
            raise UsageError(
                f"{board.file}:{row.line}: {row.model!r} is a {entry.family}, got select {kind}; "
                f"say select {other}, or leave the row out"
            )
    return found


def _check(answer: SizeCheckResult | None) -> str:
    if answer is None or answer.error is not None:
        return NOT_CHECKED
    return PASSED if answer.takes else f"{SIDE}: failed: {answer.says}"


def _choose_passing(board: Leaderboard, dropped: Mapping[str, str]) -> Choice:
    """Apply the rule to the rows that are neither refused by a filter nor dropped."""
    reasons = {row.model: "; ".join(row.refused) for row in board.rows if row.refused}
    reasons |= dropped
    rows = [row for row in board.rows if row.model not in reasons]
    if not rows:
        raise DataError(
            [f"{board.file}: no row is left to choose from; at least 1 is needed"]
            + [f"{board.file}:{row.line}: {row.model}: {reasons[row.model]}" for row in board.rows]
        )
    choice = choose(rows)
    out = [Excluded(row, reasons[row.model]) for row in board.rows if row.model in reasons]
    return replace(choice, excluded=_in_order([*choice.excluded, *out]))


def _in_order(excluded: Iterable[Excluded]) -> tuple[Excluded, ...]:
    return tuple(sorted(excluded, key=lambda one: one.row.line))


def choose(rows: Collection[Row]) -> Choice:
    """Apply the rule to rows, at least one. Neither their order nor the unit of size changes the choice.

    >>> small, middle = Row(2, "small", 80, 10), Row(3, "middle", 86, 20)
    >>> choice = choose([small, middle, Row(4, "large", 88, 40), Row(5, "old", 79, 30)])
    >>> choice.chosen.model, [round(one.residual, 3) for one in choice.candidates]
    ('middle', [1.333, -0.667, -0.667])
    >>> choice.excluded[0].reason
    'dominated by middle: accuracy 86 against 79, size 20 against 30'
    """
    ordered = sorted(rows, key=_by_merit)
    candidates = [row for row in ordered if not any(dominates(other, row) for other in ordered)]
    line = fit(candidates) if len(candidates) > 1 else None
    residuals = {row.model: row.accuracy - line.at(row.size) if line else 0.0 for row in candidates}
    highest = max(residuals.values())
    level = [row for row in candidates if residuals[row.model] >= highest - LEVEL]
    rest = [row for row in candidates if row not in level]
    rest.sort(key=lambda row: (-residuals[row.model], _by_merit(row)))
    excluded = (
        Excluded(row, _dominated(row, next(other for other in ordered if dominates(other, row))))
        for row in rows
        if row.model not in residuals
    )
    return Choice(
        tuple(Candidate(row, residuals[row.model]) for row in [*level, *rest]),
        line,
        _in_order(excluded),
        _decided(level, len(candidates)),
    )


def _by_merit(row: Row) -> tuple[float, float, str]:
    """Sort higher accuracy first, then smaller size, then by name."""
    return -row.accuracy, row.size, row.model


def dominates(one: Row, other: Row) -> bool:
    """Whether ``one`` has strictly higher accuracy and strictly smaller size."""
    return one.accuracy > other.accuracy and one.size < other.size


def _dominated(row: Row, by: Row) -> str:
    return (
        f"dominated by {by.model}: accuracy {by.accuracy:g} against {row.accuracy:g}, "
        f"size {by.size:g} against {row.size:g}"
    )


def fit(rows: Sequence[Row]) -> Line:
    """Return the least-squares line of accuracy over ln(size); level where all have one size."""
    mean = math.fsum(row.accuracy for row in rows) / len(rows)
    if len({row.size for row in rows}) == 1:
        return Line(0.0, mean)
    logs = [math.log(row.size) for row in rows]
    middle = math.fsum(logs) / len(logs)
    spread = math.fsum((log - middle) ** 2 for log in logs)
    together = math.fsum((log - middle) * (row.accuracy - mean) for log, row in zip(logs, rows, strict=True))
    slope = together / spread
    return Line(slope, mean - slope * middle)


def _decided(level: Sequence[Row], candidates: int) -> str:
    """Say what the first of the rows that lie equally far above the line has before the others."""
    if candidates == 1:
        return "the only candidate"
    if len(level) == 1:
        return "farthest above the line"
    first, second, *_ = level
    by = (
        "higher accuracy"
        if first.accuracy > second.accuracy
        else "smaller size"
        if first.size < second.size
        else "alphabetical order"
    )
    return f"as far above the line as {', '.join(row.model for row in level[1:])}; {by} decides"


def _measure(
    board: Leaderboard, by_size: Choice, probes: Mapping[str, SizeCheckResult], entries: Mapping[str, Entry]
) -> Measured:
    """Apply the rule to the models whose parameters were counted."""
    missing: dict[str, str] = {}
    rows, out = [], []
    for row in board.rows:
        answer = probes.get(row.model)
        if row.refused:
            out.append(Excluded(row, "; ".join(row.refused)))
        elif row.model not in entries or answer is None:
            missing[row.model] = "no entry in the catalog"
        elif not answer.takes:
            missing[row.model] = answer.says
        else:
            counted = replace(row, size=answer.parameters / 1e6)
            against = refusals({PARAMETERS: str(counted.size)})
            if against:
                out.append(Excluded(counted, "; ".join(against)))
            else:
                rows.append(counted)
    choice = choose(rows) if rows else None
    if choice is not None:
        choice = replace(choice, excluded=_in_order([*choice.excluded, *out]))
    return Measured(choice, missing, _words(board, by_size, choice, missing))


def _words(board: Leaderboard, by_size: Choice, by_count: Choice | None, missing: Mapping[str, str]) -> str:
    """Say what both choices are, and in what they differ."""
    named = board.columns[2]
    parts = [f"By {named} the choice is {by_size.chosen.model}: {by_size.decided}."]
    if by_count is None:
        parts.append("By parameters there is none: no row has them and passes.")
    else:
        sizes = ", ".join(f"{one.row.model} {one.row.size:.4g}" for one in by_count.candidates)
        parts.append(
            f"By parameters (millions, counted after {TRAINING_PICTURES} pictures of {SIDE} x {SIDE}: "
            f"a memory bank "
            f"grows with the pictures) the candidates are {sizes}; the choice is {by_count.chosen.model}: "
            f"{by_count.decided}."
        )
        parts += _differences(by_size, by_count)
    if missing:
        parts.append("Not measured: " + "; ".join(f"{model} ({why})" for model, why in missing.items()) + ".")
    return " ".join(parts)


def _differences(by_size: Choice, by_count: Choice) -> list[str]:
    one, other = by_size.chosen.model, by_count.chosen.model
    parts = ["Both choose the same." if one == other else f"They differ: {other} instead of {one}."]
    before = {candidate.row.model for candidate in by_size.candidates}
    now = {candidate.row.model for candidate in by_count.candidates}
    known = now | {excluded.row.model for excluded in by_count.excluded}
    gained, lost = sorted(now - before), sorted((before & known) - now)
    if gained:
        parts.append(f"Candidates by parameters alone: {', '.join(gained)}.")
    if lost:
        parts.append(f"No candidates by parameters: {', '.join(lost)}.")
    return parts
