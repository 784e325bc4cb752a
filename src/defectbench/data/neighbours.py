"""Which few pictures may show the same as which others: by votes of their keypoints, in nearly linear time.

Locality-sensitive hashing (Charikar, "Similarity estimation techniques from rounding algorithms", 2002): in
each of a few tables the descriptors are sorted by the signs of random projections, and each is compared with
those that come next to it. A keypoint votes for the picture of its best partner.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from defectbench.data.progress import ProgressCallback, no_progress

_TABLES, _BITS, _NEXT = 10, 60, 3
_DIMENSIONS = 24
_SAMPLE = 50_000
_ALIKE = 0.8
"""Least correlation of two keypoints' surroundings for a vote."""

_VOTES, _PARTNERS = 4, 3
_CHUNK = 1 << 14
_SEED = 0


def candidate_pairs(
    descriptors: Sequence[NDArray[np.float32]], progress: ProgressCallback = no_progress
) -> list[tuple[int, int]]:
    """Return the pairs of pictures worth a closer look, sorted: a few partners for each picture.

    Args:
        descriptors: of each picture, (n, d) of length 1.
    """
    owners = np.repeat(np.arange(len(descriptors)), [len(item) for item in descriptors]).astype(np.int32)
    if len(descriptors) < 2 or not len(owners):
        return []
    rng = np.random.default_rng(_SEED)
    points = _reduced(descriptors, owners, rng)
    partner = _partners(points, owners, rng, progress)
    return _elected(owners, partner, len(descriptors))


def _reduced(
    descriptors: Sequence[NDArray[np.float32]], owners: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return all descriptors in their principal components, without their mean, of length 1."""
    step = max(1, len(owners) // _SAMPLE)
    sample = np.concatenate([item[::step] for item in descriptors]).astype(np.float64)
    mean = sample.mean(axis=0)
    axes = np.linalg.eigh((sample - mean).T @ (sample - mean))[1][:, ::-1][:, :_DIMENSIONS]
    axes, mean = axes.astype(np.float32), mean.astype(np.float32)
    points = np.empty((len(owners), axes.shape[1]), np.float32)
    start = 0
    for item in descriptors:
        points[start : start + len(item)] = (item - mean) @ axes
        start += len(item)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-6)
    return points


def _partners(
    points: NDArray[np.float32],
    owners: NDArray[np.int32],
    rng: np.random.Generator,
    progress: ProgressCallback,
) -> NDArray[np.int64]:
    """Return for each keypoint the best partner found in another picture; -1 where none is alike."""
    best = np.full(len(points), _ALIKE, np.float32)
    partner = np.full(len(points), -1, np.int64)
    for table in range(_TABLES):
        progress("looking for copies", table, _TABLES)
        order = np.argsort(_codes(points, rng), kind="stable")
        for start in range(0, len(order), _CHUNK):
            own = order[start : start + _CHUNK + _NEXT]
            near = points[own]
            for step in range(1, _NEXT + 1):
                one, two = own[:-step], own[step:]
                alike = np.einsum("nd,nd->n", near[:-step], near[step:])
                alike[owners[one] == owners[two]] = -1
                for here, there in ((one, two), (two, one)):
                    better = alike > best[here]
                    best[here[better]] = alike[better]
                    partner[here[better]] = there[better]
    progress("looking for copies", _TABLES, _TABLES)
    return partner


def _codes(points: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    planes = rng.standard_normal((points.shape[1], _BITS)).astype(np.float32)
    weights = 1 << np.arange(_BITS, dtype=np.int64)
    codes = np.empty(len(points), np.int64)
    for start in range(0, len(points), _CHUNK):
        codes[start : start + _CHUNK] = (points[start : start + _CHUNK] @ planes > 0) @ weights
    return codes


def _elected(owners: NDArray[np.int32], partner: NDArray[np.int64], number: int) -> list[tuple[int, int]]:
    """Return each picture's three partners with most votes, four votes at least, as sorted pairs."""
    voted = partner >= 0
    one, two = owners[voted].astype(np.int64), owners[partner[voted]].astype(np.int64)
    keys, votes = np.unique(np.minimum(one, two) * number + np.maximum(one, two), return_counts=True)
    keys, votes = keys[votes >= _VOTES], votes[votes >= _VOTES]
    order = np.argsort(-votes, kind="stable")
    taken = np.zeros(number, np.int64)
    found = []
    for key in keys[order].tolist():
        first, second = divmod(key, number)
        if min(taken[first], taken[second]) < _PARTNERS:
            taken[first] += 1
            taken[second] += 1
            found.append((first, second))
    return sorted(found)
