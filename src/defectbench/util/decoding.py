"""Pillow under our terms: decoders named one by one, a limit of pixels, every fault one line."""

from __future__ import annotations

import io
import math
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from defectbench.errors import ConfigurationError, DataError, DefectbenchError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Pillow's names of the only decoders that read a picture, whatever its name ends with."""

MAX_PIXELS = 200_000_000
"""Pixels of the largest picture that is decoded unless DEFECTBENCH_MAX_PIXELS says otherwise."""

UNLIMITED = math.inf
"""As a limit: for pictures that an import has let in already."""

ORIENTATION = 0x0112
"""The EXIF tag that says how a picture is turned."""

_DEFLATE = 1032
"""By how much zlib's format shortens at most."""

_LIMIT_VARIABLE = "DEFECTBENCH_MAX_PIXELS"


def pixel_limit() -> int:
    """Return $DEFECTBENCH_MAX_PIXELS, else :data:`MAX_PIXELS`; ConfigurationError for no number."""
    text = os.environ.get(_LIMIT_VARIABLE, "")
    if not text:
        return MAX_PIXELS
    if not text.isdecimal() or not int(text[:20]):
        raise ConfigurationError(f"{_LIMIT_VARIABLE} is {text!r}; allowed: a number of pixels, or unset")
    return int(text[:20])


def name_of(source: Path | bytes, name: str | None) -> str:
    """Return what messages call the picture."""
    return name or (str(source) if isinstance(source, Path) else "picture")


def stream(source: Path | bytes) -> Path | io.BytesIO:
    """Return what Pillow opens."""
    return source if isinstance(source, Path) else io.BytesIO(source)


_switches = threading.Lock()
_strict_stack = ExitStack()
_strict_readers = 0


@contextmanager
def strict() -> Iterator[None]:
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
    warnings.filterwarnings("always", module=r"PIL\.")
    warnings.showwarning = partial(_note_warning, warnings.showwarning)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None


def _note_warning(
    show: Callable[..., None], message: Warning | str, category: type[Warning], filename: str, *rest: Any
) -> None:
    """Keep that Pillow warned of the file which this thread reads; show the warnings of others."""
    if Path(filename).parent.name == "PIL":
        _warned.ever = True
    else:
        show(message, category, filename, *rest)


class _Warned(threading.local):
    ever = False


_warned = _Warned()


@contextmanager
def opened(source: Path | bytes, name: str | None, limit: float | None) -> Iterator[Image.Image]:
    """Yield the first frame, loaded whole and turned; every fault of the file, met by then or by the
    caller's conversions, becomes a DataError.

    What only the file as it was stored tells lies in ``info``: its ``format`` and ``raw_mode``, and whether
    it was ``turned``, has several ``frames`` or ``damaged`` metadata.
    """
    most = pixel_limit() if limit is None else limit
    _warned.ever = False
    try:
        with strict(), Image.open(stream(source), formats=FORMATS) as image:
            _check_size(image, most, name_of(source, name))
            kind, raw = image.format, raw_mode(image)
            if kind == "PNG" and _is_too_short(source):
                raise ValueError("its pixels end early")
            image.load()
            if kind == "PNG" and not _is_whole_png(image, source):
                raise ValueError("its pixels end early")
            orientation = image.getexif().get(ORIENTATION, 1)
            turned = ImageOps.exif_transpose(image) if orientation != 1 else image
            told: dict[str | tuple[int, int], object] = {
                "raw_mode": raw,
                "frames": _has_frames(image),
                "damaged": _warned.ever,
            }
            turned.info |= {"format": kind, "turned": orientation != 1, **told}
            yield turned
    except FileNotFoundError as error:
        raise DataError(f"{name_of(source, name)}: no such file") from error
    except DefectbenchError:
        raise
    except Exception as error:  # a decoder raises whatever the bytes lead it to
        raise DataError(
            f"{name_of(source, name)}: cannot be read as a picture ({_why(source, error)})"
        ) from error


def _has_frames(image: Image.Image) -> bool:
    """Whether the file holds a frame behind the first, as far as it can be followed."""
    try:
        return bool(getattr(image, "n_frames", 1) > 1)
    except Exception:  # a broken chain of frames: the first, which is read, is whole
        return False


def raw_mode(image: Image.Image) -> str:
    """Return how the file of a picture that is not loaded yet lays its values out: ``RGB;16B``."""
    tiles = getattr(image, "tile", ())
    arguments = tiles[0].args if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _check_size(image: Image.Image, limit: float, name: str) -> None:
    width, height = image.size
    if width * height > limit:
        raise DataError(
            f"{name}: {width} x {height} = {width * height:,} pixels, more than {int(limit):,}: cut it into "
            f"parts, or set {_LIMIT_VARIABLE} higher (each pixel takes up to 8 bytes of memory)"
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


def _is_too_short(source: Path | bytes) -> bool:
    """Whether no compression brings a PNG's pixels into so short a file: found before memory is taken."""
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if isinstance(source, bytes):
        head = source[:29]
    else:
        with source.open("rb") as file:
            head = file.read(29)
    return _png_bytes(head) > _DEFLATE * size


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
