"""Figures of the report as SVG: curves by fold, figures with their intervals, paired differences.

A figure is drawn once, in placeholder colours: inside the page they become CSS variables, so that it follows
the page's light or dark colours; in a file of its own they become plain colours.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from defectbench.report.rows import Comparison, Curve, Curves, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS: Mapping[str, tuple[str, str]] = {
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

_STYLE: Any = {
    "svg.fonttype": "none",
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
    """

    name: str
    text: str
    drawn: str

    def file(self) -> str:
        """Return the SVG file."""
        svg = self.drawn
        for placeholder, colour in _COLOURS.values():
            svg = svg.replace(placeholder, colour)
        return f'<?xml version="1.0" encoding="utf-8"?>\n{svg}\n'

    def inline(self) -> str:
        """Return the SVG element for a page that sets ``--ink`` and the other colours; ids are its own."""
        svg = self.drawn
        for name, (placeholder, colour) in _COLOURS.items():
            svg = svg.replace(placeholder, f"var(--{name}, {colour})")
        svg = re.sub(r'\bid="', f'id="{self.name}.', svg)
        svg = svg.replace("url(#", f"url(#{self.name}.").replace('href="#', f'href="#{self.name}.')
        return svg


def roc(curves: Curves) -> Drawing:
    """Draw the ROC curve of each fold and seed of one model and category."""
    with _figure(1.75, 1.75) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=_ink("rule"), linewidth=0.7, linestyle=(0, (3, 2)))
        for curve in curves.roc:
            axes.plot(curve.x, curve.y, color=_ink(curves.family), linewidth=0.9, alpha=0.8)
        _unit_square(axes, "false alarms", "recall")
        return _finish(
            figure, f"roc+{curves.label}+{curves.category}", _curve_text("ROC", "AUROC", curves, curves.roc)
        )


def precision_recall(curves: Curves) -> Drawing:
    """Draw the precision-recall curve of each fold and seed of one model and category, in steps."""
    with _figure(1.75, 1.75) as (figure, axes):
        axes.axhline(curves.share, color=_ink("rule"), linewidth=0.7, linestyle=(0, (3, 2)))
        for curve in curves.precision_recall:
            axes.plot(
                curve.x, curve.y, drawstyle="steps-pre", color=_ink(curves.family), linewidth=0.9, alpha=0.8
            )
        _unit_square(axes, "recall", "precision")
        text = _curve_text("Precision-recall", "average precision", curves, curves.precision_recall)
        return _finish(figure, f"pr+{curves.label}+{curves.category}", text)


def scores(category: str, endpoint: str, rows: Sequence[Score], lowest: float) -> Drawing:
    """Draw one category's endpoint with its interval, a line for each model.

    Args:
        lowest: where the axis starts, the same for all categories.
    """
    with _figure(3.3, 0.42 + 0.22 * len(rows)) as (figure, axes):
        for place, row in enumerate(reversed(rows)):
            colour = _ink(row.family)
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.2)
            face = _ink("paper") if row.baseline else colour
            axes.plot(
                [row.value],
                [place],
                "o",
                markersize=4.5,
                color=colour,
                markerfacecolor=face,
                markeredgewidth=1.1,
            )
        _names(axes, [row.label for row in reversed(rows)])
        axes.set_xlim(lowest - 0.01, 1.01)
        parts = [f"{row.label} {_interval(row.value, row.low, row.high)}" for row in rows]
        return _finish(figure, f"{endpoint}+{category}", f"{endpoint} on {category}: {'; '.join(parts)}.")


def differences(rows: Sequence[Comparison], margin: float) -> Drawing:
    """Draw the paired differences of the contenders, a line for each category, and the margin around 0."""
    with _figure(4.0, 0.7 + 0.25 * len(rows)) as (figure, axes):
        axes.axvspan(-margin, margin, color=_ink("band"), linewidth=0)
        axes.axvline(0, color=_ink("muted"), linewidth=0.7)
        for place, row in enumerate(reversed(rows)):
            decided = row.verdict in ("classifier", "detector")
            colour = _ink(row.verdict if decided else "ink")
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4)
            axes.plot([row.difference], [place], "o", markersize=5, color=colour)
        _names(axes, [row.category for row in reversed(rows)])
        bounds = [abs(v) for row in rows for v in (row.low, row.high, row.difference) if np.isfinite(v)]
        reach = 1.08 * max([*bounds, 2 * margin])
        axes.set_xlim(-reach, reach)
        axes.set_xlabel(" ")
        for side, text in ((0.0, "← detector better"), (1.0, "classifier better →")):
            align = "left" if side == 0 else "right"
            axes.annotate(
                text,
                (side, 0),
                (0, -16),
                "axes fraction",
                "offset points",
                ha=align,
                va="top",
                color=_ink("muted"),
            )
        parts = [f"{row.category} {_interval(row.difference, row.low, row.high)}" for row in rows]
        text = f"Classifier minus detector by category, margin ±{margin:g}: {'; '.join(parts)}."
        return _finish(figure, "differences", text)


def _ink(name: str) -> str:
    return _COLOURS[name][0]


def _interval(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "not defined"
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if np.isfinite(low) else "")


def _curve_text(what: str, figure: str, curves: Curves, lines: Sequence[Curve]) -> str:
    values = ", ".join("not defined" if np.isnan(line.figure) else f"{line.figure:.3f}" for line in lines)
    return f"{what} curves of {curves.label} on {curves.category}; {figure} of each fold: {values}."


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """Yield an empty figure of ``width`` x ``height`` inches with its one axes, in our style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(_STYLE):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02)
        figure = Figure(figsize=(width, height), layout=layout)
        axes = figure.add_subplot()
        for side in ("left", "bottom"):
            axes.spines[side].set_color(_ink("rule"))
        axes.tick_params(color=_ink("rule"), labelcolor=_ink("muted"))
        axes.patch.set_alpha(0)
        yield figure, axes


def _unit_square(axes: Axes, across: str, up: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    axes.set_xticklabels(["0", "0.5", "1"])
    axes.set_yticklabels(["0", "0.5", "1"])
    axes.set_box_aspect(1)
    axes.set_xlabel(across, color=_ink("muted"), labelpad=1)
    axes.set_ylabel(up, color=_ink("muted"), labelpad=0)


def _names(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines of a dot plot."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0, labelcolor=_ink("ink"))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=_ink("band"), linewidth=0.7)
    axes.set_axisbelow(True)


def _finish(figure: Figure, name: str, text: str) -> Drawing:
    """Return the figure as an SVG element that says what it shows."""
    from markupsafe import escape

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"'?DejaVu Sans'?[^;\"]*(?=[;\"])", _FONT.replace('"', "'"), svg)
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{escape(text)}" ', 1)
    svg = svg.replace(">", f">\n<title>{escape(text)}</title>", 1)
    return Drawing(name, text, svg)
