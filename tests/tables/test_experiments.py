"""Truths planted into made-up predictions, recovered through plan, collect and the report's tables."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from defectbench.data.manifest import Image
from defectbench.records.cell import Cell
from defectbench.stores.choose import open_store
from defectbench.tables.collect import collect
from defectbench.tables.tables import Tables
from defectbench.tables.unseen import UnseenRow
from fakes import Planted, made_up_sweep

MODELS = ["filterbank-logreg", "filterbank-knn"]
LEARNER, DETECTOR = MODELS
NOISE = 2 * (0.7**2 + 0.7**2)
"""Variance of the difference of two made-up scores."""


def auroc(shift: float) -> float:
    """What a shift of so many standard deviations makes."""
    return NormalDist().cdf(shift / math.sqrt(NOISE))


def shift(auroc: float) -> float:
    """What makes an AUROC."""
    return NormalDist().inv_cdf(auroc) * math.sqrt(NOISE)


def tables(path: Path, planted: Planted, **options: object) -> Tables:
    store = open_store(str(path / "store"))
    made_up_sweep(store, categories=["grass"], planted=planted, **{"models": MODELS} | options)  # type: ignore[arg-type]
    return Tables(collect(store, "madeup"))


def types_learnt(cell: Cell) -> set[str]:
    """The defect types that a cell's fit was taught: ids are part/type/number."""
    return {name.split("/")[1] for name, label in cell.fit.train if label}


def used(cell: Cell) -> int:
    """How many labelled defects a fit used."""
    return sum(label for _, label in cell.fit.train) + sum("/good/" not in name for name in cell.fit.tune)


CURVE = {1: 0.65, 2: 0.75, 4: 0.90, 8: 0.94}


def learns_slowly(cell: Cell, image: Image) -> float:
    """The classifier passes the detector's 0.85 between 2 and 4 labelled defects."""
    if not image.label:
        return 0.0
    return shift(0.85 if cell.family == "detector" else CURVE.get(used(cell), 0.96))


@pytest.fixture(scope="module")
def scarce(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return tables(
        tmp_path_factory.mktemp("scarce"),
        learns_slowly,
        goods=60,
        defects=60,
        protocols={"scarcity": {"defects": list(CURVE), "draws": 3}},
        margin=0.05,
    )


def test_a_planted_crossover_is_found_through_collect(scarce: Tables) -> None:
    (crossing,) = scarce.crossovers
    assert crossing.low <= 4 <= crossing.high
    # Where the difference itself passes -margin is 4; that the bound does so may take twice as many.
    assert crossing.n in (4, 8)
    assert (crossing.classifier, crossing.detector) == (LEARNER, DETECTOR)
    assert (crossing.folds, crossing.expected) == (4 * (3 * len(CURVE) + 1), 4 * (3 * len(CURVE) + 1))
    # A pool has half of the 60 defects, and `all` tunes on a fourth fold's quarter too.
    assert crossing.tested == (*CURVE, 45)


def test_a_learning_curve_is_that_of_the_rows(scarce: Tables) -> None:
    rows = {(row.label, row.condition): row for row in scarce.collected.rows()}
    assert [point.whole for point in scarce.learning] == [False] * len(CURVE) + [True]
    for point in scarce.learning:
        condition = "all" if point.whole else f"n={point.n}"
        row = rows[LEARNER, condition]
        assert point.value == pytest.approx(row.figures["image_auroc"])
        assert point.low < point.value < point.high
        assert point.draws == max(1, row.draws)
        assert set(point.cells) == set(row.cells)
        assert point.value == pytest.approx(0.96 if point.whole else CURVE[point.n], abs=0.05)
        assert point.detector_value == pytest.approx(rows[DETECTOR, "all"].figures["image_auroc"])
        assert point.difference == pytest.approx(point.value - point.detector_value)
        assert point.enough == (point.bound > -0.05)


def test_a_point_without_a_fold_is_left_out_of_the_curve(tmp_path: Path) -> None:
    # The learner's last two cells are `all` of two folds.
    found = tables(
        tmp_path,
        learns_slowly,
        goods=12,
        defects=24,
        protocols={"scarcity": {"defects": [1, 4], "draws": 2}},
        unfinished=2,
        models=[DETECTOR, LEARNER],
    )
    (crossing,) = found.crossovers
    assert not crossing.complete
    assert crossing.tested == (1, 4)


def test_without_both_contenders_there_is_no_curve(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    made_up_sweep(
        store, models=[LEARNER], categories=["grass"], protocols={"scarcity": {"defects": [1], "draws": 1}}
    )
    found = Tables(collect(store, "madeup"))
    assert (found.learning, found.crossovers) == ((), ())
    assert {line.condition for line in found.conditions} == {"n=1", "all"}


def needs_goods(cell: Cell, image: Image) -> float:
    """The classifier needs 20 goods, the detector is as good with 5."""
    if not image.label:
        return 0.0
    goods = sum(not label for _, label in cell.fit.train)
    return shift(0.9 if cell.family == "detector" or goods >= 20 else {5: 0.6, 10: 0.75}[goods])


def test_the_goods_that_a_family_needs_are_found(tmp_path: Path) -> None:
    found = tables(
        tmp_path,
        needs_goods,
        training_goods=100,
        goods=120,
        defects=120,
        protocols={"goods": {"goods": [5, 10, 20, 40, 5000], "draws": 10}},
        margin=0.1,
    )
    needed = {row.label: row for row in found.goods_needed}
    assert needed[DETECTOR].n == 5
    assert needed[DETECTOR].text == "<= 5"
    assert needed[LEARNER].n in (20, 40)
    assert needed[LEARNER].low <= 20 <= needed[LEARNER].high
    assert needed[LEARNER].complete
    rows = {(row.label, row.condition): row for row in found.collected.rows()}
    for point in found.goods_curve:
        assert point.value == pytest.approx(rows[point.label, f"n={point.n}"].figures["image_auroc"])
        assert point.all_value == pytest.approx(rows[point.label, "all"].figures["image_auroc"])
        assert point.draws == 10
    # One fit of the detector for each number and draw, whatever the fold, and one for all goods.
    detectors = {cell for point in found.goods_curve if point.label == DETECTOR for cell in point.cells}
    assert len(detectors) == len(needed[DETECTOR].tested) * 10


def test_too_few_goods_for_all_are_said(tmp_path: Path) -> None:
    """A model that no tested number makes as good as all goods do."""

    def wants_all(cell: Cell, image: Image) -> float:
        goods = sum(not label for _, label in cell.fit.train)
        return 0.0 if not image.label else shift(0.6 if goods <= 10 else 0.95)

    found = tables(
        tmp_path,
        wants_all,
        goods=60,
        defects=60,
        protocols={"goods": {"goods": [5, 10], "draws": 1}},
        training_goods=50,
    )
    assert {row.text for row in found.goods_needed} == {"> 10"}
    assert {row.interval for row in found.goods_needed} == {"> 10"}
    assert not any(point.enough for point in found.goods_curve)


VISIBLE = 3.0
"""By how many standard deviations a defect that is seen stands out."""


def sees_by_family(cell: Cell, image: Image) -> float:
    """The detector is blind to stains. The classifier sees what it has learnt, and nothing else."""
    if not image.label:
        return 0.0
    if cell.family == "detector":
        return 0.0 if image.defect_type == "stain" else VISIBLE
    return VISIBLE if image.defect_type in types_learnt(cell) else 0.0


def visible(entry: UnseenRow) -> bool:
    """Whether an entry's model was made to see the type that it is tested on."""
    return entry.learnt if entry.label == LEARNER else entry.tested != "stain"


def blind_tables(path: Path) -> Tables:
    """A sweep of two seeds in which each family is blind to something."""
    return tables(
        path,
        sees_by_family,
        goods=40,
        defects=90,
        seeds=[0, 1],
        protocols={"detection": {"folds": 3}, "unseen": {}},
    )


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return blind_tables(tmp_path_factory.mktemp("blind"))


def test_a_type_that_one_family_cannot_see_shows_in_the_matrix(blind: Tables) -> None:
    kinds = ("crack", "scratch", "stain")
    entries = [entry for entry in blind.unseen if not entry.control]
    assert len(entries) == 2 * 2 * 9, "models, modes, lines x columns"
    for entry in entries:
        assert entry.value == pytest.approx(auroc(VISIBLE) if visible(entry) else 0.5, abs=0.15), entry
        assert entry.learnt == ((entry.tested == entry.type) == (entry.mode == "one"))
        assert entry.tested in kinds
        assert (entry.defects, entry.folds, len(entry.seeds)) == (30, 6, 2)
        assert entry.value == pytest.approx(np.mean(entry.seeds))


def test_the_control_is_the_learners_alone_and_has_learnt_any_type(blind: Tables) -> None:
    controls = [entry for entry in blind.unseen if entry.control]
    assert {entry.label for entry in controls} == {LEARNER}
    assert len(controls) == 2 * 9
    # Ten defects of any type hold all three: they are seen.
    assert min(entry.value for entry in controls) > 0.8


def test_what_unseen_types_cost_is_told_with_its_interval(blind: Tables) -> None:
    lines = {(line.label, line.mode): line for line in blind.seen_unseen}
    assert len(lines) == 4
    for mode in ("one", "all_but_one"):
        learner, detector = lines[LEARNER, mode], lines[DETECTOR, mode]
        assert learner.seen == pytest.approx(auroc(VISIBLE), abs=0.05)
        assert learner.unseen == pytest.approx(0.5, abs=0.1)
        assert learner.loss == pytest.approx(learner.unseen - learner.control, abs=1e-9)
        assert learner.loss_low < learner.loss < learner.loss_high < -0.2
        assert learner.lead == pytest.approx(learner.unseen - detector.unseen, abs=1e-9)
        # The detector sees two types of three.
        assert learner.lead_low < 0.5 - (2 * auroc(VISIBLE) + 0.5) / 3 < learner.lead_high
        assert math.isnan(detector.loss)
        assert math.isnan(detector.lead)
        assert math.isnan(detector.control)


SHARES = (0.0, 0.05, 0.1)
LOSS = {DETECTOR: 10.0, LEARNER: 5.0}
"""Standard deviations lost for each unit of contamination: the detector one by a tenth, the learner half."""


def spoilt(label: str, share: float) -> float:
    """The AUROC planted at a share."""
    return auroc(2.5 - LOSS[label] * share)


def spoilt_tables(path: Path) -> Tables:
    """A sweep whose models see the less of a defect the more of what they took for good is defective."""

    def seen(cell: Cell, image: Image) -> float:
        goods = [name for name, label in cell.fit.train if not label]
        share = sum("/good/" not in name for name in goods) / len(goods)
        return image.label * (2.5 - LOSS[cell.fit.model] * share)

    return tables(path, seen, goods=120, defects=120, training_goods=100, protocols={"contamination": {}})


def finds_stains(cell: Cell, image: Image) -> float:
    """A fit finds stains and misses scratches; its tuning images are far from its threshold."""
    if image.id in cell.fit.tune:
        return 20.0 * image.label
    return {"stain": 40.0, "scratch": -40.0}.get(image.defect_type, 20.0)


STUDY_FORM = {
    "goods": 10,
    "defects": 13,
    "protocols": {"unseen": {"modes": ["study"]}},
}
"""Five cracks, which are learnt, four scratches and four stains."""


def test_the_study_s_form_of_unseen_has_a_recall_and_no_other_figure(tmp_path: Path) -> None:
    found = tables(tmp_path, finds_stains, seeds=(0, 1), **STUDY_FORM)
    assert [(line.seed, line.tested, line.found, line.defects) for line in found.unseen_study] == [
        (seed, *rest) for seed in (0, 1) for rest in (("scratch", 0, 4), ("stain", 4, 4))
    ]
    for line in found.unseen_study:
        assert (line.type, line.label, line.recall) == ("crack", LEARNER, line.found / 4)
        assert (line.tuning_goods, line.tuning_alarms) == (10, 0)
        assert line.low <= line.recall <= line.high
    (row,) = found.conditions
    assert (row.condition, row.goods, row.defects, row.recall) == ("study/crack/unseen", 0, 8, 0.5)
    for name in ("value", "observed", "precision", "accuracy", "f1", "f1_oracle", "all_abnormal"):
        assert math.isnan(getattr(row, name)), name
    assert not found.unseen
    assert not found.seen_unseen


def test_the_study_s_form_of_unseen_lists_every_score(tmp_path: Path) -> None:
    found = tables(tmp_path, finds_stains, **STUDY_FORM).unseen_scores
    assert len({line.image_id for line in found}) == len(found) == 8
    assert [line.score for line in found] == sorted((line.score for line in found), reverse=True)
    assert all(
        line.abnormal == (line.defect_type == "stain") == (line.score > line.threshold) for line in found
    )


def test_the_study_s_form_of_unseen_stands_beside_ours(tmp_path: Path) -> None:
    both = {"unseen": {"modes": ["one", "study"]}, "detection": {"folds": 3}}
    found = tables(tmp_path, finds_stains, **STUDY_FORM | {"protocols": both})
    alone = tables(
        tmp_path / "alone", finds_stains, **STUDY_FORM | {"protocols": both | {"unseen": {"modes": ["one"]}}}
    )
    assert len(found.unseen_study) == 2
    assert {entry.mode for entry in found.unseen} == {"one"}
    assert found.unseen == alone.unseen
    assert found.seen_unseen == alone.seen_unseen
    assert not alone.unseen_study
    assert not alone.unseen_scores


def test_contamination_lowers_the_detector_by_what_was_planted(tmp_path: Path) -> None:
    figures = {(line.label, line.condition): line.value for line in spoilt_tables(tmp_path).conditions}
    for share in SHARES:
        for label in MODELS:
            # The standard error of an AUROC of 0.85 with 120 + 120 images is 0.025.
            assert figures[label, f"share={share:g}"] == pytest.approx(spoilt(label, share), abs=0.06)
    drop = figures[DETECTOR, "share=0"] - figures[DETECTOR, "share=0.1"]
    assert drop == pytest.approx(spoilt(DETECTOR, 0.0) - spoilt(DETECTOR, 0.1), abs=0.06)
