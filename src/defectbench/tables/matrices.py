"""The matrix trained-on x tested-on of each model and category, as the page shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from defectbench.catalog import Family
from defectbench.tables.conditions import cells_of
from defectbench.tables.unseen import UnseenRow


@dataclass(frozen=True)
class Matrix:
    """One model's matrix on one category.

    Attributes:
        mode: ``one`` or ``all_but_one``; empty for a detector, which learns no type and has one line.
        columns: the types tested.
        lines: the type learnt alone, or left out alone, -> type tested -> the entry.
    """

    category: str
    label: str
    family: Family
    mode: str
    columns: tuple[str, ...]
    lines: Mapping[str, Mapping[str, UnseenRow]]

    @property
    def cells(self) -> tuple[str, ...]:
        """Keys of the cells that it is read from."""
        return cells_of(entry for line in self.lines.values() for entry in line.values())


def matrices(entries: Iterable[UnseenRow]) -> tuple[Matrix, ...]:
    """Return the matrices, in the order of the entries; controls are left out."""
    groups: dict[tuple[str, str, str], list[UnseenRow]] = {}
    for entry in entries:
        if not entry.control:
            mode = "" if entry.family == "detector" else entry.mode
            groups.setdefault((entry.category, entry.label, mode), []).append(entry)
    return tuple(_matrix(group, mode) for (_, _, mode), group in groups.items())


def _matrix(entries: list[UnseenRow], mode: str) -> Matrix:
    """Return the matrix of one model's entries."""
    first = entries[0]
    lines: dict[str, dict[str, UnseenRow]] = {}
    for entry in entries:
        lines.setdefault(entry.type if mode else "", {})[entry.tested] = entry
    columns = tuple(sorted({entry.tested for entry in entries}))
    return Matrix(first.category, first.label, first.family, mode, columns, lines)
