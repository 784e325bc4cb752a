"""Pictures that the bench never saw, scored with an exported model: no store, no labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.data.progress import ProgressCallback
from defectbench.errors import DataError, MissingInputError, UsageError
from defectbench.export.bundle import Bundle, load_model, read_bundle
from defectbench.models.base import Model, Pictures, Prediction
from defectbench.models.pictures.images import ArrayPictures, FilePictures
from defectbench.util.files import written_whole
from defectbench.util.image_io import SUFFIXES, Intensity, is_picture, read_picture
from defectbench.util.overlays import Picture, fitted, heat_over

SIDE = 448
"""Pixels of the longer side of a picture in an overlay."""

_GAP = 8
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture to score.

    Attributes:
        name: of its overlay below the folder of overlays, without the suffix that is added.
    """

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class ScoredPicture:
    """A picture, scored.

    Attributes:
        threshold: None where the model has none.
        call: ``abnormal``, ``good``, or None without a threshold.
        prediction: with the heat map.
    """

    found: PictureFile
    score: float
    threshold: float | None
    call: str | None
    prediction: Prediction


def find_pictures(arguments: Sequence[Path]) -> tuple[PictureFile, ...]:
    """Return the pictures that files and folders give, in order; folders are searched to their depths.

    Raises:
        MissingInputError: an argument is not there; all such are named.
        DataError: a folder holds no picture.
        UsageError: two pictures would have one overlay.
    """
    absent = [str(path) for path in arguments if not path.exists()]
    if absent:
        raise MissingInputError("\n".join(f"{path}: no such file or folder" for path in absent))
    found: list[PictureFile] = []
    empty: list[str] = []
    for argument in arguments:
        if not argument.is_dir():
            found.append(PictureFile(argument, argument.name))
            continue
        inside = sorted(path for path in argument.rglob("*") if path.is_file() and is_picture(path))
        found += (PictureFile(path, _below(argument, path)) for path in inside)
        if not inside:
            empty.append(f"{argument}: no picture in it; endings read are {', '.join(sorted(SUFFIXES))}")
    if empty:
        raise DataError(empty)
    refuse_twins(found, lambda one: one.name)
    return tuple(found)


def _below(folder: Path, path: Path) -> str:
    """Name a picture by its folder's name and its place there, so that good/0.png and bad/0.png differ."""
    return (Path(folder.resolve().name) / path.relative_to(folder)).as_posix()


def refuse_twins(found: Sequence[PictureFile], name_of: Callable[[PictureFile], str]) -> None:
    """Refuse two pictures whose results would have one name."""
    first: dict[str, Path] = {}
    for one in found:
        name = name_of(one)
        other = first.setdefault(name, one.path)
        if other is not one.path:
            raise UsageError(f"{other} and {one.path} would be called alike, {name}: give them one by one")


def check_pictures(found: Sequence[PictureFile], intensity: Intensity, report: ProgressCallback) -> None:
    """Read every picture once, on the scale of grey values that the model was trained with.

    Raises:
        DataError: some cannot be read; all of them are named.
    """
    problems: list[str] = []
    for done, one in enumerate(found):
        report("reading", done, len(found))
        try:
            read_picture(one.path, intensity=intensity)
        except DataError as error:
            problems += error.problems
    report("reading", len(found), len(found))
    if problems:
        raise DataError(problems)


@dataclass(frozen=True)
class ExportedModel:
    """An exported model, ready to score."""

    bundle: Bundle
    model: Model

    @classmethod
    def open(cls, folder: Path, device: str) -> ExportedModel:
        """Read the folder of an export; errors as in :func:`~defectbench.export.bundle.read_bundle`."""
        bundle = read_bundle(folder)
        return cls(bundle, load_model(bundle, folder, device))

    def score(self, found: Sequence[PictureFile]) -> Iterator[ScoredPicture]:
        """Yield each picture's score and call, in order, in bounded memory.

        Raises:
            DataError: a score is not finite.
        """
        threshold = self.bundle.threshold
        files = FilePictures([one.path for one in found], self.bundle.image_size, self.bundle.intensity)
        for one, prediction in zip(found, self.predict(files), strict=True):
            if not np.isfinite(prediction.score):
                raise DataError(f"{one.path}: {self.bundle.model} gave the score {prediction.score}")
            yield ScoredPicture(
                one, prediction.score, threshold.value, threshold.call(prediction.score), prediction
            )

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        """Yield the model's predictions under the threads of the cell, which decide rounding."""
        from threadpoolctl import threadpool_limits

        with threadpool_limits(self.bundle.threads):
            yield from self.model.predict(pictures)

    def pattern_score(self) -> float:
        """Return the score of :func:`pattern`."""
        (prediction,) = self.predict(ArrayPictures(pattern(self.bundle.image_size)[None]))
        return prediction.score

    def drift(self) -> float:
        """Return how far the pattern's score is from that at export; 0 on a machine that rounds alike."""
        return abs(self.pattern_score() - self.bundle.proof.pattern_score)


def pattern(size: int) -> NDArray[np.uint8]:
    """Return a picture that is the same everywhere, (size, size, 3): waves of all lengths, nothing random."""
    row, column = np.mgrid[0:size, 0:size].astype(np.int64)
    # In whole numbers, so that every machine has the same picture.
    return np.stack([(row * column) % 256, (row * row + column) % 256, (row + 3 * column) % 256], -1).astype(
        np.uint8
    )


def overlay(picture: Picture, scored: ScoredPicture, bundle: Bundle) -> Picture:
    """Return the picture and, right of it, its heat map laid over it, on the model's one scale."""
    shown = fitted(picture, SIDE)
    level = np.clip(bundle.heat.scaled(scored.prediction.heat_map), 0, 1)
    laid = heat_over(shown, level.astype(np.float16), 0.0, 1.0)
    gap = np.full((shown.shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([shown, gap, laid], axis=1)


def write_overlay(scored: ScoredPicture, bundle: Bundle, out: Path) -> Path:
    """Write a picture's overlay below ``out`` and return its path."""
    from PIL import Image

    path = out / f"{scored.found.name}.webp"
    picture = read_picture(scored.found.path, intensity=bundle.intensity)
    image = Image.fromarray(overlay(picture, scored, bundle))
    with written_whole(path) as file:
        image.save(file, "WEBP", quality=_QUALITY)
    return path
