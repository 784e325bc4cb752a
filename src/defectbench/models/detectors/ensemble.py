"""PatchCore over several backbones, and over few goods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from defectbench.errors import BugError, MissingWeightsError
from defectbench.models.base import (
    Inspection,
    Inspector,
    Lesson,
    Pictures,
    Progress,
    Recipe,
    Report,
    Size,
    check_goods,
    set_aside,
)
from defectbench.models.detectors.memory_bank import Patchcore
from defectbench.models.pictures.images import ArrayPictures

_MEMBERS = ("", "second_", "third_")


class PatchcoreEnsemble(Inspector):
    """PatchCore Large (Roth et al. 2021): one PatchCore for each of three backbones, their scores averaged.

    The authors' code brings the members to one scale by the smallest and largest score of the test set. Here
    each member's scores and maps are divided by its mean score of a tenth of the goods, which no bank holds.

    Settings: ``backbone``, ``second_backbone``, ``third_backbone`` (timm's names), ``layers``,
    ``second_layers``, ``third_layers``, ``coreset``, ``neighbours``.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self._members = [Patchcore(_member(recipe, prefix)) for prefix in _MEMBERS]
        self.device = self._members[0].device
        self._scales: NDArray[np.float64] | None = None

    def fit(self, lesson: Lesson, report: Report) -> None:
        """Fit the members one after the other; then take their scales."""
        check_goods(lesson)
        learnt, aside = set_aside(len(lesson.pictures), self.recipe.seed)
        taught = Lesson(_Some(lesson.pictures, learnt), np.zeros(len(learnt), np.int64))
        scales, whole = [], _Whole(report)
        for member in self._members:
            whole.next_part()
            member.fit(taught, whole.report)
            scores = [one.score for one in member.inspect(_Some(lesson.pictures, aside))]
            scales.append(float(np.mean(scores)) or 1.0)
        self._scales = np.array(scales)

    def inspect(self, pictures: Pictures) -> Iterator[Inspection]:
        """Yield the mean of the members' scaled scores and maps."""
        scales = self._fitted()
        for found in zip(*(member.inspect(pictures) for member in self._members), strict=True):
            score = float(np.mean([one.score / scale for one, scale in zip(found, scales, strict=True)]))
            maps = [one.heat_map / scale for one, scale in zip(found, scales, strict=True)]
            yield Inspection(score, np.mean(maps, axis=0).astype(np.float32))

    def _fitted(self) -> NDArray[np.float64]:
        if self._scales is None:
            raise BugError("PatchcoreEnsemble was asked for results before fit or load")
        return self._scales

    def save(self, path: Path) -> None:
        """Write all banks and the scales as safetensors."""
        state = {"scales": torch.from_numpy(self._fitted())}
        for number, member in enumerate(self._members):
            member.save(path)
            state |= {f"{number}.{name}": value for name, value in load_file(path).items()}
        save_file(state, path)

    def load(self, path: Path) -> None:
        """Read the banks and the scales."""
        state = load_file(path)
        for number, member in enumerate(self._members):
            member.adopt({"memory_bank": state[f"{number}.memory_bank"].to(self.device)})
        self._scales = state["scales"].numpy()

    def size(self) -> Size:
        """Add up the members."""
        sizes = [member.size() for member in self._members]
        flops = [size.flops for size in sizes if size.flops is not None]
        return Size(sum(size.parameters for size in sizes), sum(flops))


def _member(recipe: Recipe, prefix: str) -> Recipe:
    """Return the recipe of one PatchCore of the three."""
    settings = dict(recipe.settings)
    settings |= {name: settings[f"{prefix}{name}"] for name in ("backbone", "layers")}
    name = str(settings["backbone"])
    weights = {key: path for key, path in recipe.weights.items() if key == name}
    if recipe.weights and not weights:
        raise MissingWeightsError(
            f"PatchCore Large needs the weights {name} as well; got {', '.join(sorted(recipe.weights))}"
        )
    return replace(recipe, settings=settings, weights=weights)


class _Whole:
    """Reports of parts that follow one another, told as one."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._before = self._done = 0

    def next_part(self) -> None:
        """Count on from what was done."""
        self._before = self._done

    def report(self, progress: Progress) -> None:
        """Tell of a part's step; later parts are not known yet."""
        self._done = self._before + progress.done
        self._report(Progress(self._done, self._before + progress.total))


class _Some:
    """Some of ``pictures``."""

    def __init__(self, pictures: Pictures, places: NDArray[np.int64]) -> None:
        self._pictures = pictures
        self._places = [int(place) for place in places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._pictures[self._places[index]]

    def features(
        self, extractor: str, compute: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield features in order; ``places`` rise."""
        wanted = set(self._places)
        for place, row in enumerate(self._pictures.features(extractor, compute)):
            if place in wanted:
                yield row


class PatchcoreFewShot(Patchcore):
    """PatchCore over few goods, drawn by the seed.

    Settings: as PatchCore's, and ``shots``, how many goods.
    """

    def fit(self, lesson: Lesson, report: Report) -> None:
        """Keep the coreset of the drawn goods' patches."""
        check_goods(lesson)
        total, shots = len(lesson.pictures), self.recipe.whole("shots")
        drawn = np.random.default_rng(self.recipe.seed).permutation(total)[:shots]
        pictures = ArrayPictures(np.stack([lesson.pictures[int(place)] for place in np.sort(drawn)]))
        super().fit(Lesson(pictures, np.zeros(len(pictures), np.int64)), report)
