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
        if theirs.family == "detector" and _partner(theirs) == ours.model and ours.weights == theirs.weights
    )


def _partner(detector: SweepModel) -> str:
    """Return the classifier on the detector's backbone; empty where its package is not installed here."""
    entry = catalog.known(detector.model, detector.package)
    return "" if entry is None else entry.matched_with
