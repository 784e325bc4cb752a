"""Greedy k-centre coresets (Sener & Savarese 2018, arXiv:1708.00489), exact, in preallocated memory.

The projected points are rounded to whole numbers, so that squared distances are whole numbers below 2**53:
float64 then computes each of them exactly, in whatever order a library sums, on every device and with any
number of threads. The chosen points are those of the plain textbook loop, ties included.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

_DISTORTION = 0.9
"""Of the random projection, as anomalib has it."""

_GRID = 32767
"""Largest projected coordinate: fits int16, and 2**20 squared 16-bit differences stay below 2**53."""

# Block sizes: every one gives the same choice; only time and memory differ.
_ACTIVE = 1024
_COLUMNS = 1024
_GROUPS = 16

OnProgress = Callable[[int], None]
"""Called with how many centres are chosen; may raise."""


def projected_width(points: int) -> int:
    """Return how many dimensions keep distances within the distortion (Johnson & Lindenstrauss 1984).

    >>> projected_width(204800)
    301
    """
    return int(4 * math.log(points) / (_DISTORTION**2 / 2 - _DISTORTION**3 / 3))


def projection(points: int, width: int, seed: int) -> NDArray[np.float32] | None:
    """Return the sparse random projection (width, narrow) of Li, Hastie & Church 2006, or None.

    None where it would not make points narrower. Density 1/sqrt(width), entries +-sqrt(sqrt(width)/narrow).
    """
    narrow = projected_width(points) if points > 1 else width
    if narrow >= width:
        return None
    rng = np.random.default_rng(seed)
    density = 1 / math.sqrt(width)
    signs = rng.choice(
        np.array([-1.0, 0.0, 1.0]), size=(width, narrow), p=[density / 2, 1 - density, density / 2]
    )
    return (signs * math.sqrt(1 / (density * narrow))).astype(np.float32)


def on_grid(points: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return the points in whole numbers, the largest coordinate at the grid's end."""
    largest = max(float(points.max()), -float(points.min())) if points.size else 0.0
    scale = _GRID / largest if largest else 0.0
    gridded = np.empty(points.shape, np.int16)
    for start in range(0, len(points), _COLUMNS):
        gridded[start : start + _COLUMNS] = np.rint(
            points[start : start + _COLUMNS].astype(np.float64) * scale
        )
    return gridded


def k_centres(
    points: NDArray[np.int16], count: int, seed: int, device: str = "cpu", report: OnProgress | None = None
) -> NDArray[np.int64]:
    """Return indices of ``count`` points in the order in which the greedy loop chooses them.

    The first is drawn by the seed; each next one is the point farthest from all chosen ones, the first of
    several. As in anomalib, the drawn point belongs to the coreset.

    Distances that cannot decide are not computed: a point's distance to the chosen ones only falls, so a
    stale one is an upper bound, and only points whose bound is the largest are brought up to date, a block
    at a time and with one matrix product.

    Args:
        points: (n, width), from :func:`on_grid`.
        device: where to compute; mps has no float64 and is computed on the CPU.
    """
    search = _CoresetSearch(points, count, "cpu" if device == "mps" else device)
    search.add(int(np.random.default_rng(seed).integers(len(points))))
    while search.chosen < count:
        if report is not None:
            report(search.chosen)
        search.add(search.farthest())
    return np.array(search.indices, np.int64)


class _CoresetSearch:
    """Greedy search by upper bounds; ``_counted`` says up to which centre a point's bound is true."""

    def __init__(self, points: NDArray[np.int16], count: int, device: str) -> None:
        self._points = torch.from_numpy(points).to(device)
        rows, width = points.shape
        self._bounds = torch.full((rows,), math.inf, dtype=torch.float64, device=device)
        self._counted = torch.zeros(rows, dtype=torch.int64, device=device)
        self._centres = torch.empty((count, width), dtype=torch.float64, device=device)
        self._active = torch.empty(0, dtype=torch.int64, device=device)
        self._active_points = torch.empty((0, width), dtype=torch.float64, device=device)
        self._active_norms = torch.empty(0, dtype=torch.float64, device=device)
        self.indices: list[int] = []

    @property
    def chosen(self) -> int:
        """How many centres there are."""
        return len(self.indices)

    def add(self, index: int) -> None:
        """Choose a point; bring the active ones up to date."""
        centre = self._points[index].double()
        self._centres[self.chosen] = centre
        self.indices.append(index)
        if len(self._active):
            near = torch.addmv(self._active_norms, self._active_points, centre, alpha=-2) + centre @ centre
            self._bounds[self._active] = torch.minimum(self._bounds[self._active], near)
            self._counted[self._active] = self.chosen

    def farthest(self) -> int:
        """Return the first of the points farthest from all chosen ones."""
        while True:
            index = int(torch.argmax(self._bounds))
            if int(self._counted[index]) == self.chosen:
                return index
            self._refill()

    def _refill(self) -> None:
        """Make the points with the largest bounds the active ones, and bring them up to date."""
        size = min(_ACTIVE, len(self._bounds))
        self._active = torch.topk(self._bounds, size).indices
        # Points that lack as many centres are updated together.
        self._active = self._active[torch.argsort(self._counted[self._active], stable=True)]
        self._active_points = self._points[self._active].double()
        self._active_norms = (self._active_points**2).sum(1)
        for part in torch.arange(size).tensor_split(_GROUPS):
            if len(part):
                self._update(int(part[0]), int(part[-1]) + 1)
        self._counted[self._active] = self.chosen

    def _update(self, first: int, last: int) -> None:
        """Bring the bounds of some active points up to date; all of them lack the same centres or fewer."""
        rows = self._active[first:last]
        near = self._bounds[rows]
        for start in range(int(self._counted[rows[0]]), self.chosen, _COLUMNS):
            centres = self._centres[start : min(start + _COLUMNS, self.chosen)]
            product = self._active_points[first:last] @ centres.T
            squared = (
                torch.add((centres**2).sum(1), product, alpha=-2).amin(1) + self._active_norms[first:last]
            )
            near = torch.minimum(near, squared)
        self._bounds[rows] = near
