"""Groups of pictures: by pattern, folder or table, united with copies, and whole in train and test."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defectbench.__main__ import run
from defectbench.data.archive import load_manifest
from defectbench.data.layouts.grouping import connected, make_grouping
from defectbench.data.manifest import Manifest
from defectbench.errors import UsageError
from defectbench.protocols.detection import Detection
from defectbench.stores.directory import DirectoryStore


def save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def fresh(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Twelve good parts of three frames, six bad ones of two, each frame noise of its own."""
    rng, root = np.random.default_rng(0), tmp_path / "parts"
    for part in range(12):
        for frame in range(3):
            save(root / f"good/part{part:02d}_{frame}.png", fresh(rng))
    for part in range(12, 18):
        for frame in range(2):
            save(root / f"bad/crack/part{part:02d}_{frame}.png", fresh(rng))
    return root


def imported(root: Path, *options: str) -> Manifest:
    store = root.parent / "store"
    assert run(["data", "import", str(root), "--store", str(store), *options]) == 0
    return load_manifest(DirectoryStore(store), root.name, root.name)


def roles_of(manifest: Manifest) -> dict[str | None, set[str]]:
    found: dict[str | None, set[str]] = {}
    for image in manifest.images:
        found.setdefault(image.group, set()).add(image.part)
    return found


@pytest.mark.parametrize(
    ("pattern", "number", "name"),
    [
        (r"part(\d+)", 18, "07"),
        (r"part\d\d", 18, "part07"),
        (r"(part(\d))", 2, "part0"),
        ("good|crack", 2, "good"),
    ],
)
def test_groups_by_pattern_stay_whole(parts: Path, pattern: str, number: int, name: str) -> None:
    grouping = make_grouping(pattern, False)
    assert grouping is not None
    assert grouping.name_of("good/part07_1.png") == name
    if number == 18:
        found = roles_of(imported(parts, "--group", pattern))
        assert len(found) == number
        assert all(len(roles) == 1 for roles in found.values())


def test_groups_by_folder(parts: Path) -> None:
    for path in [*parts.rglob("*.png")]:
        part, frame = path.stem.split("_")
        (path.parent / part).mkdir(exist_ok=True)
        path.rename(path.parent / part / f"{frame}.png")
    found = roles_of(imported(parts, "--group-by-folder"))
    assert {"good/part00", "bad/crack/part17"} <= set(found)
    assert len(found) == 18
    assert all(len(roles) == 1 for roles in found.values())


def test_groups_by_table(parts: Path) -> None:
    with (parts / "parts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "group"])
        for path in sorted(parts.rglob("*.png")):
            label = "good" if "good" in path.parts else "bad"
            rows.writerow([path.relative_to(parts).as_posix(), label, path.stem.split("_")[0]])
    found = roles_of(imported(parts, "--layout", "table"))
    assert len(found) == 18
    assert all(len(roles) == 1 for roles in found.values())


@pytest.mark.parametrize("word", ["uncertain", "unsure"])
def test_uncertain_pictures_are_imported_apart(parts: Path, word: str) -> None:
    with (parts / "parts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        for path in sorted(parts.rglob("*.png")):
            label = "good" if "good" in path.parts else "bad" if "_0" in path.name else word
            rows.writerow([path.relative_to(parts).as_posix(), label])
    manifest = imported(parts, "--layout", "table")
    assert [image.id for image in manifest.uncertain] == [
        f"uncertain/bad_crack_part{part}_1" for part in range(12, 18)
    ]
    assert {(image.label, image.defect_type, image.mask) for image in manifest.uncertain} == {
        (-1, "uncertain", None)
    }
    assert len(manifest.labelled) + len(manifest.train) == 42


def test_groups_of_pictures_that_match_nothing_are_counted(
    parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(parts / "good/extra.png", fresh(np.random.default_rng(9)))
    manifest = imported(parts, "--group", r"part(\d+)")
    said = capsys.readouterr().err
    assert "finds no group in 1 of 49 pictures, which belong to none; the first is good/extra.png" in said
    assert sum(image.group is None for image in manifest.images) == 1


@pytest.mark.parametrize(
    ("options", "code", "why"),
    [
        (["--group", "("], 64, "no regular expression"),
        (["--group", "x", "--group-by-folder"], 64, "give one of them"),
        (["--group", "zzz"], 65, "finds a group in none of 48 pictures"),
        (["--group", "(part)"], 65, "in 1 group, which stay whole; the detection protocol needs at least"),
        (["--group-by-folder"], 65, "36 good pictures to train on in 1 group"),
        (["--test-goods", "0.95"], 64, "give a share from 0.05 to 0.9"),
        (["--test-goods", "0"], 64, "give a share from 0.05 to 0.9"),
    ],
)
def test_groups_that_cannot_be_are_refused(
    parts: Path, options: list[str], code: int, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["data", "check", str(parts), *options]) == code
    assert why in capsys.readouterr().err


def test_groups_declared_and_of_copies_are_united(parts: Path) -> None:
    picture = np.array(Image.open(parts / "good/part00_0.png"))
    save(parts / "good/part01_9.bmp", picture)
    manifest = imported(parts, "--group", r"part(\d+)")
    groups = {image.id.split("/")[-1]: image.group for image in manifest.images}
    assert {groups[f"part{part}_{frame}"] for part in ("00", "01") for frame in "012"} == {"00"}
    assert all(len(roles) == 1 for roles in roles_of(manifest).values())


def test_copies_of_one_set_of_goods_are_cut_whole_and_none_is_lost(parts: Path) -> None:
    for part in range(12):
        picture = np.array(Image.open(parts / f"good/part{part:02d}_0.png"))
        save(parts / f"good/again{part:02d}.bmp", picture)
    manifest = imported(parts)
    assert len(manifest.images) == 60
    roles = roles_of(manifest)
    assert len(roles) == 13
    assert all(len(own) == 1 for group, own in roles.items() if group is not None)


def test_groups_of_fixed_parts_lose_the_training_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, root = np.random.default_rng(0), tmp_path / "cup"
    for name in ("train/good/lot1_0", "train/good/lot2_0", "train/good/lot3_0", "train/good/lot3_1",
                 "test/good/lot1_1", "test/good/lot4_0", "test/good/lot5_0",
                 "test/dent/lot6_0", "test/dent/lot7_0", "test/dent/lot8_0"):  # fmt: skip
        save(root / f"{name}.png", fresh(rng))
    assert run(["data", "check", str(root), "--group", r"lot\d", "--format", "json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["left_out"] == [str(root / "train/good/lot1_0.png")]
    (note,) = [text for text in found["notes"] if "left out" in text]
    assert "1 training picture left out, because the test part has others of their group" in note
    assert "lot1_0.png (group 'lot1', tested:" in note


@pytest.mark.parametrize(("share", "low", "high"), [("0.1", 3, 8), ("0.5", 10, 26), ("0.9", 28, 36)])
def test_share_of_goods_that_is_tested_can_be_said(parts: Path, share: str, low: int, high: int) -> None:
    manifest = imported(parts, "--test-goods", share)
    assert low <= sum(image.label == 0 for image in manifest.labelled) <= high


def test_share_of_goods_is_refused_where_folders_say_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, root = np.random.default_rng(0), tmp_path / "cup"
    for name in ("train/good/0", "test/good/0", "test/dent/0"):
        save(root / f"{name}.png", fresh(rng))
    assert run(["data", "check", str(root), "--test-goods", "0.3"]) == 64
    assert "says itself which goods are tested (layout mvtec)" in capsys.readouterr().err


def test_connected_parts_are_sorted() -> None:
    assert connected(6, [[5, 1], [3, 1], [2]]) == [[0], [1, 3, 5], [2], [4]]


def test_grouping_of_an_empty_match_is_none() -> None:
    grouping = make_grouping("(x*)", False)
    assert grouping is not None
    assert grouping.name_of("abc") is None
    with pytest.raises(UsageError, match="no regular expression"):
        make_grouping("[", False)


@pytest.mark.parametrize("kept", [True, False])
def test_accepted_duplicates_are_kept_in_the_manifest(parts: Path, kept: bool) -> None:
    picture: Any = np.array(Image.open(parts / "good/part00_0.png"))
    if kept:
        save(parts / "bad/crack/same.png", picture)
    manifest = imported(parts, "--accept-duplicates")
    assert len(manifest.accepted_duplicates) == int(kept)
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert (b"accepted_duplicates" in manifest.to_json()) is kept


@pytest.fixture
def lots(tmp_path: Path) -> Path:
    """Twelve lots of five goods and two defects each; goods and defects of no lot beside them."""
    rng, root = np.random.default_rng(1), tmp_path / "lots"
    for lot in range(12):
        for number in range(5):
            save(root / f"good/lot{lot:02d}_{number}.png", fresh(rng))
        for number in range(2):
            save(root / f"bad/crack/lot{lot:02d}_{number}.png", fresh(rng))
    for number in range(4):
        save(root / f"good/single_{number}.png", fresh(rng))
    save(root / "bad/crack/single_0.png", fresh(rng))
    return root


def test_lots_of_goods_and_defects_are_cut_whole(lots: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = imported(lots, "--group", r"lot(\d+)")
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    found = {lot: roles for lot, roles in roles_of(manifest).items() if lot is not None}
    assert len(found) == 12
    assert all(len(roles) == 1 for roles in found.values())
    learnt = manifest.train_defects
    assert len(learnt) == 2 * sum(roles == {"train"} for roles in found.values())
    assert 8 <= len(learnt) <= 16
    assert not any(image.label for image in manifest.train)
    assert all(image.path.startswith("train/crack/") for image in learnt)
    assert f"{len(learnt)} defects can be learnt and none is tested" in said
    # A defect of no lot is always tested.
    assert [image.part for image in manifest.images if image.id.endswith("crack/single_0")] == ["test"]


@pytest.mark.parametrize("share", ["0.2", "0.8"])
def test_share_of_lots_that_is_tested_can_be_said(lots: Path, share: str) -> None:
    manifest = imported(lots, "--group", r"lot(\d+)", "--test-goods", share)
    tested = {image.group for image in manifest.labelled} - {None}
    assert (len(tested) < 6) == (share == "0.2")


def test_a_good_or_two_beside_a_defect_are_tested_with_it(parts: Path) -> None:
    save(parts / "good/part12_9.png", fresh(np.random.default_rng(2)))
    manifest = imported(parts, "--group", r"part(\d+)")
    assert not manifest.train_defects
    assert manifest.by_id["test/good/part12_9"].group == "12"


def test_lots_stay_whole_in_folds_and_calibration(lots: Path) -> None:
    manifest = imported(lots, "--group", r"lot(\d+)")
    splits = Detection(folds=3).splits(manifest, 0, 3).splits
    extra = {image.id for image in manifest.train_defects}
    for split in splits:
        groups = [
            {manifest.by_id[name].unit for name in names}
            for names in ((*split.goods, *split.defects), split.calibration, split.tune, split.test)
        ]
        assert not any(one & two for one, two in combinations(groups, 2))
        calibrated = {manifest.by_id[name].unit for name in split.calibration}
        assert extra & set(split.defects) == {
            name for name in extra if manifest.by_id[name].unit not in calibrated
        }
        assert not extra & {*split.tune, *split.test}
    assert {name for split in splits for name in split.test} == {image.id for image in manifest.labelled}
