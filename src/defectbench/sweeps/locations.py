"""Where a value of a sweep stands: its keys, and the line of its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml

from defectbench.errors import SweepError

KeyPath = tuple[str | int, ...]
"""Where a value stands in the file: keys and list positions from the top."""


@dataclass(frozen=True)
class SourceLines:
    """Lines of a YAML file's values.

    Attributes:
        lines: None where a sweep is no text.
        option: by what the values at ``overridden`` were set.
    """

    file: str
    lines: Mapping[KeyPath, int] | None
    overridden: frozenset[KeyPath] = frozenset()
    option: str = "--set"

    def of(self, path: Sequence[str | int]) -> str:
        """Return ``file:line`` of the value at ``path``, or of the nearest one around it."""
        place = tuple(path)
        # What was laid over a value hides the lines of all that the file had there.
        for depth in range(1, len(place) + 1):
            if place[:depth] in self.overridden:
                return f"{self.option} {'.'.join(map(str, place[:depth]))}"
        if self.lines is None:
            return self.file
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.file}:{self.lines.get(place, 1)}"


def lines_of(
    node: yaml.Node | None, path: KeyPath, file: str, around: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[KeyPath, int]]:
    """Yield (path, line) of every value; for a mapping's value the line of its key.

    Raises:
        SweepError: a key stands twice, or an alias stands inside what it names.
    """
    if node is not None and any(node is outer for outer in around):
        raise SweepError(f"{file}:{node.start_mark.line + 1}: holds itself, by an alias")
    inside = around if node is None else (*around, node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise SweepError(f"{file}:{line}: {key.value!r} stands twice")
            seen.add(key.value)
            yield (*path, key.value), line
            yield from lines_of(value, (*path, key.value), file, inside)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*path, position), value.start_mark.line + 1
            yield from lines_of(value, (*path, position), file, inside)
