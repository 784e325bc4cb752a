"""Which classifier and detector of a sweep share a backbone."""

from __future__ import annotations

from collections.abc import Sequence

from defectbench import catalog
from defectbench.records.sweep_record import SweepModel


def matched_pairs(models: Sequence[SweepModel]) -> tuple[tuple[str, str], ...]:
    """Return (classifier, detector) labels of all pairs that share a backbone and its kind of weights."""
    return tuple(
        (ours.label, theirs.label)
        for theirs in models
        for ours in models
        if theirs.family == "detector"
        and catalog.find(theirs.model).matched_with == ours.model
        and ours.weights == theirs.weights
    )
