"""Which fit of a sweep's winner to export, and what the sweep's report says of it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from defectbench.errors import DataError, MissingInputError, UsageError, nearest
from defectbench.protocols.choose import PRIMARY
from defectbench.records.result import find_result
from defectbench.records.sweep_record import read_record
from defectbench.stores.base import Store
from defectbench.stores.layout import SWEEPS, second_part
from defectbench.tables.answers import CategoryAnswer, Share, answers
from defectbench.tables.collect import collect
from defectbench.tables.tables import Tables


@dataclass(frozen=True, slots=True)
class Winner:
    """A cell of the winner.

    Attributes:
        false_alarm_rate: that the sweep sets thresholds for.
        remarks: what the report says of the model, for the card, in sentences.
    """

    cell: str
    label: str
    sweep: str
    false_alarm_rate: float
    remarks: tuple[str, ...]


def find_sweep(store: Store, category: str) -> str:
    """Return the one sweep of the store that has the category.

    Raises:
        MissingInputError: none has it.
        UsageError: several have; they are named.
    """
    names = [second_part(key) for key in store.keys(SWEEPS) if key.endswith(".json")]
    records = {name: read_record(store, name) for name in names}
    found = [name for name, record in records.items() if category in record.categories]
    if not found:
        known = {each for record in records.values() for each in record.categories}
        hint = nearest(category, known) if known else "it has no sweep: `defectbench run SWEEP` makes one"
        raise MissingInputError(f"no sweep in {store.url} has a category {category!r}; {hint}")
    if len(found) > 1:
        raise UsageError(f"category {category} is in the sweeps {', '.join(found)}: say which with --sweep")
    return found[0]


def find_winner(store: Store, sweep: str, category: str) -> Winner:
    """Return the middle fit of the family that the sweep's verdict names for the category.

    The middle one by image AUROC on what it did not learn from: the best would be the luckiest.

    Raises:
        UsageError: the sweep has no such category.
        DataError: its verdict names no winner; what can be exported instead is named.
        MissingInputError: there is nothing to decide by yet.
    """
    tables = Tables(collect(store, sweep))
    record = tables.collected.record
    if category not in record.categories:
        raise UsageError(
            f"sweep {sweep} has no category {category!r}; {nearest(category, record.categories)}"
        )
    answer = next((one for one in answers(tables) if one.category == category), None)
    if answer is None:
        raise MissingInputError(f"{sweep}: no fold of {category} has a result of both contenders yet")
    if answer.best is None:
        raise DataError(_no_winner(store, tables, answer, sweep))
    label = answer.best.label
    return Winner(
        _middle_cell(store, tables, category, label),
        label,
        sweep,
        float(record.document["false_alarm_rate"]),
        tuple(_remarks(tables, answer, label, sweep)),
    )


def _no_winner(store: Store, tables: Tables, answer: CategoryAnswer, sweep: str) -> str:
    """Say that there is no winner, and which cells are the middle fits of both contenders."""
    cells = [
        f"{point.label} {_middle_cell(store, tables, answer.category, point.label)}"
        for point in answer.points
    ]
    how = "either will do" if answer.verdict == "equivalent" else "it is undecided which is needed"
    return (
        f"{sweep}: on {answer.category} {how}, so there is no winner to export; name a cell instead: "
        f"{', or '.join(cells)}"
    )


def _middle_cell(store: Store, tables: Tables, category: str, label: str) -> str:
    """Return the finished fit of the model whose image AUROC is the median, the lower of two."""
    folds = tables.collected.folds(protocol=PRIMARY)
    keys = {fold.reading.cell for fold in folds if fold.category == category and fold.reading.label == label}
    found = {key: result.metrics["image_auroc"] for key in keys if (result := find_result(store, key))}
    middle = statistics.median_low(found.values())
    return min(key for key, value in found.items() if value == middle)


def _remarks(tables: Tables, answer: CategoryAnswer, label: str, sweep: str) -> list[str]:
    """Say what the report has of the model: its mean over all fits, beside this one's own figure."""
    rows = [row for row in tables.scores if (row.label, row.category) == (label, answer.category)]
    said = [
        f"In sweep `{sweep}` it is the winner on {answer.category}; this is the fit whose image AUROC is the "
        "middle one of all."
    ]
    said += [
        f"The report's {tables.endpoint}, over {row.folds} fits, each on its own fold: {row.value:.4f} "
        f"(95 % interval {row.low:.4f} to {row.high:.4f}). That is the figure to expect; the one above is of "
        "this fit alone, on all that it did not learn from."
        for row in rows
    ]
    point = next(each for each in answer.points if each.label == label)
    said.append(
        f"At the sweep's thresholds {_told(point.recall)} of the defects were found and "
        f"{_told(point.false_alarms)} of the goods stopped; promised were {point.promised:.1%}."
    )
    return said


def _told(share: Share) -> str:
    """Return a share with its interval."""
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"
