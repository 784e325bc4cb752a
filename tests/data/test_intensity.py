"""One scale for grey of more than 8 bits, chosen for a data set and used wherever its pictures are read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectbench.__main__ import run
from defectbench.data.archive import import_dataset, load_manifest
from defectbench.data.gallery import Gallery
from defectbench.data.intensity import choose
from defectbench.data.manifest import Manifest
from defectbench.errors import DataError, UsageError
from defectbench.models.pictures.images import FilePictures, ImageSet
from defectbench.stores.directory import DirectoryStore
from defectbench.util.image_io import FULL, Intensity, read_picture

BITS_12 = Intensity(0, 4095)


def saved(folder: Path, *arrays: np.ndarray, suffix: str = "png") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index:03d}.{suffix}" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


def grey(largest: int, step: int = 1, seed: int = 0) -> np.ndarray:
    """Values from 0 to ``largest`` in steps, both of them among them."""
    values = np.random.default_rng(seed).integers(0, largest // step + 1, (40, 40)) * step
    values[0, :2] = 0, largest
    return values.astype(np.uint16)


@pytest.mark.parametrize(
    ("largest", "step", "bits"),
    [
        (255, 1, 8), (256, 1, 10), (1023, 1, 10), (1024, 1, 12), (4095, 1, 12), (4096, 1, 14), (16383, 1, 14),
        (16384, 1, 16), (65535, 1, 16),
        (4095 * 16, 16, 16), (1000 * 16, 16, 16), (250 * 64, 64, 16), (2000 * 4, 4, 16), (50 * 257, 257, 16),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_bits_are_the_least_that_hold_all_values(
    largest: int, step: int, bits: int, suffix: str, tmp_path: Path
) -> None:
    paths = saved(tmp_path, grey(min(largest, 200 // step * step), step), grey(largest, step), suffix=suffix)
    scale = choose(paths)
    assert scale.intensity == Intensity.of_bits(bits)
    assert (scale.intensity == FULL) == (bits == 16)
    assert f"largest value {'of 2 pictures ' if bits < 16 else ''}is {largest}" in scale.notes[0]


def test_black_pictures_keep_the_scale_of_16_bits(tmp_path: Path) -> None:
    assert choose(saved(tmp_path, np.zeros((9, 9), np.uint16))).intensity == FULL


def test_pictures_of_8_bits_have_no_scale_and_no_note(tmp_path: Path) -> None:
    paths = saved(tmp_path, np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.uint8))
    assert choose(paths) == choose([])
    window = choose(paths, "window:0,4095")
    assert window.intensity == FULL
    assert window.notes == ("no grey picture has more than 8 bits, so --intensity changes nothing",)


def test_pictures_of_8_and_of_16_bits_together_are_told(tmp_path: Path) -> None:
    paths = saved(tmp_path / "deep", grey(4095))
    deep = paths[0]
    shallow = saved(tmp_path / "shallow", np.ones((9, 9), np.uint8))
    told = choose([*paths, *shallow]).notes[1]
    assert told.startswith(
        f"1 pictures have 8 bits, the first is {shallow[0]}, and 1 more, the first is {deep}"
    )


@pytest.mark.parametrize(
    "text",
    ["", "Auto", "window", "window:", "window:1", "window:5,5", "window:9,1", "window:a,b", "window:0,inf"],
)
def test_window_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="allowed: auto, or window:LOW,HIGH"):
        choose([], text)


def test_window_of_16_bits_is_the_scale_of_16_bits(tmp_path: Path) -> None:
    assert choose(saved(tmp_path, grey(4095)), "window:0,65535").intensity == FULL


@pytest.mark.parametrize("text", ["bits:12", "bits:8", "window:100,3000", "window:-1.5,2.25"])
def test_intensity_reads_back(text: str) -> None:
    assert Intensity.parse(text).text == text


def test_values_beyond_bits_are_refused_and_beyond_a_window_clipped(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, np.array([[0, 100, 1550, 3000, 5000]], np.uint16))
    with pytest.raises(DataError, match=r"000\.png: holds values from 0 to 5000, beyond the 0 to 4095"):
        read_picture(path, intensity=BITS_12)
    shown = read_picture(path, intensity=Intensity.parse("window:100,3000"))
    assert shown[0, :, 0].tolist() == [0, 0, 128, 255, 255]


@pytest.mark.parametrize(
    "array", [np.linspace(-2, 70_000, 81).reshape(9, 9).astype(kind) for kind in ("f4", "i4")]
)
def test_values_of_32_bits_need_a_window(array: np.ndarray, tmp_path: Path) -> None:
    (path,) = saved(tmp_path, array, suffix="tif")
    with pytest.raises(DataError, match=r"000\.tif: .*have no fixed range.*--intensity window:LOW,HIGH"):
        read_picture(path, intensity=choose([path]).intensity)
    scale = choose([path], "window:0,70000")
    shown = read_picture(path, intensity=scale.intensity)
    assert (shown[0, 0, 0], shown[-1, -1, 0]) == (0, 255)
    (other,) = saved(tmp_path / "b", np.full((3, 3), np.nan, np.float32), suffix="tif")
    with pytest.raises(DataError, match="no finite numbers"):
        read_picture(other, intensity=scale.intensity)


def colours_of_16_bits(path: Path, largest: int) -> Path:
    import cv2

    values = np.random.default_rng(0).integers(0, largest + 1, (20, 20, 3)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), values)
    return path


@pytest.mark.torch  # OpenCV comes with anomalib
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_of_16_bits_are_told_and_refused_where_few_levels_are_left(
    suffix: str, tmp_path: Path
) -> None:
    dim = colours_of_16_bits(tmp_path / f"dim.{suffix}", 4095)
    assert dim.name in choose([dim]).problems[0]
    assert "at most 16 levels are left" in choose([dim]).problems[0]
    assert choose([dim], "window:0,65535").problems == ()
    assert "is for grey alone" in choose([dim], "window:0,4095").problems[0]
    assert choose([colours_of_16_bits(tmp_path / f"full.{suffix}", 65535)]).problems == ()


# --- from an import to what models see


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for folder, number in (("good", 12), ("bad", 4)):
        pictures = [rng.integers(0, 4096, (48, 48)).astype(np.uint16) for _ in range(number)]
        saved(tmp_path / "mono" / "plate" / folder, *pictures)
    return tmp_path / "mono"


def test_scale_is_kept_and_used_wherever_pictures_are_read(source: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    (manifest,) = import_dataset(source, store)
    assert load_manifest(store, "mono", "plate") == manifest
    assert manifest.intensity == BITS_12
    assert json.loads(manifest.to_json())["intensity"] == "bits:12"
    gallery = Gallery.open(store, "mono", "plate", manifest.digest, tmp_path / "cache")
    images = ImageSet(manifest, gallery.folder, 48, tmp_path / "cache")
    seen = images.select([image.id for image in manifest.images])
    files = FilePictures([gallery.folder / image.path for image in manifest.images], 48, manifest.intensity)
    for place, image in enumerate(manifest.images):
        values = np.asarray(Image.open(gallery.folder / image.path)).astype(np.int64)
        wanted = (values * 510 + 4095) // (2 * 4095)
        for shown in (gallery.picture(image.id), seen[place], files[place]):
            assert np.array_equal(shown[..., 0], wanted)


def test_scale_of_16_bits_leaves_digest_and_manifest_as_they_were(source: Path, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    (full,) = import_dataset(source, store, intensity="window:0,65535")
    (bits,) = import_dataset(source, store)
    (window,) = import_dataset(source, store, intensity="window:0,3000")
    assert "intensity" not in json.loads(full.to_json())
    assert full.digest == Manifest("mono", "plate", full.images).digest
    assert len({full.digest, bits.digest, window.digest}) == 3
    assert {one.images for one in (bits, window)} == {full.images}


def test_commands_say_the_scale(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", str(source)]) == 0
    said = capsys.readouterr().err
    assert "grey of 12 bits in 16-bit files: the largest value of 16 pictures is 409" in said
    where = ["--store", str(tmp_path / "store")]
    assert run(["data", "import", str(source), "--intensity", "window:0,4000", *where]) == 0
    assert run(["data", "show", "mono", "--format", "json", *where]) == 0
    shown = json.loads("{" + capsys.readouterr().out.partition("{")[2])
    assert shown["categories"][0]["intensity"] == "window:0,4000"
    assert run(["data", "check", str(source), "--intensity", "window:5"]) == 64
