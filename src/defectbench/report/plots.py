"""Figures of the report as SVG: curves by fold, figures with their intervals, paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from defectbench.report import curve_axes
from defectbench.report.canvas import Drawing, finish, ink, new_figure
from defectbench.tables.conditions import cells_of
from defectbench.tables.rows import ComparisonRow, CurveRow, Curves, ScoreRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def roc(curves: Curves) -> Drawing:
    """Draw the ROC curve of each fold and seed of one model and category."""
    return curve_axes.draw(
        f"roc+{curves.label}+{curves.category}",
        _curve_text("ROC", "AUROC", curves, curves.roc),
        ("false alarms", "recall"),
        [(curve.x, curve.y) for curve in curves.roc],
        (np.array([0.0, 1.0]), np.array([0.0, 1.0])),
        curves.family,
        [curve.cell for curve in curves.roc],
    )


def precision_recall(curves: Curves) -> Drawing:
    """Draw the precision-recall curve of each fold and seed of one model and category, in steps."""
    return curve_axes.draw(
        f"pr+{curves.label}+{curves.category}",
        _curve_text("Precision-recall", "average precision", curves, curves.precision_recall),
        ("recall", "precision"),
        [curve_axes.steps(curve.x, curve.y) for curve in curves.precision_recall],
        (np.array([0.0, 1.0]), np.full(2, curves.share)),
        curves.family,
        [curve.cell for curve in curves.precision_recall],
    )


def scores(category: str, endpoint: str, rows: Sequence[ScoreRow], lowest: float) -> Drawing:
    """Draw one category's endpoint with its interval, a line for each model.

    Args:
        lowest: where the axis starts, the same for all categories.
    """
    with new_figure(3.3, 0.42 + 0.22 * len(rows)) as (figure, axes):
        for place, row in enumerate(reversed(rows)):
            colour = ink(row.family)
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.2)
            face = ink("paper") if row.baseline else colour
            axes.plot(
                [row.value],
                [place],
                "o",
                markersize=4.5,
                color=colour,
                markerfacecolor=face,
                markeredgewidth=1.1,
            )
        name_lines(axes, [row.label for row in reversed(rows)])
        axes.set_xlim(lowest - 0.01, 1.01)
        parts = [f"{row.label} {_interval(row.value, row.low, row.high)}" for row in rows]
        text = f"{endpoint} on {category}: {'; '.join(parts)}."
        return finish(figure, f"{endpoint}+{category}", text, cells=cells_of(rows))


def differences(rows: Sequence[ComparisonRow], margin: float) -> Drawing:
    """Draw the paired differences of the contenders, a line for each category, and the margin around 0."""
    with new_figure(4.0, 0.7 + 0.25 * len(rows)) as (figure, axes):
        axes.axvspan(-margin, margin, color=ink("band"), linewidth=0)
        axes.axvline(0, color=ink("muted"), linewidth=0.7)
        for place, row in enumerate(reversed(rows)):
            decided = row.verdict in ("classifier", "detector")
            colour = ink(row.verdict if decided else "ink")
            axes.plot([row.low, row.high], [place, place], color=colour, linewidth=1.4)
            axes.plot([row.difference], [place], "o", markersize=5, color=colour)
        name_lines(axes, [row.category for row in reversed(rows)])
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
                color=ink("muted"),
            )
        parts = [f"{row.category} {_interval(row.difference, row.low, row.high)}" for row in rows]
        text = f"Classifier minus detector by category, margin ±{margin:g}: {'; '.join(parts)}."
        return finish(figure, "differences", text, cells=cells_of(rows))


def _interval(value: float, low: float, high: float) -> str:
    if not np.isfinite(value):
        return "not defined"
    return f"{value:.3f}" + (f" ({low:.3f} to {high:.3f})" if np.isfinite(low) else "")


def _curve_text(what: str, figure: str, curves: Curves, lines: Sequence[CurveRow]) -> str:
    values = ", ".join("not defined" if np.isnan(line.figure) else f"{line.figure:.3f}" for line in lines)
    return f"{what} curves of {curves.label} on {curves.category}; {figure} of each fold: {values}."


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Name the lines of a dot plot, from below."""
    axes.set_yticks(range(len(names)), list(names))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.tick_params(axis="y", length=0, labelcolor=ink("ink"))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=ink("band"), linewidth=0.7)
    axes.set_axisbelow(True)
