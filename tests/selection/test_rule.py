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
from defectbench.selection.leaderboard import Leaderboard, LeaderboardRow, parse_leaderboard
from defectbench.selection.leaderboard import read_leaderboard as read_table
from defectbench.selection.rule import Ask, Better, Prefer, Third, choose_row, dominates, fit, select_model

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


STARS = Third("code_repository_stars", "more")


def read(file: str) -> Leaderboard:
    kind = "classifiers" if file.startswith("class") else "detectors"
    return read_table(REFERENCE / file, kind)  # type: ignore[arg-type]


def takes(**parameters: int) -> Ask:
    """Every model takes the size; those named have so many parameters."""
    return lambda names: {name: SizeCheckResult(True, "a score", parameters.get(name, 1)) for name in names}


def unasked(names: Sequence[str]) -> Mapping[str, SizeCheckResult]:
    raise AssertionError(f"asked about {names}")


def by_hand(rows: Sequence[LeaderboardRow]) -> list[Decimal]:
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
    choice = choose_row(read("classifiers.csv").rows)
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


def test_choose_takes_patchcore_large_where_more_stars_are_better() -> None:
    """The study's rule as it wrote it down: the line goes through all six."""
    choice = choose_row(read("detectors.csv").rows, STARS)
    assert (choice.chosen.model, choice.decided) == ("PatchCore Large", "farthest above the line")
    assert choice.excluded == ()
    expected = by_hand([one.row for one in choice.candidates])
    for one, residual in zip(choice.candidates, expected, strict=True):
        assert one.residual == pytest.approx(float(residual), abs=1e-12)
    assert {one.row.model: round(one.residual, 2) for one in choice.candidates} == {
        "PatchCore Large": 1.44,
        "PatchCore": 1.04,
        "SimpleNet": 0.52,
        "EfficientAD": 0.04,
        "GLASS": -0.27,
        "PatchCore-16shot": -2.76,
    }


def test_choose_takes_glass_where_accuracy_is_preferred_and_names_the_line_s_choice() -> None:
    """What the study did."""
    choice = choose_row(read("detectors.csv").rows, STARS, "accuracy")
    assert (choice.chosen.model, choice.farthest.row.model) == ("GLASS", "PatchCore Large")
    assert choice.decided == (
        "the most accurate candidate; the line would have chosen PatchCore Large (+1.436 from the line, "
        "GLASS -0.270)"
    )
    assert [one.row.model for one in choice.candidates] == [
        *("GLASS", "EfficientAD", "PatchCore Large", "SimpleNet", "PatchCore", "PatchCore-16shot"),
    ]
    assert choice.line == choose_row(read("detectors.csv").rows, STARS).line


def test_choose_takes_glass_without_a_line_where_fewer_stars_are_better() -> None:
    choice = choose_row(read("detectors.csv").rows, replace(STARS, better="less"))
    assert choice.chosen.model == "GLASS"
    assert (choice.line, choice.decided, len(choice.candidates)) == (None, "the only candidate", 1)
    assert choice.candidates[0].residual == 0
    assert [one.row.model for one in choice.excluded] == [
        *("EfficientAD", "PatchCore Large", "SimpleNet", "PatchCore", "PatchCore-16shot"),
    ]
    assert choice.excluded[0].reason == (
        "dominated by GLASS: accuracy 99.9 against 99.8, code_repository_stars 253 against 324"
    )


@pytest.mark.parametrize(
    ("rows", "better", "chosen", "decided"),
    [
        ([LeaderboardRow(2, "A", 80, 10)], "less", "A", "the only candidate"),
        (
            [LeaderboardRow(2, "A", 80, 10), LeaderboardRow(3, "B", 90, 20)],
            "less",
            "B",
            "the most accurate candidate, and what the line would have chosen",
        ),
        (
            [LeaderboardRow(2, "A", 90, 10), LeaderboardRow(3, "B", 90, 20), LeaderboardRow(4, "C", 85, 30)],
            "more",
            "B",
            "as accurate as A; larger stars decides, and what the line would have chosen",
        ),
        (
            [LeaderboardRow(2, "A", 90, 10), LeaderboardRow(3, "B", 90, 20)],
            "less",
            "A",
            "as accurate as B; smaller stars decides, and what the line would have chosen",
        ),
        (
            [LeaderboardRow(2, "B", 90, 10), LeaderboardRow(3, "A", 90, 10)],
            "more",
            "A",
            "as accurate as B; alphabetical order decides, and what the line would have chosen",
        ),
    ],
)
def test_choose_by_accuracy_decides_ties(
    rows: list[LeaderboardRow], better: Better, chosen: str, decided: str
) -> None:
    for order in (rows, rows[::-1]):
        choice = choose_row(order, Third("stars", better), "accuracy")
        assert (choice.chosen.model, choice.decided) == (chosen, decided)


def test_choose_keeps_rows_that_are_equal_in_one_thing() -> None:
    rows = [
        LeaderboardRow(2, "A", 90, 10),
        LeaderboardRow(3, "same size", 80, 10),
        LeaderboardRow(4, "same accuracy", 90, 20),
    ]
    assert choose_row(rows).excluded == ()


@pytest.mark.parametrize(
    ("rows", "chosen", "decided"),
    [
        ([LeaderboardRow(2, "A", 80, 10)], "A", "the only candidate"),
        (
            [LeaderboardRow(2, "A", 80, 10), LeaderboardRow(3, "B", 90, 20)],
            "B",
            "as far above the line as A; higher accuracy decides",
        ),
        (
            # 80 + 5 log2(size), and 1 below, above, above, below it.
            [
                LeaderboardRow(2, "A", 79, 1),
                LeaderboardRow(3, "B", 86, 2),
                LeaderboardRow(4, "C", 91, 4),
                LeaderboardRow(5, "D", 94, 8),
            ],
            "C",
            "as far above the line as B; higher accuracy decides",
        ),
        (
            [LeaderboardRow(2, "A", 90, 20), LeaderboardRow(3, "B", 90, 10), LeaderboardRow(4, "C", 90, 30)],
            "B",
            "as far above the line as A, C; smaller size decides",
        ),
        (
            [LeaderboardRow(2, "Z", 90, 10), LeaderboardRow(3, "Y", 90, 10), LeaderboardRow(4, "X", 80, 10)],
            "Y",
            "as far above the line as Z; alphabetical order decides",
        ),
    ],
)
def test_choose_decides_ties(rows: list[LeaderboardRow], chosen: str, decided: str) -> None:
    for order in (rows, rows[::-1]):
        choice = choose_row(order)
        assert (choice.chosen.model, choice.decided) == (chosen, decided)


def test_fit_of_one_size_is_level() -> None:
    line = fit(
        [LeaderboardRow(2, "A", 80, 0.1), LeaderboardRow(3, "B", 90, 0.1), LeaderboardRow(4, "C", 91, 0.1)]
    )
    assert line.slope == 0
    assert line.at(7) == pytest.approx(87)


ROWS = st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 2000)), min_size=1, max_size=12).map(
    lambda pairs: [
        LeaderboardRow(place + 2, f"model {place}", accuracy / 10, size / 4)
        for place, (accuracy, size) in enumerate(pairs)
    ]
)


THIRDS = st.sampled_from([Third("size", "less"), Third("stars", "more")])
PREFERENCES = st.sampled_from(["line", "accuracy"])


@given(ROWS, THIRDS, PREFERENCES, st.randoms(use_true_random=False))
def test_choose_does_not_mind_the_order_of_rows(
    rows: list[LeaderboardRow], third: Third, prefer: Prefer, random: Random
) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)
    assert choose_row(shuffled, third, prefer) == choose_row(rows, third, prefer)


@given(ROWS, THIRDS, PREFERENCES, st.sampled_from([1e-6, 0.3, 7.0, 1000.0, 1e6]))
def test_choose_does_not_mind_the_unit_of_column_3(
    rows: list[LeaderboardRow], third: Third, prefer: Prefer, unit: float
) -> None:
    scaled = choose_row([replace(row, size=row.size * unit) for row in rows], third, prefer)
    choice = choose_row(rows, third, prefer)
    assert scaled.chosen.model == choice.chosen.model
    before = {one.row.model: one.residual for one in choice.candidates}
    assert {one.row.model: one.residual for one in scaled.candidates} == pytest.approx(before, abs=1e-8)


@given(ROWS, THIRDS, PREFERENCES, st.data())
def test_choose_does_not_mind_a_dominated_row(
    rows: list[LeaderboardRow], third: Third, prefer: Prefer, data: st.DataObject
) -> None:
    above = data.draw(st.sampled_from(rows))
    less = data.draw(st.floats(0.01, 50))
    factor = data.draw(st.floats(1.01, 1e4))
    size = above.size * factor if third.better == "less" else above.size / factor
    added = LeaderboardRow(99, "added", above.accuracy - less, size)
    choice, more = choose_row(rows, third, prefer), choose_row([*rows, added], third, prefer)
    assert dominates(above, added, third)
    assert (more.candidates, more.line, more.decided) == (choice.candidates, choice.line, choice.decided)
    assert more.excluded[:-1] == choice.excluded


@given(ROWS, THIRDS)
def test_choose_leaves_no_row_out_and_takes_the_farthest(rows: list[LeaderboardRow], third: Third) -> None:
    choice = choose_row(rows, third)
    kept = [one.row for one in choice.candidates]
    assert sorted([*kept, *(one.row for one in choice.excluded)], key=lambda row: row.line) == rows
    assert all(any(dominates(other, one.row, third) for other in rows) for one in choice.excluded)
    assert not any(dominates(other, row, third) for other in rows for row in kept)
    if len({row.size for row in kept}) > 1:
        residuals = dict(zip(kept, by_hand(kept), strict=True))
        assert residuals[choice.chosen] >= max(residuals.values()) - Decimal("1e-8")


@given(ROWS, THIRDS)
def test_choose_by_accuracy_takes_the_most_accurate_of_the_same_candidates(
    rows: list[LeaderboardRow], third: Third
) -> None:
    choice, by_line = choose_row(rows, third, "accuracy"), choose_row(rows, third)
    assert choice.chosen.accuracy == max(row.accuracy for row in rows)
    assert set(choice.candidates) == set(by_line.candidates)
    assert choice.farthest == by_line.farthest == by_line.candidates[0]
    assert (choice.line, choice.excluded) == (by_line.line, by_line.excluded)


@given(ROWS)
def test_choose_turns_round_with_column_3(rows: list[LeaderboardRow]) -> None:
    """More of a thing is less of its inverse: the same candidates, the same distances."""
    inverse = [replace(row, size=1 / row.size) for row in rows]
    more, less = choose_row(rows, Third("stars", "more")), choose_row(inverse, Third("size", "less"))
    before = {one.row.model: one.residual for one in more.candidates}
    assert {one.row.model: one.residual for one in less.candidates} == pytest.approx(before, abs=1e-8)


def test_select_asks_about_the_chosen_alone() -> None:
    asked: list[str] = []

    def ask(names: Sequence[str]) -> Mapping[str, SizeCheckResult]:
        asked.extend(names)
        return takes()(names)

    found = select_model(read("classifiers.csv"), "classifiers", ask)
    assert asked == ["tinyvit-21m-512"]
    assert found.checks["TinyViT-21M-512-distill"] == "512: passed"
    others = {check for name, check in found.checks.items() if name != "TinyViT-21M-512-distill"}
    assert others == {"512: not checked"}
    assert found.measured is None


def test_select_keeps_a_row_without_an_entry_unchecked() -> None:
    board = parse_leaderboard(b"m,a,s\nUnheard of,90,1\nGLASS,80,2\n", "t.csv", "detectors")
    for kind in ("classifiers", "detectors"):
        found = select_model(board, kind, unasked, catalog={})
        assert found.choice.chosen.model == "Unheard of"
        assert set(found.checks.values()) == {"512: not checked"}


def test_select_drops_what_does_not_take_the_size_and_chooses_again() -> None:
    text = b"m,a,s\nGLASS,90,1\nPatchCore,80,2\nUnheard of,70,3\n"
    refusing = {
        "glass": SizeCheckResult(False, "takes multiples of 14"),
        "patchcore": SizeCheckResult(False, "ValueError: 512"),
    }
    found = select_model(
        parse_leaderboard(text, "t.csv", "detectors"),
        "detectors",
        lambda names: {name: refusing[name] for name in names},
    )
    assert found.choice.chosen.model == "Unheard of"
    assert [(one.row.model, one.reason) for one in found.choice.excluded] == [
        ("GLASS", "does not take 512 x 512 pixels: takes multiples of 14"),
        ("PatchCore", "does not take 512 x 512 pixels: ValueError: 512"),
    ]
    assert found.checks["GLASS"] == "512: failed: takes multiples of 14"


def test_select_with_nothing_left_says_why_row_by_row() -> None:
    board = parse_leaderboard(
        b"m,a,params_millions,code\nGLASS,90,1,url\nBig,99,101,\n", "t.csv", "detectors"
    )
    with pytest.raises(DataError) as caught:
        select_model(
            board, "detectors", lambda names: {name: SizeCheckResult(False, "too much") for name in names}
        )
    assert caught.value.problems == (
        "t.csv: no row is left to choose from; at least 1 is needed",
        "t.csv:2: GLASS: does not take 512 x 512 pixels: too much",
        "t.csv:3: Big: params_millions 101 is above 100; code is empty",
    )


@pytest.mark.parametrize("error", [TryAgainError("killed"), BugError("broken")])
def test_select_ends_where_the_chosen_could_not_be_asked(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        select_model(
            read("classifiers.csv"),
            "classifiers",
            lambda names: {name: SizeCheckResult(False, "", error=error) for name in names},  # type: ignore[arg-type]
        )


@pytest.mark.parametrize(("kind", "other"), [("classifiers", "detectors"), ("detectors", "classifiers")])
def test_select_refuses_the_other_family_s_table(kind: str, other: str) -> None:
    with pytest.raises(UsageError, match=rf"{other}.csv:\d: .* got select {kind}; say select {other}"):
        select_model(read(f"{other}.csv"), kind, unasked, better="more")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "column", ["stars", "Stars", "github_stars", "stars (2025)", "code_repository_stars"]
)
def test_select_does_not_guess_what_stars_are_worth(column: str) -> None:
    board = parse_leaderboard(
        f"m,a,{column}\nGLASS,99.9,30\nPatchCore,99.8,40\n".encode(), "t.csv", "detectors"
    )
    with pytest.raises(UsageError, match=r"t.csv: column 3 is .* say --third more .* or --third less"):
        select_model(board, "detectors", unasked)
    for better in ("less", "more"):
        found = select_model(board, "detectors", takes(), better=better)
        assert (found.third, found.declared) == (Third(column, better), True)


@pytest.mark.parametrize("column", ["size", "params_millions", "starships", "gflops"])
def test_select_takes_less_for_better_where_nothing_is_said(column: str) -> None:
    board = parse_leaderboard(
        f"m,a,{column}\nGLASS,99.9,30\nPatchCore,99.8,40\n".encode(), "t.csv", "detectors"
    )
    found = select_model(board, "detectors", takes())
    assert (found.third, found.declared) == (Third(column, "less"), False)
    assert len(found.choice.candidates) == 1
    assert len(select_model(board, "detectors", takes(), better="more").choice.candidates) == 2


def test_select_drops_what_accuracy_prefers_where_it_does_not_take_the_size() -> None:
    board = read("detectors.csv")
    refused = {"glass": SizeCheckResult(False, "too small")}
    found = select_model(
        board, "detectors", lambda names: {**takes()(names), **refused}, better="more", prefer="accuracy"
    )
    assert found.choice.chosen.model == "EfficientAD"
    assert [one.row.model for one in found.choice.excluded] == ["GLASS"]
    assert found.prefer == "accuracy"


FOUR = b"m,a,stars\nGLASS,99.9,100\nPatchCore,99.8,200\nUnheard of,99.7,300\nEmpty,1,400\n"


def test_select_measures_detectors_and_says_what_is_missing() -> None:
    found = select_model(
        parse_leaderboard(FOUR, "t.csv", "detectors"),
        "detectors",
        takes(glass=40_000_000, patchcore=4_000_000),
        better="less",
    )
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
    found = select_model(
        parse_leaderboard(FOUR, "t.csv", "detectors"),
        "detectors",
        takes(glass=100_000_001, patchcore=4_000_000),
        better="less",
    )
    measured = found.measured
    assert measured is not None
    assert measured.choice is not None
    assert found.choice.chosen.model == "GLASS"
    assert [one.reason for one in measured.choice.excluded] == ["params_millions 100.000001 is above 100"]
    assert "They differ: PatchCore instead of GLASS." in measured.words
    assert "No candidates by parameters: GLASS." in measured.words


def test_select_measures_nothing_where_no_model_is_known() -> None:
    found = select_model(
        parse_leaderboard(FOUR, "t.csv", "detectors"), "detectors", unasked, better="less", catalog={}
    )
    assert found.measured is not None
    assert found.measured.choice is None
    assert "By parameters there is none" in found.measured.words
    assert len(found.measured.missing) == 4


def test_select_measures_nothing_where_the_table_has_parameters() -> None:
    board = parse_leaderboard(
        FOUR.replace(b"stars", b"params_millions").replace(b"00\n", b"\n"), "t.csv", "detectors"
    )
    assert select_model(board, "detectors", takes()).measured is None


def test_tables_names_find_the_catalog_s_entries() -> None:
    assert catalog.BY_TABLE_NAME["TinyViT-21M-512-distill"].name == "tinyvit-21m-512"
    assert catalog.BY_TABLE_NAME["GLASS"] is catalog.find("glass")
    names = [name for entry in catalog.ENTRIES for name in (entry.name, *entry.aliases)]
    assert len(catalog.BY_TABLE_NAME) == len(names)


def test_measured_parameters_choose_the_same_classifier() -> None:
    """docs/selection.md has these figures."""
    rows = read("classifiers.csv").rows
    found = {row.model: catalog.BY_TABLE_NAME[row.model].measured for row in rows}
    counted = [replace(row, size=one.parameters / 1e6) for row in rows if (one := found[row.model])]
    assert len(counted) == 8
    choice, by_table = choose_row(counted), choose_row(rows)
    assert [one.row.model for one in choice.candidates] == [one.row.model for one in by_table.candidates]
    best, second, *_ = choice.candidates
    assert (best.row.model, round(best.row.size, 1)) == ("TinyViT-21M-512-distill", 20.7)
    assert (round(best.residual, 3), round(second.residual, 3)) == (0.601, 0.163)
