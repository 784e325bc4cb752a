"""A contact sheet of heat maps: what a fit found most abnormal, and what it missed."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from defectbench.errors import DataError
from defectbench.predictions import Prediction, Predictions

SIDE, CAPTION, COLUMNS = 176, 30, 4
"""Pixels of a map, of the two lines below it, and maps in a row."""


@dataclass(frozen=True)
class _Tile:
    heat: NDArray[np.float16]
    row: Prediction


def contact_sheet(heat_maps: bytes, predictions: Predictions) -> bytes:
    """Return a PNG: defects with the highest scores, defects with the lowest, goods with the highest.

    Args:
        heat_maps: the file ``heatmaps.npz``: ``ids`` (n,) and ``maps`` (n, h, w) from 0 to 1, on one
            scale for the whole cell.

    Raises:
        DataError: it is no such file.
    """
    from PIL import Image, ImageDraw

    rows = [
        [_Tile(maps, row) for row, maps in chosen]
        for chosen in _choose(_read(heat_maps), predictions)
        if chosen
    ]
    size = (COLUMNS * SIDE, max(len(rows), 1) * (SIDE + CAPTION))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for line, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            place = (column * SIDE, line * (SIDE + CAPTION))
            sheet.paste(Image.fromarray(_colour(tile.heat)).resize((SIDE - 4, SIDE - 4)), place)
            text = f"{tile.row.image_id}\n{tile.row.defect_type}, score {tile.row.score:.4g}"
            draw.multiline_text((place[0] + 2, place[1] + SIDE - 2), text, fill="black", spacing=1)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _read(data: bytes) -> dict[str, NDArray[np.float16]]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return dict(zip(file["ids"].tolist(), file["maps"], strict=True))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"not a heatmaps.npz: {error}") from error


def _choose(
    maps: dict[str, NDArray[np.float16]], predictions: Predictions
) -> Iterator[list[tuple[Prediction, NDArray[np.float16]]]]:
    """Yield three rows of held-out images."""
    rows = sorted(predictions.of_role("held_out").rows(), key=lambda row: (-row.score, row.image_id))
    known = [row for row in rows if row.image_id in maps]
    defects, goods = [row for row in known if row.label], [row for row in known if not row.label]
    missed: Sequence[Prediction] = defects[COLUMNS:][::-1][:COLUMNS]
    for chosen in (defects[:COLUMNS], missed, goods[:COLUMNS]):
        yield [(row, maps[row.image_id]) for row in chosen]


def _colour(heat: NDArray[np.float16]) -> NDArray[np.uint8]:
    from matplotlib import colormaps

    level = np.clip(heat.astype(np.float32), 0, 1)
    return np.asarray(colormaps["inferno"](level)[:, :, :3] * 255).astype(np.uint8)
