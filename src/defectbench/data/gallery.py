"""A category's pictures and masks, by image id: for showing, not for fitting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.data.manifest import Image, Manifest
from defectbench.data.unpacked import unpack
from defectbench.errors import DataError
from defectbench.stores.base import Store
from defectbench.stores.layout import MANIFEST
from defectbench.util.image_io import UNLIMITED, read_mask, read_picture


@dataclass(frozen=True)
class Gallery:
    """An unpacked category.

    Attributes:
        folder: where its files lie on this machine.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, store: Store, dataset: str, category: str, digest: str, cache: Path) -> Gallery:
        """Fetch and unpack it, where the cache does not have it.

        Raises:
            MissingInputError: the store does not have it.
            DataError: the archive is damaged.
        """
        folder = unpack(store, dataset, category, digest, cache)
        return cls(folder, Manifest.from_json((folder / MANIFEST).read_bytes()))

    def picture(self, image_id: str) -> NDArray[np.uint8]:
        """Return a picture, (h, w, 3) RGB, at its own size; DataError when it cannot be read."""
        path = self.folder / self._image(image_id).path
        return read_picture(path, intensity=self.manifest.intensity, limit=UNLIMITED)

    def mask(self, image_id: str) -> NDArray[np.bool_] | None:
        """Return where the defect is, (h, w); None for an image without a mask."""
        place = self._image(image_id).mask
        return None if place is None else read_mask(self.folder / place, limit=UNLIMITED)

    def _image(self, image_id: str) -> Image:
        try:
            return self.manifest.by_id[image_id]
        except KeyError:
            raise DataError(f"{self.manifest.category} has no image {image_id!r}") from None
