"""Which pictures belong together, as their paths below the data set's folder say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from defectbench.data.layouts.base import Source
from defectbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class Grouping:
    """A rule that names the group of a picture by its path.

    Attributes:
        pattern: found in the path; its first capturing group, or all that it matches, names the group. None
            groups by the folder that a picture lies in.
    """

    pattern: re.Pattern[str] | None = None

    def name_of(self, path: str) -> str | None:
        """Return the group of the picture at ``path``; None where the pattern finds nothing or nothing much.

        >>> Grouping(re.compile("part([0-9]+)")).name_of("good/part07_3.png")
        '07'
        >>> Grouping().name_of("good/part07/3.png")
        'good/part07'
        """
        if self.pattern is None:
            return path.rpartition("/")[0] or None
        found = self.pattern.search(path)
        return None if found is None else (found[1] if self.pattern.groups else found[0]) or None


def make_grouping(pattern: str | None, by_folder: bool) -> Grouping | None:
    """Return the rule that a user asks for; None where none is.

    Raises:
        UsageError: both are asked for, or the pattern is no regular expression.
    """
    if pattern is None:
        return Grouping() if by_folder else None
    if by_folder:
        raise UsageError("--group and --group-by-folder: give one of them")
    try:
        return Grouping(re.compile(pattern))
    except re.error as error:
        raise UsageError(
            f"--group {pattern!r}: no regular expression ({error}); give one that is found in the paths "
            "below SRC, as in 'part(\\d+)'"
        ) from error


def grouped(sources: Sequence[Source], rule: Grouping, root: Path) -> list[Source]:
    """Return one category's sources with the groups that the rule gives.

    Groups that the layout knows are united with them where they share a picture.
    """
    names = [rule.name_of(source.file.relative_to(root).as_posix()) for source in sources]
    shared: dict[tuple[str, str], list[int]] = {}
    for place, (source, name) in enumerate(zip(sources, names, strict=True)):
        for kind, group in (("rule", name), ("layout", source.group)):
            if group is not None:
                shared.setdefault((kind, group), []).append(place)
    found = list(sources)
    for members in connected(len(sources), shared.values()):
        named = [names[place] or sources[place].group for place in members]
        name = next((one for one in named if one is not None), None)
        for place in members:
            found[place] = replace(sources[place], group=name)
    return found


def connected(number: int, sets: Iterable[Sequence[int]]) -> list[list[int]]:
    """Return the connected parts of ``number`` things, each sorted, by their first.

    Args:
        sets: things that belong together.

    >>> connected(5, [[0, 2], [2, 4]])
    [[0, 2, 4], [1], [3]]
    """
    head = list(range(number))

    def root(place: int) -> int:
        while head[place] != place:
            head[place] = head[head[place]]
            place = head[place]
        return place

    for members in sets:
        for other in members[1:]:
            one, two = sorted((root(members[0]), root(other)))
            head[two] = one
    parts: dict[int, list[int]] = {}
    for place in range(number):
        parts.setdefault(root(place), []).append(place)
    return list(parts.values())
