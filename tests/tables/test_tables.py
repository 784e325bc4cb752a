from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet
from scipy.stats import betabinom

from defectbench.metrics import comparison
from defectbench.metrics.image import METRICS, ConfusionCounts
from defectbench.records.sweep_record import SweepModel
from defectbench.report.wording import weights_lines
from defectbench.stores.choose import open_store
from defectbench.tables.collect import Collected, Fold, collect
from defectbench.tables.rows import ModelRow
from defectbench.tables.tables import EXPLANATION, FILES, Tables, _model
from defectbench.tables.thresholds import CALLS, chance_of
from defectbench.tables.worst_images import WORST, worst
from fakes import made_up_sweep

CONTENDERS = ["mobilenetv3-small", "padim"]
GOODS = ("goods_curve", "goods_needed")
UNSEEN = ("unseen", "seen_unseen", "unseen_study", "unseen_scores")


def sweep(path: Path, **options: object) -> Tables:
    store = open_store(str(path / "store"))
    made_up_sweep(store, contenders=CONTENDERS, **options)  # type: ignore[arg-type]
    return Tables(collect(store, "madeup"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return sweep(
        tmp_path_factory.mktemp("whole"),
        seeds=(0, 1),
        goods=20,
        defects=20,
        skill={"padim": 3.0, "mobilenetv3-small": 1.0, "padim/brick": 1.0},
        defect_rate=0.01,
        prices={"false_alarm": 2.0, "missed_defect": 100.0},
    )


def test_scores_are_those_of_collect(whole: Tables) -> None:
    rows = whole.collected.rows()
    assert len(whole.scores) == 8
    for score in whole.scores:
        own = [
            r.figures["image_auroc"] for r in rows if (r.label, r.category) == (score.label, score.category)
        ]
        assert score.seeds == tuple(own)
        assert score.value == pytest.approx(np.mean(own))
        assert score.low <= score.value <= score.high
        assert (score.folds, score.expected) == (6, 6)
        assert set(score.cells) <= set(whole.collected.results)


def test_scores_follow_the_sweeps_order(whole: Tables) -> None:
    order = [(category, label) for category in ("grass", "brick") for label in whole.labels]
    assert [(score.category, score.label) for score in whole.scores] == order


def test_baselines_are_marked(whole: Tables) -> None:
    assert [m.label for m in whole.models if m.baseline] == ["filterbank-logreg", "filterbank-knn"]


def test_means_need_every_category(whole: Tables, tmp_path: Path) -> None:
    values = [score.value for score in whole.scores if score.label == "padim"]
    assert {mean.label: mean.value for mean in whole.means}["padim"] == pytest.approx(np.mean(values))
    partial = sweep(tmp_path, unfinished=1)
    assert math.isnan({mean.label: mean.value for mean in partial.means}["padim"])


def test_comparisons_are_paired_and_corrected(whole: Tables) -> None:
    grass, brick = whole.comparisons
    scores = {(score.label, score.category): score.value for score in whole.scores}
    for row in (grass, brick):
        assert row.classifier_value == pytest.approx(scores["mobilenetv3-small", row.category])
        assert row.difference == pytest.approx(row.classifier_value - row.detector_value)
        assert row.difference == pytest.approx(np.mean(row.seeds))
        assert row.low <= row.low_90 <= row.difference <= row.high_90 <= row.high
        assert (row.goods, row.defects, row.folds, row.expected) == (20, 20, 6, 6)
    assert (grass.corrected, brick.corrected) == comparison.holm([grass.p, brick.p])
    # Two seeds: nothing is decided between families, however clear the figures.
    assert grass.corrected < 0.05
    assert {row.verdict for row in (grass, brick)} == {"undecided"}
    assert all("for these fits only: 2 seeds" in " ".join(row.warnings) for row in (grass, brick))


def test_few_images_are_warned_about(whole: Tables) -> None:
    assert all("20 goods and 20 defects" in " ".join(row.warnings) for row in whole.comparisons)


def test_many_images_far_from_one_are_not(tmp_path: Path) -> None:
    tables = sweep(
        tmp_path, categories=("grass",), goods=40, defects=40, skill={"padim": 0.8}, seeds=(0, 1, 2)
    )
    assert tables.comparisons[0].warnings == ()


def test_a_perfect_score_is_warned_about(tmp_path: Path) -> None:
    tables = sweep(tmp_path, categories=("grass",), goods=40, defects=40, skill={"padim": 30.0})
    assert tables.comparisons[0].detector_value == 1.0
    assert "too narrow" in tables.comparisons[0].warnings[0]


def test_perfect_models_on_few_images_are_undecided(tmp_path: Path) -> None:
    perfect = {"padim": 30.0, "mobilenetv3-small": 30.0}
    few = sweep(tmp_path / "few", categories=("grass",), goods=4, defects=3, skill=perfect)
    (row,) = few.comparisons
    assert (row.low_90, row.high_90, row.verdict) == (0.0, 0.0, "undecided")
    assert (
        "equivalent within 0.01 from 300 images of each class on" in row.warnings[-2:][0] + row.warnings[-1]
    )
    wide = sweep(
        tmp_path / "wide",
        categories=("grass",),
        goods=30,
        defects=30,
        skill=perfect,
        margin=0.1,
        seeds=(0, 1, 2),
    )
    assert wide.comparisons[0].verdict == "equivalent"


def test_other_figures_near_one_are_named_as_what_they_are(tmp_path: Path) -> None:
    tables = sweep(
        tmp_path, categories=("grass",), goods=40, defects=40, skill={"padim": 3.5}, endpoint="image_ap"
    )
    says = " ".join(warning for row in tables.comparisons for warning in row.warnings)
    assert tables.comparisons[0].detector_value > 0.98
    assert "an image_ap of" in says or "at an AUROC of" in says
    assert "an AUROC of" not in says.replace("at an AUROC of", "")


def test_narrow_intervals_are_marked_on_every_score(whole: Tables) -> None:
    assert all("20 goods and 20 defects" in " ".join(score.warnings) for score in whole.scores)


def test_comparisons_use_what_both_have(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    record = made_up_sweep(
        store,
        categories=("grass",),
        models=list(reversed(CONTENDERS)),
        contenders=CONTENDERS,
        seeds=(0, 1),
        unfinished=1,
    )
    tables = Tables(collect(store, "madeup"))
    (row,) = tables.comparisons
    last = list(record.cells)[-1]
    seed = next(reading.seed for reading in record.readings if reading.cell == last)
    assert len(row.seeds) == 1
    assert (row.folds, row.expected) == (3, 6)
    used = {r.seed for r in record.readings if r.cell in row.cells}
    assert used == {1 - seed}


def test_comparisons_of_one_seed_take_the_folds_there_are(tmp_path: Path) -> None:
    tables = sweep(tmp_path, categories=("grass",), models=list(reversed(CONTENDERS)), unfinished=1)
    (row,) = tables.comparisons
    assert (row.folds, row.expected, row.goods + row.defects) == (2, 3, 16)


def test_comparisons_wait_for_both(tmp_path: Path) -> None:
    assert sweep(tmp_path, categories=("grass",), unfinished=1).comparisons == ()


def test_holdout_pairs_nothing(tmp_path: Path) -> None:
    tables = sweep(tmp_path, protocols={"detection": {"scheme": "holdout"}})
    assert not tables.paired
    assert tables.comparisons == ()
    lines = [(line.category, line.families) for line in tables.categories]
    assert lines == [
        (c, f) for c in ("grass", "brick") for f in (("classifier", "supervised"), ("detector",))
    ]
    assert {line.rule for line in tables.thresholds} == {"tuned", "oracle", "everything abnormal"}
    everything = [line for line in tables.thresholds if line.rule == "everything abnormal"]
    assert [(line.category, line.family) for line in everything] == [
        (c, f) for c in ("grass", "brick") for f in ("classifier", "detector")
    ]
    tested = {(line.category, line.families[0]): line for line in tables.categories}
    for line in everything:
        of = tested[line.category, str(line.family)]
        assert line.precision == of.test_defects / (of.test_defects + of.test_goods)
        assert (line.goods, line.defects) == (of.test_goods, of.test_defects)
    chance = {(line.category, line.family): line.f1 for line in everything}
    for line in tables.thresholds:
        assert line.all_abnormal == chance[line.category, line.family]


def test_thresholds_stand_in_the_designs_order(whole: Tables) -> None:
    rules = [line.rule for line in whole.thresholds if line.category == "grass"]
    assert rules == ["calibrated"] * 4 + ["tuned"] * 4 + ["oracle"] * 4 + ["everything abnormal"]


def test_calibrated_thresholds_pool_counts(whole: Tables) -> None:
    line = next(line for line in whole.thresholds if (line.rule, line.label) == ("calibrated", "padim"))
    rows = [r for r in whole.collected.rows() if (r.label, r.category) == ("padim", "grass")]
    counts = [row.counts for row in rows if row.counts is not None]
    pooled = counts[0] + counts[1]
    assert [getattr(line, name) for name in CALLS] == [getattr(pooled, name) for name in CALLS]
    assert line.observed == pooled.false_alarm_rate
    assert line.promised == line.resolution == pytest.approx(1 / 6)
    assert line.precision_at_rate == pooled.precision_at(0.01)
    assert line.cost == pooled.cost_at(0.01, false_alarm=2.0, missed_defect=100.0)


@pytest.mark.parametrize(("goods", "calibration", "rank"), [(30, 12, 1), (40, 39, 2), (7, 99, 5), (1, 19, 1)])
def test_chance_of_false_alarms_is_beta_binomial(goods: int, calibration: int, rank: int) -> None:
    for alarms in range(goods + 1):
        expected = betabinom(goods, rank, calibration + 1 - rank).sf(alarms - 1)
        assert chance_of(alarms, goods, calibration, rank / (calibration + 1)) == pytest.approx(expected)


def test_a_broken_promise_is_seen(whole: Tables, tmp_path: Path) -> None:
    assert not any(line.broken for line in whole.thresholds)
    drifted = sweep(tmp_path, categories=("grass",), goods=30, training_goods=60, drift=4.0)
    assert {line.rule for line in drifted.thresholds if line.broken} == {"calibrated"}


def test_everything_abnormal_needs_no_model(whole: Tables) -> None:
    lines = [line for line in whole.thresholds if line.rule == "everything abnormal"]
    assert [line.f1 for line in lines] == [ConfusionCounts(20, 20, 0, 0).f1] * 2
    assert {(line.recall, line.observed, line.label) for line in lines} == {(1.0, 1.0, "")}


def test_oracle_is_the_figure_of_result_json(whole: Tables) -> None:
    line = next(line for line in whole.thresholds if (line.rule, line.label) == ("oracle", "padim"))
    rows = [r for r in whole.collected.rows() if (r.label, r.category) == ("padim", "grass")]
    assert line.f1 == pytest.approx(np.mean([row.figures["f1_oracle"] for row in rows]))
    assert math.isnan(line.recall)


def test_explanations_without_masks_are_not_measurable(tmp_path: Path) -> None:
    for line in sweep(tmp_path, categories=("grass",), masks=False).explanations:
        assert line.defects == 0
        assert all(math.isnan(getattr(line, name)) for name in EXPLANATION)


def test_figures_have_the_names_of_the_metrics() -> None:
    assert {*CALLS, *EXPLANATION} <= {metric.name for metric in METRICS}


def test_costs_count_each_fit_once(whole: Tables) -> None:
    cells = {line.label: line.cells for line in whole.costs}
    assert cells == {"filterbank-logreg": 12, "mobilenetv3-small": 12, "filterbank-knn": 4, "padim": 4}
    total = sum(result.cost["fit_seconds"] for result in whole.collected.results.values())
    assert sum(line.total_fit_seconds for line in whole.costs) == pytest.approx(total)


def test_cells_say_how_they_stand(tmp_path: Path) -> None:
    tables = sweep(tmp_path, categories=("grass",), failed=1, unfinished=1)
    assert [cell.status for cell in tables.cells] == ["finished"] * 6 + ["failed", "missing"]
    assert "exit code 65: made up" in tables.cells[-2].note
    assert tables.cells[-1].folds == (0, 1, 2)
    assert tables.cells[0].weights == "not needed"


def test_changed_settings_are_named(tmp_path: Path) -> None:
    models: list[Any] = ["filterbank-logreg", {"name": "padim", "features": 50, "label": "small"}]
    store = open_store(str(tmp_path / "store"))
    made_up_sweep(store, categories=("grass",), models=models)
    assert [model.changed for model in Tables(collect(store, "madeup")).models] == [(), ("features=50",)]


def test_files_hold_every_row(whole: Tables) -> None:
    files = dict(whole.files())
    assert set(files) == {f"{name}.{kind}" for name in FILES for kind in ("csv", "parquet")}
    for name in FILES:
        lines = list(csv.DictReader(io.StringIO(files[f"{name}.csv"].decode())))
        assert len(lines) == len(getattr(whole, name))
        further = ("matched", "uncertain", "conditions", "learning", "crossovers", *GOODS, *UNSEEN)
        assert bool(lines) == (name not in further), "detection is no further protocol"
        assert len(parquet.read_table(io.BytesIO(files[f"{name}.parquet"]))) == len(lines)
    first = next(csv.DictReader(io.StringIO(files["scores.csv"].decode())))
    assert float(first["value"]) == whole.scores[0].value
    assert first["cells"].split(";") == list(whole.scores[0].cells)


def test_parquet_keeps_types(whole: Tables) -> None:
    files = dict(whole.files())
    rows = parquet.read_table(io.BytesIO(files["thresholds.parquet"])).to_pylist()
    for row, line in zip(rows, whole.thresholds, strict=True):
        assert tuple(row["cells"]) == line.cells
        assert row["broken"] is line.broken
        assert row["recall"] == (None if math.isnan(line.recall) else line.recall)


def test_an_empty_sweep_gives_empty_tables(tmp_path: Path) -> None:
    tables = sweep(tmp_path, categories=("grass",), unfinished=8)
    assert (tables.scores, tables.thresholds, tables.mistakes, tables.curves) == ((), (), (), ())
    assert len(tables.cells) == 8
    files = dict(tables.files())
    assert files["scores.csv"].decode().startswith("label,family,baseline,category,value")
    assert parquet.read_table(io.BytesIO(files["scores.parquet"])).schema.field("value").type == "double"


def rescaled(collected: Collected, how: Callable[[np.ndarray], np.ndarray]) -> Sequence[Fold]:
    folds = collected.folds(label="padim", category="grass", seed=0)
    test = folds[1].test
    names = (
        "cell",
        "image_id",
        "label",
        "defect_type",
        "role",
        "pixel_auroc",
        "pixel_ap",
        "pointing_hit",
        "iou",
    )
    changed = type(test)(score=how(test.score), **{name: getattr(test, name) for name in names})
    return [folds[0], replace(folds[1], test=changed), folds[2]]


def test_mistakes_are_ranked_inside_folds(whole: Tables) -> None:
    kinds = [(m.category, m.label, m.good) for m in whole.mistakes]
    wanted = [(c, x, k) for c in ("grass", "brick") for x in CONTENDERS for k in (True, False)]
    assert kinds == [item for item in wanted for _ in range(WORST)]
    before = worst(rescaled(whole.collected, lambda s: s), "detector")
    after = worst(rescaled(whole.collected, lambda s: 1000 + np.exp(s)), "detector")
    assert [(m.image_id, m.outranked) for m in after] == [(m.image_id, m.outranked) for m in before]


def test_mistakes_count_what_they_outrank(whole: Tables) -> None:
    for mistake in whole.mistakes:
        (fold,) = [
            f
            for f in whole.collected.folds(label=mistake.label, category=mistake.category, seed=0)
            if f.split.fold == mistake.fold
        ]
        row = fold.test.select([mistake.image_id])
        other = fold.test.score[fold.test.label != row.label[0]]
        beaten = (other < row.score[0]) if mistake.good else (other > row.score[0])
        assert (mistake.outranked, mistake.of) == (beaten.sum(), len(other))
        assert mistake.abnormal == (row.score[0] > fold.threshold)
        assert mistake.wrong == (mistake.abnormal != bool(row.label[0]))
        wrong = "false alarm" if mistake.good else "miss"
        assert mistake.kind == (wrong if mistake.wrong else "called rightly")


def test_curves_are_one_a_fold_and_seed(whole: Tables) -> None:
    assert len(whole.curves) == 8
    for curves in whole.curves:
        assert len(curves.roc) == len(curves.precision_recall) == 6
        assert curves.share == 0.5
        first = curves.roc[0]
        area = np.sum(np.diff(first.x) * (first.y[1:] + first.y[:-1]) / 2)
        assert area == pytest.approx(first.figure)


def test_models_say_their_licences_and_which_rule_commerce_out() -> None:
    def row(name: str, weights: str) -> ModelRow:
        return _model(SweepModel(name, name, "classifier", weights, 512, {}))

    bound, free, random = (
        row("fixefficientnet-b7", "pretrained"),
        row("resnet50", "pretrained"),
        row("fixefficientnet-b3", "none"),
    )
    assert bound.licence == "code Apache-2.0; weights CC-BY-NC-4.0 (NON-COMMERCIAL)"
    assert free.licence == "code Apache-2.0; weights Apache-2.0"
    assert random.licence == "code Apache-2.0"
    *_, said = weights_lines([bound, free, random])
    assert said == "Not for commercial use, by the licence of the weights: fixefficientnet-b7."
    assert len(weights_lines([free, random])) == 2
    other = SweepModel("r", "resnet50", "classifier", "pretrained", 512, {"architecture": "vgg11.tv_in1k"})
    assert _model(other).licence == (
        "code Apache-2.0; weights see timm's page of it (UNKNOWN whether for commercial use: check it)"
    )
    assert _model(other).commercial is None
    assert weights_lines([free, _model(other)])[-1] == (
        "Unknown whether for commercial use, check the licence of the weights: r."
    )
