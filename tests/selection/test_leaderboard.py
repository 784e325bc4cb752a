"""Tables of published models: what is read of them, and what is said of those that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.errors import DataError, MissingInputError
from defectbench.selection.leaderboard import Kind, LeaderboardRow, parse_leaderboard, read_leaderboard

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def rows(text: str, kind: Kind = "classifiers") -> tuple[LeaderboardRow, ...]:
    return parse_leaderboard(text.encode(), "t.csv", kind).rows


def test_leaderboard_reads_columns_by_their_place() -> None:
    board = read_leaderboard(REFERENCE / "detectors.csv", "detectors")
    assert board.columns == ("model", "mvtec_image_auroc_percent", "code_repository_stars")
    assert board.rows[0] == LeaderboardRow(2, "GLASS", 99.9, 253.0)
    assert [row.line for row in board.rows] == [2, 3, 4, 5, 6, 7]
    assert board.filters == {}
    filters = read_leaderboard(REFERENCE / "classifiers.csv", "classifiers").filters
    assert filters == {"params_millions": "at most 100"}


def test_leaderboard_takes_what_spreadsheets_write() -> None:
    text = '\ufeffname,top1,size\r\n\r\n"B, large", 80.5 ,3e1\r\n,,\r\n"C",70,2\r\n'
    assert rows(text) == (LeaderboardRow(3, "B, large", 80.5, 30.0), LeaderboardRow(5, "C", 70.0, 2.0))


def test_leaderboard_filters_only_where_a_column_is_named_so() -> None:
    text = "m,a,s,rank,code,stars,Rank,github_stars\nA,1,1,300,url,20,999,1\nB,1,1,301,,19,999,many\n"
    first, second = rows(text)
    assert first.refused == ()
    assert second.refused == ("rank 301 is above 300", "stars 19 is below 20", "code is empty")
    board = parse_leaderboard(text.encode(), "t.csv", "classifiers")
    assert board.filters == {"rank": "at most 300", "stars": "at least 20", "code": "not empty"}


@pytest.mark.parametrize(("kind", "limit"), [("classifiers", 300), ("detectors", 100)])
def test_leaderboard_ranks_each_family_by_its_own_limit(kind: Kind, limit: int) -> None:
    inside, outside = rows(f"m,a,s,rank\nA,1,1,{limit}\nB,1,1,{limit + 1}\n", kind)
    assert (inside.refused, outside.refused) == ((), (f"rank {limit + 1} is above {limit}",))


@pytest.mark.parametrize("kind", ["classifiers", "detectors"])
def test_leaderboard_filters_stars_where_they_are_column_3(kind: Kind) -> None:
    few, enough = rows("m,a,stars\nA,1,19\nB,1,20\n", kind)
    assert (few.refused, enough.refused) == (("stars 19 is below 20",), ())


def test_leaderboard_filters_the_size_where_it_is_params_millions() -> None:
    first, second = rows("m,a,params_millions\nA,1,100\nB,1,100.5\n")
    assert (first.refused, second.refused) == ((), ("params_millions 100.5 is above 100",))


def test_leaderboard_never_reads_other_columns() -> None:
    assert rows("m,a,s,paper\nA,1,1,\nB,1,2,nan\n")[1].refused == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            "t.csv:1: columns none; at least 3 are needed, with commas between them: model, accuracy, size",
        ),
        ("m;a;s\nA;1;1\n", "t.csv:1: columns m;a;s; at least 3 are needed"),
        ("m,a\nA,1\n", "t.csv:1: columns m, a; at least 3 are needed"),
        ("m,a,s\n", "t.csv: no row below the header; at least 1 is needed"),
        ("m,rank,s\nA,1,1\n", "t.csv:1: column 2 is 'rank'; it must be the accuracy"),
        (
            "m,params_millions,top1\nA,1,1\n",
            "t.csv:1: column 2 is 'params_millions'; it must be the accuracy",
        ),
        ("m,a,code\nA,1,1\n", "t.csv:1: column 3 is 'code'; it must be the size or popularity"),
        ("m,stars,s\nA,1,1\n", "t.csv:1: column 2 is 'stars'; it must be the accuracy"),
        ("m,a,s,stars\nA,1,1,many\n", "t.csv:2: stars: got 'many'; a number is allowed, at least 20 to pass"),
        ("m,a,s,rank,rank\nA,1,1,1,1\n", "t.csv:1: column 'rank' stands there twice; once is allowed"),
        ("m,a,s\nA,many,1\n", "t.csv:2: a: got 'many'; a number from 0 to 100 is allowed"),
        ("m,a,s\nA,,1\n", "t.csv:2: a: got ''; a number from 0 to 100 is allowed"),
        ("m,a,s\nA,871,1\n", "t.csv:2: a: got '871'; a number from 0 to 100 is allowed"),
        ("m,a,s\nA,nan,1\n", "t.csv:2: a: got 'nan'; a number from 0 to 100 is allowed"),
        ("m,a,s\nA,1,0\n", "t.csv:2: s: got '0'; a number from 1e-09 to 1e+15 is allowed"),
        ("m,a,s\nA,1,-2\n", "t.csv:2: s: got '-2'; a number from 1e-09 to 1e+15 is allowed"),
        ("m,a,s\nA,1,inf\n", "t.csv:2: s: got 'inf'; a number from 1e-09 to 1e+15 is allowed"),
        ("m,a,s\nA,1,1_000\n", "t.csv:2: s: got '1_000'; a number from 1e-09 to 1e+15 is allowed"),
        ("m,a,s,rank\nA,1,1,first\n", "t.csv:2: rank: got 'first'; a number is allowed, at most 300 to pass"),
        ("m,a,s\nA,1\n", "t.csv:2: 2 fields; the header names 3"),
        ("m,a,s\nA,1,1,1\n", "t.csv:2: 4 fields; the header names 3"),
        ("m,a,s\n,1,1\n", "t.csv:2: m: got ''; a name of printable characters is allowed"),
        ("m,a,s\n\x07,1,1\n", "t.csv:2: m: got '\\x07'; a name of printable characters is allowed"),
        ("m,a,s\nA,1,1\nB,1,1\n A ,2,2\n", "t.csv:4: model 'A' stands in line 2 too; once is allowed"),
        ('m,a,s\nA,1,1\n"B,1,1\n', "t.csv:3: no CSV: unexpected end of data"),
    ],
)
def test_leaderboard_says_what_is_wrong_and_where(text: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        rows(text)
    (problem,) = caught.value.problems
    assert problem.startswith(said)


def test_leaderboard_says_all_that_is_wrong_at_once() -> None:
    with pytest.raises(DataError) as caught:
        rows('m,a,s\n"A\nA",x,1\nB,1,y\nC,1\n')
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "t.csv:2:",
        "t.csv:4:",
        "t.csv:5:",
    ]


def test_leaderboard_names_the_line_that_is_no_text() -> None:
    with pytest.raises(DataError, match=r"t\.csv:3: not UTF-8 text"):
        parse_leaderboard(b"m,a,s\nA,1,1\n\xff,1,1\n", "t.csv", "detectors")


def test_leaderboard_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(MissingInputError, match="cannot read the table"):
            read_leaderboard(path, "detectors")
