"""Heat maps and masks laid over pictures, for the report and for the tracker."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.errors import DataError

Picture = NDArray[np.uint8]
"""(h, w, 3), RGB."""

_TINT = (230, 30, 120)
_STRONGEST = 0.8
"""Opacity of the hottest pixel."""


_LARGEST = 1 << 30
"""Bytes of a cell's unpacked heat maps: eight thousand images."""

_UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, MemoryError, OverflowError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, SyntaxError, struct.error),
)
"""What zipfile and numpy raise on a damaged file."""


@dataclass(frozen=True)
class HeatMaps:
    """The heat maps that a cell kept, on one scale for all its images.

    Attributes:
        maps: image id -> (h, w) float16 from 0 to 1.
        low, high: what is drawn as cold and as hottest: the median and the 99 % quantile of all its pixels.
    """

    maps: Mapping[str, NDArray[np.float16]]
    low: float
    high: float

    @classmethod
    def read(cls, data: bytes) -> HeatMaps:
        """Read ``heatmaps.npz``: ``ids`` (n,) and ``maps`` (n, h, w).

        Raises:
            DataError: it is no such file.
        """
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as members:
                size = sum(member.file_size for member in members.infolist())
            if size > _LARGEST:
                raise DataError(f"heatmaps.npz: unpacks to {size} bytes, {_LARGEST} are allowed")
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                ids, maps = file["ids"], file["maps"]
        except _UNREADABLE as error:
            raise DataError(f"not a heatmaps.npz: {error}") from error
        if maps.dtype.kind != "f" or ids.dtype.kind != "U":
            raise DataError(f"heatmaps.npz: ids are {ids.dtype} and maps {maps.dtype}")
        if maps.ndim != 3 or ids.shape != maps.shape[:1] or not maps.size:
            raise DataError(f"heatmaps.npz: ids {ids.shape} and maps {maps.shape} do not fit")
        low, high = np.quantile(maps.astype(np.float32), (0.5, 0.99))
        return cls(dict(zip(ids.tolist(), maps, strict=True)), float(low), float(high))


def fitted(picture: Picture, side: int) -> Picture:
    """Return the picture with ``side`` pixels along its longer side."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size, method))


def heat_over(picture: Picture, heat: NDArray[np.float16], low: float, high: float) -> Picture:
    """Return the heat map over the picture: the hotter, the less of the picture shows through.

    Args:
        heat: (h, w), any size; covers the whole picture.
        low, high: what is drawn as cold and as hottest.
    """
    from matplotlib import colormaps

    base = picture.astype(np.float32)
    level = np.clip((heat.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    level = _stretch(level, base.shape[:2])[:, :, None]
    colour = np.asarray(colormaps["inferno"](0.25 + 0.62 * level[:, :, 0]))[:, :, :3] * 255
    grey = base.mean(axis=2, keepdims=True)
    laid: Picture = (grey * (1 - _STRONGEST * level) + colour * _STRONGEST * level).astype(np.uint8)
    return laid


def truth_over(picture: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Return the picture in pale grey with the defect's pixels in one strong colour.

    Args:
        mask: (h, w), any size; covers the whole picture.
    """
    base = picture.astype(np.float32)
    share = _stretch(mask.astype(np.float32), base.shape[:2])[:, :, None]
    # A hair-thin scratch must not vanish in a small picture: whatever holds part of it is marked.
    share = np.where(share > 0, np.maximum(share, 0.6), 0)
    grey = 110 + base.mean(axis=2, keepdims=True) * 0.5
    marked: Picture = (grey * (1 - share) + np.array(_TINT) * share).astype(np.uint8)
    return marked


def _stretch(values: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    from PIL import Image

    resized = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)
