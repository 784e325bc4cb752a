"""Heat maps as numbers, at each picture's size: in the form that MVTec AD 2's evaluation server takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.errors import ConfigurationError
from defectbench.export.bundle import Bundle
from defectbench.export.scores import PictureFile, ScoredPicture, refuse_twins
from defectbench.util.files import written_whole
from defectbench.util.image_io import read_picture

VALUES, MARKED = "anomaly_images", "anomaly_images_thresholded"


def check_maps(found: Sequence[PictureFile], bundle: Bundle) -> None:
    """Refuse, before anything is scored, what :func:`write_maps` could not write.

    Raises:
        UsageError: two pictures differ in their endings alone, which their maps' names do not have.
        ConfigurationError: the model has no threshold for pixels.
    """
    _limit(bundle)
    refuse_twins(found, lambda one: _name(one, bundle))


def write_maps(scored: ScoredPicture, bundle: Bundle, out: Path) -> None:
    """Write a picture's heat map as float16 TIFF, and what is hotter than in good parts as PNG of 0 and 255.

    Both have the picture's size. The values are on the model's one scale, that of the overlays: its cold is 0
    and its hottest 1, and values beyond are kept.
    """
    import tifffile

    picture = read_picture(scored.found.path, intensity=bundle.intensity)
    raw = _resized(scored.prediction.heat_map, picture.shape[0], picture.shape[1])
    name = _name(scored.found, bundle)
    largest = float(np.finfo(np.float16).max)
    values = np.clip(bundle.heat.scaled(raw), -largest, largest).astype(np.float16)
    marked = np.where(raw > _limit(bundle), np.uint8(255), np.uint8(0))
    with written_whole(out / VALUES / f"{name}.tiff") as file:
        tifffile.imwrite(file, values)
    with written_whole(out / MARKED / f"{name}.png") as file:
        Image.fromarray(marked).save(file, "PNG")


def _limit(bundle: Bundle) -> float:
    if bundle.heat.marked is None:
        raise ConfigurationError(
            f"{bundle.model} was exported without calibration goods, or by a version that set no threshold "
            "for pixels; export it again, from a cell with calibration goods"
        )
    return bundle.heat.marked


def _resized(heat_map: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    """Return the map at the picture's size, between its values: it nowhere gets hotter."""
    image = Image.fromarray(heat_map.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float64)


def _name(found: PictureFile, bundle: Bundle) -> str:
    """Return where a picture's maps lie: below the category's name, without the picture's ending."""
    name = PurePosixPath(found.name).with_suffix("")
    return str(name if name.parts[0] == bundle.category else bundle.category / name)
