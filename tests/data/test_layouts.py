from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defectbench.data.layouts import FEW, read_layout
from defectbench.data.layouts.base import DatasetReading, Source, mask_file
from defectbench.errors import DataError, MissingInputError, UsageError


def picture(path: Path, seed: int = 0, size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path


def by_path(reading: DatasetReading) -> dict[str, Source]:
    return {f"{source.category}/{source.path}": source for source in reading.sources}


def mvtec(root: Path) -> Path:
    names = ("train/good/000.png", "test/good/000.png", "test/scratch/000.png", "test/stain/000.png")
    for number, name in enumerate(names):
        picture(root / "cup" / name, number)
    picture(root / "cup/ground_truth/scratch/000_mask.png")
    picture(root / "cup/ground_truth/stain/000.png")
    return root


def test_layout_mvtec_is_recognised(tmp_path: Path) -> None:
    reading = read_layout(mvtec(tmp_path))
    found = by_path(reading)
    assert reading.layout == "mvtec"
    assert list(found) == [
        "cup/test/good/000.png",
        "cup/test/scratch/000.png",
        "cup/test/stain/000.png",
        "cup/train/good/000.png",
    ]
    scratch = found["cup/test/scratch/000.png"]
    assert (scratch.id, scratch.defect_type, scratch.part) == ("test/scratch/000", "scratch", "test")
    assert scratch.masks == (tmp_path / "cup/ground_truth/scratch/000_mask.png",)
    assert scratch.mask_path == "ground_truth/scratch/000_mask.png"
    assert found["cup/test/stain/000.png"].masks == (tmp_path / "cup/ground_truth/stain/000.png",)
    assert found["cup/test/good/000.png"].masks == ()


def test_layout_mvtec_of_one_category(tmp_path: Path) -> None:
    assert read_layout(mvtec(tmp_path) / "cup").categories == ("cup",)


def test_layout_mvtec_pairs_masks_by_name_alone(tmp_path: Path) -> None:
    mvtec(tmp_path)
    picture(tmp_path / "cup/test/scratch/001.png", 5)
    picture(tmp_path / "cup/ground_truth/scratch/002_mask.png")
    reading = read_layout(tmp_path)
    assert by_path(reading)["cup/test/scratch/001.png"].masks == ()
    assert reading.spare_masks == (tmp_path / "cup/ground_truth/scratch/002_mask.png",)


def test_layout_mvtec_moves_defects_of_train_to_the_labelled_part(tmp_path: Path) -> None:
    picture(mvtec(tmp_path) / "cup/train/scratch/000.png", 9)
    reading = read_layout(tmp_path)
    assert by_path(reading)["cup/test/scratch/train_000.png"].part == "test"
    assert reading.notes == ("cup: 1 defects of train go to the labelled part: training is on goods alone",)


def test_layout_reads_hostile_names_and_ignores_junk(tmp_path: Path) -> None:
    names = ["with space.png", "-rf.png", "ünï 漢.JPG", "UPPER.PNG", "a.b.c.jpeg"]
    mvtec(tmp_path)
    for number, name in enumerate(names):
        picture(tmp_path / "cup/train/good" / name, number)
    for junk in (".DS_Store", "Thumbs.db", "._000.png", "desktop.ini"):
        (tmp_path / "cup/train/good" / junk).write_bytes(b"x")
    (tmp_path / "cup/train/good/readme.txt").write_bytes(b"x")
    reading = read_layout(tmp_path)
    trained = {source.file.name for source in reading.sources if source.part == "train"}
    assert trained == {*names, "000.png"}
    unused = {entry.why: {file.name for file in entry.files} for entry in reading.account.unused}
    assert unused == {
        "left by a system, a drive or a viewer": {".DS_Store", "Thumbs.db", "._000.png", "desktop.ini"},
        "not a picture by its name": {"readme.txt"},
    }


def visa(root: Path, rows: Any) -> Path:
    table = root / "split_csv/1cls.csv"
    table.parent.mkdir(parents=True)
    table.write_text("object,split,label,image,mask\n" + "\n".join(rows) + "\n")
    return root


def test_layout_visa_follows_its_table(tmp_path: Path) -> None:
    visa(
        tmp_path,
        [
            "candle,train,normal,candle/Data/Images/Normal/0000.JPG,",
            "candle,test,normal,candle/Data/Images/Normal/0001.JPG,",
            "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
        ],
    )
    spare = picture(tmp_path / "candle/Data/Masks/Anomaly/007.png")
    reading = read_layout(tmp_path)
    assert reading.layout == "visa"
    assert [source.path for source in reading.sources] == [
        "test/anomaly/000.JPG",
        "test/good/0001.JPG",
        "train/good/0000.JPG",
    ]
    assert reading.sources[0].masks == (tmp_path / "candle/Data/Masks/Anomaly/000.png",)
    assert reading.spare_masks == (spare,)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("candle,train,anomaly,candle/x.JPG,", "training part"),
        ("candle,val,normal,candle/x.JPG,", "allowed: train, test"),
        ("candle,train,normal,../../etc/x.JPG,", "outside"),
        ("candle,train,normal,,", "no value for image"),
    ],
)
def test_layout_visa_reports_bad_rows(tmp_path: Path, row: Any, why: str) -> None:
    visa(tmp_path, ["candle,train,normal,candle/good.JPG,", row])
    reading = read_layout(tmp_path)
    assert len(reading.problems) == 1
    assert why in reading.problems[0]


@pytest.mark.parametrize(
    ("good", "bad"), [("good", "bad"), ("OK", "NOK"), ("normal", "abnormal"), ("ok", "Defects")]
)
def test_layout_folder_takes_common_names(tmp_path: Path, good: str, bad: str) -> None:
    for number in range(5):
        picture(tmp_path / good / f"{number}.png", number)
    picture(tmp_path / bad / "a.png", 50)
    picture(tmp_path / bad / "dent" / "b.png", 51)
    picture(tmp_path / "masks/a_mask.png")
    picture(tmp_path / "masks/dent/b.png")
    reading = read_layout(tmp_path)
    parts = [source.part for source in reading.sources if source.defect_type == "good"]
    bads = {
        source.path: mask_file(source.masks[0]).name
        for source in reading.sources
        if source.defect_type != "good"
    }
    assert reading.layout == "folder"
    assert (parts.count("train"), parts.count("test")) == (4, 1)
    assert bads == {"test/defect/a.png": "a_mask.png", "test/dent/b.png": "b.png"}


def test_layout_folder_cut_depends_on_content_alone(tmp_path: Path) -> None:
    for number in range(20):
        picture(tmp_path / "one/good" / f"{number:02d}.png", number)
        picture(tmp_path / "two/good" / f"{(number * 7) % 20:02d}x.png", number)
    cuts = []
    for name in ("one", "two"):
        sources = read_layout(tmp_path / name, "folder").sources
        cuts.append({source.file.read_bytes(): source.part for source in sources})
    assert cuts[0] == cuts[1]


def cut(root: Path) -> Any:
    """Return which of a folder's goods are tested, by their bytes."""
    return {source.file.read_bytes(): source.part == "test" for source in read_layout(root, "folder").sources}


def test_layout_folder_cut_moves_no_good_when_others_come(tmp_path: Path) -> None:
    for number in range(300):
        picture(tmp_path / "good" / f"{number}.png", number)
        if number == 59:
            before = cut(tmp_path)
    assert sum(before.values()) > FEW, "a small set's rule decided"
    after = cut(tmp_path)
    assert before.items() <= after.items()
    assert 0.15 < sum(after.values()) / len(after) < 0.25


@pytest.mark.parametrize(
    ("goods", "tested"), [(1, (0, 0)), (2, (1, 1)), (5, (1, 2)), (10, (2, 5)), (20, (4, 10)), (40, (4, 20))]
)
def test_layout_folder_cut_of_a_small_set_leaves_goods_on_both_sides(
    tmp_path: Path, goods: int, tested: tuple[int, int]
) -> None:
    for seed in range(20):
        for number in range(goods):
            picture(tmp_path / str(seed) / "good" / f"{number}.png", 1000 * seed + number, size=2)
        assert tested[0] <= sum(cut(tmp_path / str(seed)).values()) <= tested[1]


def test_layout_folder_unites_masks_of_one_picture_in_two_places(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / "good" / f"{number}.png", number)
    picture(tmp_path / "bad/dent/b.png", 51)
    first, second = picture(tmp_path / "ground_truth/dent/b.png"), picture(tmp_path / "masks/dent/b_mask.png")
    reading = read_layout(tmp_path)
    assert by_path(reading)[f"{tmp_path.name}/test/dent/b.png"].masks == (first, second)
    assert reading.problems == ()
    assert "1 pictures have several masks, which are united" in reading.notes[0]


def test_layout_folder_keeps_equal_files_together(tmp_path: Path) -> None:
    for number in range(5):
        picture(tmp_path / "good" / f"{number}.png", 1)
    assert {source.part for source in read_layout(tmp_path, "folder").sources} == {"train"}


def test_layout_folder_of_several_categories(tmp_path: Path) -> None:
    for category in ("a", "b"):
        for number in range(5):
            picture(tmp_path / category / "good" / f"{number}.png", number)
        picture(tmp_path / category / "bad" / "0.png", 9)
    assert read_layout(tmp_path).categories == ("a", "b")


def test_layout_unknown_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_layout(tmp_path)
    text = str(caught.value)
    assert "split_csv/1cls.csv" in text
    assert "train/good" in text
    assert "nok" in text
    with pytest.raises(UsageError, match="did you mean 'mvtec'"):
        read_layout(tmp_path, "mvtek")
    with pytest.raises(MissingInputError, match="no such folder"):
        read_layout(tmp_path / "gone")
    with pytest.raises(DataError, match="no picture found in layout mvtec"):
        read_layout(tmp_path, "mvtec")
