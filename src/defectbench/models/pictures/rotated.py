"""Pictures of which some are shown at four rotations, as the original study did with its defects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from defectbench.models.base import Pictures

_QUARTERS = 4


class RotatedPictures:
    """All of ``pictures``, those marked in ``rotated`` at 0, 90, 180 and 270 degrees, the others once.

    Attributes:
        places: (n,) index into ``pictures`` of each picture shown.
    """

    def __init__(self, pictures: Pictures, rotated: NDArray[np.bool_]) -> None:
        self._pictures = pictures
        shown = [(i, q) for i, marked in enumerate(rotated) for q in range(_QUARTERS if marked else 1)]
        self.places = np.array([place for place, _ in shown], np.int64)
        self._quarters = [quarter for _, quarter in shown]

    def __len__(self) -> int:
        """How many pictures are shown."""
        return len(self._quarters)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One picture, rotated."""
        picture = self._pictures[int(self.places[index])]
        return np.ascontiguousarray(np.rot90(picture, self._quarters[index]))

    def masks(self, masks: Mapping[int, NDArray[np.bool_]]) -> dict[int, NDArray[np.bool_]]:
        """Return the masks of the pictures shown, rotated alike; ``masks`` are by place in ``pictures``."""
        return {
            index: np.rot90(masks[int(place)], quarter)
            for index, (place, quarter) in enumerate(zip(self.places, self._quarters, strict=True))
            if int(place) in masks
        }

    def features(
        self, extractor: str, compute: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield features in order: kept ones for upright pictures, the rotated ones computed one by one."""
        upright = self._pictures.features(extractor, compute)
        for index, quarter in enumerate(self._quarters):
            yield next(upright) if quarter == 0 else compute(self[index][None])[0]
