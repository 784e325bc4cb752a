import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from defectbench.errors import DataError
from defectbench.util.image_io import mask_png, read_mask, read_picture, resize_mask, resize_picture, traits


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_picture_of_rgb_is_unchanged():
    pixels = noise(7, 5, 3)
    assert np.array_equal(read_picture(encoded(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGBA", "LA"])
def test_picture_of_any_mode_is_three_channels(mode):
    image = Image.fromarray(noise(6, 4, 3)).convert(mode)
    picture = read_picture(encoded(image, "TIFF"))
    assert picture.shape == (6, 4, 3)
    assert picture.dtype == np.uint8


def test_picture_of_a_palette_has_its_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    assert read_picture(encoded(image)).tolist() == [[[10, 20, 30], [200, 100, 50]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_picture_of_sixteen_bits_is_divided_by_257(kind):
    values = np.array([[0, 257, 128 * 257, 65535], [1, 300, 4095, 40000]], np.uint16)
    picture = read_picture(encoded(Image.fromarray(values), kind))
    assert picture[..., 0].tolist() == [[0, 1, 128, 255], [0, 1, 16, 156]]
    assert np.array_equal(picture[..., 0], picture[..., 2])


def test_picture_of_32_bits_is_refused():
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        read_picture(encoded(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))
    with pytest.raises(DataError, match="save it with 8 or 16 bits"):
        read_picture(encoded(Image.fromarray(np.full((2, 2), 70000, np.int32)), "TIFF"))


def test_picture_with_alpha_lies_on_white():
    pixels = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    picture = read_picture(encoded(Image.fromarray(pixels)))
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture[0, 1].tolist() == [10, 20, 30]
    assert abs(int(picture[0, 2, 0]) - 127) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_and_mask_are_turned_by_exif(orientation):
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
def test_picture_truncated_is_refused_whatever_pillow_is_set_to(kind, tmp_path, monkeypatch):
    path = tmp_path / "half.png"
    data = encoded(Image.fromarray(noise(64, 64, 3)), kind)
    path.write_bytes(data[: len(data) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match=r"half\.png"):
        read_picture(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(("data", "why"), [(b"", "empty"), (b"hello", "not a picture")])
def test_picture_that_is_none_is_refused(data, why, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=why):
        read_picture(path)
    with pytest.raises(DataError, match="no such file"):
        read_picture(tmp_path / "y.png")


def test_mask_is_any_value_but_zero():
    values = np.array([[0, 1, 3, 255]], np.uint8)
    assert read_mask(encoded(Image.fromarray(values))).tolist() == [[False, True, True, True]]
    colours = np.array([[[0, 0, 0], [0, 0, 9]]], np.uint8)
    assert read_mask(encoded(Image.fromarray(colours))).tolist() == [[False, True]]


def test_mask_of_a_palette_goes_by_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putdata([0, 1])
    assert read_mask(encoded(image)).tolist() == [[True, False]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 9), (17, 8), (700, 900)])
def test_mask_png_reads_back(shape):
    mask = np.random.default_rng(1).random(shape) < 0.3
    data = mask_png(mask)
    assert np.array_equal(read_mask(data), mask)
    with Image.open(io.BytesIO(data)) as image:
        assert set(np.unique(np.asarray(image.convert("L")))) <= {0, 255}


def test_resize_picture_is_antialiased_and_square():
    stripes = np.zeros((64, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_picture(stripes, 16)
    assert small.shape == (16, 16, 3)
    assert abs(small[4:-4, 4:-4].astype(int) - 127).max() < 8


def test_resize_mask_keeps_a_lone_pixel():
    mask = np.zeros((1000, 700), np.bool_)
    mask[501, 333] = True
    small = resize_mask(mask, 64)
    assert np.argwhere(small).tolist() == [[501 * 64 // 1000, 333 * 64 // 700]]
    assert not resize_mask(np.zeros((10, 10), np.bool_), 4).any()
    assert resize_mask(np.ones((5, 9), np.bool_), 16).all()


def test_traits_name_what_is_uncommon():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert traits(encoded(Image.fromarray(noise(4, 4, 3)))) == ()
    assert "EXIF" in traits(encoded(Image.fromarray(noise(4, 4, 3)), exif=exif))[0]
    assert "16-bit" in traits(encoded(Image.fromarray(np.ones((4, 4), np.uint16))))[0]
    assert traits(b"nothing") == ()
