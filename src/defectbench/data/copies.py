"""What copies of one exposure mean for a data set: groups, problems, and training pictures left out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from defectbench.data.duplicates import Pair, duplicate_groups, near_duplicates
from defectbench.data.frames import PictureFrame
from defectbench.data.layouts.base import Label, Source
from defectbench.data.progress import ProgressCallback
from defectbench.util.image_io import Intensity, overview, read_picture

_SHOWN = 3
"""Names that a note gives."""


@dataclass(frozen=True, slots=True)
class Copies:
    """What the copies among a category's pictures mean.

    Attributes:
        problems: one for each pair under two labels, good and defective.
        notes: groups, what is left out and what was accepted, with counts and first names.
        groups: picture file -> name of its group, the id of its first picture; those in a group alone.
        left_out: training pictures of which the test part has a copy.
        accepted: pairs under two labels that are kept because the user says so.
    """

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    groups: Mapping[Path, str] = field(default_factory=dict)
    left_out: frozenset[Path] = frozenset()
    accepted: tuple[tuple[Path, Path], ...] = ()


def judge_copies(read: Sequence[Source], pairs: Sequence[Pair], *, accept: bool = False) -> Copies:
    """Return what the copies among the pictures of one category mean.

    Args:
        read: its pictures, as :func:`find_pairs` had them.
        pairs: what that found.
        accept: a pair under two labels is a note and no problem.
    """
    groups = [[read[index] for index in group] for group in duplicate_groups(len(read), pairs)]
    crossing = [
        pair for pair in pairs if {read[pair.first].label, read[pair.second].label} == {"good", "bad"}
    ]
    left_out = [source for group in groups for source in superseded(group)]
    notes = [*_grouped(groups), *_left_out(left_out, groups)]
    if accept and crossing:
        notes.append(_accepted(crossing, read))
    if left_out and all(source in left_out for source in read if _trains(source)):
        problems = [f"{read[0].category}: each training picture has a copy in the test part; none is left"]
    else:
        problems = []
    return Copies(
        (*problems, *(() if accept else (_conflict(pair, read) for pair in crossing))),
        tuple(notes),
        {source.file: group[0].id for group in groups for source in group},
        frozenset(source.file for source in left_out),
        tuple((read[pair.first].file, read[pair.second].file) for pair in crossing) if accept else (),
    )


def find_pairs(
    read: Sequence[Source],
    pixels: Mapping[Path, str],
    frames: Mapping[Path, PictureFrame],
    progress: ProgressCallback,
    intensity: Intensity,
) -> list[Pair]:
    """Return the pairs of equal pixels (score 1), then those that the search finds among the others.

    Args:
        read: pictures of one category.
        pixels: picture file -> digest of its pixels.
        frames: picture file -> what the search keeps of it.
        intensity: the scale of grey of more than 8 bits.
    """
    same: dict[str, list[int]] = defaultdict(list)
    for index, source in enumerate(read):
        same[pixels[source.file]].append(index)
    firsts = [indices[0] for indices in same.values()]
    equal = [Pair(indices[0], other, 1.0) for indices in same.values() for other in indices[1:]]
    near = near_duplicates(
        [frames[read[index].file] for index in firsts],
        lambda place: overview(read_picture(read[firsts[place]].file, intensity=intensity)),
        progress,
    )
    return [*equal, *(Pair(firsts[pair.first], firsts[pair.second], pair.score) for pair in near)]


def _labels(pair: Pair, read: Sequence[Source]) -> set[Label]:
    return {read[pair.first].label, read[pair.second].label}


def _trains(source: Source) -> bool:
    return source.part == "train" and source.label == "good"


def superseded(group: Sequence[Source]) -> list[Source]:
    """Return the group's training pictures if it has a test picture too."""
    if all(source.part != "test" for source in group):
        return []
    return [source for source in group if source.part == "train"]


def _conflict(pair: Pair, read: Sequence[Source]) -> str:
    one, two = read[pair.first], read[pair.second]
    how = (
        "the same picture" if pair.score == 1 else f"copies of one picture (agreement {pair.score:.2f} of 1)"
    )
    return (
        f"{one.file} and {two.file}: {how} under two labels, {one.defect_type} and {two.defect_type}; "
        "correct the label or take one away, or keep both with --accept-duplicates"
    )


def _grouped(groups: Sequence[Sequence[Source]]) -> Iterator[str]:
    if groups:
        first = "; ".join(
            " = ".join(str(source.file) for source in group[:_SHOWN]) for group in groups[:_SHOWN]
        )
        number = sum(map(len, groups))
        yield (
            f"{groups[0][0].category}: {_many(len(groups), 'group')} of copies, {number} pictures, "
            f"each group one part; the first: {first}"
        )


def _left_out(left_out: Sequence[Source], groups: Sequence[Sequence[Source]]) -> Iterator[str]:
    if left_out:
        group_of = {source.file: group for group in groups for source in group}
        first = "; ".join(
            f"{source.file} (copy: {next(s.file for s in group_of[source.file] if s.part == 'test')})"
            for source in left_out[:_SHOWN]
        )
        yield (
            f"{left_out[0].category}: {_many(len(left_out), 'training picture')} left out, because the test "
            f"part has a copy; the first: {first}"
        )


def _accepted(crossing: Sequence[Pair], read: Sequence[Source]) -> str:
    first = "; ".join(f"{read[pair.first].file} and {read[pair.second].file}" for pair in crossing[:_SHOWN])
    return (
        f"{read[0].category}: {_many(len(crossing), 'pair')} of copies under two labels accepted, as "
        f"--accept-duplicates says; the first: {first}"
    )


def _many(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
