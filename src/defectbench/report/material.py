"""What the report shows of single images: pictures, masks and heat maps, as far as they can be had."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.collect import Collected
from defectbench.data.gallery import Gallery
from defectbench.errors import DataError, MissingInputError
from defectbench.overlays import HeatMaps
from defectbench.pictures import resize_mask
from defectbench.pixels import explain_centre
from defectbench.report.overlays import Shown, show, show_heat, show_truth
from defectbench.report.rows import Mistake, Reference
from defectbench.results import read_file
from defectbench.stores.base import Store

_REFERENCE_SIDE = 256


@dataclass(frozen=True, slots=True)
class Panels:
    """A mistake's pictures; where one is None, its note says why.

    Attributes:
        picture: the part as the model got it.
        heat: the heat map over it.
        truth: where the defect is.
    """

    picture: Shown | None
    heat: Shown | None
    truth: Shown | None
    picture_note: str = ""
    heat_note: str = ""
    truth_note: str = ""


class Material:
    """Pictures and heat maps of a sweep; what is missing gives a note, never an error.

    Args:
        cache: folder of this machine where archives are unpacked.
    """

    def __init__(self, collected: Collected, store: Store, cache: Path) -> None:
        self._collected, self._store, self._cache = collected, store, cache
        self._data: dict[str, Gallery | str] = {}
        self._heat: dict[str, HeatMaps | str] = {}

    def panels(self, mistake: Mistake) -> Panels:
        """Return what can be shown of an image."""
        data = self._open(mistake.category)
        if isinstance(data, str):
            return Panels(None, None, None, data, data, data)
        try:
            picture = data.picture(mistake.image_id)
        except DataError as error:
            return Panels(None, None, None, *[f"picture cannot be read: {error}"] * 3)
        heat, heat_note = self._heat_panel(mistake, picture)
        truth, truth_note = _truth_panel(mistake, picture, data)
        return Panels(show(picture), heat, truth, "", heat_note, truth_note)

    def reference(self, category: str, tested: Sequence[str]) -> Reference | None:
        """Return what the tested defects' masks give a map that knows nothing; None without masks.

        The masks are brought to 256 px first: areas and the centre's figures stay the same to about 1 %.
        """
        data = self._open(category)
        if isinstance(data, str):
            return None
        masks = [mask for name in tested if (mask := data.mask(name)) is not None]
        if not masks:
            return None
        found = [explain_centre(resize_mask(mask, _REFERENCE_SIDE)) for mask in masks]
        names = ("pixel_auroc", "pixel_ap", "pointing_hit", "iou", "chance")
        return Reference(
            category,
            len(found),
            *(float(np.nanmean([getattr(one, name) for one in found])) for name in names),
        )

    def _open(self, category: str) -> Gallery | str:
        """Return the category's files, or why there are none."""
        if category not in self._data:
            self._data[category] = self._unpack(category)
        return self._data[category]

    def _unpack(self, category: str) -> Gallery | str:
        record = self._collected.record
        try:
            digest = record.digests[category]
            return Gallery.open(self._store, record.dataset, category, digest, self._cache)
        except MissingInputError:
            return "the pictures are no longer in the store"
        except DataError as error:
            return f"the pictures cannot be read: {error.problems[0]}"

    def _heat_panel(self, mistake: Mistake, picture: NDArray[np.uint8]) -> tuple[Shown | None, str]:
        if mistake.cell not in self._heat:
            self._heat[mistake.cell] = self._heat_maps(mistake.cell)
        maps = self._heat[mistake.cell]
        if isinstance(maps, str):
            return None, maps
        if mistake.image_id not in maps.maps:
            return None, "no heat map of this image was kept"
        return show_heat(picture, maps.maps[mistake.image_id], maps.low, maps.high), ""

    def _heat_maps(self, cell: str) -> HeatMaps | str:
        result = self._collected.results[cell]
        if result.file("heatmaps.npz") is None:
            return "this cell kept no heat maps"
        try:
            return HeatMaps.read(read_file(self._store, result, "heatmaps.npz"))
        except (DataError, MissingInputError) as error:
            return f"heat map cannot be read: {error}"


def _truth_panel(mistake: Mistake, picture: NDArray[np.uint8], data: Gallery) -> tuple[Shown | None, str]:
    if mistake.kind == "false alarm":
        return None, "good part: no defect to mark"
    mask = data.mask(mistake.image_id)
    return (None, "this defect has no mask") if mask is None else (show_truth(picture, mask), "")
