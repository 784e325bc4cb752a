"""What a category's pictures are taken for, and what figures of so many pictures can tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from defectbench.metrics.image import share_interval

if TYPE_CHECKING:
    from defectbench.data.check import CheckReport

_FOUND = 0.9
"""Share of the defects that the example finds."""


def sample_account(report: CheckReport) -> Iterator[str]:
    """Yield two lines for each category: how many pictures learn, calibrate and are tested; what that tells.

    Calibration takes a fifth of the training goods, as every protocol does; whole groups make it inexact.
    """
    for counts in report.counts:
        defects = sum(counts.defects.values())
        calibrate = max(1, round(counts.train_good / 5))
        if counts.train_good < 2 or not defects:
            continue
        own = [source for source in report.reading.sources if source.category == counts.category]
        groups = {report.groups[source.file] for source in own if source.file in report.groups}
        about = "about " if groups else ""
        parts = [
            f"{counts.train_good - calibrate} goods train",
            f"{about}{calibrate} calibrate",
            f"{counts.test_good} goods and {defects} defects are tested",
        ]
        if counts.train_defects:
            parts.append(f"{counts.train_defects} more defects are learnt and not tested")
        if groups:
            parts.append(f"{len(groups)} groups stay whole")
        if counts.uncertain:
            parts.append(f"{counts.uncertain} uncertain ones are scored alone")
        yield f"{counts.category}: {', '.join(parts)}"
        low, high = share_interval(round(_FOUND * defects), defects)
        yield (
            f"{counts.category}: if {round(_FOUND * defects)} of {defects} defects are found, the 95 % "
            f"interval of the recall is {low:.0%} to {high:.0%}; {calibrate} goods can promise no fewer "
            f"false alarms than {1 / (calibrate + 1):.1%}"
        )
