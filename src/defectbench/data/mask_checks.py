"""Masks as they are: their values, their sizes, and those that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from defectbench.data.layouts.base import Mask, Source, mask_file
from defectbench.data.layouts.masks import is_binary
from defectbench.data.manifest import GOOD
from defectbench.data.polygons import Outline
from defectbench.data.resolution import width_share
from defectbench.errors import DataError
from defectbench.util.image_io import Values, read_mask_values

Flat = Literal["two values", "nearly two values"]

HALF = 0.5
"""Share of a picture from which on a mask is suspected to mark the background."""

_EDGE = 0.9
_SMALL = 32
_DEEP_STEP = 128


@dataclass(frozen=True, slots=True)
class Marked:
    """How much of a picture and of its outermost pixels a mask marks, and how wide the defect is; 0 to 1."""

    share: float
    edge: float
    width: float

    @property
    def inverted(self) -> bool:
        """Whether it marks most of the picture and nearly all of its edge, as a background does."""
        return self.share > HALF and self.edge >= _EDGE


def mask_values(mask: Mask) -> Values:
    """Return a mask's values, (H, W); outlines give 0 and 255.

    Raises:
        DataError: its file cannot be read.
    """
    if isinstance(mask, Outline):
        return np.where(mask.mask(), 255, 0).astype(np.uint8)
    return read_mask_values(mask)


def united(masks: Sequence[Mask]) -> NDArray[np.bool_]:
    """Return (H, W) bool: True where any of the masks, all of one size, marks a defect.

    Raises:
        DataError: a file cannot be read.
    """
    first, *others = (mask_values(mask) != 0 for mask in masks)
    for other in others:
        first = first | other
    return np.asarray(first)


def check_masks(source: Source, size: tuple[int, int], marked: dict[Path, Marked]) -> Iterator[str]:
    """Yield the problems of a picture's masks; how much they mark goes to ``marked``.

    Args:
        size: the picture's height and width.
    """
    whole = np.zeros(size, dtype=bool)
    for mask in source.masks:
        try:
            values = mask_values(mask)
        except DataError as error:
            yield from error.problems
            continue
        faults = list(_value_faults(source, mask_file(mask), values, size))
        yield from faults
        if not faults:
            whole |= values != 0
    width = width_share(whole)
    if width is not None:
        edge = np.concatenate([whole[0], whole[-1], whole[:, 0], whole[:, -1]])
        marked[source.file] = Marked(float(whole.mean()), float(edge.mean()), width)


def _value_faults(source: Source, mask: Path, values: Values, size: tuple[int, int]) -> Iterator[str]:
    """Yield what is wrong with one mask's size and values."""
    found = np.unique(values)
    if values.shape != size:
        (height, width), shown = values.shape, f"{size[1]} x {size[0]}"
        hint = ", as the file without its EXIF turn; turn the mask" if values.shape == size[::-1] else ""
        yield f"{mask}: {width} x {height}, but {source.file.name} is shown at {shown}{hint}"
    if source.defect_type == GOOD:
        if found[-1]:
            yield f"{mask}: marks a defect in a picture that is called good"
    elif not found[-1]:
        yield f"{mask}: marks nothing, but {source.file.name} is called {source.defect_type}"
    elif found[0] and values.shape == size:
        yield (
            f"{mask}: no background: its values are {_some(found)}, and 0 alone is background, so it marks "
            "the whole picture and every heat map would count as right; save the background as 0"
        )
    elif len(found) > 2 and found[-1] >= _SMALL:
        yield f"{mask}: not binary: {len(found)} values from {found[0]} to {found[-1]}; save it as 0 and 255"


def _some(values: Values) -> str:
    if len(values) > 4:
        return f"{values[0]} to {values[-1]}"
    return " and ".join(str(value) for value in values)


def check_inversion(
    category: str, sources: Sequence[Source], marked: Mapping[Path, Marked]
) -> tuple[list[str], list[str]]:
    """Return problems and notes about masks that mark more than half of their pictures.

    Where most masks of a category look inverted it is a problem, else a note.
    """
    large = [source for source in sources if source.file in marked and marked[source.file].share > HALF]
    if not large:
        return [], []
    inverted = [source for source in large if marked[source.file].inverted]
    first, share = mask_file(large[0].masks[0]), marked[large[0].file].share
    text = (
        f"{category}: {len(large)} of {len(marked)} masks mark more than half of their picture "
        f"({first}: {share:.0%})"
    )
    if 2 * len(inverted) > len(marked):
        return [
            f"{text}, its edges too: inverted? The figures of explanation would reward heat maps on the "
            "background; save the defect as 255 and the background as 0"
        ], []
    return [], [
        f"{text}; if they are inverted, the figures of explanation reward heat maps on the background"
    ]


def check_missing(category: str, sources: Sequence[Source], root: Path) -> tuple[list[str], list[str]]:
    """Return problems and notes about masks that are not there."""
    bad = [source for source in sources if source.defect_type != GOOD]
    bare = [source for source in bad if not source.masks]
    if bad and len(bare) == len(bad):
        return [], [f"{category}: no masks, so the explanation cannot be measured"]
    masked = [source for source in bad if source.masks]
    return [
        f"{source.file}: its mask is missing; looked for {expected_mask(source, masked, root)}"
        for source in bare
    ], []


def expected_mask(source: Source, masked: Sequence[Source], root: Path) -> Path:
    """Return where a picture's mask would lie, as those of its neighbours do; of its type, if one has a mask.

    Args:
        masked: pictures of the category that have masks; at least one.
        root: of the data set.
    """
    same = [other for other in masked if other.defect_type == source.defect_type] or masked
    near = next((other for other in same if other.file.parent == source.file.parent), same[0])
    here, there = source.file.relative_to(root).parts, near.file.relative_to(root).parts
    changed = dict(zip(there[:-1], here[:-1], strict=False)) if len(here) == len(there) else {}
    names = [
        changed.get(name, name).replace(near.file.stem, source.file.stem)
        for name in mask_file(near.masks[0]).relative_to(root).parts
    ]
    return root.joinpath(*names)


def looks_flat(picture: NDArray[np.uint8], deep: bool) -> Flat | None:
    """Return how a picture, (H, W, 3), looks like a mask; None if it does not.

    Args:
        deep: its file has more than 8 bits, so that few levels here may be many there.
    """
    sample = picture[:: max(1, len(picture) // 16)]
    if deep and int(picture.max()) - int(picture.min()) < _DEEP_STEP:
        return None
    if _two_colours(sample.reshape(-1, 3)):
        return "two values" if _two_colours(picture.reshape(-1, 3)) else None
    grey = bool((sample == sample[..., :1]).all() and (picture == picture[..., :1]).all())
    flat = grey and is_binary(sample[..., 0]) and is_binary(picture[..., 0])
    return "nearly two values" if flat else None


def _two_colours(pixels: NDArray[np.uint8]) -> bool:
    other = (pixels != pixels[0]).any(axis=1)
    second = pixels[int(other.argmax())]
    return bool((~other | (pixels == second).all(axis=1)).all())


def check_parts(category: str, flat: Mapping[Source, Flat], read: int) -> tuple[list[str], list[str]]:
    """Return problems, or a note, about pictures that look like masks and would be parts.

    Where every picture is so, or most are nearly so, the camera makes them, and a note says so.

    Args:
        flat: those pictures, and how they look like masks.
        read: how many pictures of the category could be read.
    """
    sharp = sum(how == "two values" for how in flat.values())
    if flat and (len(flat) == read or (not sharp and 2 * len(flat) > read)):
        return [], [f"{category}: {len(flat)} of {read} pictures have nearly two values, as masks have"]
    return [
        f"{source.file}: looks like a mask: {how} in all its pixels, but it would count as a "
        f"{'good' if source.defect_type == GOOD else 'defective'} picture; put masks into "
        f"{category}/ground_truth/ under their pictures' names, or leave the file out"
        for source, how in flat.items()
    ], []
