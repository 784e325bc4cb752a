from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defectbench.data.check import CheckReport, check, published_counts
from defectbench.data.layouts import read_layout
from defectbench.data.synthetic.synth import synth
from defectbench.util.image_io import read_picture


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "set"
    synth(root, categories=["brick"], size=96, train_good=4, test_good=3, defects_per_type=2)
    return root


@pytest.fixture
def root(clean: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean, tmp_path / "set")
    return tmp_path / "set/brick"


def checked(root: Path) -> CheckReport:
    return check(read_layout(root))


def lone_problem(root: Path) -> str:
    problems = checked(root).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_check_of_a_clean_set(root: Path) -> None:
    report = checked(root)
    assert report.problems == ()
    assert report.counts[0].defects == dict.fromkeys(["crack", "foreign_body", "hole", "scratch", "stain"], 2)
    assert {path.name for path in report.facts} == {"000.png", "001.png", "002.png", "003.png"}


def test_check_names_a_missing_mask(root: Path) -> None:
    (root / "ground_truth/hole/001_mask.png").unlink()
    assert "test/hole/001.png: its mask is missing" in lone_problem(root)


def test_check_without_any_mask_is_a_note(root: Path) -> None:
    shutil.rmtree(root / "ground_truth")
    report = checked(root)
    assert report.problems == ()
    assert any("explanation cannot be measured" in note for note in report.notes)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.zeros((96, 96), np.uint8), "marks nothing"),
        (np.full((96, 95), 255, np.uint8), "95 x 96, but 000.png is shown at 96 x 96"),
        (np.arange(96 * 96, dtype=np.uint16).reshape(96, 96).astype(np.uint8), "not binary: 256 values"),
    ],
)
def test_check_names_a_bad_mask(root: Path, values: Any, why: str) -> None:
    Image.fromarray(values).save(root / "ground_truth/hole/000_mask.png")
    problem = lone_problem(root)
    assert "ground_truth/hole/000_mask.png" in problem
    assert why in problem


def test_check_names_a_mask_without_a_picture_and_one_of_a_good_picture(root: Path) -> None:
    mask = root / "ground_truth/hole/000_mask.png"
    shutil.copy(mask, root / "ground_truth/hole/777_mask.png")
    (root / "ground_truth/good").mkdir()
    shutil.copy(mask, root / "ground_truth/good/000_mask.png")
    text = "\n".join(checked(root).problems)
    assert "777_mask.png: a mask without a picture" in text
    assert "good/000_mask.png: marks a defect in a picture that is called good" in text


def test_check_reports_every_unreadable_file_at_once(root: Path) -> None:
    whole = (root / "train/good/000.png").read_bytes()
    (root / "train/good/000.png").write_bytes(b"")
    (root / "train/good/001.png").write_bytes(whole[: len(whole) // 2])
    (root / "test/good/000.png").write_bytes(b"no picture")
    (root / "ground_truth/hole/000_mask.png").write_bytes(b"")
    problems = checked(root).problems
    assert len(problems) == 4
    for name in ("train/good/000.png", "train/good/001.png", "test/good/000.png", "hole/000_mask.png"):
        assert sum(name in problem for problem in problems) == 1


def test_check_names_what_a_category_lacks(root: Path) -> None:
    for part in ("train/good", "test/good"):
        shutil.rmtree(root / part)
    problems = checked(root).problems
    assert "brick: no good picture to train on" in problems
    assert "brick: no good picture in the test part" in problems


def test_check_names_files_of_one_id(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(
        root / "train/good/000.bmp"
    )
    problem = lone_problem(root)
    assert "train/good/000.png" in problem
    assert "train/good/000.bmp" in problem


def copied(root: Path, source: str, target: str, **options: Any) -> None:
    """Save a picture again, and its mask with it where it has one."""
    Image.fromarray(read_picture(root / source)).save(root / target, **options)
    kind, name = source.split("/")[1:]
    if kind != "good" and target.split("/")[1] != "good":
        shutil.copy(
            root / f"ground_truth/{kind}/{name[:-4]}_mask.png",
            root / f"ground_truth/{target.split('/')[1]}/{target.split('/')[2].split('.')[0]}_mask.png",
        )


@pytest.mark.parametrize("name", ["900.bmp", "900.jpg"])
def test_check_leaves_out_a_training_picture_whose_copy_is_tested(root: Path, name: str) -> None:
    copied(root, "train/good/000.png", f"test/good/{name}", **({"quality": 85} if "jpg" in name else {}))
    report = checked(root)
    assert report.problems == ()
    assert report.left_out == {root / "train/good/000.png"}
    assert report.counts[0].train_good == 3
    assert report.counts[0].test_good == 4
    assert report.groups == dict.fromkeys(
        [root / f"test/good/{name}", root / "train/good/000.png"], "copies of test/good/900"
    )
    (left_out,) = [note for note in report.notes if "left out" in note]
    assert f"{root / 'train/good/000.png'} (copy: {root / 'test/good' / name})" in left_out


@pytest.mark.parametrize("copy", ["test/good/900", "train/good/900"])
def test_check_refuses_a_copy_under_two_labels(root: Path, copy: Any) -> None:
    copied(root, "test/hole/000.png", f"{copy}.jpg", quality=90)
    problem = lone_problem(root)
    assert str(root / "test/hole/000.png") in problem
    assert str(root / f"{copy}.jpg") in problem
    assert "under two labels" in problem
    assert "good" in problem
    assert "hole" in problem
    assert "--accept-duplicates" in problem


def test_check_accepts_a_copy_under_two_labels_where_told(root: Path) -> None:
    shutil.copy(root / "test/hole/000.png", root / "train/good/900.png")
    assert "the same picture under two labels" in lone_problem(root)
    report = check(read_layout(root), accept_duplicates=True)
    assert report.problems == ()
    files = (root / "test/hole/000.png", root / "train/good/900.png")
    assert {frozenset(pair) for pair in report.accepted_duplicates} == {frozenset(files)}
    assert set(report.groups) == set(files)
    assert report.left_out == {root / "train/good/900.png"}
    assert any("accepted" in note and "900.png" in note for note in report.notes)


@pytest.mark.parametrize(("kind", "copy"), [("good", "good"), ("hole", "hole"), ("hole", "stain")])
@pytest.mark.parametrize("name", ["900.png", "900.jpg"])
def test_check_groups_copies_in_the_test_part(root: Path, kind: str, copy: Any, name: str) -> None:
    copied(root, f"test/{kind}/000.png", f"test/{copy}/{name}")
    report = checked(root)
    assert report.problems == ()
    assert report.left_out == frozenset()
    assert set(report.groups) == {root / f"test/{kind}/000.png", root / f"test/{copy}/{name}"}
    assert len(set(report.groups.values())) == 1
    (grouped,) = [note for note in report.notes if "of copies" in note]
    assert "1 group of copies, 2 pictures" in grouped
    assert f"test/{copy}/{name}" in grouped


def test_check_groups_copies_in_train_and_keeps_them(root: Path) -> None:
    copied(root, "train/good/000.png", "train/good/900.jpg", quality=85)
    report = checked(root)
    assert report.problems == ()
    assert report.counts[0].train_good == 5
    assert set(report.groups) == {root / "train/good/000.png", root / "train/good/900.jpg"}


def test_check_without_a_training_picture_of_its_own(root: Path) -> None:
    for path in (root / "train/good").iterdir():
        shutil.copy(path, root / f"test/good/9{path.name}")
    assert "each training picture has a copy in the test part" in lone_problem(root)


def test_check_tells_its_progress_while_it_compares(root: Path) -> None:
    told = []
    check(read_layout(root), lambda *step: told.append(step))
    last = {what: (done, total) for what, done, total in told}
    assert {"checking pictures", "looking for copies"} <= last.keys()
    assert all(done == total for done, total in last.values()), "each bar reaches its end"


def test_check_notes_uncommon_files(root: Path) -> None:
    path = root / "train/good/000.png"
    picture = read_picture(path)
    Image.fromarray(picture[..., 0].astype(np.uint16) * 257).save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(read_picture(root / "train/good/001.png")).save(root / "train/good/001.png", exif=exif)
    report = checked(root)
    assert report.problems == ()
    text = "\n".join(report.notes)
    assert "1 pictures are 16-bit grey" in text
    assert "1 pictures are turned" in text


def test_check_takes_a_mask_drawn_on_the_turned_picture_alone(root: Path) -> None:
    picture = np.ascontiguousarray(read_picture(root / "test/hole/000.png")[:, :80])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(root / "test/hole/000.png", exif=exif)
    mask = np.zeros((96, 80), np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(root / "ground_truth/hole/000_mask.png")
    assert "EXIF turn" in lone_problem(root)
    Image.fromarray(np.rot90(mask, -1)).save(root / "ground_truth/hole/000_mask.png")
    assert checked(root).problems == ()


def test_published_counts_sum_to_the_published_totals() -> None:
    counts = published_counts().values()
    assert [sum(column) for column in zip(*counts, strict=True)] == [3629, 467, 1258]
