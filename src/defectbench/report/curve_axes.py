"""Curves in the unit square: the frame is drawn once, the curves are written into it as paths.

A report has two such figures for every model and category, and drawing each anew would take most of its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from defectbench.report.canvas import Drawing, finish, ink, new_figure

_SIDE = 1.75
# SVG's unit, a point: 72 to the inch.
_POINTS = 72 * _SIDE
_LIMITS = (-0.02, 1.02)
_TEXT = "@text@"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """An empty unit square.

    Attributes:
        drawn: its SVG element, with a placeholder for the text.
        left, bottom, width, height: of the square, as shares of the figure, from below.
    """

    drawn: str
    left: float
    bottom: float
    width: float
    height: float

    def path(self, x: Floats, y: Floats) -> str:
        """Return the path's description through points of the square."""
        low, reach = _LIMITS[0], _LIMITS[1] - _LIMITS[0]
        across = _POINTS * (self.left + self.width * (x - low) / reach)
        # SVG counts from above, matplotlib from below.
        down = _POINTS * (1 - self.bottom - self.height * (y - low) / reach)
        return "M " + " L ".join(f"{a:.2f} {b:.2f}" for a, b in zip(across, down, strict=True))


@cache
def frame(across: str, up: str) -> Frame:
    """Return the square with its two names."""
    with new_figure(_SIDE, _SIDE) as (figure, axes):
        axes.set(xlim=_LIMITS, ylim=_LIMITS, xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.set_yticklabels(["0", "0.5", "1"])
        axes.set_box_aspect(1)
        axes.set_xlabel(across, color=ink("muted"), labelpad=1)
        axes.set_ylabel(up, color=ink("muted"), labelpad=0)
        drawn = finish(figure, "frame", _TEXT).drawn
        place = axes.get_position()
    return Frame(drawn, place.x0, place.y0, place.width, place.height)


def draw(
    name: str,
    text: str,
    names: tuple[str, str],
    curves: Sequence[tuple[Floats, Floats]],
    guide: tuple[Floats, Floats],
    colour: str,
    cells: Iterable[str],
) -> Drawing:
    """Return a figure of curves in the unit square.

    Args:
        names: of what runs across and up.
        guide: what a random guess gives, dashed.
        colour: of the curves, a name of :data:`defectbench.report.canvas.COLOURS`.
    """
    from markupsafe import escape

    square = frame(*names)
    dashes = f"stroke: {ink('rule')}; stroke-width: 0.7; stroke-dasharray: 3 2"
    line = f"stroke: {ink(colour)}; stroke-width: 0.9; stroke-opacity: 0.8"
    paths = [(guide, dashes), *((curve, line) for curve in curves)]
    written = "".join(
        f'<path d="{square.path(x, y)}" style="fill: none; {style}"/>\n' for (x, y), style in paths
    )
    drawn = square.drawn.replace(_TEXT, str(escape(text))).replace("</svg>", f"{written}</svg>")
    return Drawing(name, text, drawn, tuple(dict.fromkeys(cells)))


def steps(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the corners of a curve that keeps each value back to the point before.

    >>> [each.tolist() for each in steps(np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.8, 0.6]))]
    [[0.0, 0.0, 0.5, 0.5, 1.0], [1.0, 0.8, 0.8, 0.6, 0.6]]
    """
    return np.repeat(x, 2)[:-1], np.repeat(y, 2)[1:]
