"""Which classifier and detector of a sweep stand on one backbone."""

from __future__ import annotations

from collections.abc import Sequence

from defectbench import catalog
from defectbench.records.sweep_record import SweepModel


def matched_pairs(contestants: Sequence[SweepModel]) -> tuple[tuple[str, str], ...]:
    """Return (classifier, detector) labels of all pairs on one backbone with the same kind of weights."""
    return tuple(
        (ours.label, theirs.label)
        for theirs in contestants
        for ours in contestants
        if theirs.family == "detector"
        and catalog.find(theirs.model).matched_with == ours.model
        and ours.weights == theirs.weights
    )
