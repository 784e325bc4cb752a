"""One scale for all grey pictures of more than 8 bits of a data set: chosen before anything else is read.

A 12-bit camera's values stand in 16-bit files, and divided by 257 they would leave 16 grey levels. The scale
is that of the whole range of 8, 10, 12, 14 or 16 bits, whichever is the least that all values fit into, or a
window that the user gives. It is one for the data set and never fitted to a picture. Pictures that are tested
later have a say in the number of bits alone: a property of the camera, not a statistic that a fit could
profit from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.errors import DataError
from defectbench.util.image_io import FULL, Depth, Intensity, depth, read_values

AUTO = "auto"
BITS = (8, 10, 12, 14, 16)
"""Bits of cameras, one of which :func:`choose` finds."""

_REPLICATED = 257
"""By which 8 bits are multiplied where they fill 16."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What was chosen.

    Attributes:
        intensity: the scale.
        problems: pictures that it cannot be used for, one line each.
        notes: what was found and chosen, one line each; empty where all pictures have 8 bits.
    """

    intensity: Intensity
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Levels:
    """The values of some pictures.

    Attributes:
        largest: of them.
        bits: every bit that is set in any.
        replicated: all are 8 bits times 257.
    """

    largest: int = 0
    bits: int = 0
    replicated: bool = True

    def of(self, values: NDArray[Any]) -> _Levels:
        """Return these and the values of another picture."""
        return _Levels(
            max(self.largest, int(values.max())),
            self.bits | int(np.bitwise_or.reduce(values, axis=None)),
            self.replicated and not (values % _REPLICATED).any(),
        )

    @property
    def needed(self) -> int:
        """The least of :data:`BITS` that holds them; 16 where they fill the upper bits, or are all 0."""
        aligned = any(not self.bits & (1 << (16 - bits)) - 1 for bits in BITS if bits < 16)
        if self.largest == 0 or aligned or self.replicated:
            return 16
        return next(bits for bits in BITS if self.largest < 1 << bits)


def choose(pictures: Sequence[Path], asked: str = AUTO, progress: ProgressCallback = no_progress) -> Scale:
    """Return the scale of a data set.

    Args:
        pictures: all of its pictures, masks apart.
        asked: ``auto`` or ``window:LOW,HIGH``.

    Raises:
        UsageError: ``asked`` is neither.
    """
    window = None if asked == AUTO else Intensity.parse(asked)
    by_depth: dict[Depth, list[Path]] = defaultdict(list)
    for picture in pictures:
        by_depth[depth(picture)].append(picture)
    deep = by_depth["16"] + by_depth["32"]
    if window is not None and (window.low, window.high) == (FULL.low, FULL.high) and not by_depth["32"]:
        window = FULL
    if window is not None:
        return Scale(
            window if deep else FULL, tuple(_foreign(by_depth, window)), tuple(_said(by_depth, window))
        )
    if not deep:
        return Scale(FULL, tuple(_dim_colours(by_depth["16-colour"], progress)))
    levels = _levels(deep, progress)
    scale = Intensity.of_bits(levels.needed)
    problems = _dim_colours(by_depth["16-colour"], progress)
    return Scale(scale, tuple(problems), (_found(deep, levels, scale), *_mixed(by_depth)))


def _levels(deep: Sequence[Path], progress: ProgressCallback) -> _Levels:
    """Return the levels of all that has whole numbers of 16 bits; the check names what has not."""
    levels = _Levels()
    for done, picture in enumerate(deep, start=1):
        try:
            values = read_values(picture)
        except DataError:
            continue
        if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= FULL.high:
            levels = levels.of(values)
        progress("looking for the bits of the values", done, len(deep))
    return levels


def _found(deep: Sequence[Path], levels: _Levels, scale: Intensity) -> str:
    if scale == FULL:
        return (
            f"grey of 16 bits in {len(deep)} pictures: the largest value is {levels.largest}, {scale.words}"
        )
    return (
        f"grey of {levels.needed} bits in 16-bit files: the largest value of {len(deep)} pictures is "
        f"{levels.largest}, so all are read on one scale: {scale.words}; --intensity window:0,65535 keeps "
        "that of 16 bits"
    )


def _said(by_depth: Mapping[Depth, Sequence[Path]], window: Intensity) -> Iterator[str]:
    deep = len(by_depth["16"]) + len(by_depth["32"])
    if not deep:
        yield "no grey picture has more than 8 bits, so --intensity changes nothing"
        return
    yield f"grey of more than 8 bits in {deep} pictures: {window.words}, as --intensity says"
    yield from _mixed(by_depth)


def _mixed(by_depth: Mapping[Depth, Sequence[Path]]) -> Iterator[str]:
    """Yield a note where some pictures have 8 bits and others more: a model may learn the difference."""
    if by_depth["8"]:
        deep = [*by_depth["16"], *by_depth["32"]]
        yield (
            f"{len(by_depth['8'])} pictures have 8 bits, the first is {by_depth['8'][0]}, and {len(deep)} "
            f"more, the first is {deep[0]}: those of 8 bits stay as they are; check that both look alike"
        )


def _foreign(by_depth: Mapping[Depth, Sequence[Path]], window: Intensity) -> Iterator[str]:
    """Yield a problem for 16-bit colours, which are read by their upper 8 bits, under another window."""
    if (window.low, window.high) != (FULL.low, FULL.high):
        for picture in by_depth["16-colour"]:
            yield (
                f"{picture}: its colours have 16 bits, of which the upper 8 are read: {window.text} is for "
                "grey alone; save the colours with 8 bits"
            )


def _dim_colours(pictures: Sequence[Path], progress: ProgressCallback) -> Iterator[str]:
    """Yield one problem where the upper 8 bits of all 16-bit colours leave few levels."""
    largest = 0
    for done, picture in enumerate(pictures, start=1):
        try:
            largest = max(largest, int(read_values(picture).max()))
        except DataError:
            continue
        progress("looking for the bits of the colours", done, len(pictures))
    if pictures and largest < 64:
        yield (
            f"{pictures[0]}: {len(pictures)} pictures have colours of 16 bits, of which the upper 8 are "
            f"read, and the largest value there is {largest}: at most {largest + 1} levels are left; save "
            "them with 8 bits, or say --intensity window:0,65535 if they are meant to be that dark"
        )
