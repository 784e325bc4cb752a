"""Picture files to arrays, the same way everywhere: as a viewer would show them, never scaled per image.

How Pillow is held to that: :mod:`defectbench.util.decoding`.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.errors import DataError, DefectbenchError, UsageError
from defectbench.util.decoding import (
    FORMATS,
    UNLIMITED,
    name_of,
    opened,
    raw_mode,
    stream,
    strict,
)

__all__ = [
    "FULL",
    "SUFFIXES",
    "UNLIMITED",
    "Depth",
    "Intensity",
    "Values",
    "depth",
    "is_picture",
    "is_plain_mask",
    "mask_png",
    "overview",
    "read_mask",
    "read_mask_values",
    "read_picture",
    "read_resized",
    "read_values",
    "read_with_traits",
    "resize_mask",
    "resize_picture",
]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings of pictures, compared in lower case."""

Values = NDArray[np.integer[Any]]
Depth = Literal["8", "16", "32", "16-colour", "unreadable"]

_NO_RANGE = "have no fixed range: save it with 8 or 16 bits, or say --intensity window:LOW,HIGH"
_SIXTEEN = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
_LARGE = 1 << 26
_BAND = 1 << 22
"""Pixels of the bands in which a picture is converted: what a conversion needs of memory at once."""


@dataclass(frozen=True, slots=True)
class Intensity:
    """Which values of a grey picture of more than 8 bits become black and white; linear between them.

    Attributes:
        low, high: become 0 and 255.
        clips: values beyond become 0 and 255 too, and 32-bit pictures are read; else both are refused.
    """

    low: float
    high: float
    clips: bool = False

    @classmethod
    def of_bits(cls, bits: int) -> Intensity:
        """Return the whole range of a camera of so many bits."""
        return cls(0, 2**bits - 1)

    @classmethod
    def parse(cls, text: str) -> Intensity:
        """Read ``bits:12`` or ``window:100,3000``, as :attr:`text` writes them.

        Raises:
            UsageError: it is neither, or the window is empty.

        >>> Intensity.parse("window:100,3000")
        Intensity(low=100, high=3000, clips=True)
        """
        if found := re.fullmatch(r"bits:(\d{1,2})", text):
            return cls.of_bits(int(found[1]))
        try:
            kind, low, high = re.fullmatch(r"(window):([^,]+),([^,]+)", text).groups()  # type: ignore[union-attr]
            window = cls(_number(low), _number(high), clips=kind == "window")
        except (AttributeError, ValueError):
            window = cls(0, 0)
        if not window.low < window.high:
            raise UsageError(
                f"intensity {text!r}: allowed: auto, or window:LOW,HIGH with two numbers, LOW below HIGH, "
                "as in window:0,4095"
            )
        return window

    @property
    def text(self) -> str:
        """What :meth:`parse` reads."""
        if self.clips:
            return f"window:{self.low},{self.high}"
        return f"bits:{int(self.high).bit_length()}"

    @property
    def words(self) -> str:
        """What becomes of values, for people."""
        if self == FULL:
            return "read as value / 257"
        return f"{self.low} to {self.high} become 0 to 255" + (", others are clipped" if self.clips else "")

    def applied(self, values: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Return values of any shape as uint8, rounded.

        Raises:
            DataError: some lie beyond the scale and it does not clip, or are no numbers.
        """
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        if not math.isfinite(low) or not math.isfinite(high):
            raise DataError(f"{name}: holds values that are no finite numbers")
        if not self.clips and (low < self.low or high > self.high):
            raise DataError(f"{name}: {self._beyond(low, high)}")
        if values.dtype == np.uint16:
            return np.asarray(self._scaled(np.arange(65536))[values], np.uint8)
        return self._scaled(values)

    def _scaled(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        shares = (values.astype(np.float64) - self.low) * (255 / (self.high - self.low))
        return np.asarray(np.floor(np.clip(shares, 0, 255) + 0.5), np.uint8)

    def _beyond(self, low: float, high: float) -> str:
        if self == FULL:
            return f"32-bit values {_NO_RANGE}"
        return (
            f"holds values from {low:g} to {high:g}, beyond the {self.low} to {self.high} of the other "
            "pictures: save it as they are"
        )


def _number(text: str) -> float:
    """Return the finite number, an int where it is whole; ValueError else."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return int(value) if value.is_integer() else value


FULL = Intensity(0, 65535)
"""The scale of 16 bits, which divides by 257: of every data set whose values need 16 bits."""


def is_picture(path: Path) -> bool:
    """Whether the name ends as a picture's does; hidden files (``._000.png``) are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_picture(
    source: Path | bytes, name: str | None = None, intensity: Intensity = FULL, limit: float | None = None
) -> NDArray[np.uint8]:
    """Return the picture as (H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Grey becomes three equal channels, a palette its colours. Transparent pixels are laid over white, as a
    browser shows them. Grey of more than 8 bits is brought to 8 by a scale that is fixed for the data set,
    because one taken from the image would change its brightness from file to file. Of several frames the
    first. Memory: at most 8 bytes a pixel.

    Args:
        name: what an error message calls the picture; the path by default.
        intensity: the scale of grey of more than 8 bits.
        limit: pixels; :func:`defectbench.util.decoding.pixel_limit` by default.

    Raises:
        DataError: the file cannot be read, is truncated or too large, or has values beyond the scale.
    """
    with opened(source, name, limit) as image:
        return _pixels(image, intensity, name_of(source, name))


def read_with_traits(
    source: Path | bytes, intensity: Intensity = FULL
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return what :func:`read_picture` does, and what is uncommon about the file and was handled.

    Raises:
        DataError: as :func:`read_picture`.
    """
    with opened(source, None, None) as image:
        return _pixels(image, intensity, name_of(source, None)), _traits(image, intensity)


def _pixels(image: Image.Image, intensity: Intensity, name: str) -> NDArray[np.uint8]:
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top, band in _bands(image):
        rows = np.asarray(_shown(band, intensity, name))
        pixels[top : top + band.height] = rows if rows.ndim == 3 else rows[:, :, None]
    return pixels


def _traits(image: Image.Image, intensity: Intensity) -> tuple[str, ...]:
    found = {
        f"16-bit grey, {intensity.words}": image.mode in _SIXTEEN,
        f"32-bit grey, {intensity.words}": image.mode == "F",
        "of 16-bit colours, read by their upper 8 bits": (
            "16" in image.info["raw_mode"] and image.mode not in _SIXTEEN
        ),
        "with a palette, read as its colours": image.mode == "P",
        "partly transparent, laid over white": image.has_transparency_data,
        "turned as their EXIF orientation says": image.info["turned"],
        "of several frames, the first is read": image.info["frames"],
        "CMYK, read as RGB": image.mode == "CMYK",
        "with damaged metadata, read without it": image.info["damaged"],
    }
    return tuple(text for text, holds in found.items() if holds)


def read_resized(
    source: Path | bytes,
    size: int,
    name: str | None = None,
    intensity: Intensity = FULL,
    limit: float | None = None,
) -> NDArray[np.uint8]:
    """Return what :func:`resize_picture` makes of :func:`read_picture`, to the last bit, in less memory.

    At most 4 bytes a pixel, 8 where some are transparent: grey is never tripled at full size.
    """
    with opened(source, name, limit) as image:
        shown = _whole(image, intensity, name_of(source, name))
        if shown.size != (size, size):
            shown = shown.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.array(shown)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def read_values(source: Path | bytes, name: str | None = None, limit: float | None = None) -> NDArray[Any]:
    """Return the values of a grey picture, (H, W), as the file has them; of colours the brightest channel's.

    Raises:
        DataError: the file cannot be read.
    """
    with opened(source, name, limit) as image:
        values = np.array(image)
        return values if values.ndim == 2 else np.asarray(values.max(axis=2))


def read_mask(source: Path | bytes, name: str | None = None, limit: float | None = None) -> NDArray[np.bool_]:
    """Return the mask as (H, W) bool, True where the defect is: any value but 0, any colour but black.

    Transparent pixels are no defect. The EXIF orientation is applied as in :func:`read_picture`.

    Raises:
        DataError: the file cannot be read or is truncated.
    """
    return np.asarray(read_mask_values(source, name, limit) != 0)


def read_mask_values(source: Path | bytes, name: str | None = None, limit: float | None = None) -> Values:
    """Return a mask's values, (H, W): grey levels, or the brightest channel of colours.

    The type is that of the file's values (uint8 for most), so that a large mask fits into memory.

    Raises:
        DataError: the file cannot be read or is truncated.
    """
    with opened(source, name, limit) as image:
        if image.mode == "P":
            return _palette_values(image)
        return np.concatenate([_mask_values(band) for _, band in _bands(image)])


def is_plain_mask(path: Path) -> bool:
    """Whether a mask's file can be kept as it is: a PNG of 0 and 255, not turned, nothing transparent.

    Raises:
        DataError: the file cannot be read.
    """
    with opened(path, None, None) as image:
        plain = image.info["format"] == "PNG" and image.mode in ("1", "L") and not image.info["turned"]
        if not plain or image.has_transparency_data:
            return False
        return image.mode == "1" or {value for _, value in image.getcolors(256) or ()} <= {0, 255}


def depth(source: Path | bytes) -> Depth:
    """Return how many bits a grey value has, or that colours have 16, from the file's header alone."""
    try:
        with strict(), Image.open(stream(source), formats=FORMATS) as image:
            if "16" in raw_mode(image) and image.mode not in _SIXTEEN:
                return "16-colour"
            return "32" if image.mode in ("I", "F") else "16" if image.mode in _SIXTEEN else "8"
    except DefectbenchError:
        raise
    except Exception:  # read_picture says what is wrong
        return "unreadable"


def resize_picture(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return the picture squashed to (size, size, 3): bilinear, antialiased, the aspect ratio not kept."""
    if picture.shape[:2] == (size, size):
        return picture
    resized = Image.fromarray(picture).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(resized).copy()


def overview(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a very large picture, (H, W, 3), reduced by a whole number to at most 64 million pixels.

    What looks at whole pictures needs no more, and would need several bytes a pixel. Others stay as they are.
    """
    step = math.ceil(math.sqrt(picture.shape[0] * picture.shape[1] / _LARGE))
    return picture if step == 1 else np.ascontiguousarray(picture[::step, ::step])


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


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield (first row, rows of the picture) with at most :data:`_BAND` pixels or one row."""
    width, height = image.size
    rows = max(1, _BAND // max(width, 1))
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _whole(image: Image.Image, intensity: Intensity, name: str) -> Image.Image:
    """Return what :func:`_shown` makes of the picture, made band by band."""
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    whole = Image.new("L" if _is_deep(image) else "RGB", image.size)
    for top, band in _bands(image):
        whole.paste(_shown(band, intensity, name), (0, top))
    return whole


def _shown(image: Image.Image, intensity: Intensity, name: str) -> Image.Image:
    """Return the picture in mode RGB or, grey and opaque, L."""
    if image.mode == "F" and not intensity.clips:
        raise DataError(f"{name}: 32-bit float values {_NO_RANGE}")
    if _is_deep(image):
        return Image.fromarray(intensity.applied(np.asarray(image), name))
    if image.mode == "L" and not image.has_transparency_data:
        return image
    return _opaque(image)


def _is_deep(image: Image.Image) -> bool:
    """Whether the values are grey of more than 8 bits."""
    return image.mode in _SIXTEEN or image.mode == "F"


def _opaque(image: Image.Image) -> Image.Image:
    """Return the picture in mode RGB, laid over white where it is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    pixels = image.convert("RGBA")
    white = Image.new("RGBA", pixels.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, pixels).convert("RGB")


def _mask_values(image: Image.Image) -> Values:
    if image.mode in ("RGBA", "LA", "PA"):
        pixels = np.asarray(image.convert("RGBA"))
        return np.asarray(pixels[..., :3].max(axis=2) * (pixels[..., 3] > 0))
    if image.mode == "1":
        return np.where(np.asarray(image), 255, 0).astype(np.uint8)
    if image.mode == "L" or image.mode in _SIXTEEN:
        return np.array(image)
    if image.mode == "F":
        return np.asarray(np.ceil(np.abs(np.asarray(image))), np.int64)
    return np.asarray(np.asarray(image.convert("RGB")).max(axis=2))


def _palette_values(image: Image.Image) -> Values:
    """Return colours' brightest channel; the indices where every colour is black (label images)."""
    colours = np.concatenate([np.asarray(band.convert("RGB")).max(axis=2) for _, band in _bands(image)])
    return colours if colours.any() else np.array(image)
