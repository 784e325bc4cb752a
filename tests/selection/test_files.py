"""A choice as files: golden JSON, a row for each of the table's, a figure that says what it shows."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from defectbench.catalog import BY_TABLE_NAME
from defectbench.errors import TryAgainError, UsageError
from defectbench.models.checks.size_check import SizeCheckResult
from defectbench.selection.files import SelectionRow, draw, rows, to_json, write_selection
from defectbench.selection.leaderboard import Kind, parse_leaderboard, read_leaderboard
from defectbench.selection.rule import Better, Prefer, Selection, select_model
from defectbench.tables.files import to_csv
from parts import mounted

TESTS = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).with_name("golden")
KNOWN = {name: BY_TABLE_NAME[name] for name in ("TinyViT-21M-512-distill", "GLASS", "PatchCore")}
"""So that the golden files do not change with every new entry."""

PARAMETERS = {"tinyvit-21m-512": 20_691_697, "glass": 72_821_032, "patchcore": 70_141_224}
"""As counted by `defectbench select detectors`, with torch 2.13 and anomalib 2.7."""


def study(kind: Kind, prefer: Prefer = "accuracy", better: Better = "more") -> Selection:
    """Choose as the study did: by the line for classifiers, and by stars and accuracy for detectors."""
    board = read_leaderboard(TESTS / "reference" / f"{kind}.csv", kind)
    return select_model(
        board,
        kind,
        lambda names: {name: SizeCheckResult(True, "", PARAMETERS[name]) for name in names},
        better=better if kind == "detectors" else None,
        prefer=prefer if kind == "detectors" else "line",
        catalog=KNOWN,
    )


def of(text: str, kind: Kind = "classifiers") -> Selection:
    return select_model(parse_leaderboard(text.encode(), "t.csv", kind), kind, lambda names: {}, catalog={})


@pytest.mark.parametrize("kind", ["classifiers", "detectors"])
def test_selection_json_is_as_kept(kind: Kind) -> None:
    assert to_json(study(kind)) == (GOLDEN / f"{kind}.json").read_text(encoding="utf-8")


def test_selection_json_names_the_study_s_two() -> None:
    chosen = {kind: json.loads(to_json(study(kind)))["chosen"] for kind in ("classifiers", "detectors")}
    assert chosen == {"classifiers": "TinyViT-21M-512-distill", "detectors": "GLASS"}


@pytest.mark.parametrize(
    ("better", "prefer", "chosen", "farthest"),
    [
        ("more", "line", "PatchCore Large", "PatchCore Large"),
        ("more", "accuracy", "GLASS", "PatchCore Large"),
        ("less", "line", "GLASS", "GLASS"),
        ("less", "accuracy", "GLASS", "GLASS"),
    ],
)
def test_selection_says_which_way_it_chose(
    better: Better, prefer: Prefer, chosen: str, farthest: str
) -> None:
    selection = study("detectors", prefer, better)
    found = json.loads(to_json(selection))
    assert (found["chosen"], found["farthest_above_the_line"], found["prefer"]) == (chosen, farthest, prefer)
    assert found["third"] == {"column": "code_repository_stars", "better": better, "declared": True}
    text = draw(selection).text
    assert f"{better} of the latter is better" in text
    assert farthest in text


def test_selection_csv_has_a_row_for_each_of_the_table_s() -> None:
    found = list(csv.DictReader(io.StringIO(to_csv(rows(study("detectors")), SelectionRow))))
    assert [row["status"] for row in found] == ["chosen", *["candidate"] * 5]
    assert found[0] == {
        "line": "2",
        "model": "GLASS",
        "accuracy": "99.9",
        "size": "253.0",
        "status": "chosen",
        "residual": "-0.270437257",
        "entry": "glass",
        "check": "512: passed",
        "reason": "the most accurate candidate; the line would have chosen PatchCore Large "
        "(+1.436 from the line, GLASS -0.270)",
    }
    fewer = list(csv.DictReader(io.StringIO(to_csv(rows(study("detectors", better="less")), SelectionRow))))
    assert [row["status"] for row in fewer] == ["chosen", *["excluded"] * 5]
    assert all(row["reason"].startswith("dominated by GLASS") and row["residual"] == "" for row in fewer[1:])


@pytest.mark.parametrize("kind", ["classifiers", "detectors"])
def test_selection_figure_is_the_same_again_and_says_what_it_shows(kind: Kind) -> None:
    selection = study(kind)
    drawing = draw(selection)
    text = drawing.file()
    assert text == draw(selection).file()
    assert not re.search(r"20\d\d-\d\d-\d\d|<metadata", text)
    root = ElementTree.fromstring(text.encode())
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None
    assert title.text == root.get("aria-label") == drawing.text
    assert selection.choice.chosen.model in drawing.text
    written = {" ".join(part.itertext()).strip() for part in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {row.model for row in selection.board.rows} <= written, "every model is named in the figure"
    assert "trend line" in written
    assert ("the line's choice" in written) == (kind == "detectors")


def test_selection_figure_of_one_candidate_has_no_line() -> None:
    text = draw(study("detectors", better="less")).file()
    assert ">trend line<" not in text
    assert ">the line's choice<" not in text
    assert ">trend line<" in draw(study("detectors")).file()


@pytest.mark.parametrize(
    "text",
    [
        "m,a,s\nA,0,1\n",
        "m,a,s\nA,50,1\nB,50,1\n",
        "m,a,s\nA,50,1e-9\nB,60,1e15\n",
        "m,a,s\n<b>&\"',50,1\n$x^2,51,2\n模型,40,3\n",
        "m,a,s\n" + "".join(f"model number {n},{50 + n % 7},{1 + n % 5}\n" for n in range(60)),
    ],
    ids=["one", "equal", "far", "odd names", "many"],
)
def test_selection_figure_of_odd_tables(text: str) -> None:
    selection = of(text)
    drawing = draw(selection)
    assert ElementTree.fromstring(drawing.file().encode()).get("aria-label") == drawing.text


def test_selection_is_written_whole_and_again(tmp_path: Path) -> None:
    table = TESTS / "reference" / "classifiers.csv"
    for _ in range(2):
        write_selection(study("classifiers"), tmp_path / "new" / "out", table)
    names = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert names == ["selection.csv", "selection.json", "selection.svg"]


def test_selection_never_replaces_its_table(tmp_path: Path) -> None:
    table = tmp_path / "selection.csv"
    table.write_text("m,a,s\nA,1,1\n")
    with pytest.raises(UsageError, match="is the table itself; name another folder"):
        write_selection(of(table.read_text()), tmp_path, table)
    assert table.read_text() == "m,a,s\nA,1,1\n"
    assert list(tmp_path.iterdir()) == [table]


def test_selection_needs_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file; name a folder"):
        write_selection(of("m,a,s\nA,1,1\n"), tmp_path / "out", tmp_path / "t.csv")


def test_selection_on_a_full_disk(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=4k") as disk, pytest.raises(TryAgainError, match="disk is full"):
        write_selection(study("classifiers"), disk / "out", tmp_path / "t.csv")
