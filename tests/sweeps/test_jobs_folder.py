"""The sweeps in jobs/, planned on made-up categories with MVTec AD's names and counts."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from defectbench import catalog
from defectbench.__main__ import run
from defectbench.catalog.networks import EFFICIENTNET_LITE0
from defectbench.data.archive import load_manifest
from defectbench.data.synthetic.scenes import MVTEC_TYPES
from defectbench.data.synthetic.synth import synth
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import read_sweep
from defectbench.sweeps.plan import Plan
from defectbench.tables.collect import collect
from defectbench.tables.tables import Tables
from defectbench.weights.packaged import packaged_file
from manifests import category

JOBS = Path(__file__).resolve().parents[2] / "jobs"
STUDY = ("bottle", "hazelnut", "carpet", "grid")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> DirectoryStore:
    """Every category of MVTec AD as far as a plan looks: names, counts and defect types."""
    found = DirectoryStore(tmp_path_factory.mktemp("mvtec"))
    table = (resources.files("defectbench.data") / "mvtec_counts.csv").read_text(encoding="utf-8")
    for row in csv.DictReader(table.splitlines()):
        name, defective = row["category"], int(row["test_defective"])
        kinds = list(MVTEC_TYPES.get(name, ("broken", "scratch", "combined")))
        counts = {kind: len(range(place, defective, len(kinds))) for place, kind in enumerate(kinds)}
        manifest = category(int(row["train_good"]), int(row["test_good"]), counts)
        made = replace(manifest, dataset="mvtec", category=name)
        found.put(f"datasets/mvtec/{name}/manifest.json", made.to_json())
    return found


def planned(store: DirectoryStore, file: str, *overrides: str) -> Plan:
    return plans.make_plan(read_sweep(JOBS / file, overrides), store)


def fits(plan: Plan) -> Counter[tuple[str, str]]:
    """(protocol, model) -> fits that its tables read."""
    read_by = {(plan.splits[r.split].split.protocol, r.label, r.cell) for r in plan.readings if r.seed == 0}
    return Counter((protocol, label) for protocol, label, _ in read_by)


@pytest.mark.parametrize("file", sorted(path.name for path in JOBS.glob("*.yaml")))
def test_a_sweep_of_jobs_asks_for_a_gpu_and_has_its_contenders(file: str) -> None:
    sweep = read_sweep(JOBS / file)
    assert sweep.name == file.removesuffix(".yaml")
    assert sweep.resources.gpu == 1
    assert sweep.weights == "pretrained"
    assert sweep.contenders == ("tinyvit-21m-512", "glass")


@pytest.fixture(scope="module")
def study(store: DirectoryStore) -> Plan:
    """One seed of it: the others add as many fits again."""
    assert read_sweep(JOBS / "study.yaml").seeds == (0, 1, 2)
    return planned(store, "study.yaml", "seeds=[0]")


def test_the_study_has_its_three_experiments(study: Plan) -> None:
    plan = study
    assert tuple(plan.digests) == STUDY
    assert plan.notes == ()
    assert {model.label: model.image_size for model in plan.models} == {"tinyvit-21m-512": 512, "glass": 256}
    types = sum(len(MVTEC_TYPES[name]) for name in STUDY)
    found = fits(plan)
    # Numbers: cross-fitted, and by the original's holdout, of which each family has its own split.
    assert found["detection", "tinyvit-21m-512"] == 4 * 4
    assert found["holdout", "tinyvit-21m-512"] == 4
    assert found["detection", "glass"] == found["holdout", "glass"] == 4
    # Unseen: each type alone and all but it, with a control each, in four folds; and the study's own form.
    assert found["unseen", "tinyvit-21m-512"] == types * 2 * 2 * 4 + 4
    # A detector has one fit a seed, whatever the protocol; the holdout teaches it the calibration goods too.
    assert Counter(plan.labels.values()) == {
        "tinyvit-21m-512": 4 * 4 + 4 + types * 2 * 2 * 4 + 4,
        "glass": 4 * 2,
    }


@pytest.mark.parametrize(
    ("name", "detector", "classifier"),
    [
        ("bottle", (209, 0, 10, 31, 10, 32), (209, 31, 10, 16, 10, 16)),
        ("hazelnut", (391, 0, 20, 35, 20, 35), (391, 35, 20, 17, 20, 18)),
        ("carpet", (280, 0, 14, 44, 14, 45), (280, 44, 14, 22, 14, 23)),
        ("grid", (264, 0, 10, 28, 11, 29), (264, 28, 10, 14, 11, 15)),
    ],
)
def test_the_study_has_the_original_s_split_sizes(
    study: Plan, store: DirectoryStore, name: str, detector: tuple[int, ...], classifier: tuple[int, ...]
) -> None:
    """Goods and defects that train, validate and test, as the original's confusion matrices have them."""
    manifest = load_manifest(store, "mvtec", name)

    def sizes(label: str) -> tuple[int, ...]:
        fit = next(
            study.cells[reading.cell].fit
            for reading in study.readings
            if (placed := study.splits[reading.split]).category == name
            and (placed.split.protocol, reading.label) == ("holdout", label)
        )
        tested = next(
            placed.split.test
            for placed in study.splits
            if (placed.category, placed.split.protocol) == (name, "holdout")
            and ("detector" in placed.split.families) == (label == "glass")
        )
        taught = Counter(taught for _, taught in fit.train)
        labels = [Counter(manifest.by_id[image].label for image in part) for part in (fit.tune, tested)]
        return taught[0], taught[1], *(count[label] for count in labels for label in (0, 1))

    assert sizes("glass") == detector
    assert sizes("tinyvit-21m-512") == classifier


def test_the_study_takes_the_overrides_of_a_small_machine(store: DirectoryStore) -> None:
    plan = planned(
        store,
        "study.yaml",
        "seeds=[0]",
        "protocols.detection.folds=3",
        "protocols.scarcity.defects=[2,8]",
        "epochs=1",
        "image_size=128",
        "models.1.image_size=128",
        "protocols.scarcity.draws=2",
        "protocols.unseen.modes=[one]",
        "weights=none",
    )
    assert {name for name, _ in fits(plan)} == {"detection", "holdout", "unseen", "scarcity"}
    assert {placed.split.fold for placed in plan.splits} == {0, 1, 2}
    assert {cell.fit.epochs for cell in plan.cells.values()} == {1}
    assert {cell.fit.image_size for cell in plan.cells.values()} == {128}


def test_scarcity_shares_the_fits_of_the_study(store: DirectoryStore, study: Plan) -> None:
    plan = planned(store, "scarcity.yaml")
    found = fits(plan)
    # Of ten draws of one defect from a pool of thirty some are the same: one fit.
    assert 4 * 4 * (4 * 10 + 1) < found["scarcity", "tinyvit-21m-512"] <= 4 * 4 * (5 * 10 + 1)
    assert found["contamination", "glass"] == 4 * (1 + 2 * 4)
    assert found["contamination", "tinyvit-21m-512"] == 4 * 3 * 4
    # Cross-fitted: four folds' classifiers and a detector in each of four categories.
    assert len(plan.cells.keys() & study.cells.keys()) == 4 * 4 + 4


def test_the_lineup_is_every_model_on_every_category(store: DirectoryStore) -> None:
    plan = planned(store, "lineup.yaml")
    named, there = {model.entry.name for model in plan.models}, {entry.name for entry in catalog.ENTRIES}
    assert named == there, "jobs/lineup.yaml names every model of the catalog"
    assert all(model.image_size == model.entry.image_size for model in plan.models)
    assert len(plan.digests) == 15
    assert plan.notes == ()
    # A learner has a fit for each fold, a detector one for all.
    counts = Counter(plan.labels.values())
    for model in plan.models:
        assert counts[model.label] == 3 * 15 * (1 if model.entry.family == "detector" else 4)


@pytest.mark.parametrize("sweep", ["quick", "demo"])
def test_the_local_sweeps_compare_a_pretrained_pair_without_a_store_of_weights(
    sweep: str, store: DirectoryStore
) -> None:
    if packaged_file(EFFICIENTNET_LITE0) is None:
        pytest.skip("needs the extra pretrained: make sync")
    plan = planned(store, f"local/{sweep}.yaml", "data.dataset=mvtec", "data.categories=[screw]")
    assert not plan.missing
    assert plan.sweep.contenders == ("efficientnet-lite0-probe", "patchcore-lite0")
    pair = {model.label: model.entry for model in plan.models if not model.entry.baseline}
    assert pair["patchcore-lite0"].matched_with == "efficientnet-lite0-probe"
    assert {model.entry.baseline for model in plan.models} == {True, False}
    # Three seeds; a learner has a fit for each fold.
    assert len(plan.cells) == 3 * (2 * 3 + 2)


def test_the_study_runs_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three experiments and a learning curve, on MVTec AD's names; baselines stand in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEFECTBENCH_CACHE", str(tmp_path / "cache"))
    synth(
        tmp_path / "data",
        categories={"bottle": "coin"},
        types=MVTEC_TYPES,
        size=64,
        train_good=8,
        test_good=6,
        defects_per_type=6,
    )
    assert run(["data", "import", "data", "--name", "mvtec"]) == 0
    settings = (
        "data.categories=[bottle]",
        "models=[filterbank-logreg,filterbank-knn]",
        "contenders=[filterbank-logreg,filterbank-knn]",
        "weights=none",
        "seeds=[0]",
        "threads=1",
        "image_size=64",
        "protocols.detection.folds=3",
        "protocols.unseen.modes=[one,study]",
        "protocols.scarcity.defects=[2,4]",
        "protocols.scarcity.draws=1",
    )
    given = [word for each in settings for word in ("--set", each)]
    assert run(["run", str(JOBS / "study.yaml"), "--no-track", *given]) == 0
    assert run(["report", "study", "--out", "report"]) == 0
    tables = Tables(collect(DirectoryStore(tmp_path / "bench"), "study"))
    assert {line.protocol for line in tables.conditions} == {"holdout", "unseen", "scarcity"}
    assert all(line.folds == line.expected for line in tables.conditions)
    assert [row.category for row in tables.comparisons] == ["bottle"]
    assert all(line.defects == 18 for line in tables.explanations)
    assert {entry.tested for entry in tables.unseen} == set(MVTEC_TYPES["bottle"])
    assert {line.tested for line in tables.unseen_study} == set(MVTEC_TYPES["bottle"]) - {"broken_large"}
    assert len(tables.unseen_scores) == 12
    assert [crossing.complete for crossing in tables.crossovers] == [True]
    page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    for heading in ("Verdict", "Explanation", "Holdout", "Unseen", "Scarcity"):
        assert f">{heading}</h" in page
