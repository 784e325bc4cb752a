from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from defectbench.data.shortcut import Shortcut
from defectbench.errors import MissingInputError, TryAgainError, UsageError
from defectbench.records.predictions import PredictionRow, Predictions
from defectbench.records.sweep_record import Record
from defectbench.report import wording
from defectbench.report.page import MARK, write_report
from defectbench.report.wording import CAVEAT
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.stores.layout import cell_key, shortcut_key
from defectbench.tables.collect import collect
from defectbench.tables.tables import FILES, Tables
from fakes import MODELS, made_up_sweep, rewrite

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
CONTENDERS = ["mobilenetv3-small", "padim"]
HOSTILE = ('<img src=x onerror="alert(1)">', "{{ 7 * 7 }}", "a&b'\"<i>")


class Reader(HTMLParser):
    """Reads a page: its ids, links, sources, tags and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.images_without_text = 0
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "xlink:href"):
                self.links.append(value or "")
            elif name in ("src", "srcset", "data", "action"):
                self.sources.append(value or "")
        if tag == "img" and not dict(attributes).get("alt"):
            self.images_without_text += 1

    def handle_data(self, data: str) -> None:
        self.text += data


def report(folder: Path, **options: object) -> tuple[Store, Record, Path]:
    store = open_store(str(folder / "store"))
    small = {"categories": ("grass",), "models": CONTENDERS, "contenders": CONTENDERS, "heat_maps": True}
    record = made_up_sweep(store, **{**small, **options})  # type: ignore[arg-type]
    return store, record, write_report(store, "madeup", folder / "out", folder / "cache", now=NOW)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Record, Path]:
    return report(
        tmp_path_factory.mktemp("whole"),
        categories=("grass", "brick"),
        models=MODELS,
        seeds=(0, 1),
        defect_rate=0.01,
    )


@pytest.fixture(scope="module")
def html(whole: tuple[Store, Record, Path]) -> str:
    return whole[2].read_text(encoding="utf-8")


def text_of(page: Path) -> str:
    return " ".join(Reader(page.read_text(encoding="utf-8")).text.split())


def test_page_needs_nothing_but_itself(html: str) -> None:
    page = Reader(html)
    assert all(link.startswith("#") for link in page.links)
    assert all(source.startswith("data:image/webp;base64,") for source in page.sources)
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert "url(http" not in html
    assert "@import" not in html


def test_page_allows_only_its_own_script(html: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in html
    )


def test_page_links_lead_somewhere(html: str) -> None:
    page = Reader(html)
    assert len(page.ids) == len(set(page.ids))
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_page_has_a_text_for_every_picture(html: str) -> None:
    assert Reader(html).images_without_text == 0
    figures = re.findall(r"<svg [^>]*>", html)
    assert figures
    assert all('role="img" aria-label="' in figure for figure in figures)


def test_page_names_every_cell(html: str, whole: tuple[Store, Record, Path]) -> None:
    assert {f"cell-{key}" for key in whole[1].cells} <= set(Reader(html).ids)


def test_page_says_what_must_be_said(whole: tuple[Store, Record, Path]) -> None:
    text = text_of(whole[2])
    assert CAVEAT in text
    assert "2026-01-02 03:04 UTC" in text
    assert "Deep figures are not those of pretrained models." in text
    assert "32 of 32 finished" in text
    assert "only 12 goods and 12 defects" in text.lower()
    assert "precision at 1.0 % defects" in text
    assert "centre prior" in text
    assert "Incomplete" not in text
    assert "The promise is broken" not in text


def test_page_shows_evidence_and_expected_costs(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    prices = {"false_alarm": 2, "missed_defect": 100}
    record = made_up_sweep(
        store, categories=("grass", "grid"), models=CONTENDERS, defect_rate=0.01, prices=prices
    )
    found = Shortcut(0.93, 0.85, 0.97, 25, 12)
    store.put(shortcut_key("parts", "grass", record.digests["grass"]), found.to_json())
    page = write_report(store, "madeup", tmp_path / "out", tmp_path / "cache", now=NOW)
    text, html = text_of(page), page.read_text(encoding="utf-8")
    assert "grass. Whole-picture looks" in text
    assert "0.850 – 0.970</td>" in html
    assert html.count("not measured: imported by an older version") == 1
    assert "with a probability of 80 %" in text
    assert "MVTec AD's images (here, by name: grid) are licensed CC BY-NC-SA 4.0" in text
    assert "<td>ship everything</td>" in html
    assert "1000.0" in text
    assert "<td>on the front</td>" in html


def test_page_shows_each_contenders_worst_images(html: str) -> None:
    # 2 categories x 2 contenders x 3 false alarms (picture, heat map) and 3 misses (and mask); and side by
    # side 2 categories x 3 defect types (picture, mask, two heat maps)
    assert Reader(html).tags.count("img") == 2 * 2 * (3 * 2 + 3 * 3) + 2 * 3 * 4
    assert html.count("good part: no defect to mark") == 12


def test_files_lie_beside_the_page(whole: tuple[Store, Record, Path]) -> None:
    folder = whole[2].parent
    assert sorted(entry.name for entry in folder.iterdir()) == ["figures", "index.html", "tables"]
    assert sorted(file.name for file in (folder / "tables").iterdir()) == sorted(
        f"{name}.{kind}" for name in (*FILES, "published", "breakdowns") for kind in ("csv", "parquet")
    )
    figures = sorted((folder / "figures").iterdir())
    assert len(figures) == 1 + 2 + 2 * 8 + 5  # differences, scores, curves, costs
    for drawing in figures:
        root = ElementTree.fromstring(drawing.read_text(encoding="utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(--" not in drawing.read_text(encoding="utf-8")
        cells = root.findtext("{*}desc", "").removeprefix("Cells: ").split()
        assert set(cells) <= set(whole[1].cells)
        assert cells


def test_the_same_results_give_the_same_bytes(whole: tuple[Store, Record, Path], tmp_path: Path) -> None:
    again = write_report(whole[0], "madeup", tmp_path / "out", tmp_path / "cache", now=NOW)
    files = sorted(file.relative_to(again.parent) for file in again.parent.rglob("*") if file.is_file())
    for file in files:
        assert (again.parent / file).read_bytes() == (whole[2].parent / file).read_bytes(), file


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    page = report(tmp_path, defect_types=HOSTILE)[2]
    read = Reader(page.read_text(encoding="utf-8"))
    assert all(source.startswith("data:") for source in read.sources)
    assert "i" in read.tags
    assert read.tags.count("i") == page.read_text(encoding="utf-8").count("<i>")
    for name in HOSTILE:
        assert name in read.text


def test_a_partial_sweep_gives_a_partial_report(tmp_path: Path) -> None:
    page = report(tmp_path, categories=("grass", "brick"), models=MODELS, unfinished=1, failed=1)[2]
    text = text_of(page)
    assert "1 of 16 cells not finished yet: padim on brick." in text
    assert "1 of 16 cells failed: filterbank-knn on brick." in text
    assert "made up: the pictures are wrong" in text
    assert "On brick no fold has a result of both contenders yet." in text
    assert "14 of 16 finished" in text


def test_a_sweep_without_any_result_gives_a_report(tmp_path: Path) -> None:
    text = text_of(report(tmp_path, unfinished=4)[2])
    assert "4 of 4 cells not finished yet" in text
    assert "No fold has a result of both contenders yet." in text


def test_damage_is_said(tmp_path: Path) -> None:
    store, record, _ = report(tmp_path)
    key = next(iter(record.cells))
    store.put(cell_key(key, "1/predictions.parquet"), b"damaged")
    text = text_of(write_report(store, "madeup", tmp_path / "out", tmp_path / "cache"))
    assert "1 of 4 cells damaged: mobilenetv3-small on grass." in text
    assert "retry the cell" in text


def test_bad_input_is_named_and_spoils_nothing_else(tmp_path: Path) -> None:
    odd: dict[str, Any] = {
        "plain": {"defects": 0},
        "single": {"defect_types": ("crack",)},
        "unmarked": {"masks": False},
    }
    names = ("grass", *odd, "torn", "foreign")
    store = open_store(str(tmp_path / "store"))
    record = made_up_sweep(
        store,
        categories=names,
        models=CONTENDERS,
        contenders=CONTENDERS,
        odd=odd,
        protocols={"detection": {"folds": 3}, "unseen": {}},
    )
    torn, foreign = (
        next(r.cell for r in record.readings if r.label == "padim" and record.cells[r.cell] == name)
        for name in ("torn", "foreign")
    )
    spoil(store, torn, lambda rows: [replace(row, score=float("nan")) for row in rows])
    rewrite(store, cell_key(foreign, "result.json"), lambda result: result.update(data_digest="0" * 64))
    text = text_of(write_report(store, "madeup", tmp_path / "out", tmp_path / "cache", now=NOW))
    assert "scores are NaN" in text
    assert "fitted on other data, 000000000000" in text
    assert "On plain there is nothing to compare: 0 defective labelled images, the detection protocol" in text
    assert "single: 1 defect type (crack), the unseen protocol needs at least 2." in text
    assert "not measurable: no masks" in text
    assert text.count("no fold has a result of both contenders yet") == 2
    tables = Tables(collect(store, "madeup"))
    assert [row.category for row in tables.comparisons] == ["grass", "single", "unmarked"]
    assert set(tables.collected.damaged) == {torn, foreign}


def test_a_category_that_cannot_be_split_does_not_count_in_means(tmp_path: Path) -> None:
    store, _, page = report(tmp_path, categories=("grass", "plain"), odd={"plain": {"defects": 0}})
    tables = Tables(collect(store, "madeup"))
    scores = {score.label: score.value for score in tables.scores}
    assert {mean.label: mean.value for mean in tables.means} == scores
    assert any(line.efficient for line in tables.tradeoffs)
    assert "The mean is over the categories that detection can split: without plain." in text_of(page)


def spoil(store: Store, cell: str, change: Callable[[list[PredictionRow]], list[PredictionRow]]) -> None:
    """Change a finished cell's predictions, and its result so that it vouches for them."""
    result = json.loads(store.get(cell_key(cell, "result.json")).data)
    place = next(name for name in result["files"] if name.endswith("predictions.parquet"))
    rows = Predictions.from_parquet(store.get(cell_key(cell, place)).data).rows()
    data = Predictions.of(cell, change(list(rows))).to_parquet()
    store.put(cell_key(cell, place), data)
    digest = hashlib.sha256(data).hexdigest()
    rewrite(store, cell_key(cell, "result.json"), lambda result: result["files"].update({place: digest}))


def test_without_masks_explanation_is_not_measurable(tmp_path: Path) -> None:
    text = text_of(report(tmp_path, masks=False)[2])
    assert "not measurable: no masks" in text
    assert "this defect has no mask" in text


def test_missing_heat_maps_are_said(tmp_path: Path) -> None:
    assert "this cell kept no heat maps" in text_of(report(tmp_path, heat_maps=False)[2])


def test_missing_pictures_are_said(tmp_path: Path) -> None:
    store, record, _ = report(tmp_path)
    store.delete(f"datasets/parts/grass/{record.digests['grass']}.tar")
    page = write_report(store, "madeup", tmp_path / "out", tmp_path / "empty")
    assert "the pictures are no longer in the store" in text_of(page)


def test_a_broken_promise_is_said(tmp_path: Path) -> None:
    text = text_of(report(tmp_path, goods=30, training_goods=60, drift=4.0)[2])
    assert "The promise is broken" in text


def test_holdout_has_no_verdict(tmp_path: Path) -> None:
    text = text_of(report(tmp_path, protocols={"detection": {"scheme": "holdout"}})[2])
    assert "nothing paired is computed" in text
    assert "Paired differences" not in text
    assert "classifier, supervised" in text


@pytest.mark.parametrize("scheme", ["holdout", "both"])
def test_holdout_shows_what_was_tested_and_chance_beside_its_figures(tmp_path: Path, scheme: str) -> None:
    store, _, page = report(tmp_path, protocols={"detection": {"scheme": scheme}})
    text = text_of(page)
    assert "everything abnormal" in text
    rows = [row for row in collect(store, "madeup").rows() if row.condition == "holdout"]
    assert {(row.family, row.goods, row.defects) for row in rows} == {
        ("classifier", 6, 3),
        ("detector", 6, 6),
    }
    for row in rows:
        assert f"{row.goods} + {row.defects}" in text
        shown = wording.number(row.all_abnormal) if scheme == "holdout" else wording.percent(row.all_abnormal)
        assert " ".join(shown.split()) in text


def test_the_study_s_form_of_unseen_is_told_on_the_page(tmp_path: Path) -> None:
    protocols = {"unseen": {"modes": ["study"]}}
    store, _, page = report(tmp_path, protocols=protocols)
    html = page.read_text(encoding="utf-8")
    assert "As in the original study" in html
    assert 'aria-label="Seen against unseen"' not in html
    tables = Tables(collect(store, "madeup"))
    assert tables.unseen_study
    for line in tables.unseen_study:
        assert f"{line.found} of {line.defects}" in html
    for score in tables.unseen_scores:
        assert score.image_id in html


def test_a_family_alone_has_no_verdict(tmp_path: Path) -> None:
    text = text_of(report(tmp_path, models=("filterbank-knn", "padim"), contenders=None)[2])
    assert "no classifier or no detector" in text


def test_another_endpoint_is_compared_by_itself(tmp_path: Path) -> None:
    store, record, page = report(tmp_path, endpoint="image_ap")
    (row,) = Tables(collect(store, record.name)).comparisons
    assert f"image_ap {wording.number(row.classifier_value)} against" in text_of(page)
    (score, _) = Tables(collect(store, record.name)).scores
    assert score.low < score.value < score.high


def test_an_older_report_is_replaced(tmp_path: Path) -> None:
    store, _, page = report(tmp_path)
    made_up_sweep(store, name="other", categories=("grass",), models=("filterbank-knn",))
    write_report(store, "other", tmp_path / "out", tmp_path / "cache")
    assert "<h1>other</h1>" in page.read_text(encoding="utf-8")
    assert len(list((tmp_path / "out" / "figures").iterdir())) == 3
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "out", "store"]


@pytest.mark.parametrize("name", ["index.html", "notes.txt"])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, name: str) -> None:
    store = open_store(str(tmp_path / "store"))
    made_up_sweep(store, categories=("grass",), models=("filterbank-knn",))
    out = tmp_path / "home"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(UsageError, match=name):
        write_report(store, "madeup", out, tmp_path / "cache")
    assert [entry.name for entry in out.iterdir()] == [name]
    assert (out / name).read_text() == "mine"


@pytest.mark.parametrize("left", [("tables",), ("tables", "figures")])
def test_a_report_that_was_killed_between_its_moves_is_written_again(
    tmp_path: Path, left: tuple[str, ...]
) -> None:
    store, _, page = report(tmp_path)
    page.unlink()
    if "figures" not in left:
        shutil.rmtree(page.parent / "figures")
    write_report(store, "madeup", page.parent, tmp_path / "cache")
    assert page.is_file()


@pytest.mark.parametrize("kept", ["tables/mine.csv", "tables/cells.csv", "figures/mine.svg"])
def test_a_folder_that_merely_has_a_report_s_names_is_left_alone(tmp_path: Path, kept: str) -> None:
    store = open_store(str(tmp_path / "store"))
    made_up_sweep(store, categories=("grass",), models=("filterbank-knn",))
    mine = tmp_path / "home" / kept
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UsageError, match="which no report wrote"):
        write_report(store, "madeup", tmp_path / "home", tmp_path / "cache")
    assert mine.read_text() == "mine"


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        write_report(open_store(str(tmp_path)), "madeup", tmp_path / "out", tmp_path / "cache")


def test_an_unknown_sweep_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no sweep 'madeup'"):
        write_report(open_store(str(tmp_path / "store")), "madeup", tmp_path / "out", tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_older_report(tmp_path: Path, small_disk: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    made_up_sweep(store, categories=("grass",), models=("filterbank-knn",), heat_maps=True)
    page = write_report(store, "madeup", small_disk / "out", tmp_path / "cache", now=NOW)
    before = page.read_bytes()
    assert MARK in page.read_text(encoding="utf-8")
    free = shutil.disk_usage(small_disk).free
    (small_disk / "ballast").write_bytes(bytes(max(free - 60_000, 0)))
    with pytest.raises(TryAgainError):
        write_report(store, "madeup", small_disk / "out", tmp_path / "cache")
    assert page.read_bytes() == before
    assert sorted(entry.name for entry in small_disk.iterdir()) == ["ballast", "out"]


def test_further_protocols_have_a_table_each_and_notes(tmp_path: Path) -> None:
    protocols = {
        "detection": {"folds": 3},
        "unseen": {},
        "scarcity": {"defects": [1, 50]},
        "contamination": {},
        "goods": {"goods": [2, 4, 50]},
    }
    store, record, page = report(tmp_path, protocols=protocols)
    assert record.notes
    html = page.read_text(encoding="utf-8")
    text = Reader(html).text
    assert all(note in text for note in record.notes)
    for protocol in ("unseen", "scarcity", "contamination", "goods"):
        assert f'aria-label="Conditions of {protocol}"' in html
    tables = Tables(collect(store, "madeup"))
    for line in tables.conditions:
        assert line.condition in text
        assert wording.number(line.value) in text
    scarce = next(line for line in tables.conditions if line.condition == "n=1")
    assert (scarce.draws, scarce.folds, scarce.expected) == (10, 30, 30)
    assert scarce.spread > 0
    assert len((tmp_path / "out/tables/conditions.csv").read_text().splitlines()) == 1 + len(
        tables.conditions
    )


def test_a_sweep_without_detection_says_so(tmp_path: Path) -> None:
    protocols = {"scarcity": {"defects": [1], "draws": 2}}
    _, _, page = report(tmp_path, protocols=protocols, unfinished=1)
    text = Reader(page.read_text(encoding="utf-8")).text
    assert "without the detection protocol" in text
    assert "The sweep has no detection protocol, so there is nothing to decide" in text
    assert "holdout" not in text.split("What the figures mean")[0]
    assert "Incomplete." in text
