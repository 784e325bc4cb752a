from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile

from defectbench.errors import ConfigurationError, DataError, StoppedError
from defectbench.util.decoding import MAX_PIXELS, pixel_limit
from defectbench.util.image_io import (
    UNLIMITED,
    is_plain_mask,
    mask_png,
    overview,
    read_mask,
    read_mask_values,
    read_picture,
    read_resized,
    read_with_traits,
    resize_mask,
    resize_picture,
)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(height: int, rows: Any, *, interlaced: bool = False, colours: int = 0, bits: int = 8) -> bytes:
    """A PNG of 16 x ``height`` whose stream has so many bytes of rows."""
    header = struct.pack(">IIBBBBB", 16, height, bits, colours, 0, 0, interlaced)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def noise(*shape: Any) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_picture_of_rgb_is_unchanged() -> None:
    pixels = noise(7, 5, 3)
    assert np.array_equal(read_picture(encoded(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_picture_of_any_mode_is_three_channels(mode: str) -> None:
    image = Image.fromarray(noise(6, 4, 3)).convert(mode)
    picture = read_picture(encoded(image, "TIFF"))
    assert picture.shape == (6, 4, 3)
    assert picture.dtype == np.uint8


def test_picture_of_a_palette_has_its_colours() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert read_picture(encoded(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_picture_of_sixteen_bits_is_divided_by_257(kind: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535], [1, 300, 4095, 40000]], np.uint16)
    picture = read_picture(encoded(Image.fromarray(values), kind))
    assert picture[..., 0].tolist() == [[0, 1, 128, 255], [0, 1, 16, 156]]
    assert np.array_equal(picture[..., 0], picture[..., 2])


def test_picture_of_32_bits_is_refused() -> None:
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        read_picture(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        read_picture(encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"))


def test_picture_with_alpha_lies_on_white() -> None:
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    picture = read_picture(encoded(Image.fromarray(pixels)))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 1].tolist() == [10, 20, 30]
    assert abs(int(picture[0, 2, 0]) - 127) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_and_mask_are_turned_by_exif(orientation: int) -> None:
    pixels = np.zeros((4, 6), np.uint8)
    pixels[0, 1] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(pixels), exif=exif)
    turned = {
        1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T,
        6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels),
    }[orientation]  # fmt: skip
    assert np.array_equal(read_picture(data)[..., 0], turned)
    assert np.array_equal(read_mask(data), turned > 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_picture_truncated_is_refused_whatever_pillow_is_set_to(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "half.png"
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    path.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match=r"half\.png"):
        read_picture(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(("data", "why"), [(b"", "empty"), (b"hello", "not a picture")])
def test_picture_that_is_none_is_refused(data: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=why):
        read_picture(path)
    with pytest.raises(DataError, match="no such file"):
        read_picture(tmp_path / "y.png")


def test_mask_is_any_value_but_zero() -> None:
    values = np.array([[0, 1, 3, 255]], np.uint8)
    assert read_mask(encoded(Image.fromarray(values))).tolist() == [[False, True, True, True]]
    colours = np.array([[[0, 0, 0], [0, 0, 9]]], np.uint8)
    assert read_mask(encoded(Image.fromarray(colours))).tolist() == [[False, True]]


def test_mask_of_a_palette_goes_by_colour() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putdata([0, 1])
    assert read_mask(encoded(image)).tolist() == [[True, False]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (17, 8), (700, 900)])
def test_mask_png_reads_back(shape: Any) -> None:
    mask = np.random.default_rng(1).random(shape) < 0.3
    data = mask_png(mask)
    assert np.array_equal(read_mask(data), mask)
    with Image.open(io.BytesIO(data)) as image:
        assert set(np.unique(np.asarray(image.convert("L")))) <= {0, 255}


def test_resize_picture_is_antialiased_and_square() -> None:
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_picture(stripes, 16)
    assert small.shape == (16, 16, 3)
    assert abs(small[4:-4, 4:-4].astype(int) - 127).max() < 8


def test_resize_mask_keeps_a_lone_pixel() -> None:
    mask = np.zeros((1000, 700), np.bool_)
    mask[501, 333] = True
    small = resize_mask(mask, 64)
    assert np.argwhere(small).tolist() == [[501 * 64 // 1000, 333 * 64 // 700]]
    assert not resize_mask(np.zeros((10, 10), np.bool_), 4).any()
    assert resize_mask(np.ones((5, 9), np.bool_), 16).all()


def palette() -> Image.Image:
    return Image.fromarray(noise(4, 4, 3)).convert("P")


def exif(value: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = value
    return found


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (encoded(Image.fromarray(noise(4, 4, 3))), ()),
        (encoded(Image.fromarray(noise(4, 4, 3)), exif=exif(1)), ()),
        (encoded(Image.fromarray(noise(4, 4, 3)), exif=exif(6)), ("EXIF",)),
        (encoded(Image.fromarray(noise(4, 4, 3)), "JPEG", exif=exif(3)), ("EXIF",)),
        (encoded(Image.fromarray(np.ones((4, 4), np.uint16))), ("16-bit grey",)),
        (encoded(Image.fromarray(np.ones((4, 4), np.uint16)), "TIFF"), ("16-bit grey",)),
        (png(4, bytes(4 * (1 + 16 * 6)), colours=2, bits=16), ("16-bit colours",)),
        (encoded(palette()), ("palette",)),
        (encoded(palette(), transparency=1), ("palette", "transparent")),
        (encoded(Image.fromarray(noise(4, 4, 4))), ("transparent",)),
        (encoded(Image.fromarray(noise(4, 4, 4)), "WEBP", exif=exif(8)), ("transparent", "EXIF")),
        (encoded(palette(), "TIFF", save_all=True, append_images=[palette()]), ("palette", "frames")),
        (encoded(palette(), save_all=True, append_images=[palette().rotate(90)]), ("palette", "frames")),
        (encoded(Image.fromarray(noise(4, 4, 4), "CMYK"), "JPEG"), ("CMYK",)),
        (
            encoded(Image.fromarray(noise(4, 4, 3)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01"),
            ("damaged metadata",),
        ),
    ],
)
def test_traits_name_what_is_uncommon(data: bytes, told: tuple[str, ...], recwarn: Any) -> None:
    pixels, traits = read_with_traits(data)
    assert len(traits) == len(told)
    assert all(word in trait for word, trait in zip(told, traits, strict=True))
    np.testing.assert_array_equal(pixels, read_picture(data))
    assert not recwarn.list


def test_warnings_of_others_are_shown_while_a_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = ImageFile.ImageFile.load

    def warn_and_load(self: ImageFile.ImageFile) -> Any:
        warnings.warn("not about a picture", stacklevel=1)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", warn_and_load)
    with pytest.warns(UserWarning, match="not about a picture"):
        _, traits = read_with_traits(encoded(Image.fromarray(noise(4, 4), "L"), "BMP"))
    assert traits == ()


@pytest.mark.parametrize("kind", ["GIF", "PPM", "ICO", "TGA", "PCX", "DDS", "SGI", "EPS"])
def test_picture_of_another_kind_is_refused_whatever_its_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(noise(32, 32, 3)), kind))
    with pytest.raises(DataError, match=r"x\.png: .*another kind than PNG, JPEG, BMP, TIFF, WEBP"):
        read_picture(path)


@pytest.mark.parametrize(
    "error",
    [
        RecursionError(), MemoryError(), OverflowError("big"), KeyError("x"), IndexError(), AssertionError(),
        NotImplementedError("two\nlines"), zlib.error("b"), struct.error("c"), UserWarning("d"),
    ],
    ids=repr,
)  # fmt: skip
def test_whatever_a_decoder_raises_is_one_line_with_the_file(
    error: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    path = tmp_path / "x.png"
    path.write_bytes(encoded(Image.fromarray(noise(4, 4, 3))))
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    for read in (read_picture, read_mask, lambda path: read_resized(path, 8)):
        with pytest.raises(DataError) as caught:
            read(path)
        (line,) = caught.value.problems
        assert line.startswith(f"{path}: cannot be read as a picture (")
        assert "\n" not in line
        assert caught.value.__cause__ is error


def test_stop_in_the_middle_of_a_picture_stays_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any) -> None:
        raise StoppedError("SIGTERM")

    monkeypatch.setattr(ImageFile.ImageFile, "load", stop)
    with pytest.raises(StoppedError):
        read_picture(encoded(Image.fromarray(noise(4, 4, 3))))


@pytest.mark.parametrize("height", [17, 400, 4000])
def test_png_whose_pixels_end_early_is_refused(height: int) -> None:
    row = b"\0" + b"\x50" * 16
    assert read_picture(png(height, row * height)).shape == (height, 16, 3)
    with pytest.raises(DataError, match="its pixels end early"):
        read_picture(png(height, row * (height - 1)))
    black = b"\0" * 17
    assert not read_picture(png(height, black * height)).any()
    with pytest.raises(DataError, match="its pixels end early"):
        read_picture(png(height, black * (height - 1)))


def test_interlaced_png_whose_pixels_end_early_is_refused() -> None:
    wanted = 2 * (1 + 2) + 2 * (1 + 2) + 2 * (1 + 4) + 4 * (1 + 4) + 4 * (1 + 8) + 8 * (1 + 8) + 8 * (1 + 16)
    assert read_picture(png(16, bytes(wanted), interlaced=True)).shape == (16, 16, 3)
    with pytest.raises(DataError, match="cannot be read as a picture"):
        read_picture(png(16, bytes(wanted - 40), interlaced=True))


def test_pixel_limit_is_settable_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(noise(30, 40, 3)).save(path)
    assert pixel_limit() == MAX_PIXELS >= 4096 * 48_000
    monkeypatch.setenv("DEFECTBENCH_MAX_PIXELS", "1199")
    for read in (read_picture, read_mask_values, lambda path: read_resized(path, 8)):
        with pytest.raises(DataError, match=r"x\.png: 40 x 30 = 1,200 pixels, more than 1,199: .*MAX_PIXELS"):
            read(path)
    assert read_picture(path, limit=UNLIMITED).shape == (30, 40, 3)
    monkeypatch.setenv("DEFECTBENCH_MAX_PIXELS", "1200")
    assert read_picture(path).shape == (30, 40, 3)
    for text in ("many", "-1", "0", "1e9"):
        monkeypatch.setenv("DEFECTBENCH_MAX_PIXELS", text)
        with pytest.raises(ConfigurationError, match="DEFECTBENCH_MAX_PIXELS"):
            read_picture(path)


def test_picture_beyond_pillows_own_limit_is_read_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert read_picture(encoded(Image.fromarray(noise(30, 40, 3)))).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_readers_in_threads_leave_pillows_switches_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data, failed = encoded(Image.fromarray(noise(64, 64, 3))), []

    def read() -> None:
        for _ in range(30):
            try:
                read_picture(data[:-2000])
            except DataError:
                continue
            failed.append("a truncated file was read")

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("shape", [(5, 3), (300, 7), (64, 64)])
@pytest.mark.parametrize("size", [1, 32, 64])
def test_resized_is_what_resizing_the_whole_gives(
    mode: str, shape: Any, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defectbench.util.image_io._BAND", 100)
    data = encoded(Image.fromarray(noise(*shape, 3)).convert(mode), "TIFF")
    assert np.array_equal(read_resized(data, size), resize_picture(read_picture(data), size))


def test_overview_leaves_all_but_the_largest_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = noise(60, 40, 3)
    assert overview(picture) is picture
    monkeypatch.setattr("defectbench.util.image_io._LARGE", 600)
    assert np.array_equal(overview(picture), picture[::2, ::2])


def test_mask_is_kept_only_as_a_plain_png(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    binary, odd = (
        Image.fromarray(np.array([[0, 255]], np.uint8)),
        Image.fromarray(np.array([[0, 3]], np.uint8)),
    )
    for name, image, options, plain in (
        ("a.png", binary, {}, True), ("b.png", binary.convert("1"), {}, True), ("c.png", odd, {}, False),
        ("d.bmp", binary, {}, False), ("e.png", binary.convert("RGB"), {}, False),
        ("f.png", binary, {"exif": exif}, False), ("g.png", binary, {"transparency": 0}, False),
    ):  # fmt: skip
        image.save(tmp_path / name, **options)
        assert is_plain_mask(tmp_path / name) is plain, name


def test_mutated_files_give_no_traceback_and_are_named() -> None:
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "mutated_pictures.py"
    words = [sys.executable, str(script), "--number", "240", "--seed", "7"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    assert (found["faults"], found["unnamed"]) == ([], 0)
    assert found["refused"] + found["read"] == 240
    assert min(found["refused"], found["read"]) > 40
