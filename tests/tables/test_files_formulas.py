"""A text that a spreadsheet would compute is written as text."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import pytest

from defectbench.tables.files import to_csv


@dataclass(frozen=True)
class _Row:
    name: str
    value: float


TEXTS = ["=cmd|' /C calc'!A0", "+1", "-1+2", "@SUM(A1)", "\t=1", "plain", "'a", "a=b"]


@pytest.mark.parametrize("text", TEXTS)
def test_formulas_are_escaped(text: str) -> None:
    (row,) = list(csv.reader(io.StringIO(to_csv([_Row(text, -1.5)], _Row))))[1:]
    assert not row[0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert row[0].removeprefix("'") == text.removeprefix("'")
    assert row[1] == "-1.5"
