"""Quality against cost: a dot for each model, and the front of those that no other beats in both."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from defectbench.report.canvas import Drawing, finish, ink, new_figure
from defectbench.report.label_placement import Label, place_labels
from defectbench.report.wording import amount
from defectbench.tables.conditions import cells_of
from defectbench.tables.cost import COSTS, Tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def pareto(rows: Sequence[Tradeoff], endpoint: str) -> Drawing | None:
    """Draw the models by one cost, with the Pareto front as steps; None where fewer than two have both."""
    shown = [row for row in rows if math.isfinite(row.amount) and math.isfinite(row.quality)]
    if len(shown) < 2:
        return None
    name = shown[0].cost
    front = sorted((row for row in shown if row.efficient), key=lambda row: row.amount)
    with new_figure(3.4, 2.3) as (figure, axes):
        x, y = [row.amount for row in front], [row.quality for row in front]
        axes.plot(x, y, color=ink("muted"), linewidth=0.8, drawstyle="steps-post", zorder=1)
        for row in shown:
            face = ink("paper") if row.baseline else ink(row.family)
            edge = ink(row.family)
            axes.plot([row.amount], [row.quality], "o", color=edge, markerfacecolor=face, markersize=5)
        # Costs range over several powers of ten; a cost of 0 has no logarithm.
        if min(row.amount for row in shown) > 0:
            _log(axes, [row.amount for row in shown])
        axes.margins(x=0.16, y=0.14)
        axes.set_xlabel(COSTS[name], color=ink("muted"), labelpad=1)
        axes.set_ylabel(endpoint, color=ink("muted"), labelpad=2)
        tags = [Label(row.label, (row.amount, row.quality), ink("ink"), row.efficient) for row in shown]
        place_labels(axes, sorted(tags, key=lambda tag: not tag.bold), _steps(x, y))
        parts = [
            f"{row.label} {row.amount:.4g}, {row.quality:.3f}{' (on the front)' if row.efficient else ''}"
            for row in sorted(shown, key=lambda row: row.amount)
        ]
        text = f"{endpoint} against {COSTS[name]}: {'; '.join(parts)}."
        return finish(figure, f"pareto+{name}", text, cells=cells_of(shown))


def _log(axes: Axes, amounts: Sequence[float]) -> None:
    """Scale the axis by logarithms, with ticks at the least, the largest and between."""
    low, high = min(amounts), max(amounts)
    axes.set_xscale("log")
    labels = {_short(tick): tick for tick in (low, math.sqrt(low * high), high)}
    axes.set_xticks([*labels.values()], [*labels])
    axes.minorticks_off()


def _short(value: float) -> str:
    """Return an amount in few characters.

    >>> _short(0.01234), _short(468_500.0)
    ('0.012', '468.5 k')
    """
    return amount(value) if value >= 1000 else f"{value:.2g}"


def _steps(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Return points along the front, which names should leave free."""
    found = list(zip(x, y, strict=True))
    for (left, low), (right, high) in itertools.pairwise(tuple(found)):
        # Nine points for each part of a step: names are kept clear of points, not of lines.
        between = np.geomspace(left, right, 9) if left > 0 else np.linspace(left, right, 9)
        found += [(float(each), low) for each in between]
        found += [(right, float(each)) for each in np.linspace(low, high, 9)]
    return found
