"""Data sets as factories and published sets have them: through the command line, and as they are read."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from defectbench.__main__ import run
from defectbench.data.layouts import LAYOUTS, DatasetReading, read_layout
from defectbench.data.names import LAYOUT_NAMES
from defectbench.data.polygons import Outline
from defectbench.errors import DataError
from defectbench.stores.directory import DirectoryStore
from trees import bads, files_below, goods, part, save


def call(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run a command and return what it printed on both streams."""
    ended = run([str(word) for word in words])
    out, err = capfd.readouterr()
    assert ended == code, err
    return out, err


def account(reading: DatasetReading) -> dict[str, int]:
    """Return the account's reasons and how many files each has; the sum is held to the folder's files."""
    found = reading.account
    assert found.total == files_below(reading.root)
    return {entry.why.split(";")[0]: len(entry.files) for entry in found.unused}


def defects(reading: DatasetReading) -> Counter[tuple[str, bool]]:
    """Return how many bad pictures there are of each type, with and without a mask."""
    return Counter((s.defect_type, bool(s.masks)) for s in reading.sources if s.label == "bad")


def test_layout_names_are_those_of_the_command_line() -> None:
    assert {layout.name for layout in LAYOUTS} == set(LAYOUT_NAMES)


Form = Literal["NFC", "NFD"]


# --- masks are masks, wherever they lie


BESIDE = ["_mask", "_label", "_GT", "_gt", "_seg", "-mask", ".mask", "_mask_0", " ground truth"]


@pytest.mark.parametrize("suffix", BESIDE)
@pytest.mark.parametrize("kind", ["png", "bmp"])
def test_masks_beside_their_pictures_are_paired(tmp_path: Path, suffix: str, kind: str) -> None:
    goods(tmp_path / "plate/OK", 6)
    bads(tmp_path / "plate/NG", name="{:03d}.jpg", mask=f"{{:03d}}{suffix}.{kind}")
    reading = read_layout(tmp_path)
    assert defects(reading) == {("defect", True): 4}
    assert account(reading) == {}
    assert reading.problems == ()


@pytest.mark.parametrize(
    "name", ["mask_{:03d}.png", "GT-{:03d}.png", "{:03d}.png", "{:03d}.bmp", "{:03d}.jpg.png"]
)
def test_masks_with_prefixes_or_the_same_stem_are_paired(tmp_path: Path, name: str) -> None:
    goods(tmp_path / "good", 6)
    bads(tmp_path / "bad/dent", name="{:03d}.jpg", mask=name)
    assert defects(read_layout(tmp_path)) == {("dent", True): 4}


@pytest.mark.parametrize("place", ["../../anything/{:03d}.jpg", "../other/{:03d}.webp", "{:03d}_mask.jpg"])
def test_masks_that_a_lossy_format_blurs_are_paired_and_their_values_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad/dent", mask=place)
    assert defects(read_layout(tmp_path)) == {("dent", True): 4}
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert err.count("not binary") == 4


@pytest.mark.parametrize("values", [(0, 255), (0, 3)])
def test_check_questions_parts_of_nearly_two_values(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], values: tuple[int, int]
) -> None:
    goods(tmp_path / "plate/good", 12)
    kind = "jpg" if values == (0, 255) else "png"
    bads(tmp_path / "plate/bad", mask=f"outline {{:03d}}.{kind}", values=values)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert err.count("looks like a mask") == 4


@pytest.mark.parametrize("camera", ["dark field", "12 bits", "16 bits", "backlight"])
def test_pictures_of_dark_deep_and_backlit_cameras_are_no_masks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], camera: str
) -> None:
    rng = np.random.default_rng(0)
    for folder, number, start in (("good", 24, 0), ("bad", 6, 1000)):
        for place in range(number):
            grey = part(start + place, bad=folder == "bad")[0][..., 0].astype(np.float64)
            noise = rng.normal(0, 3, grey.shape)
            pictures: dict[str, NDArray[np.integer[Any]]] = {
                "dark field": np.clip(np.where(grey > 150, 255, 4 + noise), 0, 255).astype(np.uint8),
                "12 bits": (grey * 16).astype(np.uint16),
                "16 bits": (grey * 257 + rng.integers(0, 257, grey.shape)).astype(np.uint16),
                "backlight": np.clip(np.where(grey > 90, 255, 8 + noise), 0, 255).astype(np.uint8),
            }
            save(pictures[camera], tmp_path / f"plate/{folder}/{place:03d}.png")
    reading = read_layout(tmp_path)
    assert Counter(source.label for source in reading.sources) == {"good": 24, "bad": 6}
    call(capfd, "data", "check", tmp_path)


def test_check_notes_that_every_picture_has_two_values(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder, number, start in (("good", 24, 0), ("bad", 6, 1000)):
        for place in range(number):
            picture, _ = part(start + place, bad=folder == "bad")
            save((picture > 100).astype(np.uint8) * 255, tmp_path / f"plate/{folder}/{place:03d}.png")
    out, _ = call(capfd, "data", "check", tmp_path, "--format", "json")
    found = json.loads(out)
    assert found["files"]["pictures"] == 30
    assert "plate: 30 of 30 pictures have nearly two values, as masks have" in found["notes"]


FOLDERS = [
    "../../masks/dent/{:03d}.png",
    "../../labels/{:03d}.png",
    "../../annotations/dent/{:03d}.bmp",
    "../../GT/{:03d}.tif",
    "../../Ground Truth/bad/dent/{:03d}.png",
    "../../segmentation/bad/{:03d}_seg.png",
    "../../anything/{:03d}.png",
    "../../bad_masks/dent/{:03d}.png",
    "../masks/{:03d}.png",
    "../labels/dent/{:03d}.png",
    "mask/{:03d}.png",
    "any name/{:03d}.png",
    "../dent_gt/{:03d}.png",
    "../../good/masks/dent/{:03d}.png",
    "../../../masks/plate/dent/{:03d}.png",
    "../../../labels/{:03d}_mask.png",
]


@pytest.mark.parametrize("place", FOLDERS)
def test_masks_in_folders_of_any_name_are_paired(tmp_path: Path, place: str) -> None:
    goods(tmp_path / "plate/good", 6)
    bads(tmp_path / "plate/bad/dent", mask=place)
    reading = read_layout(tmp_path)
    assert defects(reading) == {("dent", True): 4}
    assert Counter(source.label for source in reading.sources) == {"good": 6, "bad": 4}
    assert account(reading) == {}


@pytest.mark.parametrize(
    "place", ["{:03d}_mask.png", "../../labels/dent/{:03d}.png", "../masks/dent/{:03d}.png"]
)
def test_masks_are_paired_in_the_mvtec_tree_too(tmp_path: Path, place: str) -> None:
    goods(tmp_path / "plate/train/good", 6)
    goods(tmp_path / "plate/test/good", 4, 50)
    bads(tmp_path / "plate/test/dent", mask=place)
    assert defects(read_layout(tmp_path)) == {("dent", True): 4}


def test_masks_of_goods_are_no_goods(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    goods(tmp_path / "plate/good", 12)
    for place in range(12):
        save(np.zeros((48, 48), np.uint8), tmp_path / f"plate/good/{place:03d}_mask.png")
    bads(tmp_path / "plate/bad", mask="{:03d}_mask.png")
    out, _ = call(capfd, "data", "check", tmp_path, "--format", "json")
    found = json.loads(out)
    assert found["files"] == {"total": 32, "pictures": 16, "masks": 16, "not_used": []}
    assert found["categories"][0]["train_good"] + found["categories"][0]["test_good"] == 12


def test_a_part_whose_type_is_called_like_a_mask_stays_a_part(tmp_path: Path) -> None:
    goods(tmp_path / "train/good", 6)
    goods(tmp_path / "test/good", 4, 50)
    bads(tmp_path / "test/label", mask="../../ground_truth/label/{:03d}_mask.png")
    bads(tmp_path / "test/mask", start=1100, name="{:03d}_label.png")
    assert defects(read_layout(tmp_path)) == {("label", True): 4, ("mask", False): 4}


def test_pictures_that_are_named_as_masks_are_and_look_like_none_stay_and_are_told(tmp_path: Path) -> None:
    goods(tmp_path / "bottle/good", 6)
    bads(tmp_path / "bottle/bad", name="{:03d}.png")
    bads(tmp_path / "bottle/bad", start=1100, name="{:03d}_label.png")
    reading = read_layout(tmp_path)
    assert defects(reading) == {("defect", False): 8}
    assert "bottle: 4 pictures are named as masks of others are" in reading.notes[0]


@pytest.mark.parametrize("name", ["outline of {:03d}.png", "x{:03d}.png", "{:03d}b.png"])
def test_check_questions_parts_of_two_values(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad", mask=name)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert err.count("looks like a mask") == 4
    assert name.format(2) in err


@pytest.mark.parametrize("values", [(1, 2), (128, 255), (255, 255), (1, 255)])
def test_check_refuses_masks_without_background(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], values: tuple[int, int]
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad", mask="../masks/{:03d}.png", values=values)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert err.count("no background") == 4
    assert "masks/003.png" in err


@pytest.mark.parametrize("values", [(0, 1), (0, 7), (0, 128), (0, 255)])
def test_check_takes_masks_of_nought_and_another_value(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], values: tuple[int, int]
) -> None:
    goods(tmp_path / "plate/good", 20)
    bads(tmp_path / "plate/bad", mask="../masks/{:03d}.png", values=values)
    _, err = call(capfd, "data", "check", tmp_path)
    assert "24 pictures, 4 masks, 0 not used" in err


def test_check_refuses_inverted_masks_and_notes_a_single_large_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    goods(tmp_path / "plate/good", 20)
    bads(tmp_path / "plate/bad", mask="../masks/{:03d}.png", values=(255, 0))
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "plate: 4 of 4 masks mark more than half of their picture" in err
    assert "inverted" in err
    bads(tmp_path / "plate/bad", mask="../masks/{:03d}.png")
    large = np.full((48, 48), 255, np.uint8)
    large[:8] = 0
    save(large, tmp_path / "plate/masks/001.png")
    _, err = call(capfd, "data", "check", tmp_path)
    assert "note: plate: 1 of 4 masks mark more than half" in err


def test_masks_of_one_picture_are_united(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad/dent", mask="../../masks/dent/{:03d}.png")
    other = np.zeros((48, 48), np.uint8)
    other[40:44, 40:44] = 255
    save(other, tmp_path / "plate/labels/dent/002.png")
    first = read_layout(tmp_path)
    assert [len(source.masks) for source in first.sources if source.label == "bad"] == [1, 1, 2, 1]
    call(capfd, "data", "import", tmp_path, "--store", tmp_path / "store", "--name", "set", code=0)
    from defectbench.data.archive import load_manifest, unpack
    from defectbench.util.image_io import read_mask

    store = DirectoryStore(tmp_path / "store")
    manifest = load_manifest(store, "set", "plate")
    folder = unpack(store, "set", "plate", manifest.digest, tmp_path / "cache")
    mask = read_mask(folder / "ground_truth/dent/002_mask.png")
    assert np.array_equal(mask, (part(1002, bad=True)[1] > 0) | (other > 0))


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("../../masks/dent/{:03d}_mask.png", "masks/dent/002_mask.png"),
        ("{:03d}_GT.png", "bad/dent/002_GT.png"),
        ("../../labels/{:03d}.bmp", "labels/002.bmp"),
    ],
)
def test_check_names_the_file_of_a_missing_mask(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], place: str, wanted: str
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad/dent", mask=place)
    missing = tmp_path / "plate" / wanted
    missing.unlink()
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert f"dent/002.png: its mask is missing; looked for {missing}" in err


def test_a_mask_that_fits_two_pictures_is_refused(tmp_path: Path) -> None:
    goods(tmp_path / "good", 6)
    bads(tmp_path / "bad/dent", 2)
    bads(tmp_path / "bad/hole", 2, 1100, mask="../../masks/{:03d}.png")
    problems = read_layout(tmp_path).problems
    assert len(problems) == 2
    assert "the mask of" in problems[0]


def test_masks_and_folders_are_paired_whatever_form_their_letters_have(tmp_path: Path) -> None:
    goods(tmp_path / "good", 6)
    for place in range(4):
        picture, mask = part(1000 + place, bad=True)
        name, kind = f"부품é{place}", "größe"
        composed, parted = (
            tuple(unicodedata.normalize(form, text) for text in (kind, name)) for form in ("NFC", "NFD")
        )
        save(picture, tmp_path / "bad" / composed[0] / f"{parted[1]}.png")
        save(mask, tmp_path / "masks" / parted[0] / f"{composed[1]}_mask.png")
    assert sum(number for (_, masked), number in defects(read_layout(tmp_path)).items() if masked) == 4


# --- every file is accounted for


DEEPER = ["bad/scratch/day1", "bad/scratch/2024/05/01", "bad/scratch/lot 7/cam a/x"]


@pytest.mark.parametrize("place", DEEPER)
def test_deeper_folders_are_read_and_the_first_names_the_type(tmp_path: Path, place: str) -> None:
    goods(tmp_path / "plate/good/week1", 6)
    goods(tmp_path / "plate/good/week1/night", 3, 50)
    bads(tmp_path / "plate" / place, 4)
    bads(tmp_path / "plate/bad/scratch", 4, 1100)
    bads(tmp_path / "plate/bad/dent", 4, 1200)
    reading = read_layout(tmp_path)
    assert defects(reading) == {("scratch", False): 8, ("dent", False): 4}
    assert len({source.id for source in reading.sources}) == 21
    assert account(reading) == {}


def test_deeper_folders_are_read_in_the_mvtec_tree(tmp_path: Path) -> None:
    goods(tmp_path / "train/good/day1", 6)
    goods(tmp_path / "test/good", 4, 50)
    bads(tmp_path / "test/scratch/day1", mask="../../../ground_truth/scratch/day1/{:03d}_mask.png")
    bads(tmp_path / "test/scratch/day2", 4, 1100, mask="../../../ground_truth/scratch/day2/{:03d}_mask.png")
    reading = read_layout(tmp_path)
    assert defects(reading) == {("scratch", True): 8}
    assert "test/scratch/day2_003" in {source.id for source in reading.sources}


def test_flat_names_never_clash(tmp_path: Path) -> None:
    for place, name in enumerate(("a_b.png", "a/b.png", "a_/b.png", "a/_b.png", "a__b.png")):
        goods(tmp_path / "good" / Path(name).parent, 1, place, Path(name).name)
    bads(tmp_path / "bad", 1)
    ids = [source.id for source in read_layout(tmp_path).sources if source.label == "good"]
    assert len({name.split("/", 1)[1] for name in ids}) == 5


JUNK = [
    "@eaDir/000.png/SYNOPHOTO_THUMB_S.png",
    ".AppleDouble/000.png",
    "__MACOSX/bad/000.png",
    ".thumbnails/000.png",
    ".ipynb_checkpoints/000-checkpoint.png",
    "lost+found/000.png",
    "$RECYCLE.BIN/000.png",
    "System Volume Information/000.png",
    "Thumbs.db",
    ".DS_Store",
    "._000.png",
    ".Trash-1000/files/000.png",
    "@Recycle/000.png",
    "#recycle/000.png",
    ".@__thumb/000.png",
    "Thumbnails/000.png",
    "000_thumb.png",
    "000.thumbnail.jpg",
]


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_counted_and_no_part(tmp_path: Path, name: str) -> None:
    goods(tmp_path / "plate/good", 6)
    bads(tmp_path / "plate/bad/dent")
    for folder in ("plate/bad", "plate/good", "plate", ""):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((tmp_path / "plate/good/000.png").read_bytes())
        (tmp_path / folder / "000.txt").write_text("x")
    reading = read_layout(tmp_path)
    assert defects(reading) == {("dent", False): 4}
    assert sum(source.label == "good" for source in reading.sources) == 6
    assert account(reading) == {
        "left by a system, a drive or a viewer": 4,
        "not a picture by its name": 4,
    }


def test_check_and_import_print_an_account_of_files(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "set"
    goods(root / "plate/good", 20)
    bads(root / "plate/bad", mask="../masks/{:03d}.png")
    goods(root / "elsewhere", 3, 90, "z{:03d}.png")
    for name in ("plate/readme.txt", "plate/good/.hidden.png", "plate/good/@eaDir/x.png", "notes.docx"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    wanted = (
        "layout folder, 35 files: 24 pictures, 4 masks, 7 not used",
        "not used: 1 (hidden; plate/good/.hidden.png)",
        "not used: 1 (left by a system, a drive or a viewer; plate/good/@eaDir/x.png)",
        "not used: 2 (not a picture by its name; notes.docx, plate/readme.txt)",
        "not used: 3 (outside the layout folder; elsewhere/z000.png, elsewhere/z001.png, elsewhere/z002.png)",
    )
    for words in (("check", root), ("import", root, "--store", tmp_path / "store")):
        _, err = call(capfd, "data", *words)
        assert all(line in err for line in wanted)
    out, _ = call(capfd, "data", "check", root, "--format", "json")
    files = json.loads(out)["files"]
    assert (files["total"], files["pictures"], files["masks"]) == (35, 24, 4)
    assert files["not_used"][0] == {"why": "hidden", "number": 1, "first": ["plate/good/.hidden.png"]}


# --- links and pointers


@pytest.mark.parametrize("target", ["plate", "plate/good", "plate/bad", "plate/bad/dent", "."])
def test_links_to_folders_of_the_set_give_each_picture_once(tmp_path: Path, target: str) -> None:
    goods(tmp_path / "plate/good", 6)
    bads(tmp_path / "plate/bad/dent")
    for place in ("good/a", "good/b", "bad/c", "d"):
        (tmp_path / "plate" / place).symlink_to(tmp_path / target, target_is_directory=True)
    reading = read_layout(tmp_path)
    assert len(reading.sources) == 10
    assert defects(reading) == {("dent", False): 4}
    assert account(reading) == {}


def test_links_are_where_a_set_is_made_of_links_to_its_own_store(tmp_path: Path) -> None:
    goods(tmp_path / "pool/one", 6)
    bads(tmp_path / "pool/two")
    (tmp_path / "plate/bad").mkdir(parents=True)
    (tmp_path / "plate/good").symlink_to("../pool/one", target_is_directory=True)
    for place in range(4):
        (tmp_path / f"plate/bad/{place}.png").symlink_to(f"../../pool/two/{place:03d}.png")
    reading = read_layout(tmp_path)
    assert Counter(source.label for source in reading.sources) == {"good": 6, "bad": 4}
    assert reading.account.total == files_below(tmp_path)


def test_links_out_of_the_set_are_refused_unless_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    goods(tmp_path / "set/plate/good", 20)
    bads(tmp_path / "set/plate/bad/dent")
    bads(tmp_path / "far/scratch", 4, 1100)
    save(part(1200, bad=True)[0], tmp_path / "far/lone.png")
    (tmp_path / "set/plate/bad/scratch").symlink_to(tmp_path / "far/scratch", target_is_directory=True)
    (tmp_path / "set/plate/bad/dent/lone.png").symlink_to(tmp_path / "far/lone.png")
    _, err = call(capfd, "data", "check", tmp_path / "set", code=65)
    assert "2 links lead out of the data set" in err
    assert "--follow-links" in err
    out, _ = call(capfd, "data", "check", tmp_path / "set", "--follow-links", "--format", "json")
    assert json.loads(out)["categories"][0]["defects"] == "dent 5, scratch 4"


def test_links_that_lead_nowhere_or_to_themselves_are_counted(tmp_path: Path) -> None:
    goods(tmp_path / "good", 6)
    bads(tmp_path / "bad")
    for name, target in (("x.png", "/nowhere/x.png"), ("y.png", "y.png"), ("z", "gone"), ("w.png", "v.png")):
        (tmp_path / "good" / name).symlink_to(target)
    os.mkfifo(tmp_path / "good/pipe.png")
    assert account(read_layout(tmp_path)) == {"links that lead nowhere": 4, "not a plain file": 1}


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1234\n".format("ab" * 32)


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda path: path.write_text(LFS), "git lfs pull"),
        (lambda path: path.write_text("/annex/objects/SHA256E-s1--aa.png\n"), "git annex get"),
        (lambda path: path.symlink_to("../../../.git/annex/objects/xx/yy/k/k.png"), "git annex get"),
        (lambda path: path.with_name(path.name + ".dvc").write_text("outs:\n"), "dvc pull"),
        (lambda path: path.with_name(f".{path.name}.icloud").write_bytes(b"bplist00"), "on this machine"),
    ],
)
def test_pointers_are_named_with_their_remedy(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], object], remedy: str
) -> None:
    goods(tmp_path / "plate/good", 8)
    bads(tmp_path / "plate/bad")
    make(tmp_path / "plate/bad/far.png")
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "far.png" in err
    assert remedy in err
    assert "Traceback" not in err


def test_pointers_in_place_of_every_picture_are_named_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for place in range(4):
        for folder in ("good", "bad"):
            path = tmp_path / f"plate/{folder}/{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(LFS)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "8 pictures or folders of them are only pointers of Git LFS" in err
    assert "git lfs pull" in err


def test_a_pointer_file_beside_its_contents_is_counted(tmp_path: Path) -> None:
    goods(tmp_path / "good", 6)
    bads(tmp_path / "bad")
    (tmp_path / "good.dvc").write_text("outs:\n")
    reading = read_layout(tmp_path)
    assert reading.problems == ()
    assert account(reading) == {"pointers of DVC": 1}


# --- good and bad by many names


@pytest.mark.parametrize(
    "good", ["ok", "OK", "ok_front", "Good", "good parts", "defect-free", "OK-2", "no_defects"]
)
@pytest.mark.parametrize("bad", ["ko", "NG", "not_ok", "Bad parts"])
def test_goods_and_bads_by_many_names(tmp_path: Path, good: str, bad: str) -> None:
    goods(tmp_path / "a/plate" / good, 6)
    bads(tmp_path / "a/plate" / bad / "dent")
    reading = read_layout(tmp_path / "a")
    assert Counter(source.defect_type for source in reading.sources) == {"good": 6, "dent": 4}
    goods(tmp_path / "b/plate/train" / good, 6)
    goods(tmp_path / "b/plate/test" / good, 3, 50)
    bads(tmp_path / "b/plate/test" / bad, mask=f"../../ground_truth/{bad}/{{:03d}}.png")
    reading = read_layout(tmp_path / "b")
    assert Counter((s.part, s.label) for s in reading.sources) == {
        ("train", "good"): 6,
        ("test", "good"): 3,
        ("test", "bad"): 4,
    }
    assert defects(reading) == {(bad, True): 4}


def test_several_folders_of_goods_may_share_names(tmp_path: Path) -> None:
    for place, name in enumerate(("ok_front", "ok_back", "ok_side")):
        goods(tmp_path / name, 5, 100 * place)
    bads(tmp_path / "ng")
    assert len({source.id for source in read_layout(tmp_path).sources}) == 19


@pytest.mark.parametrize("name", ["ok_vorne", "good_but_dusty", "normal map"])
def test_a_folder_that_may_be_good_or_not_is_refused(tmp_path: Path, name: str) -> None:
    goods(tmp_path / "train/good", 6)
    goods(tmp_path / "test/good", 3, 50)
    bads(tmp_path / "test/dent")
    bads(tmp_path / "test" / name, 2, 1100)
    assert "may mean good parts or something else" in read_layout(tmp_path).problems[0]


# --- published layouts


def test_layout_loco_unites_masks_and_trains_on_validation_goods(tmp_path: Path) -> None:
    goods(tmp_path / "box/train/good", 5)
    goods(tmp_path / "box/validation/good", 3, 50)
    goods(tmp_path / "box/test/good", 3, 60)
    for start, kind in ((1000, "logical_anomalies"), (1100, "structural_anomalies")):
        bads(tmp_path / "box/test" / kind, 4, start, mask=f"../../ground_truth/{kind}/{{:03d}}/000.png")
        save(part(7, bad=True)[1], tmp_path / f"box/ground_truth/{kind}/002/001.png")
    reading = read_layout(tmp_path)
    assert (reading.layout, reading.problems) == ("loco", ())
    assert defects(reading) == {("logical_anomalies", True): 4, ("structural_anomalies", True): 4}
    assert sorted(len(s.masks) for s in reading.sources if s.label == "bad") == [1] * 6 + [2] * 2
    assert sum(source.part == "train" for source in reading.sources) == 8
    assert "box: 3 goods of validation train, as those of train do" in reading.notes
    assert account(reading) == {}


def test_layout_ad2_counts_what_has_no_labels(tmp_path: Path) -> None:
    goods(tmp_path / "can/train/good", 5, name="{:03d}_regular.png")
    goods(tmp_path / "can/validation/good", 3, 50, "{:03d}_regular.png")
    goods(tmp_path / "can/test_public/good", 3, 60, "{:03d}_regular.png")
    bads(
        tmp_path / "can/test_public/bad",
        name="{:03d}_shift_1.png",
        mask="../ground_truth/bad/{:03d}_shift_1_mask.png",
    )
    goods(tmp_path / "can/test_private", 3, 70)
    goods(tmp_path / "can/test_private_mixed", 3, 80)
    reading = read_layout(tmp_path)
    assert (reading.layout, reading.problems) == ("ad2", ())
    assert defects(reading) == {("bad", True): 4}
    assert account(reading) == {"their labels are not public": 6}


def test_layout_btad_reads_ok_and_ko(tmp_path: Path) -> None:
    for category, kind in (("01", "bmp"), ("02", "png"), ("03", "bmp")):
        goods(tmp_path / category / "train/ok", 5, name=f"{{:04d}}.{kind}")
        goods(tmp_path / category / "test/ok", 3, 50, f"{{:04d}}.{kind}")
        bads(
            tmp_path / category / "test/ko", name=f"{{:04d}}.{kind}", mask="../../ground_truth/ko/{:04d}.png"
        )
    reading = read_layout(tmp_path)
    assert (reading.layout, reading.categories) == ("btad", ("01", "02", "03"))
    assert defects(reading) == {("ko", True): 12}


def test_layout_kolektor_is_labelled_by_its_masks(tmp_path: Path) -> None:
    for folder, start in (("train", 0), ("test", 500)):
        for place in range(8):
            picture, mask = part(start + place, bad=place >= 5)
            save(picture, tmp_path / f"two/{folder}/{start + place}.png")
            save(mask, tmp_path / f"two/{folder}/{start + place}_GT.png")
    reading = read_layout(tmp_path / "two")
    assert (reading.layout, reading.problems) == ("kolektor", ())
    assert Counter((s.part, s.label) for s in reading.sources) == {
        ("train", "good"): 5,
        ("test", "good"): 5,
        ("test", "bad"): 6,
    }
    assert "two: 3 defects of train go to the labelled part: training is on goods alone" in reading.notes
    (tmp_path / "two/test/502_GT.png").unlink()
    assert "test/502.png: no mask beside it" in read_layout(tmp_path / "two").problems[0]


def test_layout_kolektor_of_items_groups_them(tmp_path: Path) -> None:
    for item in range(6):
        for place in range(3):
            picture, mask = part(10 * item + place, bad=place == 2)
            save(picture, tmp_path / f"kos{item:02d}/Part{place}.jpg")
            save(mask, tmp_path / f"kos{item:02d}/Part{place}_label.bmp")
    reading = read_layout(tmp_path)
    assert defects(reading) == {("defect", True): 6}
    assert {source.group for source in reading.sources} == {f"kos{item:02d}" for item in range(6)}
    parts = {(source.group, source.part) for source in reading.sources if source.label == "good"}
    assert len(parts) == 6, "a group's goods are on both sides"


def test_layout_real_iad_groups_the_views_of_a_sample(tmp_path: Path) -> None:
    for sample in range(8):
        goods(tmp_path / f"jack/OK/S{sample:04d}", 3, 10 * sample, f"jack_{sample:04d}_OK_C{{}}.jpg")
    for start, kind in ((1000, "AK"), (2000, "BX")):
        for sample in range(2):
            name = f"jack_{sample:04d}_NG_{kind}_C{{}}"
            folder = tmp_path / f"jack/NG/{kind}/S{sample:04d}"
            bads(folder, 3, start + 10 * sample, f"{name}.jpg", mask=f"{name}.png")
    reading = read_layout(tmp_path)
    assert (reading.layout, reading.problems) == ("real_iad", ())
    assert defects(reading) == {("AK", True): 6, ("BX", True): 6}
    assert len({source.group for source in reading.sources}) == 12
    assert account(reading) == {}


def test_layout_visa_without_its_table(tmp_path: Path) -> None:
    goods(tmp_path / "candle/Data/Images/Normal", 12, name="{:04d}.JPG")
    bads(
        tmp_path / "candle/Data/Images/Anomaly",
        name="{:03d}.JPG",
        mask="../../Masks/Anomaly/{:03d}.png",
        values=(0, 3),
    )
    (tmp_path / "candle/image_anno.csv").write_text("image,label,mask\n")
    reading = read_layout(tmp_path)
    assert (reading.layout, reading.problems) == ("visa", ())
    assert defects(reading) == {("anomaly", True): 4}
    assert account(reading) == {"not a picture by its name": 1}


@pytest.mark.parametrize(
    "folders", [("train", "val", "test"), ("Train", "valid", "Test"), ("training", "dev", "testing")]
)
def test_layout_of_train_validation_and_test_by_good_and_bad(
    tmp_path: Path, folders: tuple[str, ...]
) -> None:
    for place, folder in enumerate(folders):
        goods(tmp_path / folder / "good", 5, 100 * place)
        bads(tmp_path / folder / "bad/dent", 3, 1000 + 100 * place)
    reading = read_layout(tmp_path)
    assert reading.problems == ()
    assert Counter((s.part, s.defect_type) for s in reading.sources) == {
        ("train", "good"): 10,
        ("test", "good"): 5,
        ("test", "dent"): 9,
    }
    assert len({source.id for source in reading.sources}) == 24
    assert len(reading.notes) == 3


def test_layout_of_train_and_validation_alone_tests_on_validation(tmp_path: Path) -> None:
    goods(tmp_path / "train/good", 5)
    bads(tmp_path / "train/bad", 3, mask="{:03d}_mask.png")
    goods(tmp_path / "val/good", 5, 100)
    bads(tmp_path / "val/bad", 3, 1100)
    reading = read_layout(tmp_path)
    parts = Counter((source.part, source.label) for source in reading.sources)
    assert parts == {("train", "good"): 5, ("test", "good"): 5, ("test", "bad"): 6}
    assert f"{tmp_path.name}: val/ is the test part: there is no test/" in reading.notes
    assert any("3 defects of train go to the labelled part" in note for note in reading.notes)


# --- tables


def table(root: Path) -> list[dict[str, object]]:
    """Write pictures and return the rows of a table of them."""
    goods(root / "img/a", 20)
    bads(root / "img/b", mask="../../m/{:03d}-outline.png")
    goods(root / "img/c", 2, 300)
    rows: list[dict[str, object]] = [
        {"path": f"img/a/{place:03d}.png", "label": "good", "group": f"g{place // 2}"} for place in range(20)
    ]
    rows += [
        {
            "path": f"img/b/{place:03d}.png",
            "label": "bad",
            "type": "dent",
            "mask": f"m/{place:03d}-outline.png",
        }
        for place in range(4)
    ]
    return rows + [{"path": f"img/c/{place:03d}.png", "label": "uncertain"} for place in range(2)]


def write_csv(rows: Sequence[Mapping[str, object]], file: Path, mark: str = ",") -> Path:
    columns = ["path", "label", "type", "mask", "group"]
    lines = [mark.join(columns)] + [mark.join(str(row.get(name, "")) for name in columns) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    return file


@pytest.mark.parametrize("form", [",", ";", "\t", "parquet"])
def test_layout_table_is_read(tmp_path: Path, form: str) -> None:
    rows = table(tmp_path)
    if form == "parquet":
        pq.write_table(
            pa.Table.from_pylist(
                rows, pa.schema([(n, pa.string()) for n in ("path", "label", "type", "mask", "group")])
            ),
            tmp_path / "t.parquet",
        )
    else:
        write_csv(rows, tmp_path / "t.csv", form)
    for place in (tmp_path, next(tmp_path.glob("t.*"))):
        reading = read_layout(place)
        assert (reading.layout, reading.problems) == ("table", ())
        assert defects(reading) == {("dent", True): 4}
        assert len({source.group for source in reading.sources if source.label == "good"}) == 10
        assert [source.label for source in reading.uncertain] == ["uncertain"] * 2
        assert account(reading) == {"the table of the data set, read": 1}
        assert reading.account.pictures == len(reading.sources) + 2
        assert {source.path for source in reading.uncertain} == {
            "uncertain/img_c_000.png",
            "uncertain/img_c_001.png",
        }


@pytest.mark.parametrize(("good", "bad"), [("0", "1"), ("0.0", "1.0"), ("OK", "NG"), ("normal", "anomaly")])
def test_layout_table_takes_words_and_numbers(tmp_path: Path, good: str, bad: str) -> None:
    words = {"good": good, "bad": bad, "uncertain": "unsure"}
    rows = [{**row, "label": words[str(row["label"])]} for row in table(tmp_path)]
    write_csv(rows, tmp_path / "t.csv")
    assert Counter(source.label for source in read_layout(tmp_path).sources) == {"good": 20, "bad": 4}


def test_layout_table_names_all_its_faults_with_their_rows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = table(tmp_path)
    wrong = [
        ({"path": "img/zz.png", "label": "good"}, "path img/zz.png: no such file"),
        ({"path": "../x.png", "label": "bad"}, "outside the table's folder"),
        ({"path": "img/a/001.png", "label": "good"}, "stands in row 3 already"),
        ({"path": "img/c/000.png", "label": "maybe"}, "label 'maybe'; allowed: good, bad, uncertain"),
        ({"path": "img/c/000.png", "label": "bad", "type": "a/b"}, "cannot name a defect type"),
        ({"path": "", "label": "good"}, "no path"),
        ({"path": "img/b/000.png", "label": "bad", "mask": "m/gone.png"}, "mask m/gone.png: no such file"),
        ({"path": "t.csv", "label": "bad"}, "not a picture by its name"),
    ]
    write_csv([*rows[:24], *(row for row, _ in wrong)], tmp_path / "t.csv")
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    for place, (_, text) in enumerate(wrong):
        assert any(f"row {26 + place}:" in line and text in line for line in err.splitlines()), text


@pytest.mark.parametrize("content", [b"", b"path\n", b"\xff\xfe\x00x", b"a,b\n1,2\n"])
def test_layout_table_without_its_columns_is_no_table(tmp_path: Path, content: bytes) -> None:
    goods(tmp_path / "img", 3)
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(DataError):
        read_layout(tmp_path)
    with pytest.raises(DataError, match=r"t\.csv"):
        read_layout(tmp_path / "t.csv")


def test_layout_table_does_not_hide_a_tree_that_says_the_same(tmp_path: Path) -> None:
    goods(tmp_path / "good", 6)
    bads(tmp_path / "bad")
    write_csv([{"path": "good/000.png", "label": "bad"}], tmp_path / "t.csv")
    reading = read_layout(tmp_path)
    assert reading.layout == "folder"
    assert "--layout table reads it instead" in reading.notes[0]
    assert read_layout(tmp_path, "table").layout == "table"


@pytest.mark.parametrize(("table_form", "disk_form"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_layout_table_finds_names_whatever_form_their_letters_have(
    tmp_path: Path, table_form: Form, disk_form: Form
) -> None:
    rows = []
    for place in range(8):
        name = f"größe {place}.png"
        save(part(1000 + place, bad=place > 5)[0], tmp_path / unicodedata.normalize(disk_form, name))
        rows.append({"path": unicodedata.normalize(table_form, name), "label": int(place > 5)})
    write_csv(rows, tmp_path / "t.csv")
    reading = read_layout(tmp_path)
    assert (len(reading.sources), reading.problems) == (8, ())


# --- polygons


def labelme(picture: Path, shapes: list[dict[str, object]]) -> None:
    document = {"imagePath": picture.name, "imageHeight": 48, "imageWidth": 48, "shapes": shapes}
    picture.with_suffix(".json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    "shape",
    [
        {"shape_type": "polygon", "points": [[4, 4], [20, 4], [20, 20], [4, 20]]},
        {"shape_type": "rectangle", "points": [[4, 4], [20, 20]]},
        {"shape_type": "circle", "points": [[12, 12], [12, 20]]},
    ],
)
def test_polygons_of_labelme_become_masks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], shape: dict[str, object]
) -> None:
    goods(tmp_path / "plate/good", 20)
    for picture in bads(tmp_path / "plate/bad/dent"):
        labelme(picture, [{"label": "dent", **shape}])
    out, _ = call(capfd, "data", "check", tmp_path, "--format", "json")
    found = json.loads(out)
    assert (found["categories"][0]["masks"], found["files"]["masks"]) == (4, 4)
    (mask,) = next(s.masks for s in read_layout(tmp_path).sources if s.label == "bad")
    assert isinstance(mask, Outline)
    marked = mask.mask()
    assert marked[12, 12]
    assert not marked[30:].any()
    assert 190 <= marked.sum() <= 300


def test_polygons_of_labelme_that_cannot_be_read_are_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    goods(tmp_path / "plate/good", 12)
    pictures = bads(tmp_path / "plate/bad")
    labelme(pictures[0], [{"points": [["x", 2]], "shape_type": "polygon"}])
    labelme(pictures[1], [{"points": [[1, 2]], "shape_type": "spline"}])
    pictures[2].with_suffix(".json").write_text("{")
    pictures[3].with_suffix(".json").write_text("[" * 100_000)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "000.json: shape 1: a point that is no pair of numbers" in err
    assert "001.json: shape 1: 'spline'" in err
    assert "not used: 2 (not a picture by its name; plate/bad/002.json, plate/bad/003.json)" in err


def coco(file: Path, names: list[str], segmentation: object) -> None:
    document = {
        "images": [{"id": n, "file_name": name, "width": 48, "height": 48} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "segmentation": segmentation}
            for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "dent"}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document))


RUNS = [48 * 10 + 4, 16, *[32, 16] * 7, 48 * 48 - (48 * 10 + 4 + 16 + 48 * 7)]


@pytest.mark.parametrize(
    ("segmentation", "area"),
    [([[10, 4, 18, 4, 18, 20, 10, 20]], 153), ({"size": [48, 48], "counts": RUNS}, 128)],
)
def test_polygons_and_runs_of_coco_become_masks(tmp_path: Path, segmentation: object, area: int) -> None:
    goods(tmp_path / "plate/good", 12)
    names = [f"bad/dent/{path.name}" for path in bads(tmp_path / "plate/bad/dent")]
    coco(tmp_path / "annotations/instances.json", names, segmentation)
    reading = read_layout(tmp_path)
    assert reading.problems == ()
    assert defects(reading) == {("dent", True): 4}
    (mask,) = next(s.masks for s in reading.sources if s.label == "bad")
    assert isinstance(mask, Outline)
    marked = mask.mask()
    assert marked.sum() == area
    assert marked[4:20, 10:18].all()
    assert account(reading) == {}


def test_polygons_of_coco_for_pictures_that_are_not_here_are_named(tmp_path: Path) -> None:
    goods(tmp_path / "good", 6)
    bads(tmp_path / "bad")
    coco(tmp_path / "coco.json", ["bad/000.png", "bad/999.png"], [[1, 1, 9, 1, 9, 9]])
    assert "bad/999.png: outlined, but not here" in read_layout(tmp_path).problems[0]


# --- what is unknown, and what later commands would refuse


def test_an_unknown_layout_is_answered_with_what_is_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    goods(tmp_path / "set/plate/images", 5)
    goods(tmp_path / "set/plate/more/sub", 3, 50)
    _, err = call(capfd, "data", "check", tmp_path / "set", code=65)
    assert "plate/images 5, plate/more/sub 3" in err
    assert "nearest: folder" in err


@pytest.mark.parametrize(
    ("folders", "nearest"),
    [
        (("inner/plate/good", "inner/plate/bad"), "inner/ has the layout folder"),
        (("x/y/train/good", "x/y/test/dent"), "nearest:"),
        (("plate/bad/dent", "plate/other"), "nearest: folder; it needs a folder of goods"),
    ],
)
def test_an_unknown_layout_names_the_nearest(tmp_path: Path, folders: tuple[str, ...], nearest: str) -> None:
    for place, folder in enumerate(folders):
        goods(tmp_path / folder, 3, 100 * place)
    with pytest.raises(DataError, match=nearest):
        read_layout(tmp_path)


@pytest.mark.parametrize("name", ["two words", "größe", "x" * 70, "-x", "a+b"])
def test_check_refuses_names_of_categories_that_a_sweep_refuses(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    goods(tmp_path / name / "good", 12)
    bads(tmp_path / name / "bad")
    for words in (("check", tmp_path), ("import", tmp_path, "--store", tmp_path / "store", "--name", "x")):
        _, err = call(capfd, "data", *words, code=65)
        assert "rename the folder" in err


@pytest.mark.parametrize(("train", "test", "bad"), [(8, 2, 4), (8, 4, 2), (1, 4, 4)])
def test_check_refuses_too_few_pictures_for_detection(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], train: int, test: int, bad: int
) -> None:
    goods(tmp_path / "train/good", train)
    goods(tmp_path / "test/good", test, 50)
    bads(tmp_path / "test/dent", bad)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "the detection protocol needs at least" in err


@pytest.mark.parametrize(("one", "two"), [("A.png", "a.png"), ("é.png", "e\u0301.png"), ("x.png", "x.bmp")])
def test_check_refuses_names_that_look_equal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], one: str, two: str
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad")
    save(part(2000, bad=True)[0], tmp_path / "plate/bad" / one)
    save(part(2001, bad=True)[0], tmp_path / "plate/bad" / two)
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "several files would have the id" in err


@pytest.mark.parametrize(("one", "two"), [("Dent", "dent"), ("größe", "gro\u0308ße"), ("HOLE", "Hole")])
def test_check_refuses_defect_types_that_look_equal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], one: str, two: str
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad" / one, 3, name="a{}.png")
    bads(tmp_path / "plate/bad" / two, 3, 1100, name="b{}.png")
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "differ in case or letter form alone" in err


@pytest.mark.parametrize("name", ["new\nline", "bell\a", "udc\udcff"])
def test_check_refuses_and_prints_names_that_no_terminal_shows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    goods(tmp_path / "plate/good", 12)
    bads(tmp_path / "plate/bad" / name, 3, mask="x{:03d}.png")
    (tmp_path / "plate/good" / f"{name}.txt").write_text("x")
    out, err = call(capfd, "data", "check", tmp_path, "--format", "json", code=65)
    assert all("/plate/bad/" in line for line in json.loads(out)["problems"])
    assert len(err.splitlines()) == 1 + len(json.loads(out)["problems"])
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert repr(name)[1:-1] in err


def test_check_refuses_names_that_are_too_long(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    goods(tmp_path / "plate/good" / ("d" * 150), 12, name="{:03d}" + "x" * 120 + ".png")
    bads(tmp_path / "plate/bad")
    _, err = call(capfd, "data", "check", tmp_path, code=65)
    assert "at most 255 between slashes" in err
