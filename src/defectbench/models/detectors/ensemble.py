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
    FitCallback,
    Model,
    ModelSettings,
    ModelSize,
    Pictures,
    Prediction,
    Progress,
    TrainingData,
    check_goods,
    set_aside,
)
from defectbench.models.detectors.memory_bank import Patchcore
from defectbench.models.pictures.images import ArrayPictures

_MEMBERS = ("", "second_", "third_")


class PatchcoreEnsemble(Model):
    """PatchCore Large (Roth et al. 2021): one PatchCore for each of three backbones, their scores averaged.

    The authors' code brings the members to one scale by the smallest and largest score of the test set. Here
    each member's scores and maps are divided by its mean score of a tenth of the goods, which no bank holds.

    Settings: ``backbone``, ``second_backbone``, ``third_backbone`` (timm's names), ``layers``,
    ``second_layers``, ``third_layers``, ``coreset``, ``neighbours``.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        self._members = [Patchcore(_member(settings, prefix)) for prefix in _MEMBERS]
        self.device = self._members[0].device
        self._scales: NDArray[np.float64] | None = None

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Fit the members one after the other; then take their scales."""
        check_goods(training)
        learnt, aside = set_aside(len(training.pictures), self.settings.seed)
        taught = TrainingData(_PictureSubset(training.pictures, learnt), np.zeros(len(learnt), np.int64))
        scales, whole = [], _JoinedProgress(report)
        for member in self._members:
            whole.next_part()
            member.fit(taught, whole.report)
            scores = [one.score for one in member.predict(_PictureSubset(training.pictures, aside))]
            scales.append(float(np.mean(scores)) or 1.0)
        self._scales = np.array(scales)

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield the mean of the members' scaled scores and maps."""
        scales = self._fitted()
        for found in zip(*(member.predict(pictures) for member in self._members), strict=True):
            score = float(np.mean([one.score / scale for one, scale in zip(found, scales, strict=True)]))
            maps = [one.heat_map / scale for one, scale in zip(found, scales, strict=True)]
            yield Prediction(score, np.mean(maps, axis=0).astype(np.float32))

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
            member.load_trained_state({"memory_bank": state[f"{number}.memory_bank"].to(self.device)})
        self._scales = state["scales"].numpy()

    def size(self) -> ModelSize:
        """Add up the members."""
        sizes = [member.size() for member in self._members]
        flops = [size.flops for size in sizes if size.flops is not None]
        return ModelSize(sum(size.parameters for size in sizes), sum(flops))


def _member(settings: ModelSettings, prefix: str) -> ModelSettings:
    """Return the settings of one PatchCore of the three."""
    options = dict(settings.options)
    options |= {name: options[f"{prefix}{name}"] for name in ("backbone", "layers")}
    name = str(options["backbone"])
    weights = {key: path for key, path in settings.weights.items() if key == name}
    if settings.weights and not weights:
        raise MissingWeightsError(
            f"PatchCore Large needs the weights {name} as well; got {', '.join(sorted(settings.weights))}"
        )
    return replace(settings, options=options, weights=weights)


class _JoinedProgress:
    """Reports of parts that follow one another, told as one."""

    def __init__(self, report: FitCallback) -> None:
        self._report = report
        self._before = self._done = 0

    def next_part(self) -> None:
        """Count on from what was done."""
        self._before = self._done

    def report(self, progress: Progress) -> None:
        """Tell of a part's step; later parts are not known yet."""
        self._done = self._before + progress.done
        self._report(Progress(self._done, self._before + progress.total))


class _PictureSubset:
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

    def fit(self, training: TrainingData, report: FitCallback) -> None:
        """Keep the coreset of the drawn goods' patches."""
        check_goods(training)
        total, shots = len(training.pictures), self.settings.whole("shots")
        drawn = np.random.default_rng(self.settings.seed).permutation(total)[:shots]
        pictures = ArrayPictures(np.stack([training.pictures[int(place)] for place in np.sort(drawn)]))
        super().fit(TrainingData(pictures, np.zeros(len(pictures), np.int64)), report)
