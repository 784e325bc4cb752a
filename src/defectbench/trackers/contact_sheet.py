"""A contact sheet (one picture of many small ones) of heat maps: most abnormal, and missed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from defectbench.data.gallery import Gallery
from defectbench.records.predictions import PredictionRow, Predictions
from defectbench.util.overlays import HeatMaps, Picture, fitted, heat_over, truth_over

SIDE, CAPTION, COLUMNS = 176, 30, 4
"""Pixels of a picture, of the two lines below it, and images in a row."""

_GAP = 4


def contact_sheet(heat_maps: bytes, predictions: Predictions, gallery: Gallery | None) -> bytes:
    """Return a PNG: defects with the highest scores, defects with the lowest, goods with the highest.

    Each image is shown twice: with its true defect marked, and with the heat map laid over it.

    Args:
        heat_maps: the file ``heatmaps.npz``.
        gallery: the pictures; None where they can no longer be had: then the maps are shown alone.

    Raises:
        DataError: it is no such file, or a picture cannot be read.
    """
    from PIL import Image, ImageDraw

    maps = HeatMaps.read(heat_maps)
    lines = [line for line in _choose(maps.maps, predictions) if line]
    width = (SIDE + _GAP) * (2 if gallery else 1)
    sheet = Image.new("RGB", (COLUMNS * width, max(len(lines), 1) * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for down, line in enumerate(lines):
        for across, row in enumerate(line):
            left, top = across * width, down * (SIDE + CAPTION)
            for place, panel in enumerate(_panels(row, maps, gallery)):
                sheet.paste(Image.fromarray(panel), (left + place * SIDE, top))
            text = f"{row.image_id}\n{row.defect_type}, score {row.score:.4g}"
            draw.multiline_text((left + 2, top + SIDE + 2), text, fill="black", spacing=1)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _panels(row: PredictionRow, maps: HeatMaps, gallery: Gallery | None) -> list[Picture]:
    """Return the image with its defect marked and with its heat; without pictures the map alone."""
    heat = maps.maps[row.image_id]
    if gallery is None:
        blank = np.zeros((SIDE, SIDE, 3), np.uint8)
        return [heat_over(blank, heat, maps.low, maps.high)]
    picture = fitted(gallery.picture(row.image_id), SIDE)
    mask = gallery.mask(row.image_id)
    left = picture if mask is None else truth_over(picture, mask)
    return [left, heat_over(picture, heat, maps.low, maps.high)]


def _choose(
    maps: Mapping[str, NDArray[np.float16]], predictions: Predictions
) -> Iterator[Sequence[PredictionRow]]:
    """Yield three rows of held-out images."""
    rows = sorted(predictions.of_role("held_out").rows(), key=lambda row: (-row.score, row.image_id))
    known = [row for row in rows if row.image_id in maps]
    defects, goods = [row for row in known if row.label], [row for row in known if not row.label]
    yield defects[:COLUMNS]
    yield defects[COLUMNS:][::-1][:COLUMNS]
    yield goods[:COLUMNS]
