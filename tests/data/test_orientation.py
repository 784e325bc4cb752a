"""Rotation is declared with the data set, never guessed from a category's name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from defectbench.__main__ import run
from defectbench.data.archive import import_dataset, load_manifest
from defectbench.data.check import published_counts
from defectbench.data.orientation import MVTEC_AD, comes_in_any_orientation
from defectbench.data.synthetic.synth import synth
from defectbench.errors import SweepError, UsageError
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps.config import Sweep, parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.plan import make_plan
from fakes import put_category

DECLARED = {"bottle": False, "screws": True}
"""A name of MVTec AD's that declares nothing of the kind, and a name that nobody knows."""


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    place = DirectoryStore(tmp_path / "store")
    for category, declared in DECLARED.items():
        put_category(place, "parts", category, any_orientation=declared)
    return place


def sweep(**data: object) -> Sweep:
    return parse_sweep(document(data), SourceLines("rotation.yaml", {}))


def document(data: Mapping[str, object]) -> dict[str, object]:
    return {
        "name": "rotation",
        "data": {"dataset": "parts", **data},
        "models": ["resnet50", "padim"],
        "seeds": [0],
        "weights": "none",
        "protocols": {"detection": {}},
    }


def rotated(store: DirectoryStore, wanted: Sweep) -> set[tuple[str, str]]:
    """Return (category, model) of the fits whose training rotates and mirrors."""
    cells = make_plan(wanted, store).cells.values()
    return {(cell.category, cell.fit.model) for cell in cells if cell.fit.rotate_and_flip}


def test_rotation_follows_what_the_data_set_declares(store: DirectoryStore) -> None:
    assert rotated(store, sweep()) == {("screws", "resnet50")}, "rotation is declared, not guessed by name"


def test_rotation_in_a_sweep_overrides_the_data_set(store: DirectoryStore) -> None:
    assert rotated(store, sweep(any_orientation=["bottle"])) == {("bottle", "resnet50")}
    assert rotated(store, sweep(any_orientation=[])) == set()


def test_rotation_of_an_unknown_category_is_refused(store: DirectoryStore) -> None:
    with pytest.raises(SweepError, match=r"no category 'screw'; did you mean 'screws'"):
        make_plan(sweep(any_orientation=["screw"]), store)


def test_rotation_of_older_manifests_is_that_of_version_0_1_0(tmp_path: Path) -> None:
    place = DirectoryStore(tmp_path / "store")
    for category in ("bottle", "grass", "gravel", "hazelnut", "leather", "tile", "carpet", "screw"):
        put_category(place, "parts", category)
        assert b"any_orientation" not in place.get(f"datasets/parts/{category}/manifest.json").data
    found = {category for category, _ in rotated(place, sweep())}
    assert found == {"bottle", "grass", "gravel", "hazelnut", "leather", "tile"}


def test_mvtecs_own_categories_keep_their_values() -> None:
    names = {"bottle", "hazelnut", "leather", "tile"}
    assert names == MVTEC_AD
    assert names < set(published_counts())


def test_import_declares_what_it_is_told(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    synth(parts, categories={"nuts": "coin", "bottle": "grass"}, size=32, train_good=6, test_good=4)
    place = DirectoryStore(tmp_path / "store")
    import_dataset(parts, place, any_orientation=["nuts"])
    assert load_manifest(place, "parts", "nuts").any_orientation is True
    assert load_manifest(place, "parts", "bottle").any_orientation is False, "counts are not MVTec AD's"
    digest = load_manifest(place, "parts", "nuts").digest
    import_dataset(parts, place)
    assert load_manifest(place, "parts", "nuts").any_orientation is False, "importing again declares anew"
    assert load_manifest(place, "parts", "nuts").digest == digest
    with pytest.raises(UsageError, match="--any-orientation nut: no such category; did you mean 'nuts'"):
        import_dataset(parts, place, any_orientation=["nut"])


def test_plan_prints_which_categories_are_rotated(
    store: DirectoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "rotation.yaml"
    file.write_text(json.dumps(document({})))
    assert run(["plan", str(file), "--store", store.url]) == 0
    assert "parts in any orientation, rotated and mirrored in training: screws" in capsys.readouterr().err
    assert run(["plan", str(file), "--store", store.url, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["any_orientation"] == ["screws"]
    assert run(["data", "show", "parts", "--store", store.url, "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)["categories"]
    assert {row["category"]: row["any_orientation"] for row in shown} == DECLARED


def test_manifest_with_another_declaration_is_damaged(store: DirectoryStore) -> None:
    manifest = load_manifest(store, "parts", "screws")
    assert comes_in_any_orientation(manifest)
    assert comes_in_any_orientation(manifest, override=()) is False
    damaged = manifest.to_json().replace(b'"any_orientation": true', b'"any_orientation": "often"')
    with pytest.raises(Exception, match="seal states"):
        type(manifest).from_json(damaged)
