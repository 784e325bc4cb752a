"""What cached features would have cost: so that a fit's price does not depend on who came first."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from defectbench.inspectors.base import Pictures

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class MeteredPictures:
    """``pictures``, noting what their features cost.

    Attributes:
        spent: seconds that computing features took here.
        asked: pictures whose features were asked for, counted again at every pass.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._compute: Compute | None = None
        self.spent = 0.0
        self.asked = 0

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._pictures)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """One picture."""
        return self._pictures[index]

    def features(self, extractor: str, compute: Compute) -> Iterator[NDArray[np.float32]]:
        """Yield the features, as ``pictures`` does."""
        self._compute = compute

        def timed(batch: NDArray[np.uint8]) -> NDArray[np.float32]:
            started = time.perf_counter()
            features = compute(batch)
            self.spent += time.perf_counter() - started
            return features

        for row in self._pictures.features(extractor, timed):
            self.asked += 1
            yield row

    def saved(self, sample: int = 8) -> float:
        """Return the seconds that cached features saved, estimated by computing those of a few pictures.

        Negative where more was computed than asked for: features come in batches of the category.
        """
        if self._compute is None or not self.asked:
            return 0.0
        batch = np.stack([self._pictures[index] for index in range(min(sample, len(self)))])
        started = time.perf_counter()
        self._compute(batch)
        each = (time.perf_counter() - started) / len(batch)
        return each * self.asked - self.spent
