"""Plans: distinct fits, shared fits, and what is missing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from defectbench.data.manifest import Manifest
from defectbench.errors import (
    ConfigurationError,
    DataError,
    MissingInputError,
    MissingWeightsError,
    SweepError,
    TryAgainError,
    UsageError,
)
from defectbench.records.cell import Cell
from defectbench.records.lease import LeaseRecord
from defectbench.records.sweep_record import Narrowing, Record
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import lease_key
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.plan import Plan
from defectbench.util.documents import read_document, write_document
from defectbench.weights import store as weights
from fakes import put_category
from manifests import category

FOUR = ("brick", "coin", "grass", "gravel")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    place = DirectoryStore(tmp_path / "store")
    for name in FOUR:
        put_category(place, "parts", name, 25, 12, 12, ("crack", "stain"), True)
    return place


def planned(store: DirectoryStore, **keys: Any) -> Plan:
    document = {
        "name": "study",
        "data": {"dataset": "parts"},
        "models": ["filterbank-logreg", "mobilenetv3-small", "filterbank-knn", "padim"],
        "seeds": [0],
        "weights": "none",
        "protocols": {"detection": {"folds": 4}},
        **keys,
    }
    return plans.make_plan(parse_sweep(document, SourceLines("sweep.yaml", {})), store)


def test_a_detector_has_one_fit_for_all_folds(store: DirectoryStore) -> None:
    plan = planned(store)
    assert len(plan.cells) == 4 * 2 * 4 + 4 * 2 * 1 == 40
    assert len(plan.readings) == 64
    assert plan.saved == 24


def test_seeds_multiply_fits_but_not_splits(store: DirectoryStore) -> None:
    plan = planned(store, seeds=[0, 1, 2])
    assert len(plan.cells) == 120
    assert plan.splits == planned(store).splits


@pytest.mark.parametrize(
    "keys",
    [
        {"threads": 3},
        {"image_size": 128},
        {"split_seed": 1},
        {"models": ["filterbank-logreg", {"name": "padim", "features": 50}, "filterbank-knn"]},
        {"seeds": [7]},
    ],
)
def test_a_key_moves_with_all_that_decides_the_fit(store: DirectoryStore, keys: dict[str, Any]) -> None:
    padim = {key for key, cell in planned(store).cells.items() if cell.fit.model == "padim"}
    moved = {key for key, cell in planned(store, **keys).cells.items() if cell.fit.model == "padim"}
    assert padim.isdisjoint(moved)


@pytest.mark.parametrize(
    "keys",
    [
        {"name": "other"},
        {"false_alarm_rate": 0.2},
        {"margin": 0.1},
        {"resources": {"gpu": 4, "deadline": "1h"}},
        {"epochs": 3},
        {"balance": "oversample"},
        {"models": [{"name": "padim", "label": "mine"}, "filterbank-knn"]},
    ],
)
def test_a_key_stays_with_what_does_not_decide_the_fit(store: DirectoryStore, keys: dict[str, Any]) -> None:
    padim = {key for key, cell in planned(store).cells.items() if cell.fit.model == "padim"}
    assert padim <= set(planned(store, **keys).cells)


def test_balance_is_an_ablation_of_two_entries_of_one_model(store: DirectoryStore) -> None:
    entries = [
        {"name": "mobilenetv3-small", "balance": each, "label": f"mobilenet-{each}"}
        for each in ("weights", "oversample", "none")
    ]
    plan = planned(store, models=[*entries, "padim"], balance="none")
    assert [model.balance for model in plan.models] == ["weights", "oversample", "none", "none"]
    fits = {label: {k for k, of in plan.labels.items() if of == label} for label in plan.labels.values()}
    assert {len(keys) for label, keys in fits.items() if label != "padim"} == {4 * 4}
    assert len(plan.cells) == 3 * 4 * 4 + 4
    changed = {one.label: dict(one.changed).get("balance") for one in plan.record().models}
    assert changed == {
        "mobilenet-weights": None,
        "mobilenet-oversample": "oversample",
        "mobilenet-none": "none",
        "padim": None,
    }
    alone = planned(store, models=["mobilenetv3-small"], balance="none")
    assert set(alone.cells) == fits["mobilenet-none"]


def test_spec_and_record_survive_json(store: DirectoryStore) -> None:
    plan = planned(store)
    for cell in plan.cells.values():
        assert Cell.from_json(cell.to_json()) == cell
    record = plan.record()
    assert Record.from_json(record.to_json()) == record
    document = read_document(cell.to_json(), "spec.json")
    document["fit"]["seed"] = 1
    with pytest.raises(DataError, match="states key"):
        Cell.from_json(write_document(document))
    with pytest.raises(DataError, match=r"spec\.json is damaged: fit: Field required"):
        Cell.from_json(json.dumps({"schema": 1}).encode())
    with pytest.raises(DataError, match="not those that its seal states"):
        Cell.from_json(cell.to_json().replace(b'"weights_kind": "', b'"weights_kind": "x'))


def test_write_puts_specs_and_the_record(store: DirectoryStore) -> None:
    plan = planned(store)
    some = list(plan.cells)[:3]
    plans.write_plan(plan, store, some)
    assert sorted(store.keys("cells/")) == sorted(f"cells/{key}/spec.json" for key in some)
    assert Record.from_json(store.get("sweeps/study.json").data) == plan.record()


def everything(store: DirectoryStore) -> dict[str, bytes]:
    return {key: store.get(key).data for key in sorted(store.keys())}


def test_a_sweeps_name_belongs_to_one_record(store: DirectoryStore) -> None:
    """What would cut a record is refused before anything is written; growing is allowed."""
    small = planned(store, models=["padim"], seeds=[0])
    plans.write_plan(small, store, list(small.cells))
    grown = planned(store, models=["padim", "filterbank-knn"], seeds=[0, 1])
    plans.write_plan(grown, store, list(grown.cells))
    before = everything(store)
    for changes, why in (
        ({"models": ["padim"], "seeds": [0, 1]}, "without model filterbank-knn of the other"),
        ({"models": ["padim", "filterbank-knn"], "seeds": [1]}, "without seed 0 of the other"),
        ({"models": ["padim", "filterbank-knn"], "seeds": [0, 1], "image_size": 32}, "other settings"),
        (
            {
                "models": ["padim", "filterbank-knn"],
                "seeds": [0, 1],
                "data": {"dataset": "parts", "categories": ["grass"]},
            },
            "without category",
        ),
    ):
        other = planned(store, **changes)
        with pytest.raises(ConfigurationError, match=why) as error:
            plans.write_plan(other, store, list(other.cells))
        assert "--replace" in str(error.value)
        assert everything(store) == before
    plans.write_plan(small, store, [], replace=True)
    assert Record.from_json(store.get("sweeps/study.json").data) == small.record()


def test_a_damaged_record_is_in_nobodys_way(store: DirectoryStore) -> None:
    store.put("sweeps/study.json", b"{")
    plan = planned(store)
    plans.write_plan(plan, store, [])
    assert Record.from_json(store.get("sweeps/study.json").data) == plan.record()


def test_what_runs_keeps_its_deadline(store: DirectoryStore) -> None:
    """A cell belongs to every sweep that asks for its fit; who holds it works by the spec that it read."""
    plan = planned(store, models=["padim"])
    keys = list(plan.cells)
    plans.write_plan(plan, store, keys)
    held, dead, free = keys[:3]
    now = datetime.now(UTC)
    for key, at in ((held, now), (dead, now - timedelta(hours=1))):
        # Of a long step only the worker itself knows whether it hangs: it beats, so it holds its cell.
        store.put(lease_key(key), LeaseRecord("pod:1", "h", 1, at=at.isoformat(), still=9999.0).to_json())
    other = planned(store, models=["padim"], name="other", resources={"deadline": "5m"})
    plans.write_plan(other, store, keys)
    deadlines = {key: Cell.from_json(store.get(f"cells/{key}/spec.json").data).deadline for key in keys[:3]}
    assert deadlines == {held: None, dead: 300.0, free: 300.0}


def test_narrowed_takes_names_and_the_beginnings_of_keys(store: DirectoryStore) -> None:
    plan = planned(store)
    assert len(plan.narrowed(Narrowing(["padim"], ["grass", "coin"]))) == 2
    key = next(iter(plan.cells))
    assert list(plan.narrowed(Narrowing(cells=[key[:10]]))) == [key]
    for wrong in (Narrowing(["padin"]), Narrowing(categories=["gras"]), Narrowing(cells=["zz"])):
        with pytest.raises(UsageError):
            plan.narrowed(wrong)


def test_missing_weights_are_planned_but_not_run(store: DirectoryStore, tmp_path: Path) -> None:
    plan = planned(store, weights="pretrained", models=["filterbank-knn", "padim"])
    assert list(plan.missing) == ["padim"]
    plan.need_weights(list(plan.narrowed(Narrowing(["filterbank-knn"]))))
    with pytest.raises(
        MissingWeightsError, match=r"padim needs the weights resnet18.tv_in1k, .*weights push"
    ):
        plan.need_weights(list(plan.cells))
    file = tmp_path / "resnet18.safetensors"
    file.write_bytes(b"weights")
    digest = weights.push_weights(store, "resnet18.tv_in1k", file)
    whole = planned(store, weights="pretrained", models=["filterbank-knn", "padim"])
    assert not whole.missing
    padim = next(cell for cell in whole.cells.values() if cell.fit.model == "padim")
    assert padim.fit.weights == {"resnet18.tv_in1k": digest}
    # A model without weights has the same fits whatever the sweep says of weights.
    knn = whole.narrowed(Narrowing(["filterbank-knn"]))
    assert set(knn) <= set(planned(store, models=["filterbank-knn"]).cells)


def test_a_weights_file_is_named_by_its_digest(store: DirectoryStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    with pytest.raises(MissingWeightsError, match="allowed: none, pretrained, or a file"):
        planned(store, weights=str(file), models=["padim"]).need_weights(
            list(planned(store, weights=str(file), models=["padim"]).cells)
        )
    file.write_bytes(b"one")
    one = planned(store, weights=str(file), models=["padim"])
    file.write_bytes(b"two")
    two = planned(store, weights=str(file), models=["padim"])
    assert set(one.cells).isdisjoint(two.cells)
    plans.write_plan(two, store, list(two.cells))
    cell = next(iter(two.cells.values()))
    fetched = weights.fetch(store, cell.fit.weights, tmp_path / "cache")
    assert {name: path.read_bytes() for name, path in fetched.items()} == {"resnet18.tv_in1k": b"two"}


@pytest.mark.parametrize(
    ("data", "what"),
    [(b"<html>502</html>", "an HTML page"), (b"", "an empty file"), (b"{}", "a JSON document")],
)
def test_a_weights_file_that_is_something_else_is_refused_before_anything_runs(
    store: DirectoryStore, tmp_path: Path, data: bytes, what: str
) -> None:
    file = tmp_path / "page.pth"
    file.write_bytes(data)
    plan = planned(store, models=["filterbank-knn", {"name": "padim", "weights": str(file)}])
    plan.need_weights(list(plan.narrowed(Narrowing(models=("filterbank-knn",)))))
    with pytest.raises(DataError, match=f"page.pth: {what}"):
        plan.need_weights(list(plan.cells))


def test_a_weights_file_takes_the_place_of_the_first_alone(store: DirectoryStore, tmp_path: Path) -> None:
    file, pictures = tmp_path / "mine.safetensors", tmp_path / "pictures"
    file.write_bytes(b"mine")
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"texture")
    assert "weights push dtd FOLDER" in planned(store, weights=str(file), models=["glass"]).missing["glass"]
    digest = weights.push_weights(store, "dtd", pictures)
    mine = planned(store, weights=str(file), models=["glass"])
    plans.write_plan(mine, store, list(mine.cells))
    fetched = weights.fetch(store, next(iter(mine.cells.values())).fit.weights, tmp_path / "cache")
    assert list(fetched) == ["wide_resnet50_2.tv_in1k", "dtd"]
    assert fetched["wide_resnet50_2.tv_in1k"].read_bytes() == b"mine"
    assert fetched["dtd"].name == digest


def test_a_weights_file_is_never_taken_for_the_published_one(store: DirectoryStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"mine")
    mine = planned(store, weights=str(file), models=["padim"])
    plans.write_plan(mine, store, list(mine.cells))
    assert list(planned(store, weights="pretrained", models=["padim"]).missing) == ["padim"]
    (tmp_path / "published").write_bytes(b"published")
    digest = weights.push_weights(store, "resnet18.tv_in1k", tmp_path / "published")
    later = planned(store, weights="pretrained", models=["padim"])
    assert {cell.fit.weights["resnet18.tv_in1k"] for cell in later.cells.values()} == {digest}


def test_a_weights_file_of_cells_that_will_not_run_is_not_pushed(
    store: DirectoryStore, tmp_path: Path
) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"mine")
    plan = planned(store, models=["filterbank-knn", {"name": "padim", "weights": str(file)}])
    plans.write_plan(plan, store, list(plan.narrowed(Narrowing(["filterbank-knn"]))))
    assert list(store.keys("weights/")) == []
    plans.write_plan(plan, store, list(plan.narrowed(Narrowing(["padim"]))))
    assert len(list(store.keys("weights/"))) == 1


def test_a_weights_file_that_changed_since_the_plan_is_refused(store: DirectoryStore, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"mine")
    plan = planned(store, weights=str(file), models=["padim"])
    file.write_bytes(b"other")
    with pytest.raises(TryAgainError, match=r"mine.safetensors was changed since the sweep was planned"):
        plans.write_plan(plan, store, list(plan.cells))
    assert list(store.keys("weights/")) == []


def test_pretrained_weights_are_those_of_the_network_that_a_sweep_names(
    store: DirectoryStore, tmp_path: Path
) -> None:
    (tmp_path / "net").write_bytes(b"weights")
    digest = weights.push_weights(store, "resnet18.tv_in1k", tmp_path / "net")
    models = [
        {"name": "patchcore", "backbone": "resnet18.tv_in1k"},
        {"name": "mobilenetv3-small", "architecture": "resnet18.tv_in1k"},
        {"name": "padim", "backbone": "resnet34.tv_in1k"},
        {"name": "glass", "backbone": "resnet34"},
    ]
    plan = planned(store, weights="pretrained", models=models)
    found = {cell.fit.model: cell.fit.weights for cell in plan.cells.values()}
    assert found["patchcore"] == found["mobilenetv3-small"] == {"resnet18.tv_in1k": digest}
    assert set(plan.missing) == {"padim", "glass"}
    assert "weights push resnet34.tv_in1k FILE" in plan.missing["padim"]
    assert "say timm's full name, as in resnet18.tv_in1k" in plan.missing["glass"]


def test_unknown_data_are_refused(store: DirectoryStore) -> None:
    with pytest.raises(SweepError, match=r"sweep.yaml:1: parts has no category 'gras'.*'grass'"):
        planned(store, data={"dataset": "parts", "categories": ["gras"]})
    with pytest.raises(MissingInputError, match="part"):
        planned(store, data={"dataset": "part"})


FOUR_PROTOCOLS = {
    "detection": {"folds": 4},
    "unseen": {},
    "scarcity": {"draws": 2},
    "contamination": {"shares": [0, 0.1, 0.2]},
}


def put_plain(store: DirectoryStore, name: str, manifest: Manifest) -> None:
    store.put(f"datasets/{name}/bolt/manifest.json", replace(manifest, dataset=name).to_json())


def test_a_study_shares_its_fits_among_protocols(store: DirectoryStore) -> None:
    """Counted by hand: 20 + 5 goods, four folds, pools of six cracks and six stains."""
    put_plain(store, "study", category(25, 12, {"crack": 12, "stain": 12}))
    plan = planned(store, data={"dataset": "study"}, protocols=FOUR_PROTOCOLS)
    readings = Counter(
        (plan.splits[reading.split].split.protocol, reading.label == "padim")
        for reading in plan.readings
        if reading.label in ("filterbank-logreg", "padim")
    )
    assert readings == {
        ("detection", False): 4,
        ("detection", True): 4,
        ("unseen", False): 4 * 2 * 2 * 2 * 2,  # folds, modes, types, seen or unseen, training set or control
        ("unseen", True): 4 * 2 * 2 * 2,
        ("scarcity", False): 4 * (4 * 2 + 1),  # n = 1, 2, 4, 8 in two draws, and all; 16 is above the pool
        ("scarcity", True): 4,
        ("contamination", False): 4 * 3,
        ("contamination", True): 4 * 3,
    }
    fits = Counter(plan.labels.values())
    # Detection 4 (`all` and share 0 with it); then in each fold two lessons and two controls, two draws of
    # four numbers, and two shares.
    assert fits["filterbank-logreg"] == fits["mobilenetv3-small"] == 4 + 4 * (2 + 2) + 4 * 2 * 4 + 4 * 2 == 60
    # One for all that holds goods alone; two shares a fold.
    assert fits["filterbank-knn"] == fits["padim"] == 1 + 4 * 2 == 9
    assert plan.saved == 2 * (116 - 60) + 2 * (52 - 9)


def test_other_protocols_take_the_folds_of_detection(store: DirectoryStore) -> None:
    def tested(**protocols: Any) -> set[tuple[str, ...]]:
        plan = planned(store, protocols=protocols)
        return {placed.split.test for placed in plan.splits if placed.split.condition in ("all", "crossfit")}

    assert tested(scarcity={}, detection={"folds": 3}) == tested(detection={"folds": 3})
    assert tested(scarcity={}) == tested(detection={"folds": 4})
    assert tested(scarcity={}) == tested(detection={}) == tested(detection={}, scarcity={})


def test_supervised_detectors_are_taught_what_classifiers_are(store: DirectoryStore) -> None:
    put_plain(store, "taught", category(25, 12, {"crack": 12, "stain": 12}))
    models = ["filterbank-logreg", "supersimplenet-supervised", "filterbank-knn"]
    keys = {"data": {"dataset": "taught"}, "contenders": ["filterbank-logreg", "filterbank-knn"]}
    protocols = {"scarcity": {"defects": [1, 8], "draws": 2}, "unseen": {}, "detection": {"scheme": "both"}}
    plan = planned(store, models=models, image_size=128, protocols=protocols, **keys)
    read = {(reading.label, reading.split): plan.cells[reading.cell].fit for reading in plan.readings}
    ours, theirs = (
        {
            split: (fit.train, fit.tune, fit.calibration)
            for (label, split), fit in read.items()
            if label == name
        }
        for name in models[:2]
    )
    assert ours == theirs
    assert {len(fit.tune) > 0 for fit in read.values()} == {True, False}
    assert all(not label for (name, _), fit in read.items() if name == models[2] for _, label in fit.train)


@pytest.mark.parametrize("scheme", ["holdout", "both"])
def test_a_record_whose_holdout_trained_on_goods_of_the_test_part_is_refused(
    store: DirectoryStore, scheme: str
) -> None:
    """As the holdout was once cut: half of the test goods among the classifier's training goods."""
    put_plain(store, "old", category(25, 12, {"crack": 6, "stain": 6}))
    record = planned(store, data={"dataset": "old"}, protocols={"detection": {"scheme": scheme}}).record()
    assert Record.from_json(record.to_json()) == record
    splits = [
        replace(placed, split=replace(placed.split, goods=(*placed.split.goods, "test/good/000")))
        if placed.split.rotate_defects
        else placed
        for placed in record.splits
    ]
    with pytest.raises(
        DataError, match=r"whose holdout let goods of the test part train.*run the sweep again"
    ):
        Record.from_json(replace(record, splits=tuple(splits)).to_json())


def test_notes_say_what_a_protocol_cannot_do_and_the_rest_goes_on(store: DirectoryStore) -> None:
    put_category(store, "some", "one", 25, 12, 12, ("crack",), True)
    put_category(store, "some", "tiny", 25, 12, 2, ("crack", "stain"), True)
    put_category(store, "some", "two", 25, 12, 12, ("crack", "stain"), True)
    keys = {
        "data": {"dataset": "some"},
        "protocols": {"detection": {}, "unseen": {}, "scarcity": {"draws": 10}},
    }
    plan = planned(store, models=["filterbank-logreg", "filterbank-knn"], **keys)
    assert plan.notes == (
        "one: 1 defect type (crack), the unseen protocol needs at least 2",
        "one: scarcity: n=8, 16 dropped: the smallest fold's pool has 6 defects",
        "tiny: 2 defective labelled images, the detection protocol needs at least 4",
        "tiny: 2 defective labelled images, the unseen protocol needs at least 4",
        "tiny: 2 defective labelled images, the scarcity protocol needs at least 4",
        "two: scarcity: n=8, 16 dropped: the smallest fold's pool has 6 defects",
    )
    there = {(placed.category, placed.split.protocol) for placed in plan.splits}
    every = {("two", name) for name in ("detection", "unseen", "scarcity")}
    assert there == every | {("one", "detection"), ("one", "scarcity")}
    assert Record.from_json(plan.record().to_json()) == plan.record()
    assert plan.record().notes == plan.notes


def test_a_sweep_that_can_split_nothing_is_refused(store: DirectoryStore) -> None:
    put_category(store, "some", "one", 25, 12, 12, ("crack",), True)
    with pytest.raises(DataError, match=r"one: 1 defect type \(crack\)"):
        planned(store, data={"dataset": "some"}, protocols={"unseen": {}})


def test_a_record_without_notes_is_read(store: DirectoryStore) -> None:
    document = read_document(planned(store).record().to_json(), "record")
    del document["notes"]
    assert Record.from_json(write_document(document)).notes == ()
