"""The rule by which a study chooses a model from a table: accuracy against the logarithm of column 3.

Column 3 is a size, where less is better, or a popularity, where more is: :class:`Third` says which, and
nothing guesses it. A row stays a candidate when no other is strictly better in both. A least-squares line of
accuracy over log(column 3) goes through the candidates; the one farthest above it is chosen, or the most
accurate one where that is preferred, once a real forward pass has shown that it takes the size of pictures
that is wanted. If it does not, its row is dropped and the rule applied again.

*Farthest above* is the vertical distance; the perpendicular one differs by one factor for all, so it chooses
the same. The unit of column 3 moves the line sideways and changes no distance. One candidate, or several of
one size, have no slope: the line is level then, at their mean. Distances within :data:`LEVEL` of the largest
count as equal; then higher accuracy decides, then the better column 3, then the name in alphabetical order.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from defectbench.catalog import BY_TABLE_NAME, Entry
from defectbench.errors import DataError, UsageError
from defectbench.models.checks.size_check import TRAINING_PICTURES, SizeCheckResult
from defectbench.selection.leaderboard import PARAMETERS, STARS, Kind, Leaderboard, LeaderboardRow, refusals

Better = Literal["less", "more"]
Prefer = Literal["line", "accuracy"]
Ask = Callable[[Sequence[str]], Mapping[str, SizeCheckResult]]
"""Catalog names -> what their models make of a picture of :data:`SIDE`."""

SIDE = 512
"""Pixels a side that the chosen model must take."""

LEVEL = 1e-9
"""Distances from the line, in units of accuracy, that differ by less count as equal."""

NOT_CHECKED = f"{SIDE}: not checked"
PASSED = f"{SIDE}: passed"


@dataclass(frozen=True, slots=True)
class Third:
    """What column 3 is.

    Attributes:
        column: its name.
        better: whether less of it is better, as of a size, or more, as of a popularity.
    """

    column: str = "size"
    better: Better = "less"

    def beats(self, one: LeaderboardRow, other: LeaderboardRow) -> bool:
        """Whether ``one`` is strictly better in column 3."""
        return one.size < other.size if self.better == "less" else one.size > other.size

    def rank(self, row: LeaderboardRow) -> float:
        """Return what sorts the better first."""
        return row.size if self.better == "less" else -row.size

    @property
    def says(self) -> str:
        """What decides a tie, in words."""
        return f"{'smaller' if self.better == 'less' else 'larger'} {self.column}"


@dataclass(frozen=True, slots=True)
class Line:
    """Accuracy = ``intercept`` + ``slope`` x ln(column 3)."""

    slope: float
    intercept: float

    def at(self, size: float) -> float:
        """Return the accuracy that the line gives for a size."""
        return self.intercept + self.slope * math.log(size)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row that no other dominates, and how far above the line it lies, in units of accuracy."""

    row: LeaderboardRow
    residual: float


@dataclass(frozen=True, slots=True)
class Excluded:
    """A row that is no candidate, and why."""

    row: LeaderboardRow
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rule makes of some rows.

    Attributes:
        candidates: at least one, best first: the first is chosen.
        line: through the candidates; None where there is one alone.
        farthest: what the line chooses; the chosen one itself unless accuracy is preferred.
        excluded: the other rows, in the table's order.
        decided: in words, what the chosen row has before the next.
    """

    candidates: tuple[Candidate, ...]
    line: Line | None
    farthest: Candidate
    excluded: tuple[Excluded, ...]
    decided: str

    @property
    def chosen(self) -> LeaderboardRow:
        """The row that is chosen."""
        return self.candidates[0].row


@dataclass(frozen=True, slots=True)
class ChoiceByParameters:
    """The same rule on the parameters, in millions, that models of the catalog have: fewer are better.

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
        third: column 3, and whether less or more of it is better.
        declared: whether the caller said so, or less is the default.
        prefer: what chooses among the candidates, the ``line`` or ``accuracy``.
        checks: model -> :data:`PASSED`, :data:`NOT_CHECKED`, or ``512: failed`` with the reason.
        measured: for detectors whose table has no parameters; else None.
    """

    kind: Kind
    board: Leaderboard
    choice: Choice
    entries: Mapping[str, str]
    checks: Mapping[str, str]
    measured: ChoiceByParameters | None
    third: Third
    declared: bool
    prefer: Prefer


def select_model(
    board: Leaderboard,
    kind: Kind,
    ask: Ask,
    *,
    better: Better | None = None,
    prefer: Prefer = "line",
    catalog: Mapping[str, Entry] = BY_TABLE_NAME,
) -> Selection:
    """Choose from a table. ``ask`` is called only about models that the catalog has.

    Args:
        better: whether less or more of column 3 is better; None for less, which a column of stars does not
            allow: there it must be said.
        prefer: the candidate farthest above the ``line``, or the one of highest ``accuracy``.
        catalog: the table's name of a model -> its entry.

    Raises:
        UsageError: column 3 holds stars and ``better`` is None; or the table has a model of the other family.
        DataError: no row passes the filters, or none that does takes the size.
        TryAgainError, ConfigurationError, BugError: the chosen model could not be asked.
    """
    third = _third(board, better)
    entries = _entries(board, kind, catalog)
    by_parameters = kind == "detectors" and PARAMETERS not in board.columns
    asked = [entries[row.model].name for row in board.rows if row.model in entries and not row.refused]
    told = dict(ask(asked)) if by_parameters and asked else {}
    dropped: dict[str, str] = {}
    choice = _choose_passing(board, third, prefer, dropped)
    while (entry := entries.get(choice.chosen.model)) is not None:
        if entry.name not in told:
            told |= ask([entry.name])
        answer = told[entry.name]
        if answer.error is not None:
            raise answer.error
        if answer.takes:
            break
        dropped[choice.chosen.model] = f"does not take {SIDE} x {SIDE} pixels: {answer.says}"
        choice = _choose_passing(board, third, prefer, dropped)
    probes = {model: told[entry.name] for model, entry in entries.items() if entry.name in told}
    checks = {row.model: _check(probes.get(row.model)) for row in board.rows}
    measured = _measure(board, kind, prefer, choice, probes, entries) if by_parameters else None
    names = {model: entry.name for model, entry in entries.items()}
    return Selection(kind, board, choice, names, checks, measured, third, better is not None, prefer)


def _third(board: Leaderboard, better: Better | None) -> Third:
    """Return what column 3 is; refuse to guess what stars are worth."""
    column = board.columns[2]
    if better is None and STARS in re.split(r"[^a-z]+", column.lower()):
        raise UsageError(
            f"{board.file}: column 3 is {column!r}, which can count either way; say --third more (better "
            "known counts as better) or --third less"
        )
    return Third(column, better or "less")


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


def _choose_passing(board: Leaderboard, third: Third, prefer: Prefer, dropped: Mapping[str, str]) -> Choice:
    """Apply the rule to the rows that are neither refused by a filter nor dropped."""
    reasons = {row.model: "; ".join(row.refused) for row in board.rows if row.refused}
    reasons |= dropped
    rows = [row for row in board.rows if row.model not in reasons]
    if not rows:
        raise DataError(
            [f"{board.file}: no row is left to choose from; at least 1 is needed"]
            + [f"{board.file}:{row.line}: {row.model}: {reasons[row.model]}" for row in board.rows]
        )
    choice = choose_row(rows, third, prefer)
    out = [Excluded(row, reasons[row.model]) for row in board.rows if row.model in reasons]
    return replace(choice, excluded=_in_order([*choice.excluded, *out]))


def _in_order(excluded: Iterable[Excluded]) -> tuple[Excluded, ...]:
    return tuple(sorted(excluded, key=lambda one: one.row.line))


def choose_row(rows: Collection[LeaderboardRow], third: Third = Third(), prefer: Prefer = "line") -> Choice:
    """Apply the rule to rows, at least one. Neither their order nor column 3's unit changes the choice.

    >>> small, middle = Row(2, "small", 80, 10), Row(3, "middle", 86, 20)
    >>> choice = choose([small, middle, Row(4, "large", 88, 40), Row(5, "old", 79, 30)])
    >>> choice.chosen.model, [round(one.residual, 3) for one in choice.candidates]
    ('middle', [1.333, -0.667, -0.667])
    >>> choice.excluded[0].reason
    'dominated by middle: accuracy 86 against 79, size 20 against 30'
    """
    ordered = sorted(rows, key=lambda row: _merit(row, third))
    kept = [row for row in ordered if not any(dominates(other, row, third) for other in ordered)]
    line = fit(kept) if len(kept) > 1 else None
    candidates = [Candidate(row, row.accuracy - line.at(row.size) if line else 0.0) for row in kept]
    level, rest = _level(candidates)
    by_line = [*level, *rest]
    excluded = (
        Excluded(row, _dominated(row, next(one for one in ordered if dominates(one, row, third)), third))
        for row in rows
        if row not in kept
    )
    return Choice(
        tuple(candidates if prefer == "accuracy" else by_line),
        line,
        by_line[0],
        _in_order(excluded),
        _decided_by_accuracy(candidates, by_line[0], third)
        if prefer == "accuracy"
        else _decided(level, len(candidates), third),
    )


def _merit(row: LeaderboardRow, third: Third) -> tuple[float, float, str]:
    """Sort higher accuracy first, then the better column 3, then by name."""
    return -row.accuracy, third.rank(row), row.model


def _level(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Return those highest above the line, and the others from high to low; ties keep their order."""
    highest = max(one.residual for one in candidates)
    level = [one for one in candidates if one.residual >= highest - LEVEL]
    rest = [one for one in candidates if one.residual < highest - LEVEL]
    return level, sorted(rest, key=lambda one: -one.residual)


def dominates(one: LeaderboardRow, other: LeaderboardRow, third: Third = Third()) -> bool:
    """Whether ``one`` has strictly higher accuracy and is strictly better in column 3."""
    return one.accuracy > other.accuracy and third.beats(one, other)


def _dominated(row: LeaderboardRow, by: LeaderboardRow, third: Third) -> str:
    return (
        f"dominated by {by.model}: accuracy {by.accuracy:g} against {row.accuracy:g}, "
        f"{third.column} {by.size:g} against {row.size:g}"
    )


def fit(rows: Sequence[LeaderboardRow]) -> Line:
    """Return the least-squares line of accuracy over ln(column 3); level where all have one size."""
    mean = math.fsum(row.accuracy for row in rows) / len(rows)
    if len({row.size for row in rows}) == 1:
        return Line(0.0, mean)
    logs = [math.log(row.size) for row in rows]
    middle = math.fsum(logs) / len(logs)
    spread = math.fsum((log - middle) ** 2 for log in logs)
    together = math.fsum((log - middle) * (row.accuracy - mean) for log, row in zip(logs, rows, strict=True))
    slope = together / spread
    return Line(slope, mean - slope * middle)


def _decided(level: Sequence[Candidate], candidates: int, third: Third) -> str:
    """Say what the first of the rows that lie equally far above the line has before the others."""
    if candidates == 1:
        return "the only candidate"
    if len(level) == 1:
        return "farthest above the line"
    others = ", ".join(one.row.model for one in level[1:])
    return f"as far above the line as {others}; {_tie(level[0].row, level[1].row, third)} decides"


def _decided_by_accuracy(ordered: Sequence[Candidate], farthest: Candidate, third: Third) -> str:
    """Say why the first is the most accurate, and what the line would have chosen."""
    if len(ordered) == 1:
        return "the only candidate"
    first, second, *_ = (one.row for one in ordered)
    says = "the most accurate candidate"
    if first.accuracy == second.accuracy:
        others = ", ".join(one.row.model for one in ordered[1:] if one.row.accuracy == first.accuracy)
        says = f"as accurate as {others}; {_tie(first, second, third)} decides"
    if farthest.row == first:
        return f"{says}, and what the line would have chosen"
    return (
        f"{says}; the line would have chosen {farthest.row.model} ({farthest.residual:+.3f} from the line, "
        f"{first.model} {ordered[0].residual:+.3f})"
    )


def _tie(first: LeaderboardRow, second: LeaderboardRow, third: Third) -> str:
    """Say what ``first`` has before ``second``, which the rule took for equal."""
    if first.accuracy > second.accuracy:
        return "higher accuracy"
    return third.says if third.beats(first, second) else "alphabetical order"


def _measure(
    board: Leaderboard,
    kind: Kind,
    prefer: Prefer,
    by_size: Choice,
    probes: Mapping[str, SizeCheckResult],
    entries: Mapping[str, Entry],
) -> ChoiceByParameters:
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
            against = refusals({PARAMETERS: str(counted.size)}, kind)
            if against:
                out.append(Excluded(counted, "; ".join(against)))
            else:
                rows.append(counted)
    choice = choose_row(rows, Third("millions of parameters"), prefer) if rows else None
    if choice is not None:
        choice = replace(choice, excluded=_in_order([*choice.excluded, *out]))
    return ChoiceByParameters(choice, missing, _words(board, by_size, choice, missing))


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
