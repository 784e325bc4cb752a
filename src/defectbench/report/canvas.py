"""One canvas for all figures: its style, its colours, and the SVG element that describes what it shows.

A figure is drawn once, in placeholder colours: inside the page they become CSS variables, so that it follows
the page's light or dark colours; in a file of its own they become plain colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS: Mapping[str, tuple[str, str]] = {
    "ink": ("#010101", "#1c2127"),
    "muted": ("#020202", "#5b6570"),
    "rule": ("#030303", "#c9d0d7"),
    "band": ("#040404", "#e6eaee"),
    "classifier": ("#050505", "#0b5fa5"),
    "detector": ("#060606", "#b3500a"),
    "supervised": ("#070707", "#6a48a8"),
    "paper": ("#080808", "#ffffff"),
}
"""Name of a CSS variable -> (placeholder while drawing, colour in a file)."""

STYLE: Any = {
    "svg.fonttype": "none",
    # Fixed, so that the ids in an SVG, and so its bytes, are the same each time.
    "svg.hashsalt": "defectbench",
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.unicode_minus": True,
    # A model's label may hold a dollar sign.
    "text.parse_math": False,
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure.

    Attributes:
        name: of its file, without ``.svg``.
        text: what it shows, for those who do not see it.
        drawn: the SVG element in placeholder colours.
        cells: keys of the cells that it is drawn from.
    """

    name: str
    text: str
    drawn: str
    cells: tuple[str, ...] = ()

    def file(self) -> str:
        """Return the SVG file, which names its cells."""
        svg = self.drawn
        if self.cells:
            svg = svg.replace("</title>", f"</title>\n<desc>Cells: {' '.join(self.cells)}</desc>", 1)
        for placeholder, colour in COLOURS.values():
            svg = svg.replace(placeholder, colour)
        return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n'

    def inline(self) -> str:
        """Return the SVG element for a page that sets ``--ink`` and the other colours; ids are its own."""
        svg = self.drawn
        for name, (placeholder, colour) in COLOURS.items():
            svg = svg.replace(placeholder, f"var(--{name}, {colour})")
        # Ids must be unique in a page, and every figure has its own clip paths.
        svg = re.sub(r'\bid="', f'id="{self.name}.', svg)
        svg = svg.replace("url(#", f"url(#{self.name}.").replace('href="#', f'href="#{self.name}.')
        return svg


def ink(name: str) -> str:
    """Return the placeholder of a colour, to draw with."""
    return COLOURS[name][0]


@contextmanager
def new_figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure of ``width`` x ``height`` inches with its one axes, in our style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
        figure = Figure(figsize=(width, height), layout=layout)
        axes = figure.add_subplot()
        for side in ("left", "bottom"):
            axes.spines[side].set_color(ink("rule"))
        axes.tick_params(color=ink("rule"), labelcolor=ink("muted"))
        axes.patch.set_alpha(0)
        yield figure, axes


def finish(
    figure: Figure, name: str, text: str, *, cells: Iterable[str] = (), paper: bool = False
) -> Drawing:
    """Return the figure as an SVG element that describes itself; with ``paper`` on its own background."""
    from markupsafe import escape

    buffer = io.StringIO()
    figure.savefig(
        buffer,
        format="svg",
        # A date would change the bytes of every figure with every report.
        metadata={"Date": None, "Creator": None},
        transparent=not paper,
        facecolor=ink("paper"),
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"'?DejaVu Sans'?[^;\"]*(?=[;\"])", _FONT.replace('"', "'"), svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(text)}" ', 1)
    svg = svg.replace(">", f">\n<title>{escape(text)}</title>", 1)
    return Drawing(name, text, svg, tuple(dict.fromkeys(cells)))
