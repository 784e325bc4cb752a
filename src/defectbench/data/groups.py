"""The groups of a category: those that its user or layout names, united with those of copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from defectbench.data.copies import Copies, superseded
from defectbench.data.layouts.base import Source
from defectbench.data.layouts.grouping import connected

_SHOWN = 3
"""Names that a note gives."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Which pictures of a category stay together.

    Attributes:
        names: picture file -> its group; those in one alone.
        left_out: training pictures that share a group with a tested one.
        notes: one line each.
    """

    names: Mapping[Path, str] = field(default_factory=dict)
    left_out: frozenset[Path] = frozenset()
    notes: tuple[str, ...] = ()


def unite(sources: Sequence[Source], copies: Copies) -> Groups:
    """Return one category's groups: declared ones and groups of copies are one where they share a picture.

    A group that is declared keeps its name, the first one's where several are united.
    """
    sets: dict[tuple[str, str], list[int]] = {}
    for place, source in enumerate(sources):
        for kind, name in (("declared", source.group), ("copies", copies.groups.get(source.file))):
            if name is not None:
                sets.setdefault((kind, name), []).append(place)
    parts = [[sources[place] for place in part] for part in connected(len(sources), sets.values())]
    names: dict[Path, str] = {}
    for part in parts:
        name = _name(part, copies)
        if name is not None:
            names.update(dict.fromkeys((source.file for source in part), name))
    left_out = [source for part in parts for source in superseded(part) if source.file in names]
    return Groups(
        names,
        frozenset(source.file for source in left_out),
        (*_declared(sources, names), *_lost(left_out, parts, names, copies)),
    )


def _name(part: Sequence[Source], copies: Copies) -> str | None:
    """Return the name of a group; one of copies alone is named so that no declared one has its name."""
    declared = next((source.group for source in part if source.group is not None), None)
    named = copies.groups.get(part[0].file)
    return declared if declared is not None or named is None else f"copies of {named}"


def _declared(sources: Sequence[Source], names: Mapping[Path, str]) -> Iterator[str]:
    """Yield a note on how many pictures are in how many groups, where any is declared."""
    found = [source for source in sources if source.group is not None]
    if found:
        alone = len(sources) - sum(source.file in names for source in sources)
        more = f"; {alone} pictures are in none" if alone else ""
        yield (
            f"{found[0].category}: {len(sources) - alone} pictures in {len(set(names.values()))} groups, "
            f"which stay whole in every cut{more}"
        )


def _lost(
    left_out: Sequence[Source], parts: Sequence[Sequence[Source]], names: Mapping[Path, str], copies: Copies
) -> Iterator[str]:
    """Yield a note on training pictures that are left out for their group; of copies there is one already."""
    lost = [source for source in left_out if source.file not in copies.left_out]
    if lost:
        tested = {
            names[part[0].file]: next(source.file for source in part if source.part == "test")
            for part in parts
            if part[0].file in names and any(source.part == "test" for source in part)
        }
        first = "; ".join(
            f"{source.file} (group {names[source.file]!r}, tested: {tested[names[source.file]]})"
            for source in lost[:_SHOWN]
        )
        yield (
            f"{lost[0].category}: {len(lost)} training picture{'s' if len(lost) > 1 else ''} left out, "
            f"because the test part has others of their group; the first: {first}"
        )
