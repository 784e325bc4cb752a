"""Pictures of the page: a part, its heat map laid over it, and where the defect truly is, as data URIs."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.util.overlays import Picture, fitted, heat_over, truth_over

SIDE = 208
"""Pixels of the longer side of what is shown."""

_QUALITY = 72


@dataclass(frozen=True, slots=True)
class PanelImage:
    """A picture in the page.

    Attributes:
        uri: the WebP file as a data URI.
        width, height: in pixels.
    """

    uri: str
    width: int
    height: int


def show(picture: Picture) -> PanelImage:
    """Return the picture, shrunk to :data:`SIDE`."""
    return _encode(fitted(picture, SIDE))


def show_heat(picture: Picture, heat: NDArray[np.float16], low: float, high: float) -> PanelImage:
    """Return the heat map over the picture; see :func:`defectbench.util.overlays.heat_over`."""
    return _encode(heat_over(fitted(picture, SIDE), heat, low, high))


def show_truth(picture: Picture, mask: NDArray[np.bool_]) -> PanelImage:
    """Return the picture with the defect marked; see :func:`defectbench.util.overlays.truth_over`."""
    return _encode(truth_over(fitted(picture, SIDE), mask))


def _encode(picture: Picture) -> PanelImage:
    """Return a picture as a WebP data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=_QUALITY, method=6)
    text = base64.b64encode(buffer.getvalue()).decode()
    return PanelImage(f"data:image/webp;base64,{text}", picture.shape[1], picture.shape[0])
