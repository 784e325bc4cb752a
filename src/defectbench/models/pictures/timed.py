"""What cached features would have cost: so that a fit's cost does not depend on which cell ran first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from defectbench.models.base import Pictures

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class TimedPictures:
    """``pictures``, noting how long their features took, computed or read from the cache.

    Attributes:
        waited: seconds so far.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._computes: dict[str, Compute] = {}
        self.waited = 0.0

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._pictures)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One picture."""
        return self._pictures[index]

    def features(self, extractor: str, compute: Compute) -> Iterator[NDArray[np.float32]]:
        """Yield the features, as ``pictures`` does."""
        self._computes[extractor] = compute
        rows = self._pictures.features(extractor, compute)
        while True:
            started = time.perf_counter()
            row = next(rows, None)
            self.waited += time.perf_counter() - started
            if row is None:
                return
            yield row

    def correction(self, sample: int = 8) -> float:
        """Return the seconds to add to a fit's time, so that it holds the computing of each feature once.

        What the fit waited for features (computed, read from the cache, or awaited from another process) is
        taken out; what computing them takes is put in, estimated from a few pictures.
        """
        if not self._computes:
            return 0.0
        batch = np.stack([self._pictures[index] for index in range(min(sample, len(self)))])
        started = time.perf_counter()
        for compute in self._computes.values():
            compute(batch)
        each = (time.perf_counter() - started) / len(batch)
        return each * len(self) - self.waited
