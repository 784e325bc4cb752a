"""What a check takes from one picture's file and its masks; the work of a thread."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from defectbench.data.frames import PictureFrame, frame
from defectbench.data.layouts.base import Source
from defectbench.data.manifest import GOOD
from defectbench.data.mask_checks import Flat, Marked, check_masks, looks_flat
from defectbench.data.shortcut import Looks, looks
from defectbench.data.unpacked import sha256_of
from defectbench.errors import DataError
from defectbench.util.image_io import Intensity, overview, read_with_traits


@dataclass(frozen=True, slots=True)
class Fact:
    """What a picture's file holds.

    Attributes:
        sha256: of the file.
        pixels: SHA-256 of the decoded pixels and their size: equal for the same picture in two formats.
        width, height: as shown.
        traits: what is uncommon about the file.
    """

    sha256: str
    pixels: str
    width: int
    height: int
    traits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """What was taken from a picture's file.

    Attributes:
        problems: of the file and its masks, one line each; alone where the file cannot be read.
        fact: what the file holds.
        frame: what the search for copies keeps.
        looks: of a good picture, to tell parts by.
        flat: how the picture looks like a mask.
        marked: how much its masks mark.
    """

    problems: tuple[str, ...] = ()
    fact: Fact | None = None
    frame: PictureFrame | None = None
    looks: Looks | None = None
    flat: Flat | None = None
    marked: Marked | None = None


def open_source(source: Source, intensity: Intensity) -> Opened:
    """Decode the picture and its masks."""
    try:
        digest = sha256_of(source.file)
        picture, uncommon = read_with_traits(source.file, intensity)
    except DataError as error:
        return Opened(tuple(error.problems))
    except OSError as error:
        return Opened((f"{source.file}: cannot be read ({error.strerror})",))
    height, width = picture.shape[:2]
    pixels = hashlib.sha256(f"{width} {height} ".encode())
    pixels.update(picture.data)
    marked: dict[Path, Marked] = {}
    picture = overview(picture)
    return Opened(
        tuple(check_masks(source, (height, width), marked)),
        Fact(digest, pixels.hexdigest(), width, height, uncommon),
        frame(picture),
        looks(picture) if source.defect_type == GOOD else None,
        looks_flat(picture, deep=any("-bit grey" in text for text in uncommon)),
        marked.get(source.file),
    )
