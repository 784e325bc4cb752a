"""Pictures of anything but the product, from which detectors make faults or learn what is ordinary.

They come from a tar in the store; a model with ``weights: none`` gets photographs of scikit-image's wheel
instead. Those that the synthetic data set is made of are not among them.
"""

from __future__ import annotations

import json
import tarfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from defectbench.errors import DataError, MissingWeightsError
from defectbench.models.base import ModelSettings
from defectbench.util.files import disk_errors, folder_written_whole, locked
from defectbench.util.image_io import read_picture

PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Of scikit-image's data folder."""

_KINDS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
_INDEX = ".index.json"
_PATIENCE = 3600.0


def pictures(settings: ModelSettings, name: str = "") -> list[Path]:
    """Return the pictures' files, sorted by name.

    Args:
        name: of the settings' weights that are pictures; may be left out where there are no others.

    Raises:
        MissingWeightsError: the settings have weights, but not these.
        DataError: the file is no tar of pictures.
    """
    if not settings.weights:
        folder = Path(str(files("skimage").joinpath("data")))
        return [folder / photograph for photograph in PHOTOGRAPHS]
    name = name or next(iter(settings.weights))
    if name not in settings.weights:
        raise MissingWeightsError(f"no pictures {name}: got {', '.join(sorted(settings.weights))}")
    return _unpacked(settings.weights[name], name)


def without(settings: ModelSettings, name: str) -> ModelSettings:
    """Return the settings for a network that is built with the weights beside the pictures ``name``.

    Raises:
        MissingWeightsError: the settings have the pictures and no weights for a network.
    """
    others = {key: path for key, path in settings.weights.items() if key != name}
    if settings.weights and not others:
        raise MissingWeightsError(
            f"weights of a network are needed beside the pictures {name}; got these alone"
        )
    return replace(settings, weights=others)


@contextmanager
def quiet() -> Iterator[None]:
    """Let anomalib's generator read its pictures by a deprecated function of torchvision's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _unpacked(tar: Path, name: str) -> list[Path]:
    """Return the files of a tar that is unpacked beside it, once for all processes."""
    folder = tar.with_name(f"{tar.name}.pictures")
    with disk_errors(folder), locked(folder.with_name(f"{folder.name}.lock"), _PATIENCE):
        if not _is_unpacked(folder):
            _unpack(tar, folder, name)
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _KINDS)
    if not found:
        raise DataError(f"{name}: {tar.name[:12]} has no picture ({', '.join(_KINDS)})")
    return found


def _unpack(tar: Path, folder: Path, name: str) -> None:
    """Unpack the tar; a folder that is there is whole."""
    with folder_written_whole(folder) as part:
        try:
            with tarfile.open(tar) as archive:
                # The filter lets nothing out of the folder, and refuses devices.
                archive.extractall(part, filter="data")
        except tarfile.TarError as error:
            raise DataError(f"{name}: {tar.name[:12]} is no tar of pictures ({error})") from error
        (part / _INDEX).write_text(json.dumps(_sizes(part)), encoding="utf-8")


def _sizes(folder: Path) -> dict[str, list[int]]:
    """Return path -> size and time of every file but the index."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != _INDEX)
    stats = {path.relative_to(folder).as_posix(): path.stat() for path in files}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}


def _is_unpacked(folder: Path) -> bool:
    """Whether every file is as it was when the tar was unpacked, by size and time."""
    try:
        return bool(json.loads((folder / _INDEX).read_bytes()) == _sizes(folder))
    except (OSError, ValueError, RecursionError):
        return False


class Textures:
    """Pictures drawn one at a time, cut to a square."""

    def __init__(self, paths: list[Path], side: int) -> None:
        self._paths = paths
        self._side = side

    def __len__(self) -> int:
        """How many pictures."""
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return the middle of a picture that is brought to twice the side, (side, side, 3) RGB."""
        from PIL import Image

        path = self._paths[index]
        whole = Image.fromarray(read_picture(path, path.name))
        grown = whole.resize((2 * self._side, 2 * self._side), Image.Resampling.BILINEAR)
        start = self._side // 2
        return np.asarray(grown)[start : start + self._side, start : start + self._side]
