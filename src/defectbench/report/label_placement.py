"""Names beside the dots of a figure, where they cover neither each other nor what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CLEAR = 2.0
"""Points that stay free around what is drawn."""

_DISTANCE = 8.0
"""Points between a name and the dots of others: a name nearer to another's dot would be read as its."""

_FAR = 7.0
"""Points from a dot to its name."""

_SIDES: Sequence[tuple[float, float, str, str]] = (
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (0, 0.8, "center", "bottom"),
    (0, -0.8, "center", "top"),
    (0.6, 0.4, "left", "bottom"),
    (0.6, -0.4, "left", "top"),
    (-0.6, 0.4, "right", "bottom"),
    (-0.6, -0.4, "right", "top"),
)
"""Where a name may be: offset in units of its distance and alignment, the best first."""


@dataclass(frozen=True, slots=True)
class Label:
    """A name, the dot that it belongs to (in the axes' own units), its colour; ``bold`` for a larger dot."""

    text: str
    at: tuple[float, float]
    colour: str
    bold: bool = False


def place_labels(axes: Axes, tags: Sequence[Label], path: Sequence[tuple[float, float]]) -> None:
    """Write the names, the first ones with the freest choice of place.

    Args:
        path: points of a line that names should leave free.
    """
    figure: Any = axes.figure
    figure.draw_without_rendering()  # the layout must be fixed before anything can be measured
    taken = [_around(axes, point, _CLEAR) for point in (*(tag.at for tag in tags), *path)]
    for tag in tags:
        others = [_around(axes, other.at, _DISTANCE) for other in tags if other is not tag]
        notes = [_write(axes, tag, side) for side in _SIDES]
        boxes = [note.get_window_extent() for note in notes]
        # Greedy: names are few, and the first in the list matter most.
        costs = [_cost(box, [*taken, *others], axes.bbox) for box in boxes]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        for number, note in enumerate(notes):
            if number != best:
                note.remove()


def _around(axes: Axes, point: tuple[float, float], points: float) -> Any:
    """Return the box, in pixels, of so many points around a point of the axes."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform(point)
    reach = points * axes.figure.dpi / 72
    return Bbox.from_extents(x - reach, y - reach, x + reach, y + reach)


def _write(axes: Axes, tag: Label, side: tuple[float, float, str, str]) -> Any:
    """Write a name on one side of its dot."""
    right, up, across, along = side
    far = _FAR * (1.5 if tag.bold else 1)
    return axes.annotate(
        tag.text,
        tag.at,
        (far * right, far * up),
        textcoords="offset points",
        ha=across,
        va=along,
        color=tag.colour,
        fontsize=7.5,
        fontweight="bold" if tag.bold else "normal",
        in_layout=False,
    )


def _cost(box: Any, taken: Sequence[Any], frame: Any) -> float:
    """Return how much of ``box``, in pixels, covers something or leaves the frame."""
    covered = sum(_shared(box, other) for other in taken)
    # Outside the frame a name is cut off, which is worse than a covered one.
    return float(covered + 10 * (box.width * box.height - _shared(box, frame)))


def _shared(one: Any, other: Any) -> float:
    """Return the area, in pixels, that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))
