"""The original study's figures, from predictions with known confusion matrices, by the holdout."""

from __future__ import annotations

from collections import Counter

import pytest

from defectbench.data.manifest import Image
from defectbench.metrics.image import ConfusionCounts
from defectbench.records.cell import Cell
from defectbench.stores.choose import open_store
from defectbench.tables.collect import FigureRow, collect
from defectbench.tables.tables import Tables
from fakes import made_up_sweep

CLASSIFIER, DETECTOR = "tinyvit-21m-512", "glass"
# The study published best F1 in percent. The counts are ours, the smallest that give them: a quarter of the
# labelled images tests the classifier, a half the detector.
STUDY = {
    ("bottle", DETECTOR): (93.75, ConfusionCounts(tp=45, fp=5, tn=1, fn=1)),
    ("bottle", CLASSIFIER): (78.05, ConfusionCounts(tp=16, fp=2, tn=1, fn=7)),
    ("hazelnut", DETECTOR): (95.77, ConfusionCounts(tp=34, fp=1, tn=3, fn=2)),
    ("hazelnut", CLASSIFIER): (64.29, ConfusionCounts(tp=9, fp=1, tn=1, fn=9)),
    ("carpet", DETECTOR): (86.54, ConfusionCounts(tp=45, fp=11, tn=17, fn=3)),
    ("carpet", CLASSIFIER): (76.67, ConfusionCounts(tp=23, fp=13, tn=1, fn=1)),
    ("grid", DETECTOR): (87.88, ConfusionCounts(tp=29, fp=5, tn=17, fn=3)),
    ("grid", CLASSIFIER): (73.17, ConfusionCounts(tp=15, fp=10, tn=1, fn=1)),
}
MEANS = {DETECTOR: 90.98, CLASSIFIER: 73.04}


class Known:
    """Scores that make a confusion matrix: the first so many of each class are called wrongly."""

    def __init__(self, category: str) -> None:
        self._category = category
        self._seen: Counter[tuple[str, int]] = Counter()

    def __call__(self, cell: Cell, image: Image) -> float:
        """Return 0 for what is called good, and far above the tuning images' threshold for the others."""
        if image.id in cell.fit.tune or image.part == "train":
            return 100.0 * image.label
        _, counts = STUDY[self._category, cell.fit.model]
        self._seen[cell.key, image.label] += 1
        wrong = self._seen[cell.key, image.label] <= (counts.fn if image.label else counts.fp)
        return 200.0 * (image.label != wrong)


@pytest.fixture(scope="module", params=["holdout", "both"])
def tables(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Tables]:
    """The sweep of each category, as its pictures differ in number."""
    found = []
    for category in dict.fromkeys(name for name, _ in STUDY):
        store = open_store(str(tmp_path_factory.mktemp(category)))
        quarter = STUDY[category, CLASSIFIER][1]
        made_up_sweep(
            store,
            categories=[category],
            models=[CLASSIFIER, DETECTOR],
            training_goods=5,
            goods=4 * (quarter.fp + quarter.tn),
            defects=4 * (quarter.tp + quarter.fn),
            defect_types=["broken"],
            masks=False,
            planted=Known(category),
            protocols={"detection": {"scheme": request.param}},
        )
        found.append(Tables(collect(store, "madeup")))
    return found


def rows(tables: list[Tables]) -> dict[tuple[str, str], FigureRow]:
    every = (row for each in tables for row in each.collected.rows())
    return {(row.category, row.label): row for row in every if row.condition == "holdout"}


def test_the_holdout_gives_the_studys_figures(tables: list[Tables]) -> None:
    found = rows(tables)
    assert found.keys() == STUDY.keys()
    for key, (f1, counts) in STUDY.items():
        row, figures = found[key], found[key].figures
        assert row.counts == row.tuned == counts, key
        assert figures["recall"] == counts.tp / (counts.tp + counts.fn)
        assert figures["precision"] == counts.tp / (counts.tp + counts.fp)
        assert figures["accuracy"] == (counts.tp + counts.tn) / sum(
            (counts.tp, counts.fp, counts.tn, counts.fn)
        )
        assert figures["f1"] == 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)
        assert round(100 * figures["f1"], 2) == f1
    for label, mean in MEANS.items():
        own = [round(100 * row.figures["f1"], 2) for (_, name), row in found.items() if name == label]
        assert sum(own) / 4 == pytest.approx(mean, abs=0.006)


def test_the_reports_tables_show_them(tables: list[Tables]) -> None:
    for each in tables:
        beside = [line for line in each.conditions if line.condition == "holdout"]
        tuned = [line for line in each.thresholds if line.rule == "tuned"]
        for line in beside if each.paired else tuned:
            f1, counts = STUDY[line.category, line.label]
            assert round(100 * line.f1, 2) == f1
            assert (line.recall, line.precision) == (
                counts.tp / (counts.tp + counts.fn),
                counts.tp / (counts.tp + counts.fp),
            )
            assert line.observed == counts.fp / (counts.fp + counts.tn)
        assert len(beside if each.paired else tuned) == 2
