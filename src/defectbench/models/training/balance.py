"""How a classifier meets the imbalance: ``weights``, ``oversample`` or ``none``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BALANCES = ("weights", "oversample", "none")


def class_weights(labels: NDArray[np.int64], balance: str) -> NDArray[np.float64]:
    """Return what one example of class 0 and of class 1 counts; mean 1 over the examples.

    ``oversample`` gets the same weights: without augmentation, showing an example twice or counting it
    twice is the same.

    >>> class_weights(np.array([0, 0, 0, 1]), "weights")
    array([0.66666667, 2.        ])
    >>> class_weights(np.array([0, 0, 0, 1]), "none")
    array([1., 1.])
    """
    if balance == "none":
        return np.ones(2)
    return len(labels) / (2 * np.bincount(labels, minlength=2))


def epoch_order(labels: NDArray[np.int64], balance: str, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return indices of one epoch's examples, shuffled.

    With ``oversample`` the rarer class is repeated until it has as many as the other; no example is
    repeated twice more often than another of its class.

    >>> labels = np.array([0, 0, 0, 0, 1])
    >>> sorted(epoch_order(labels, "oversample", np.random.default_rng(0)).tolist())
    [0, 1, 2, 3, 4, 4, 4, 4]
    >>> sorted(epoch_order(labels, "weights", np.random.default_rng(0)).tolist())
    [0, 1, 2, 3, 4]
    """
    order = np.arange(len(labels))
    if balance == "oversample":
        classes = [np.flatnonzero(labels == label) for label in (0, 1)]
        most = max(len(members) for members in classes)
        order = np.concatenate([_repeated(members, most, rng) for members in classes])
    return rng.permutation(order)


def _repeated(members: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return ``count`` members in random order, none used once more before all were."""
    rounds = [rng.permutation(members) for _ in range(-(-count // len(members)))]
    return np.concatenate(rounds)[:count]
