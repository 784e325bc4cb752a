"""What the report shows of single images: pictures, masks and heat maps, as far as they can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.data.gallery import Gallery
from defectbench.errors import DataError, MissingInputError
from defectbench.metrics.pixel import MapFigures, explain_centre
from defectbench.records.result import read_file
from defectbench.report.panels import PanelImage, show, show_heat, show_truth
from defectbench.stores.base import Store
from defectbench.tables.collect import Collected
from defectbench.tables.rows import MistakeRow, ReferenceRow
from defectbench.util.image_io import resize_mask
from defectbench.util.overlays import HeatMaps

_REFERENCE_SIDE = 256


@dataclass(frozen=True, slots=True)
class MistakePanels:
    """A mistake's pictures; where one is None, its note says why.

    Attributes:
        picture: the part as the model got it.
        heat: the heat map over it.
        truth: where the defect is.
    """

    picture: PanelImage | None
    heat: PanelImage | None
    truth: PanelImage | None
    picture_note: str = ""
    heat_note: str = ""
    truth_note: str = ""


@dataclass(frozen=True, slots=True)
class MapComparison:
    """One defect, and the heat maps of several models over it: each a picture, or why there is none."""

    picture: PanelImage
    truth: PanelImage
    heats: tuple[tuple[PanelImage | None, str], ...]


class Evidence:
    """Pictures and heat maps of a sweep; what is missing gives a note, never an error.

    Args:
        cache: folder of this machine where archives are unpacked.
    """

    def __init__(self, collected: Collected, store: Store, cache: Path) -> None:
        self._collected, self._store, self._cache = collected, store, cache
        self._data: dict[str, Gallery | str] = {}
        self._heat: dict[str, HeatMaps | str] = {}
        self._centre: dict[str, Mapping[str, MapFigures]] = {}

    def panels(self, mistake: MistakeRow) -> MistakePanels:
        """Return what can be shown of an image."""
        data = self._open(mistake.category)
        if isinstance(data, str):
            return MistakePanels(None, None, None, data, data, data)
        try:
            picture = data.picture(mistake.image_id)
        except DataError as error:
            return MistakePanels(None, None, None, *[f"picture cannot be read: {error}"] * 3)
        heat, heat_note = self._heat_panel(mistake.cell, mistake.image_id, picture)
        truth, truth_note = _truth_panel(mistake, picture, data)
        return MistakePanels(show(picture), heat, truth, "", heat_note, truth_note)

    def reference(self, category: str, tested: Sequence[str]) -> ReferenceRow | None:
        """Return what the tested defects' masks give a map that knows nothing; None without masks.

        The masks are brought to 256 px first: areas and the centre's figures stay the same to about 1 %.
        """
        centres = self._centres(category)
        found = [centres[name] for name in tested if name in centres]
        if not found:
            return None
        names = ("pixel_auroc", "pixel_ap", "pointing_hit", "iou", "chance")
        return ReferenceRow(
            category,
            len(found),
            *(float(np.nanmean([getattr(one, name) for one in found])) for name in names),
        )

    def areas(self, category: str) -> Mapping[str, float]:
        """Return the share of the picture that is defect, by image id; empty where there are no masks."""
        return {name: one.chance for name, one in self._centres(category).items()}

    def pair(self, category: str, image_id: str, cells: Sequence[str]) -> MapComparison | None:
        """Return one defect with the heat maps of several cells; None where picture or mask cannot be had."""
        data = self._open(category)
        if isinstance(data, str):
            return None
        try:
            picture, mask = data.picture(image_id), data.mask(image_id)
        except DataError:
            return None
        if mask is None:
            return None
        heats = tuple(self._heat_panel(cell, image_id, picture) for cell in cells)
        return MapComparison(show(picture), show_truth(picture, mask), heats)

    def _centres(self, category: str) -> Mapping[str, MapFigures]:
        """Return what the centre prior gets on each mask of the category, read once."""
        if category not in self._centre:
            data = self._open(category)
            self._centre[category] = {
                name: explain_centre(resize_mask(mask, _REFERENCE_SIDE))
                for name, mask in (() if isinstance(data, str) else _masks(data))
            }
        return self._centre[category]

    def _open(self, category: str) -> Gallery | str:
        """Return the category's files, or why there are none."""
        if category not in self._data:
            self._data[category] = self._unpack(category)
        return self._data[category]

    def _unpack(self, category: str) -> Gallery | str:
        """Return the category's files, unpacked, or why there are none."""
        record = self._collected.record
        try:
            digest = record.digests[category]
            return Gallery.open(self._store, record.dataset, category, digest, self._cache)
        except MissingInputError:
            return "the pictures are no longer in the store"
        except DataError as error:
            return f"the pictures cannot be read: {error.problems[0]}"

    def _heat_panel(
        self, cell: str, image_id: str, picture: NDArray[np.uint8]
    ) -> tuple[PanelImage | None, str]:
        """Return an image's heat map over its picture, or None and why."""
        if cell not in self._heat:
            self._heat[cell] = self._heat_maps(cell)
        maps = self._heat[cell]
        if isinstance(maps, str):
            return None, maps
        if image_id not in maps.maps:
            return None, "no heat map of this image was kept"
        return show_heat(picture, maps.maps[image_id], maps.low, maps.high), ""

    def _heat_maps(self, cell: str) -> HeatMaps | str:
        """Return the cell's heat maps, or why there are none."""
        result = self._collected.results[cell]
        if result.file("heatmaps.npz") is None:
            return "this cell kept no heat maps"
        try:
            return HeatMaps.read(read_file(self._store, result, "heatmaps.npz"))
        except (DataError, MissingInputError) as error:
            return f"heat map cannot be read: {error}"


def _masks(data: Gallery) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the masks that can be read, by image id, one at a time."""
    for image in data.manifest.images:
        try:
            mask = data.mask(image.id)
        except DataError:
            continue
        if mask is not None:
            yield image.id, mask


def _truth_panel(
    mistake: MistakeRow, picture: NDArray[np.uint8], data: Gallery
) -> tuple[PanelImage | None, str]:
    """Return where the defect is, or None and why."""
    if mistake.good:
        return None, "good part: no defect to mark"
    mask = data.mask(mistake.image_id)
    return (None, "this defect has no mask") if mask is None else (show_truth(picture, mask), "")
