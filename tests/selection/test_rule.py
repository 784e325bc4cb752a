"""The rule of the choice, held against sums done otherwise, and against what must not change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, localcontext
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectbench import catalog
from defectbench.errors import BugError, DataError, TryAgainError, UsageError
from defectbench.models.checks.size_check import SizeCheckResult
from defectbench.selection.leaderboard import Row, parse, read
from defectbench.selection.rule import Ask, choose, dominates, fit, select

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def takes(**parameters: int) -> Ask:
    """Every model takes the size; those named have so many parameters."""
    return lambda names: {name: SizeCheckResult(True, "a score", parameters.get(name, 1)) for name in names}


def unasked(names: Sequence[str]) -> Mapping[str, SizeCheckResult]:
    raise AssertionError(f"asked about {names}")


def by_hand(rows: Sequence[Row]) -> list[Decimal]:
    """Residuals by the normal equations in 50 digits, without any mean: an independent way."""
    with localcontext() as context:
        context.prec = 50
        x = [Decimal(str(row.size)).log10() for row in rows]
        y = [Decimal(str(row.accuracy)) for row in rows]
        n, sx, sy = len(rows), sum(x, Decimal(0)), sum(y, Decimal(0))
        sxx, sxy = sum(a * a for a in x), sum(a * b for a, b in zip(x, y, strict=True))
        slope = (n * sxy - sx * sy) / (n * sxx - sx * sx)
        intercept = (sy - slope * sx) / n
        return [b - intercept - slope * a for a, b in zip(x, y, strict=True)]


def test_choose_takes_tinyvit_from_the_study_s_classifiers() -> None:
    choice = choose(read(REFERENCE / "classifiers.csv").rows)
    assert choice.chosen.model == "TinyViT-21M-512-distill"
    assert choice.decided == "farthest above the line"
    assert choice.excluded == ()
    expected = by_hand([one.row for one in choice.candidates])
    for one, residual in zip(choice.candidates, expected, strict=True):
        assert one.residual == pytest.approx(float(residual), abs=1e-12)
    assert [round(one.residual, 3) for one in choice.candidates] == [
        *(0.651, 0.152, 0.129, 0.097),
        *(-0.103, -0.192, -0.285, -0.448),
    ]


def test_choose_takes_glass_from_the_study_s_detectors_without_a_line() -> None:
    choice = choose(read(REFERENCE / "detectors.csv").rows)
    assert choice.chosen.model == "GLASS"
    assert (choice.line, choice.decided, len(choice.candidates)) == (None, "the only candidate", 1)
    assert choice.candidates[0].residual == 0
    assert [one.row.model for one in choice.excluded] == [
        *("EfficientAD", "PatchCore Large", "SimpleNet", "PatchCore", "PatchCore-16shot"),
    ]
    assert choice.excluded[0].reason == (
        "dominated by GLASS: accuracy 99.9 against 99.8, size 253 against 324"
    )


def test_choose_keeps_rows_that_are_equal_in_one_thing() -> None:
    rows = [Row(2, "A", 90, 10), Row(3, "same size", 80, 10), Row(4, "same accuracy", 90, 20)]
    assert choose(rows).excluded == ()


@pytest.mark.parametrize(
    ("rows", "chosen", "decided"),
    [
        ([Row(2, "A", 80, 10)], "A", "the only candidate"),
        (
            [Row(2, "A", 80, 10), Row(3, "B", 90, 20)],
            "B",
            "as far above the line as A; higher accuracy decides",
        ),
        (
            # 80 + 5 log2(size), and 1 below, above, above, below it.
            [Row(2, "A", 79, 1), Row(3, "B", 86, 2), Row(4, "C", 91, 4), Row(5, "D", 94, 8)],
            "C",
            "as far above the line as B; higher accuracy decides",
        ),
        (
            [Row(2, "A", 90, 20), Row(3, "B", 90, 10), Row(4, "C", 90, 30)],
            "B",
            "as far above the line as A, C; smaller size decides",
        ),
        (
            [Row(2, "Z", 90, 10), Row(3, "Y", 90, 10), Row(4, "X", 80, 10)],
            "Y",
            "as far above the line as Z; alphabetical order decides",
        ),
    ],
)
def test_choose_decides_ties(rows: list[Row], chosen: str, decided: str) -> None:
    for order in (rows, rows[::-1]):
        choice = choose(order)
        assert (choice.chosen.model, choice.decided) == (chosen, decided)


def test_fit_of_one_size_is_level() -> None:
    line = fit([Row(2, "A", 80, 0.1), Row(3, "B", 90, 0.1), Row(4, "C", 91, 0.1)])
    assert line.slope == 0
    assert line.at(7) == pytest.approx(87)


ROWS = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 2000)), min_size=1, max_size=12).map(
    lambda pairs: [
        Row(place + 2, f"model {place}", accuracy / 10, size / 4)
        for place, (accuracy, size) in enumerate(pairs)
    ]
)


@given(ROWS, st.randoms(use_true_random=False))
def test_choose_does_not_mind_the_order_of_rows(rows: list[Row], random: Random) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert choose(shuffled) == choose(rows)


@given(ROWS, st.sampled_from([1e-6, 0.3, 7.0, 1000.0, 1e6]))
def test_choose_does_not_mind_the_unit_of_size(rows: list[Row], unit: float) -> None:
    scaled = choose([replace(row, size=row.size * unit) for row in rows])
    choice = choose(rows)
    assert scaled.chosen.model == choice.chosen.model
    before = {one.row.model: one.residual for one in choice.candidates}
    assert {one.row.model: one.residual for one in scaled.candidates} == pytest.approx(before, abs=1e-8)


@given(ROWS, st.data())
def test_choose_does_not_mind_a_dominated_row(rows: list[Row], data: st.DataObject) -> None:
    above = data.draw(st.sampled_from(rows))
    less = data.draw(st.floats(0.01, 50))
    added = Row(99, "added", above.accuracy - less, above.size + data.draw(st.floats(0.01, 1e4)))
    choice, more = choose(rows), choose([*rows, added])
    assert dominates(above, added)
    assert (more.candidates, more.line, more.decided) == (choice.candidates, choice.line, choice.decided)
    assert more.excluded[:-1] == choice.excluded


@given(ROWS)
def test_choose_leaves_no_row_out_and_takes_the_farthest(rows: list[Row]) -> None:
    choice = choose(rows)
    kept = [one.row for one in choice.candidates]
    assert sorted([*kept, *(one.row for one in choice.excluded)], key=lambda row: row.line) == rows
    assert all(any(dominates(other, one.row) for other in rows) for one in choice.excluded)
    assert not any(dominates(other, row) for other in rows for row in kept)
    if len({row.size for row in kept}) > 1:
        residuals = dict(zip(kept, by_hand(kept), strict=True))
        assert residuals[choice.chosen] >= max(residuals.values()) - Decimal("1e-8")


def test_select_asks_about_the_chosen_alone() -> None:
    asked: list[str] = []

    def ask(names: Sequence[str]) -> Mapping[str, SizeCheckResult]:
        asked.extend(names)
        return takes()(names)

    found = select(read(REFERENCE / "classifiers.csv"), "classifiers", ask)
    assert asked == ["tinyvit-21m-512"]
    assert found.checks["TinyViT-21M-512-distill"] == "512: passed"
    others = {check for name, check in found.checks.items() if name != "TinyViT-21M-512-distill"}
    assert others == {"512: not checked"}
    assert found.measured is None


def test_select_keeps_a_row_without_an_entry_unchecked() -> None:
    board = parse(b"m,a,s\nUnheard of,90,1\nGLASS,80,2\n", "t.csv")
    for kind in ("classifiers", "detectors"):
        found = select(board, kind, unasked, catalog={})
        assert found.choice.chosen.model == "Unheard of"
        assert set(found.checks.values()) == {"512: not checked"}


def test_select_drops_what_does_not_take_the_size_and_chooses_again() -> None:
    text = b"m,a,s\nGLASS,90,1\nPatchCore,80,2\nUnheard of,70,3\n"
    refusing = {
        "glass": SizeCheckResult(False, "takes multiples of 14"),
        "patchcore": SizeCheckResult(False, "ValueError: 512"),
    }
    found = select(parse(text, "t.csv"), "detectors", lambda names: {name: refusing[name] for name in names})
    assert found.choice.chosen.model == "Unheard of"
    assert [(one.row.model, one.reason) for one in found.choice.excluded] == [
        ("GLASS", "does not take 512 x 512 pixels: takes multiples of 14"),
        ("PatchCore", "does not take 512 x 512 pixels: ValueError: 512"),
    ]
    assert found.checks["GLASS"] == "512: failed: takes multiples of 14"


def test_select_with_nothing_left_says_why_row_by_row() -> None:
    board = parse(b"m,a,params_millions,code\nGLASS,90,1,url\nBig,99,101,\n", "t.csv")
    with pytest.raises(DataError) as caught:
        select(board, "detectors", lambda names: {name: SizeCheckResult(False, "too much") for name in names})
    assert caught.value.problems == (
        "t.csv: no row is left to choose from; at least 1 is needed",
        "t.csv:2: GLASS: does not take 512 x 512 pixels: too much",
        "t.csv:3: Big: params_millions 101 is above 100; code is empty",
    )


@pytest.mark.parametrize("error", [TryAgainError("killed"), BugError("broken")])
def test_select_ends_where_the_chosen_could_not_be_asked(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        select(
            read(REFERENCE / "classifiers.csv"),
            "classifiers",
            lambda names: {name: SizeCheckResult(False, "", error=error) for name in names},  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(("kind", "other"), [("classifiers", "detectors"), ("detectors", "classifiers")])
def test_select_refuses_the_other_family_s_table(kind: str, other: str) -> None:
    with pytest.raises(UsageError, match=rf"{other}.csv:\d: .* got select {kind}; say select {other}"):
        select(read(REFERENCE / f"{other}.csv"), kind, unasked)  # type: ignore[arg-type]


FOUR = b"m,a,stars\nGLASS,99.9,10\nPatchCore,99.8,20\nUnheard of,99.7,30\nEmpty,1,40\n"


def test_select_measures_detectors_and_says_what_is_missing() -> None:
    found = select(parse(FOUR, "t.csv"), "detectors", takes(glass=40_000_000, patchcore=4_000_000))
    measured = found.measured
    assert measured is not None
    assert measured.choice is not None
    assert [one.row.size for one in measured.choice.candidates] == [40.0, 4.0]
    assert measured.missing == dict.fromkeys(("Unheard of", "Empty"), "no entry in the catalog")
    assert measured.words.startswith("By stars the choice is GLASS: the only candidate.")
    assert "candidates are GLASS 40, PatchCore 4; the choice is GLASS" in measured.words
    assert "Both choose the same. Candidates by parameters alone: PatchCore." in measured.words
    assert "Not measured: Unheard of (no entry in the catalog); Empty" in measured.words


def test_select_says_where_measured_parameters_choose_another() -> None:
    found = select(parse(FOUR, "t.csv"), "detectors", takes(glass=100_000_001, patchcore=4_000_000))
    measured = found.measured
    assert measured is not None
    assert measured.choice is not None
    assert found.choice.chosen.model == "GLASS"
    assert [one.reason for one in measured.choice.excluded] == ["params_millions 100.000001 is above 100"]
    assert "They differ: PatchCore instead of GLASS." in measured.words
    assert "No candidates by parameters: GLASS." in measured.words


def test_select_measures_nothing_where_no_model_is_known() -> None:
    found = select(parse(FOUR, "t.csv"), "detectors", unasked, catalog={})
    assert found.measured is not None
    assert found.measured.choice is None
    assert "By parameters there is none" in found.measured.words
    assert len(found.measured.missing) == 4


def test_select_measures_nothing_where_the_table_has_parameters() -> None:
    board = parse(FOUR.replace(b"stars", b"params_millions"), "t.csv")
    assert select(board, "detectors", takes()).measured is None


def test_tables_names_find_the_catalog_s_entries() -> None:
    assert catalog.BY_TABLE_NAME["TinyViT-21M-512-distill"].name == "tinyvit-21m-512"
    assert catalog.BY_TABLE_NAME["GLASS"] is catalog.find("glass")
    names = [name for entry in catalog.ENTRIES for name in (entry.name, *entry.aliases)]
    assert len(catalog.BY_TABLE_NAME) == len(names)


def test_measured_parameters_choose_the_same_classifier() -> None:
    """docs/selection.md has these figures."""
    rows = read(REFERENCE / "classifiers.csv").rows
    found = {row.model: catalog.BY_TABLE_NAME[row.model].measured for row in rows}
    counted = [replace(row, size=one.parameters / 1e6) for row in rows if (one := found[row.model])]
    assert len(counted) == 8
    choice, by_table = choose(counted), choose(rows)
    assert [one.row.model for one in choice.candidates] == [one.row.model for one in by_table.candidates]
    best, second, *_ = choice.candidates
    assert (best.row.model, round(best.row.size, 1)) == ("TinyViT-21M-512-distill", 20.7)
    assert (round(best.residual, 3), round(second.residual, 3)) == (0.601, 0.163)
