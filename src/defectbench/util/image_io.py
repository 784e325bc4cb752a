"""Picture files to arrays, the same way everywhere: as a viewer would show them, never scaled per image."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from defectbench.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings of pictures, compared in lower case."""

_ORIENTATION = 0x0112
_SIXTEEN = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does; hidden files (``._000.png``) are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(source: Path | bytes, name: str | None = None) -> NDArray[np.uint8]:
    """Return the picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Grey becomes three equal channels, a palette its colours. Transparent pixels are laid over white, as a
    browser shows them. 16-bit grey is divided by 257, so that 65535 gives 255: a fixed scale, because a
    scale taken from the image would change its brightness from file to file. Of several frames the first.

    Args:
        name: what an error message calls the picture; the path by default.

    Raises:
        DataError: the file cannot be read, is truncated, or has 32-bit values, whose range nobody can know.
    """
    with _opened(source, name) as image:
        return np.ascontiguousarray(_to_rgb(image, _name(source, name)))


def read_mask(source: Path | bytes, name: str | None = None) -> NDArray[np.bool_]:
    """Return the mask as (H, W) bool, True where the defect is: any value but 0, any colour but black.

    Transparent pixels are no defect. The EXIF orientation is applied as in :func:`read_picture`.

    Raises:
        DataError: the file cannot be read or is truncated.
    """
    return np.asarray(read_mask_values(source, name) != 0)


def read_mask_values(source: Path | bytes, name: str | None = None) -> NDArray[np.int64]:
    """Return a mask's values, (H, W) int64: grey levels, or the brightest channel of colours.

    Raises:
        DataError: the file cannot be read or is truncated.
    """
    with _opened(source, name) as image:
        return _mask_values(image)


def traits(source: Path | bytes) -> tuple[str, ...]:
    """Return what is uncommon about the file and is handled: from its header alone; empty if unreadable."""
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            found = {
                "16-bit grey, read as value / 257": image.mode in _SIXTEEN,
                "with a palette, read as its colours": image.mode == "P",
                "partly transparent, laid over white": image.has_transparency_data,
                "turned as their EXIF orientation says": image.getexif().get(_ORIENTATION, 1) != 1,
                "of several frames, the first is read": getattr(image, "n_frames", 1) > 1,
                "CMYK, read as RGB": image.mode == "CMYK",
            }
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError):
        return ()
    return tuple(text for text, holds in found.items() if holds)


def resize_picture(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the picture squashed to (size, size, 3): bilinear, antialiased, the aspect ratio not kept."""
    if picture.shape[:2] == (size, size):
        return picture
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).copy()


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Return the mask as (size, size) bool: the nearest pixel's value.

    A mask with a defect never comes out empty: if nearest pixels miss all of it, the target pixel that the
    defect's pixel nearest to its centre falls into is set.
    """
    height, width = mask.shape
    rows = ((np.arange(size) + 0.5) * height / size).astype(np.int64)
    columns = ((np.arange(size) + 0.5) * width / size).astype(np.int64)
    small = np.asarray(mask[rows[:, None], columns[None, :]])
    if mask.any() and not small.any():
        where = np.argwhere(mask)
        row, column = where[np.argmin(((where - where.mean(axis=0)) ** 2).sum(axis=1))]
        small[row * size // height, column * size // width] = True
    return small


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Return the mask as a PNG of one bit a pixel (a reader sees 0 and 255).

    Written by hand and not compressed: the bytes, and so the digest of the data, are the same with every
    build of zlib, which Pillow's are not.
    """
    height, width = mask.shape
    rows = np.packbits(mask, axis=1)
    raw = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()
    blocks = [raw[start : start + 65535] for start in range(0, len(raw), 65535)]
    body = b"".join(
        struct.pack("<BHH", index == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for index, block in enumerate(blocks)
    )
    data = b"\x78\x01" + body + struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _name(source: Path | bytes, name: str | None) -> str:
    return name or (str(source) if isinstance(source, Path) else "picture")


@contextmanager
def _opened(source: Path | bytes, name: str | None) -> Iterator[Image.Image]:
    """Yield the first frame, loaded whole and turned; every fault of the file becomes a DataError."""
    tolerant = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # other libraries set it, and grey bars would become data
    try:
        with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
            image.load()
            turned = ImageOps.exif_transpose(image)
    except FileNotFoundError as error:
        raise DataError(f"{_name(source, name)}: no such file") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise DataError(
            f"{_name(source, name)}: cannot be read as a picture ({_why(source, error)})"
        ) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
    yield turned


def _why(source: Path | bytes, error: Exception) -> str:
    """Say what is wrong with the file, without repeating its name."""
    size = source.stat().st_size if isinstance(source, Path) and source.is_file() else None
    if size == 0 or source == b"":
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture, or of an unknown kind"
    return str(error) or type(error).__name__


def _to_rgb(image: Image.Image, name: str) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN:
        return _from_sixteen(np.asarray(image).astype(np.int64), name)
    if image.mode == "F":
        raise DataError(f"{name}: 32-bit float values have no fixed range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
        return np.asarray(Image.alpha_composite(white, pixels).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _from_sixteen(values: NDArray[np.int64], name: str) -> NDArray[np.uint8]:
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise DataError(f"{name}: 32-bit values have no fixed range: save it with 8 or 16 bits")
    grey = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _mask_values(image: Image.Image) -> NDArray[np.int64]:
    if image.mode == "P":
        return _palette_values(image)
    if image.mode in ("RGBA", "LA", "PA"):
        pixels = np.asarray(image.convert("RGBA")).astype(np.int64)
        return np.asarray(pixels[..., :3].max(axis=2) * (pixels[..., 3] > 0))
    if image.mode == "1":
        return np.where(np.asarray(image), 255, 0).astype(np.int64)
    if image.mode == "L" or image.mode in _SIXTEEN:
        return np.asarray(image).astype(np.int64)
    if image.mode == "F":
        return np.asarray(np.ceil(np.abs(np.asarray(image))), np.int64)
    return np.asarray(np.asarray(image.convert("RGB")).astype(np.int64).max(axis=2))


def _palette_values(image: Image.Image) -> NDArray[np.int64]:
    """Return colours' brightest channel; the indices where every colour is black (label images)."""
    colours = np.asarray(image.convert("RGB")).astype(np.int64).max(axis=2)
    return colours if colours.any() else np.asarray(image).astype(np.int64)
