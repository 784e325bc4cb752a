"""The original study's figures, from predictions with its confusion matrices, by its holdout."""

from __future__ import annotations

import csv
import io
from collections import Counter

import pytest

from defectbench.data.check import published_counts
from defectbench.data.manifest import Image
from defectbench.metrics.image import ConfusionCounts
from defectbench.records.cell import Cell
from defectbench.stores.choose import open_store
from defectbench.tables.collect import FigureRow, collect
from defectbench.tables.published import published
from defectbench.tables.tables import Tables
from fakes import made_up_sweep

CLASSIFIER, DETECTOR = "tinyvit-21m-512", "glass"
# Best F1 in percent as published, the only counts that give it, and the F1 of calling everything abnormal.
STUDY = {
    ("bottle", DETECTOR): (93.75, ConfusionCounts(tp=30, fp=2, tn=8, fn=2), 86.49),
    ("bottle", CLASSIFIER): (78.05, ConfusionCounts(tp=16, fp=9, tn=1, fn=0), 76.19),
    ("hazelnut", DETECTOR): (95.77, ConfusionCounts(tp=34, fp=2, tn=18, fn=1), 77.78),
    ("hazelnut", CLASSIFIER): (64.29, ConfusionCounts(tp=18, fp=20, tn=0, fn=0), 64.29),
    ("carpet", DETECTOR): (86.54, ConfusionCounts(tp=45, fp=14, tn=0, fn=0), 86.54),
    ("carpet", CLASSIFIER): (76.67, ConfusionCounts(tp=23, fp=14, tn=0, fn=0), 76.67),
    ("grid", DETECTOR): (87.88, ConfusionCounts(tp=29, fp=8, tn=3, fn=0), 84.06),
    ("grid", CLASSIFIER): (73.17, ConfusionCounts(tp=15, fp=11, tn=0, fn=0), 73.17),
}
CATEGORIES = tuple(dict.fromkeys(name for name, _ in STUDY))
MEANS = {DETECTOR: (90.98, 83.72), CLASSIFIER: (73.04, 72.58)}
"""Of the published F1, and of calling everything abnormal."""


class Known:
    """Scores that make the study's confusion matrices: the first so many of each class are called wrongly.

    Goods called wrongly lie above all defects, and defects above them below all goods, so that no other
    threshold has a better F1.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, int]] = Counter()

    def __call__(self, cell: Cell, image: Image) -> float:
        """Return a score far from the tuning images' threshold, on its right or its wrong side."""
        if image.id in cell.fit.tune or image.part == "train":
            return 100.0 * image.label
        _, counts, _ = STUDY[cell.category, cell.fit.model]
        self._seen[cell.key, image.label] += 1
        if self._seen[cell.key, image.label] <= (counts.fn if image.label else counts.fp):
            return -200.0 if image.label else 400.0
        return 200.0 * image.label


@pytest.fixture(scope="module", params=["holdout", "both"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """A sweep on made-up categories with MVTec AD's names and counts."""
    store = open_store(str(tmp_path_factory.mktemp("study")))
    numbers = {name: published_counts()[name] for name in CATEGORIES}
    made_up_sweep(
        store,
        dataset="mvtec",
        categories=CATEGORIES,
        models=[CLASSIFIER, DETECTOR],
        odd={
            name: {"training_goods": train, "goods": goods, "defects": defects}
            for name, (train, goods, defects) in numbers.items()
        },
        masks=False,
        planted=Known(),
        protocols={"detection": {"scheme": request.param}},
    )
    return Tables(collect(store, "madeup"))


def rows(tables: Tables) -> dict[tuple[str, str], FigureRow]:
    every = tables.collected.rows()
    return {(row.category, row.label): row for row in every if row.condition == "holdout"}


def percent(value: float) -> float:
    return round(100 * value, 2)


def test_the_counts_give_the_published_figures() -> None:
    for f1, counts, chance in STUDY.values():
        assert percent(counts.f1) == f1
        assert percent(ConfusionCounts(counts.tp + counts.fn, counts.fp + counts.tn, 0, 0).f1) == chance
    for label, (mean, chance) in MEANS.items():
        own = [(f1, all_abnormal) for (_, name), (f1, _, all_abnormal) in STUDY.items() if name == label]
        assert sum(f1 for f1, _ in own) / 4 == pytest.approx(mean, abs=0.006)
        assert sum(all_abnormal for _, all_abnormal in own) / 4 == pytest.approx(chance, abs=0.006)


def test_four_published_figures_are_those_of_calling_everything_abnormal() -> None:
    same = {key for key, (f1, _, chance) in STUDY.items() if f1 == chance}
    assert same == {("carpet", DETECTOR), *((name, CLASSIFIER) for name in ("hazelnut", "carpet", "grid"))}


def test_the_holdout_gives_the_study_s_figures(tables: Tables) -> None:
    found = rows(tables)
    assert found.keys() == STUDY.keys()
    for key, (f1, counts, chance) in STUDY.items():
        row, figures = found[key], found[key].figures
        assert row.counts == row.tuned == counts, key
        assert (row.goods, row.defects) == (counts.fp + counts.tn, counts.tp + counts.fn)
        assert figures["recall"] == counts.tp / (counts.tp + counts.fn)
        assert figures["precision"] == counts.tp / (counts.tp + counts.fp)
        assert figures["accuracy"] == (counts.tp + counts.tn) / (row.goods + row.defects)
        assert percent(figures["f1"]) == percent(figures["f1_oracle"]) == f1
        assert percent(row.all_abnormal) == chance


def test_the_tables_show_them_with_what_was_tested_and_chance(tables: Tables) -> None:
    beside = [line for line in tables.conditions if line.condition == "holdout"]
    tuned = [line for line in tables.thresholds if line.rule == "tuned"]
    lines = beside if tables.paired else tuned
    assert len(lines) == len(STUDY)
    for line in lines:
        f1, counts, chance = STUDY[line.category, line.label]
        assert (percent(line.f1), percent(line.all_abnormal)) == (f1, chance)
        assert line.recall == counts.tp / (counts.tp + counts.fn)
        assert line.precision == counts.tp / (counts.tp + counts.fp)
        assert line.observed == counts.fp / (counts.fp + counts.tn)
        assert (line.goods, line.defects) == (counts.fp + counts.tn, counts.tp + counts.fn)


def test_the_files_hold_them(tables: Tables) -> None:
    name = "conditions.csv" if tables.paired else "thresholds.csv"
    text = dict(tables.files())[name].decode()
    found = {
        (line["category"], line["label"]): (percent(float(line["f1"])), percent(float(line["all_abnormal"])))
        for line in csv.DictReader(io.StringIO(text))
        if line.get("condition", "") == "holdout" or line.get("rule", "") == "tuned"
    }
    assert found == {key: (f1, chance) for key, (f1, _, chance) in STUDY.items()}


def test_the_published_figures_stand_beside_ours_of_the_holdout(tables: Tables) -> None:
    lines = [line for line in published(tables) if line.figure == "f1_oracle"]
    assert {(line.category, line.label) for line in lines} == STUDY.keys()
    for line in lines:
        f1, _, chance = STUDY[line.category, line.label]
        assert percent(line.value) == percent(line.ours) == f1
        assert percent(line.all_abnormal) == percent(line.ours_all_abnormal) == chance
        assert line.same
