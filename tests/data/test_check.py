import shutil

import numpy as np
import pytest
from PIL import Image

from defectbench.data.check import check, published_counts
from defectbench.data.layouts import read_layout
from defectbench.data.synthetic.synth import synth
from defectbench.util.image_io import read_picture


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "set"
    synth(root, categories=["brick"], size=96, train_good=4, test_good=3, defects_per_type=2)
    return root


@pytest.fixture
def root(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "set")
    return tmp_path / "set/brick"


def checked(root):
    return check(read_layout(root))


def lone_problem(root):
    problems = checked(root).problems
    assert len(problems) == 1, problems
    return problems[0]


def test_check_of_a_clean_set(root):
    report = checked(root)
    assert report.problems == ()
    assert report.counts[0].defects == dict.fromkeys(["crack", "foreign_body", "hole", "scratch", "stain"], 2)
    assert {path.name for path in report.facts} == {"000.png", "001.png", "002.png", "003.png"}


def test_check_names_a_missing_mask(root):
    (root / "ground_truth/hole/001_mask.png").unlink()
    assert "test/hole/001.png: its mask is missing" in lone_problem(root)


def test_check_without_any_mask_is_a_note(root):
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
def test_check_names_a_bad_mask(root, values, why):
    Image.fromarray(values).save(root / "ground_truth/hole/000_mask.png")
    problem = lone_problem(root)
    assert "ground_truth/hole/000_mask.png" in problem
    assert why in problem


def test_check_names_a_mask_without_a_picture_and_one_of_a_good_picture(root):
    mask = root / "ground_truth/hole/000_mask.png"
    shutil.copy(mask, root / "ground_truth/hole/777_mask.png")
    (root / "ground_truth/good").mkdir()
    shutil.copy(mask, root / "ground_truth/good/000_mask.png")
    text = "\n".join(checked(root).problems)
    assert "777_mask.png: a mask without a picture" in text
    assert "good/000_mask.png: marks a defect in a picture that is called good" in text


def test_check_reports_every_unreadable_file_at_once(root):
    whole = (root / "train/good/000.png").read_bytes()
    (root / "train/good/000.png").write_bytes(b"")
    (root / "train/good/001.png").write_bytes(whole[: len(whole) // 2])
    (root / "test/good/000.png").write_bytes(b"no picture")
    (root / "ground_truth/hole/000_mask.png").write_bytes(b"")
    problems = checked(root).problems
    assert len(problems) == 4
    for name in ("train/good/000.png", "train/good/001.png", "test/good/000.png", "hole/000_mask.png"):
        assert sum(name in problem for problem in problems) == 1


def test_check_names_what_a_category_lacks(root):
    for part in ("train/good", "test/good"):
        shutil.rmtree(root / part)
    problems = checked(root).problems
    assert "brick: no good picture to train on" in problems
    assert "brick: no good picture in the test part" in problems


def test_check_names_files_of_one_id(root):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(
        root / "train/good/000.bmp"
    )
    problem = lone_problem(root)
    assert "train/good/000.png" in problem
    assert "train/good/000.bmp" in problem


def test_check_refuses_the_same_picture_in_train_and_test(root):
    Image.fromarray(read_picture(root / "train/good/000.png")).save(root / "test/good/900.bmp")
    problem = lone_problem(root)
    assert "the same picture in two parts" in problem
    assert "train/good/000.png" in problem
    assert "test/good/900.bmp" in problem


def test_check_refuses_nearly_the_same_picture_in_train_and_test(root):
    Image.fromarray(read_picture(root / "train/good/000.png")).save(root / "test/good/900.jpg", quality=85)
    problem = lone_problem(root)
    assert "nearly the same picture" in problem
    assert "train/good/000.png" in problem
    assert "test/good/900.jpg" in problem


def test_check_refuses_the_same_picture_twice_in_the_test_part(root):
    shutil.copy(root / "test/good/000.png", root / "test/good/900.png")
    why = "learnt or tuned on in one fold, tested in another; keep one"
    files = f"{root / 'test/good/000.png'}, {root / 'test/good/900.png'}"
    assert lone_problem(root) == f"brick: the same picture 2 times in the test part ({why}): {files}"


def test_check_refuses_the_same_picture_under_two_defect_types(root):
    shutil.copy(root / "test/hole/000.png", root / "test/crack/900.png")
    shutil.copy(root / "ground_truth/hole/000_mask.png", root / "ground_truth/crack/900_mask.png")
    assert "the same picture 2 times in the test part, as crack and hole" in lone_problem(root)


@pytest.mark.parametrize(("kind", "copy"), [("good", "good"), ("hole", "hole"), ("hole", "stain")])
def test_check_refuses_nearly_the_same_picture_twice_in_the_test_part(root, kind, copy):
    picture = Image.fromarray(read_picture(root / f"test/{kind}/000.png"))
    picture.save(root / f"test/{copy}/900.jpg", quality=85)
    if copy != "good":
        shutil.copy(root / f"ground_truth/{kind}/000_mask.png", root / f"ground_truth/{copy}/900_mask.png")
    problem = lone_problem(root)
    assert "nearly the same picture in the test part" in problem
    assert "tested in another; keep one" in problem
    assert f"test/{kind}/000.png" in problem
    assert f"test/{copy}/900.jpg" in problem


def test_check_lets_nearly_the_same_picture_train_twice(root):
    Image.fromarray(read_picture(root / "train/good/000.png")).save(root / "train/good/900.jpg", quality=85)
    assert checked(root).problems == ()


def test_check_notes_the_same_picture_twice_in_train(root):
    shutil.copy(root / "train/good/000.png", root / "train/good/900.png")
    report = checked(root)
    assert report.problems == ()
    assert any("the same picture 2 times" in note and "900.png" in note for note in report.notes)


def test_check_notes_uncommon_files(root):
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


def test_check_takes_a_mask_drawn_on_the_turned_picture_alone(root):
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


def test_published_counts_sum_to_the_published_totals():
    counts = published_counts().values()
    assert [sum(column) for column in zip(*counts, strict=True)] == [3629, 467, 1258]
