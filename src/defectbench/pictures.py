"""Picture files to arrays, the same way everywhere: as a viewer would show them, never scaled per image.

Pillow is told by name which decoders it may try, so that a ``.png`` that is something else is refused. What a
decoder raises becomes one line with the file's name.
"""

from __future__ import annotations

import io
import math
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from defectbench.errors import ConfigurationError, DataError, DefectbenchError, UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings of pictures, compared in lower case."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of the only decoders that read a picture, whatever its name ends with."""

MAX_PIXELS = 200_000_000
"""Pixels of the largest picture that is decoded unless DEFECTBENCH_MAX_PIXELS says otherwise."""

UNLIMITED = math.inf
"""As a limit: for pictures that an import has let in already."""

Values = NDArray[np.integer[Any]]
Depth = Literal["8", "16", "32", "16-colour", "unreadable"]

_LIMIT_VARIABLE = "DEFECTBENCH_MAX_PIXELS"
_ORIENTATION = 0x0112
_SIXTEEN = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N"})
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
            return "value / 257"
        return f"{self.low} to {self.high} as 0 to 255" + (", others clipped" if self.clips else "")

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
            return self._scaled(np.arange(65536))[values]
        return self._scaled(values)

    def _scaled(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        shares = (values.astype(np.float64) - self.low) * (255 / (self.high - self.low))
        return np.floor(np.clip(shares, 0, 255) + 0.5).astype(np.uint8)

    def _beyond(self, low: float, high: float) -> str:
        if self == FULL:
            return "32-bit values have no fixed range: save it with 8 or 16 bits, or say --intensity window:LOW,HIGH"
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


def pixel_limit() -> int:
    """Return $DEFECTBENCH_MAX_PIXELS, else :data:`MAX_PIXELS`; ConfigurationError for no number."""
    text = os.environ.get(_LIMIT_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or not int(text[:20]):
        raise ConfigurationError(f"{_LIMIT_VARIABLE} is {text!r}; allowed: a number of pixels, or unset")
    return int(text[:20])


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
        limit: pixels; :func:`pixel_limit` by default.

    Raises:
        DataError: the file cannot be read, is truncated or too large, or has values beyond the scale.
    """
    with _opened(source, name, limit) as image:
        pixels = np.asarray(_shown(image, intensity, _name(source, name)))
        return np.ascontiguousarray(pixels) if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def read_resized(
    source: Path | bytes,
    size: int,
    name: str | None = None,
    intensity: Intensity = FULL,
    limit: float | None = None,
) -> NDArray[np.uint8]:
    """Return what :func:`resize_picture` makes of :func:`read_picture`, to the last bit, in less memory.

    At most 5 bytes a pixel: grey is never tripled at full size.
    """
    with _opened(source, name, limit) as image:
        shown = _shown(image, intensity, _name(source, name))
        if shown.size != (size, size):
            shown = shown.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.array(shown)
        return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def read_values(source: Path | bytes, name: str | None = None, limit: float | None = None) -> NDArray[Any]:
    """Return the values of a grey picture, (H, W), as the file has them; of colours the brightest channel's.

    Raises:
        DataError: the file cannot be read.
    """
    with _opened(source, name, limit) as image:
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
    with _opened(source, name, limit) as image:
        if image.mode == "P":
            return _palette_values(image)
        return np.concatenate([_mask_values(band) for _, band in _bands(image)])


def is_plain_mask(path: Path) -> bool:
    """Whether a mask's file can be kept as it is: a PNG of 0 and 255, not turned, nothing transparent.

    Raises:
        DataError: the file cannot be read.
    """
    with _opened(path, None, None) as image:
        plain = image.info["format"] == "PNG" and image.mode in ("1", "L") and not image.info["turned"]
        if not plain or image.has_transparency_data:
            return False
        return image.mode == "1" or {value for _, value in image.getcolors(256) or ()} <= {0, 255}


def depth(source: Path | bytes) -> Depth:
    """Return how many bits a grey value has, or that colours have 16, from the file's header alone."""
    try:
        with _strict(), Image.open(_stream(source), formats=FORMATS) as image:
            if "16" in _raw_mode(image) and image.mode not in _SIXTEEN:
                return "16-colour"
            return "32" if image.mode in ("I", "F") else "16" if image.mode in _SIXTEEN else "8"
    except DefectbenchError:
        raise
    except Exception:  # read_picture says what is wrong
        return "unreadable"


def _raw_mode(image: Image.Image) -> str:
    """Return how the file lays its values out, in Pillow's words: ``RGB;16B``."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def traits(source: Path | bytes, intensity: Intensity = FULL) -> tuple[str, ...]:
    """Return what is uncommon about the file and is handled: from its header alone; empty if unreadable."""
    try:
        with _strict(), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with Image.open(_stream(source), formats=FORMATS) as image:
                found = {
                    f"16-bit grey, read as {intensity.words}": image.mode in _SIXTEEN,
                    f"32-bit grey, read as {intensity.words}": image.mode == "F",
                    "of 16-bit colours, read by their upper 8 bits": (
                        "16" in _raw_mode(image) and image.mode not in _SIXTEEN
                    ),
                    "with a palette, read as its colours": image.mode == "P",
                    "partly transparent, laid over white": image.has_transparency_data,
                    "turned as their EXIF orientation says": image.getexif().get(_ORIENTATION, 1) != 1,
                    "of several frames, the first is read": getattr(image, "n_frames", 1) > 1,
                    "CMYK, read as RGB": image.mode == "CMYK",
                }
        found["with damaged metadata, read without it"] = bool(warned)
    except DefectbenchError:
        raise
    except Exception:  # read_picture says what is wrong
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


def _stream(source: Path | bytes) -> Path | io.BytesIO:
    return source if isinstance(source, Path) else io.BytesIO(source)


_switches = threading.Lock()
_strict_stack = ExitStack()
_strict_readers = 0


@contextmanager
def _strict() -> Iterator[None]:
    """Keep Pillow's switches, which the whole process shares, where we need them while any thread reads.

    Other libraries let truncated files through, and grey bars would become data. Pillow's own limit of
    pixels is off, because ours stands in its place; its warnings are no business of the terminal's.
    """
    global _strict_readers
    with _switches:
        _strict_readers += 1
        if _strict_readers == 1:
            _set_switches()
    try:
        yield
    finally:
        with _switches:
            _strict_readers -= 1
            if _strict_readers == 0:
                _strict_stack.close()


def _set_switches() -> None:
    _strict_stack.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    _strict_stack.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    _strict_stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module=r"PIL\.")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None


@contextmanager
def _opened(source: Path | bytes, name: str | None, limit: float | None) -> Iterator[Image.Image]:
    """Yield the first frame, loaded whole and turned; every fault of the file, met by then or by the
    caller's conversions, becomes a DataError."""
    most = pixel_limit() if limit is None else limit
    try:
        with _strict(), Image.open(_stream(source), formats=FORMATS) as image:
            _check_size(image, most, _name(source, name))
            kind = image.format
            image.load()
            if kind == "PNG" and not _is_whole_png(image, source):
                raise DataError(f"{_name(source, name)}: cannot be read as a picture (its pixels end early)")
            orientation = image.getexif().get(_ORIENTATION, 1)
            turned = ImageOps.exif_transpose(image) if orientation != 1 else image
            turned.info |= {"format": kind, "turned": orientation != 1}
            yield turned
    except FileNotFoundError as error:
        raise DataError(f"{_name(source, name)}: no such file") from error
    except DefectbenchError:
        raise
    except Exception as error:  # a decoder raises whatever the bytes lead it to
        raise DataError(
            f"{_name(source, name)}: cannot be read as a picture ({_why(source, error)})"
        ) from error


def _check_size(image: Image.Image, limit: float, name: str) -> None:
    width, height = image.size
    if width * height > limit:
        raise DataError(
            f"{name}: {width} x {height} = {width * height:,} pixels, more than {int(limit):,}: cut it into parts, "
            f"or set {_LIMIT_VARIABLE} higher (each pixel takes up to 8 bytes of memory)"
        )


def _why(source: Path | bytes, error: Exception) -> str:
    """Say in one line what is wrong with the file, without repeating its name."""
    size = source.stat().st_size if isinstance(source, Path) and source.is_file() else None
    if size == 0 or source == b"":
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        return f"not a picture, or of another kind than {', '.join(FORMATS)}"
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__


def _is_whole_png(image: Image.Image, source: Path | bytes) -> bool:
    """Whether the pixels of a loaded PNG reach its end: Pillow takes a stream that ends early for whole.

    Rows that were never written are zero, so only where the last row is, or rows come in passes, the
    stream is measured.
    """
    last = np.asarray(image.crop((0, image.height - 1, image.width, image.height)))
    if last.any() and not image.info.get("interlace"):
        return True
    data = source if isinstance(source, bytes) else source.read_bytes()
    wanted, inflate = _png_bytes(data), zlib.decompressobj()
    for part in _png_parts(data):
        while part and wanted > 0:
            wanted -= len(inflate.decompress(part, 1 << 20))
            part = inflate.unconsumed_tail
    return wanted <= 0


def _png_parts(data: bytes) -> Iterator[bytes]:
    """Yield the pieces of a PNG's compressed pixels."""
    place = 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            yield data[place + 8 : place + 8 + length]
        place += length + 12


def _png_bytes(data: bytes) -> int:
    """Return how many bytes a PNG's pixels have before compression; its header stands at a fixed place."""
    width, height, bits, colours, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    bits *= {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        total += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    return total


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and the steps, of the seven passes of an interlaced PNG."""


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield (first row, rows of the picture) with at most :data:`_BAND` pixels or one row."""
    width, height = image.size
    rows = max(1, _BAND // max(width, 1))
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def _shown(image: Image.Image, intensity: Intensity, name: str) -> Image.Image:
    """Return the picture in mode RGB or, grey and opaque, L."""
    if image.mode in ("L", "RGB") and not image.has_transparency_data:
        return image
    deep = image.mode in _SIXTEEN or image.mode == "F"
    if image.mode == "F" and not intensity.clips:
        raise DataError(
            f"{name}: 32-bit float values have no fixed range: save it with 8 or 16 bits, "
            "or say --intensity window:LOW,HIGH"
        )
    whole = Image.new("L" if deep else "RGB", image.size)
    for top, band in _bands(image):
        shown = Image.fromarray(intensity.applied(np.asarray(band), name)) if deep else _opaque(band)
        whole.paste(shown, (0, top))
    return whole


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
