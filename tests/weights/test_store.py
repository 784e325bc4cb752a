"""Weights: fetched whole or not at all, and found by the models that need them."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from defectbench.catalog import ENTRIES, Entry, find
from defectbench.errors import MissingWeightsError, TryAgainError
from defectbench.execution import run_cell
from defectbench.execution.lease import Lease, take_lease
from defectbench.records.cell import Cell
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.plan import Plan
from defectbench.util.files import locked
from defectbench.util.shutdown import Stop
from defectbench.weights import store as weights
from fakes import put_category
from parts import make_read_only, make_writable

NET = "resnet18.tv_in1k"


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def pushed(store: DirectoryStore, tmp_path: Path) -> dict[str, str]:
    """A file of 600 kB in the store: name -> SHA-256."""
    (tmp_path / "net").write_bytes(b"0123456789" * 60_000)
    return {NET: weights.push_weights(store, NET, tmp_path / "net")}


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_needed_weights_of_the_catalog_follow_the_network_that_a_setting_names(entry: Entry) -> None:
    assert weights.needed(entry, entry.settings) == tuple(item.name for item in entry.weights)
    for key in ("backbone", "architecture"):
        if key in entry.settings:
            named = entry.settings[key]
            expected = ["vgg11.tv_in1k" if item.name == named else item.name for item in entry.weights]
            assert weights.needed(entry, {**entry.settings, key: "vgg11.tv_in1k"}) == tuple(expected)
            assert "vgg11.tv_in1k" in expected


def test_resolve_and_pull_name_all_that_is_missing_at_once(
    store: DirectoryStore, pushed: dict[str, str], tmp_path: Path
) -> None:
    entry = find("patchcore-large")
    settings = {**entry.settings, "second_backbone": NET}
    with pytest.raises(MissingWeightsError) as caught:
        weights.resolve(entry, settings, "pretrained", store)
    lines = str(caught.value).splitlines()
    lacking = ("wide_resnet101_2.tv_in1k", "densenet201.tv_in1k")
    assert [line.split(",")[0] for line in lines] == [
        f"patchcore-large needs the weights {name}" for name in lacking
    ]
    with pytest.raises(MissingWeightsError) as caught:
        weights.pull_weights(store, (lacking[0], NET, lacking[1]), tmp_path / "here")
    assert all(name in str(caught.value) for name in lacking)
    assert not (tmp_path / "here").exists()


def test_weights_that_no_catalog_has_are_of_unknown_licence() -> None:
    found = weights.described("convnextv2_tiny.fcmae_ft_in1k")
    assert found.commercial is None
    assert "UNKNOWN whether for commercial use: check it" in found.terms
    assert weights.described(NET).commercial is True


def test_fetch_downloads_once(store: DirectoryStore, pushed: dict[str, str], tmp_path: Path) -> None:
    first = weights.fetch(store, pushed, tmp_path / "cache")
    assert first[NET].read_bytes() == (tmp_path / "net").read_bytes()
    shutil.rmtree(tmp_path / "store")
    assert weights.fetch(store, pushed, tmp_path / "cache") == first


def test_fetch_of_damaged_or_absent_weights_leaves_nothing(store: DirectoryStore, tmp_path: Path) -> None:
    store.put("weights/net/" + "0" * 64, b"damaged")
    with pytest.raises(MissingWeightsError, match="damaged"):
        weights.fetch(store, {"net": "0" * 64}, tmp_path / "cache")
    with pytest.raises(MissingWeightsError, match="are not in"):
        weights.fetch(store, {"net": "1" * 64}, tmp_path / "cache")
    left = [path.name for path in (tmp_path / "cache/weights").iterdir()]
    assert all(name.endswith(".lock") for name in left), left


@pytest.mark.parametrize("damage", [b"", b"0123456789" * 59_999, b"x" * 600_000, None])
def test_fetch_makes_a_damaged_cache_anew(
    store: DirectoryStore, pushed: dict[str, str], tmp_path: Path, damage: bytes | None
) -> None:
    path = weights.fetch(store, pushed, tmp_path / "cache")[NET]
    if damage is None:
        path.unlink()
        (path / "below").mkdir(parents=True)
    else:
        path.write_bytes(damage)
    assert weights.fetch(store, pushed, tmp_path / "cache")[NET] == path
    assert path.read_bytes() == (tmp_path / "net").read_bytes()


def test_fetch_into_a_full_cache_is_tried_again(
    store: DirectoryStore, pushed: dict[str, str], small_disk: Path
) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * 700_000)
    with pytest.raises(TryAgainError, match="the disk is full"):
        weights.fetch(store, pushed, small_disk)
    assert sum(path.stat().st_size for path in (small_disk / "weights").iterdir()) == 0
    filler.unlink()
    assert weights.fetch(store, pushed, small_disk)[NET].stat().st_size == 600_000


def test_fetch_into_a_read_only_cache_is_tried_again_unless_it_has_them(
    store: DirectoryStore, pushed: dict[str, str], small_disk: Path
) -> None:
    make_read_only(small_disk)
    with pytest.raises(TryAgainError, match="the disk is read-only"):
        weights.fetch(store, pushed, small_disk)
    make_writable(small_disk)
    there = weights.fetch(store, pushed, small_disk)
    make_read_only(small_disk)
    assert weights.fetch(store, pushed, small_disk) == there
    make_writable(small_disk)


def test_fetch_into_a_cache_that_is_a_file_is_tried_again(
    store: DirectoryStore, pushed: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "cache").write_bytes(b"")
    with pytest.raises(TryAgainError, match="cache") as caught:
        weights.fetch(store, pushed, tmp_path / "cache")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno in (errno.ENOTDIR, errno.EEXIST)


def test_fetch_does_not_wait_for_ever(
    store: DirectoryStore, pushed: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "FETCH_PATIENCE", 0.1)
    with (
        locked(tmp_path / "weights" / f"{pushed[NET]}.lock"),
        pytest.raises(TryAgainError, match="another process has held this lock"),
    ):
        weights.fetch(store, pushed, tmp_path)


# --- from a file of weights to a cell's result


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of resnet18's weights, random ones, and others than a fit of seed 0 draws."""
    import timm
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("network") / "resnet18.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(4711)
        save_file(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    return path


def planned(store: DirectoryStore, kind: str) -> Plan:
    put_category(store, "parts", "bolt", 6, 3, 4, ("crack", "stain"), True)
    document = {
        "name": "weighed",
        "data": {"dataset": "parts"},
        "models": ["padim", {"name": "patchcore", "backbone": NET}],
        "seeds": [0],
        "weights": kind,
        "threads": 1,
        "image_size": 64,
        "protocols": {"detection": {"folds": 3}},
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("weighed.yaml", {})), store)
    plan.need_weights(list(plan.cells))
    plans.write_plan(plan, store, list(plan.cells), replace=True)
    return plan


def worked(store: DirectoryStore, cell: Cell, cache: Path) -> dict[str, float]:
    """Run a cell as a worker does and return its metrics."""
    place = run_cell.WorkerContext(store, cache, "cpu", Stop(), lambda event: None)
    lease = take_lease(store, cell.key, "test")
    assert isinstance(lease, Lease)
    return dict(run_cell.run_cell(run_cell.read_cell(store, cell.key), place, lease, None).metrics)


@pytest.mark.torch
def test_pretrained_and_file_give_the_same_figures_and_none_gives_others(
    store: DirectoryStore, network: Path, tmp_path: Path
) -> None:
    weights.push_weights(store, NET, network)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind in ("pretrained", str(network), "none"):
        plan = planned(store, kind)
        assert len(plan.cells) == 2
        for cell in plan.cells.values():
            figures = worked(store, cell, tmp_path / "cache")
            found.setdefault(cell.fit.model, {})[cell.weights_kind] = figures
    assert set(found) == {"padim", "patchcore"}
    for of in found.values():
        assert of["pretrained"] == of["file"] != of["none"]
    digest = weights.digest_of(network)
    assert set(store.keys("weights/")) == {f"weights/{NET}/{digest}", f"weights/file-{NET}/{digest}"}
