"""A difference between the parts' looks is seen where it was planted, and not where it was not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.archive import find_shortcut, import_dataset
from defectbench.data.check import check
from defectbench.data.layouts import read_layout
from defectbench.data.shortcut import Shortcut, discriminate, looks
from defectbench.data.synthetic.synth import synth
from defectbench.errors import DataError
from defectbench.stores.directory import DirectoryStore


def pictures(number: int, seed: int, brighter: float = 0.0) -> list[NDArray[np.uint8]]:
    """Goods of one product: their brightness varies by 6 grey levels, and is shifted by ``brighter``."""
    rng = np.random.default_rng(seed)
    texture = rng.normal(size=(number, 48, 48, 3)) * 20
    level = 120 + 6 * rng.normal(size=(number, 1, 1, 1)) + brighter
    return list(np.clip(texture + level, 0, 255).astype(np.uint8))


def told(train: list[NDArray[np.uint8]], test: list[NDArray[np.uint8]]) -> Shortcut:
    found = discriminate([looks(p) for p in train], [looks(p) for p in test])
    assert found is not None
    return found


def test_parts_alike_are_not_told_apart() -> None:
    found = [told(pictures(60, 2 * seed), pictures(30, 2 * seed + 1)) for seed in range(8)]
    assert abs(np.mean([each.auroc for each in found]) - 0.5) < 0.07
    assert sum(each.low > 0.5 for each in found) <= 1
    assert not any(each.suspicious for each in found)


@pytest.mark.parametrize("brighter", [12.0, -12.0])
def test_a_planted_shift_of_brightness_is_seen(brighter: float) -> None:
    found = told(pictures(60, 0), pictures(30, 1, brighter))
    assert found.auroc > 0.85
    assert found.suspicious
    assert found.low <= found.auroc <= found.high
    assert f"{found.auroc:.2f}" in found.warning


def test_another_size_is_seen() -> None:
    larger = [np.pad(picture, ((0, 4), (0, 4), (0, 0)), mode="edge") for picture in pictures(12, 3)]
    assert told(pictures(20, 2), larger).auroc == 1.0


def test_few_pictures_tell_nothing() -> None:
    some = [looks(picture) for picture in pictures(4, 0)]
    assert discriminate(some, some) is None


def test_flat_and_tiny_pictures_have_looks() -> None:
    assert np.isfinite(looks(np.full((1, 1, 3), 7, np.uint8))).all()
    flat = [looks(np.full((8, 8, 3), 7, np.uint8))] * 6
    found = discriminate(flat, flat)
    assert found is not None
    assert (found.auroc, found.suspicious) == (0.5, False)


def test_the_same_pictures_give_the_same_figures() -> None:
    assert told(pictures(20, 0), pictures(10, 1)) == told(pictures(20, 0), pictures(10, 1))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"schema": 2}', b'{"schema": 1, "auroc": 1}', b"null"])
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"shortcut\.json is damaged"):
        Shortcut.from_json(data)


def test_import_keeps_it_and_check_warns(tmp_path: Path) -> None:
    root = tmp_path / "set"
    synth(root, categories=["brick"], size=64, train_good=12, test_good=8, defects_per_type=1)
    assert not any("tell train/good" in note for note in check(read_layout(root)).notes)
    for path in (root / "brick/test/good").glob("*.png"):
        lit = np.asarray(Image.open(path)).astype(int) + 60
        Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).save(path)
    report = check(read_layout(root))
    assert [note for note in report.notes if "brick: whole-picture looks" in note]
    store = DirectoryStore(tmp_path / "store")
    (manifest,) = import_dataset(root, store)
    kept = find_shortcut(store, "set", "brick", manifest.digest)
    assert kept == report.shortcuts["brick"]
    assert kept is not None
    assert (kept.train, kept.test) == (12, 8)
    for path in (root / "brick/test").rglob("*.png"):  # other defects, same goods: it never looks at them
        if path.parent.name != "good":
            Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert check(read_layout(root)).shortcuts["brick"] == kept
    assert find_shortcut(store, "set", "brick", "0" * 64) is None
