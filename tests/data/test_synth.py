from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from defectbench.data.check import check
from defectbench.data.layouts import read_layout
from defectbench.data.synthetic.defects import DEFECTS
from defectbench.data.synthetic.scenes import AS_MVTEC, MVTEC_TYPES, SCENES, poses
from defectbench.data.synthetic.synth import draw, synth
from defectbench.errors import UsageError
from defectbench.util.image_io import read_mask, read_picture

SMALL: dict[str, Any] = {"size": 48, "train_good": 3, "test_good": 2, "defects_per_type": 1}


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_synth_is_bit_equal_for_a_seed_and_differs_between_seeds(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synth(tmp_path / name, seed=seed, **SMALL)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    one, other = digests(tmp_path / "a"), digests(tmp_path / "c")
    pictures = [name for name in one if "ground_truth" not in name]
    assert all(one[name] != other[name] for name in pictures)
    assert len({one[name] for name in pictures}) == len(pictures)


def test_synth_writes_a_data_set_that_checks_clean(tmp_path: Path) -> None:
    steps = []
    synth(
        tmp_path / "x", progress=lambda *step: steps.append(step), **(SMALL | {"size": 128, "test_good": 6})
    )
    reading = read_layout(tmp_path / "x")
    report = check(reading)
    assert report.problems == ()
    assert reading.categories == tuple(sorted(SCENES))
    assert steps[-1][1] == steps[-1][2] == len(reading.sources)
    for counts in report.counts:
        assert (counts.train_good, counts.test_good, counts.masks) == (3, 6, len(DEFECTS))
        assert set(counts.defects) == set(DEFECTS)


def test_synth_takes_the_names_of_mvtec(tmp_path: Path) -> None:
    synth(tmp_path / "x", categories=AS_MVTEC, types=MVTEC_TYPES, **SMALL)
    reading = read_layout(tmp_path / "x")
    assert reading.categories == ("bottle", "carpet", "grid", "hazelnut")
    report = check(reading)
    for counts in report.counts:
        assert set(counts.defects) == set(MVTEC_TYPES[counts.category])
    assert {kind for types in MVTEC_TYPES.values() for kind in types.values()} == set(DEFECTS)
    notes = report.notes
    assert any("MVTec AD's has 209 training goods, 20 test goods, 63 test defects" in note for note in notes)


@pytest.mark.parametrize("defect", sorted(DEFECTS))
@pytest.mark.parametrize("name", sorted(SCENES))
def test_synth_mask_holds_all_changed_pixels(name: str, defect: str) -> None:
    scene = SCENES[name]
    for number, pose in enumerate(poses(scene, "test", 3, np.random.default_rng(2))):
        seeds = (7, number)
        good, empty = draw(scene, pose, "good", 96, seeds)
        bad, mask = draw(scene, pose, defect, 96, seeds)
        assert not empty.any()
        assert np.array_equal(good[~mask], bad[~mask])
        changed = (good != bad).any(axis=2)
        assert changed[mask].mean() > 0.6
        assert np.abs(good.astype(int) - bad)[mask].mean() > 3
        assert 4 <= mask.sum() < 0.12 * mask.size


@pytest.mark.parametrize("name", sorted(SCENES))
def test_synth_parts_show_disjoint_regions(name: str) -> None:
    scene = SCENES[name]
    regions = {
        part: {
            pose.coin if scene.is_object else (int(pose.row // 256), pose.coin)
            for pose in poses(scene, part, 60, np.random.default_rng(0))
        }
        for part in ("train", "test")
    }
    assert not regions["train"] & regions["test"]
    assert len(regions["train"] | regions["test"]) == (24 if scene.is_object else 8)
    if not scene.is_object:
        for pose in poses(scene, "test", 200, np.random.default_rng(0)):
            for keystone in (-0.04, 0.04):
                half = 0.5 * pose.side * (np.cos(pose.angle) + abs(np.sin(pose.angle))) / (1 - abs(keystone))
                assert pose.coin * 128 <= pose.column - half
                assert pose.column + half <= (pose.coin + 1) * 128
                band = int(pose.row // 256)
                assert band * 256 <= pose.row - half
                assert pose.row + half <= (band + 1) * 256


@pytest.mark.parametrize("seed", [0, 1])
def test_looks_alone_do_not_tell_the_demo_s_parts_apart(seed: int, tmp_path: Path) -> None:
    synth(tmp_path, size=96, train_good=60, test_good=30, defects_per_type=1, seed=seed)
    report = check(read_layout(tmp_path))
    assert len(report.shortcuts) == len(SCENES)
    assert not [name for name, found in report.shortcuts.items() if found.suspicious]


def test_synth_goes_up_to_1024_pixels(tmp_path: Path) -> None:
    one: dict[str, Any] = {"train_good": 1, "test_good": 1, "defects_per_type": 1}
    synth(tmp_path / "x", categories=["coin"], size=1024, **one)
    path = tmp_path / "x/coin/test/hole/000.png"
    assert read_picture(path).shape == (1024, 1024, 3)
    assert read_mask(tmp_path / "x/coin/ground_truth/hole/000_mask.png").any()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size": 1025}, "32 to 1024"),
        ({"size": 8}, "32 to 1024"),
        ({"train_good": 0}, "train_good 0: must be at least 1"),
        ({"defects_per_type": 0}, "defects_per_type 0"),
        ({"seed": -1}, "seed -1: must be at least 0"),
        ({"categories": ["brik"]}, "did you mean 'brick'"),
        ({"categories": []}, "no category named"),
        ({"categories": {"../x": "brick"}}, "letters, digits"),
    ],
)
def test_synth_refuses_bad_arguments(tmp_path: Path, change: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        synth(tmp_path / "x", **(SMALL | change))
    assert list(tmp_path.iterdir()) == []


def test_synth_refuses_a_directory_that_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/mine.txt").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        synth(tmp_path / "x", **SMALL)
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "mine.txt"]


def test_synth_stopped_leaves_nothing(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth(tmp_path / "x", progress=stop, **SMALL)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").mkdir()
    synth(tmp_path / "x", categories=["brick"], **SMALL)
    assert (tmp_path / "x/brick").is_dir()
