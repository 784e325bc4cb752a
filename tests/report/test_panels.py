from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from defectbench.errors import DataError
from defectbench.report.panels import SIDE, PanelImage, show, show_heat, show_truth
from defectbench.util.overlays import HeatMaps


def pixels(shown: PanelImage) -> NDArray[np.int64]:
    data = base64.b64decode(shown.uri.removeprefix("data:image/webp;base64,"))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (shown.width, shown.height)
        return np.asarray(image.convert("RGB")).astype(np.int64)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


GREY = np.full((100, 200, 3), 120, np.uint8)


def test_pictures_keep_their_shape() -> None:
    assert pixels(show(GREY)).shape == (SIDE // 2, SIDE, 3)


def test_heat_lies_where_the_map_is_hot() -> None:
    heat = np.zeros((10, 10), np.float16)
    heat[:, 8:] = 1
    shown = pixels(show_heat(GREY, heat, 0, 1))
    assert abs(shown[:, : SIDE // 2] - 120).max() < 12
    assert shown[:, -10:, 0].mean() > 170
    assert shown[:, -10:, 2].mean() < 110


def test_a_hair_thin_defect_stays_visible() -> None:
    mask = np.zeros((1024, 1024), bool)
    mask[:, 511] = True
    shown = pixels(show_truth(np.full((1024, 1024, 3), 120, np.uint8), mask))
    middle = shown[:, SIDE // 2 - 2 : SIDE // 2 + 2]
    assert (middle[:, :, 0] - middle[:, :, 1]).max(axis=1).min() > 40
    assert abs(shown[:, :80, 0] - shown[:, :80, 1]).max() < 8


def test_heat_maps_share_one_scale() -> None:
    maps = np.linspace(0, 1, 3 * 16, dtype=np.float16).reshape(3, 4, 4)
    read = HeatMaps.read(npz(ids=np.array(["test/a/0", "b", "c"]), maps=maps))
    assert list(read.maps) == ["test/a/0", "b", "c"]
    np.testing.assert_array_equal(read.maps["b"], maps[1])
    assert read.low == pytest.approx(0.5, abs=0.02)
    assert read.high == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no npz",
        b"PK\x03\x04 cut short",
        npz(ids=np.array(["a"])),
        npz(ids=np.array(["a"]), maps=np.zeros((2, 4, 4), np.float16)),
        npz(ids=np.array([{"a": 1}], dtype=object), maps=np.zeros((1, 4, 4), np.float16)),
    ],
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"heatmaps\.npz"):
        HeatMaps.read(data)
