"""Figures of the protocols beyond detection: learning curves, seen against unseen, contamination, goods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from defectbench.report.canvas import Drawing, finish, ink, new_figure
from defectbench.report.plots import name_lines
from defectbench.tables.conditions import cells_of
from defectbench.tables.goods_curve import GoodsRow
from defectbench.tables.learning_curve import CrossoverRow, LearningRow
from defectbench.tables.rows import ConditionRow
from defectbench.tables.unseen import SeenUnseenRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("solid", (0, (4, 2)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
"""Line styles, so that lines of one family differ."""

_MARGIN = 0.02


def crossover(points: Sequence[LearningRow], crossing: CrossoverRow, low: float) -> Drawing:
    """Draw one classifier's quality by labelled defects, the detector as a band, and where they cross.

    Args:
        low: where the axis of quality starts, the same for all categories.
    """
    first = points[0]
    numbers = [point.n for point in points]
    with new_figure(3.0, 1.9) as (figure, axes):
        _crossing(axes, crossing, numbers)
        _band(
            axes, numbers, [(p.detector_low, p.detector_value, p.detector_high) for p in points], "detector"
        )
        _band(axes, numbers, [(p.low, p.value, p.high) for p in points], first.family, marker="o")
        axes.set_xscale("log", base=2)
        axes.set_xticks(numbers, [f"{p.n}\nall" if p.whole else str(p.n) for p in points], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("labelled defects", color=ink("muted"), labelpad=1)
        axes.set_ylim(low - _MARGIN, 1 + _MARGIN)
        parts = "; ".join(f"{p.n}: {p.value:.3f} ({p.low:.3f} to {p.high:.3f})" for p in points)
        text = (
            f"image_auroc of {first.classifier} on {first.category} by labelled defects: {parts}. "
            f"Detector {first.detector}: {first.detector_value:.3f} "
            f"({first.detector_low:.3f} to {first.detector_high:.3f}). "
            f"Crossover {crossing.text}, interval {crossing.interval}."
        )
        name = f"crossover+{first.classifier}+{first.category}"
        return finish(figure, name, text, cells=cells_of(points))


def seen_against_unseen(category: str, rows: Sequence[SeenUnseenRow], low: float) -> Drawing:
    """Draw what each model gives on types it learnt, on others, and its control, a line for each model."""
    names = [f"{row.label}, {row.mode}" for row in rows]
    with new_figure(3.6, 0.5 + 0.24 * len(rows)) as (figure, axes):
        for place, row in enumerate(reversed(rows)):
            colour = ink(row.family)
            ends = [value for value in (row.seen, row.unseen, row.control) if math.isfinite(value)]
            if ends:
                axes.plot([min(ends), max(ends)], [place, place], color=ink("rule"), linewidth=1)
            axes.plot([row.control], [place], "|", markersize=8, color=ink("ink"), markeredgewidth=1.2)
            dot: dict[str, Any] = {"markersize": 5, "color": colour, "markeredgewidth": 1.1}
            axes.plot([row.seen], [place], "o", markerfacecolor=ink("paper"), **dot)
            axes.plot([row.unseen], [place], "o", **dot)
        name_lines(axes, names[::-1])
        axes.set_xlim(low - _MARGIN, 1 + _MARGIN)
        parts = [
            f"{name} seen {row.seen:.3f}, unseen {row.unseen:.3f}, control {row.control:.3f}"
            for name, row in zip(names, rows, strict=True)
        ]
        text = f"Seen against unseen defect types on {category}: {'; '.join(parts)}."
        return finish(figure, f"unseen+{category}", text.replace("nan", "none"), cells=cells_of(rows))


def contamination(category: str, lines: Mapping[str, Sequence[ConditionRow]], low: float) -> Drawing:
    """Draw quality against the share of the goods that are defects taken for good, a line for each model.

    Args:
        lines: model -> its conditions, each ``share=...``.
    """
    with new_figure(3.0, 1.9) as (figure, axes):
        parts, used = [], dict.fromkeys(("classifier", "detector", "supervised"), 0)
        for label, conditions in lines.items():
            ordered = sorted(conditions, key=share)
            family = ordered[0].family
            x, y = [100 * share(line) for line in ordered], [line.value for line in ordered]
            dashes = _DASHES[used[family] % len(_DASHES)]
            axes.plot(x, y, color=ink(family), linewidth=1.2, linestyle=dashes, marker="o", markersize=3)
            used[family] += 1
            parts.append(f"{label} " + ", ".join(f"{a:g} %: {b:.3f}" for a, b in zip(x, y, strict=True)))
        axes.set_xticks(sorted({round(100 * share(line), 2) for each in lines.values() for line in each}))
        axes.set_xlabel("% of the goods that are defects", color=ink("muted"), labelpad=1)
        axes.set_ylim(low - _MARGIN, 1 + _MARGIN)
        text = f"Quality by share of defects taken for good on {category}: {'; '.join(parts)}."
        cells = [cell for each in lines.values() for line in each for cell in line.cells]
        return finish(figure, f"contamination+{category}", text, cells=cells)


def goods_curve(category: str, lines: Mapping[str, Sequence[GoodsRow]], low: float) -> Drawing:
    """Draw quality against the goods that were learnt from, a line for each model, with its interval.

    Args:
        lines: model -> its points, rising.
    """
    with new_figure(3.0, 1.9) as (figure, axes):
        parts, used = [], dict.fromkeys(("classifier", "detector", "supervised"), 0)
        ticks: dict[int, str] = {}
        for label, points in lines.items():
            last, family = points[-1], points[0].family
            ticks |= {point.n: str(point.n) for point in points} | {last.all_goods: f"{last.all_goods}\nall"}
            x = [point.n for point in points]
            axes.fill_between(
                x,
                [p.low for p in points],
                [p.high for p in points],
                color=ink(family),
                alpha=0.12,
                linewidth=0,
            )
            axes.plot(
                [*x, last.all_goods],
                [*(point.value for point in points), last.all_value],
                color=ink(family),
                linewidth=1.2,
                linestyle=_DASHES[used[family] % len(_DASHES)],
                marker="o",
                markersize=3,
            )
            used[family] += 1
            told = ", ".join(f"{p.n}: {p.value:.3f} ({p.low:.3f} to {p.high:.3f})" for p in points)
            parts.append(f"{label} {told}, all {last.all_goods}: {last.all_value:.3f}")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sorted(ticks), [ticks[n] for n in sorted(ticks)], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("good pictures learnt from", color=ink("muted"), labelpad=1)
        axes.set_ylim(low - _MARGIN, 1 + _MARGIN)
        text = f"image_auroc by goods learnt from on {category}: {'; '.join(parts)}."
        cells = [cell for points in lines.values() for point in points for cell in point.cells]
        return finish(figure, f"goods+{category}", text, cells=cells)


def share(line: ConditionRow) -> float:
    """Return the share of a condition of contamination.

    >>> from types import SimpleNamespace
    >>> share(SimpleNamespace(condition="share=0.05"))
    0.05
    """
    return float(line.condition.removeprefix("share="))


def _band(
    axes: Axes,
    x: Sequence[float],
    bounds: Sequence[tuple[float, float, float]],
    family: str,
    marker: str = "",
) -> None:
    """Draw a line with its interval as a band."""
    low, value, high = zip(*bounds, strict=True)
    axes.fill_between(x, low, high, color=ink(family), alpha=0.16, linewidth=0)
    axes.plot(x, value, color=ink(family), linewidth=1.3, marker=marker, markersize=3.2)


def _crossing(axes: Axes, crossing: CrossoverRow, numbers: Sequence[int]) -> None:
    """Mark the crossover's interval and the crossover, where they lie among the numbers tested."""
    last = float(numbers[-1])
    if math.isfinite(crossing.low):
        axes.axvspan(crossing.low, min(crossing.high, last), color=ink("band"), linewidth=0)
    if math.isfinite(crossing.n):
        axes.axvline(crossing.n, color=ink("ink"), linewidth=0.9, linestyle=(0, (3, 2)))
