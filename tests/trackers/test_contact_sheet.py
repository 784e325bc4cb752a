from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.gallery import Gallery
from defectbench.errors import DataError, MissingInputError
from defectbench.records.result import Result, find_result, read_file, read_predictions
from defectbench.stores.directory import DirectoryStore
from defectbench.trackers.contact_sheet import CAPTION, COLUMNS, SIDE, contact_sheet
from defectbench.util.overlays import fitted
from fakes import made_up_sweep


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def result(store: DirectoryStore) -> Result:
    record = made_up_sweep(store, categories=("grass",), models=("padim",), heat_maps=True)
    found = find_result(store, next(iter(record.cells)))
    assert found is not None
    return found


def opened(store: DirectoryStore, result: Result, cache: Path) -> Gallery:
    return Gallery.open(store, result.dataset, result.category, result.data_digest, cache)


def drawn(store: DirectoryStore, result: Result, gallery: Gallery | None) -> NDArray[np.int64]:
    maps, predictions = read_file(store, result, "heatmaps.npz"), read_predictions(store, result)
    with Image.open(io.BytesIO(contact_sheet(maps, predictions, gallery))) as image:
        return np.asarray(image).astype(np.int64)


def test_sheet_shows_each_picture_with_its_defect_and_with_its_heat(
    store: DirectoryStore, result: Result, tmp_path: Path
) -> None:
    gallery = opened(store, result, tmp_path / "cache")
    sheet = drawn(store, result, gallery)
    assert sheet.shape == (3 * (SIDE + CAPTION), COLUMNS * (2 * SIDE + 8), 3)
    rows = sorted(read_predictions(store, result).of_role("held_out").rows(), key=lambda row: -row.score)
    good = next(row for row in rows if not row.label)
    top = 2 * (SIDE + CAPTION)
    picture = fitted(gallery.picture(good.image_id), SIDE)
    np.testing.assert_array_equal(sheet[top : top + SIDE, :SIDE], picture)
    heat = sheet[top : top + SIDE, SIDE : 2 * SIDE]
    assert not np.array_equal(heat, picture)
    marked = sheet[:SIDE, :SIDE]  # the defect with the highest score: its true place in a strong red
    assert ((marked[..., 0] - marked[..., 1]) > 80).any()


def test_sheet_without_pictures_shows_the_maps_alone(store: DirectoryStore, result: Result) -> None:
    assert drawn(store, result, None).shape == (3 * (SIDE + CAPTION), COLUMNS * (SIDE + 4), 3)


def test_gallery_names_what_it_lacks(store: DirectoryStore, result: Result, tmp_path: Path) -> None:
    gallery = opened(store, result, tmp_path / "cache")
    with pytest.raises(DataError, match="grass has no image 'none'"):
        gallery.picture("none")
    with pytest.raises(MissingInputError):
        Gallery.open(store, result.dataset, result.category, "0" * 64, tmp_path / "other")
