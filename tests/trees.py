"""Small made-up data sets on disk, in the ways in which factories and published sets lay them out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 48


def part(seed: int, bad: bool = False, side: int = SIDE) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A grey part, (side, side, 3), with a bright bar if it is bad; and the bar's mask of 0 and 255."""
    rng = np.random.default_rng(seed)
    values = (
        90 + 20 * np.sin(np.arange(side) / 5 + rng.uniform(0, 6))[:, None] + rng.normal(0, 12, (side, side))
    )
    mask = np.zeros((side, side), np.uint8)
    if bad:
        top, left = rng.integers(4, side // 2, 2)
        mask[top : top + side // 8, left : left + side // 4] = 255
        values = np.where(mask > 0, values + 80, values)
    return np.stack([np.clip(values, 0, 255).astype(np.uint8)] * 3, -1), mask


def save(array: NDArray[np.integer[Any]], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def goods(folder: Path, number: int = 4, start: int = 0, name: str = "{:03d}.png") -> list[Path]:
    return [save(part(start + place)[0], folder / name.format(place)) for place in range(number)]


def bads(
    folder: Path,
    number: int = 4,
    start: int = 1000,
    name: str = "{:03d}.png",
    mask: str | None = None,
    values: Sequence[int] = (0, 255),
) -> list[Path]:
    """Pictures of bad parts; ``mask`` is where each one's mask lies, from ``folder``, by its number."""
    found = []
    for place in range(number):
        picture, marks = part(start + place, bad=True)
        found.append(save(picture, folder / name.format(place)))
        if mask is not None:
            low, high = values
            save(np.where(marks > 0, high, low).astype(np.uint8), folder / mask.format(place))
    return found


def files_below(root: Path) -> int:
    """How many files there are below a folder; links to files too."""
    return sum(len(names) for _, _, names in os.walk(root))
