"""Inspectors that have something against a size, and entries that name them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from defectbench import catalog
from defectbench.catalog import Entry
from defectbench.models.base import Inspection, Inspector, Lesson, Pictures, Report, Size


class Easy(Inspector):
    """Gives each picture's brightness, whatever its size."""

    def fit(self, lesson: Lesson, report: Report) -> None:
        self.learnt = len(lesson.pictures)

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        for index in range(len(pictures)):
            grey = pictures[index].mean(-1).astype(np.float32)
            yield Inspection(float(grey.mean()), grey)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:  # by its name numpy would add a suffix
            np.savez(file, learnt=self.learnt)

    def load(self, path: Path) -> None:
        self.learnt = int(np.load(path)["learnt"])

    def size(self) -> Size:
        return Size(self.learnt, None)


class Fixed(Easy):
    """Takes 64 x 64 alone, as networks do whose positions are learnt."""

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        if self.recipe.image_size != 64:
            raise AssertionError(f"Input height ({self.recipe.image_size}) doesn't match model (64).")
        yield from super().inspect(pictures)


class Broken(Easy):
    """Takes nothing."""

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        raise ValueError("unreadable\nat any size")


class Large(Easy):
    """Finds no room, as torch says it."""

    def fit(self, lesson: Lesson, report: Report) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


class Larger(Easy):
    """Finds no room, as numpy says it."""

    def fit(self, lesson: Lesson, report: Report) -> None:
        raise MemoryError("Unable to allocate 9 GiB")


class Endless(Easy):
    """Gives no number."""

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        for inspection in super().inspect(pictures):
            yield replace(inspection, score=float("nan"))


def entry(builder: str, **changes: object) -> Entry:
    """Return the entry of a class of this module, or of another ``module:class``."""
    place = builder if ":" in builder else f"probe_cases:{builder}"
    found = replace(catalog.find("filterbank-knn"), name="case", builder=place, image_size=64, extra="train")
    return replace(found, **changes)  # type: ignore[arg-type]
