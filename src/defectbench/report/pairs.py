"""Which classifier and detector of a sweep stand on one backbone."""

from __future__ import annotations

from collections.abc import Sequence

from defectbench.record import Contestant

MATCHED = {"patchcore": "wide-resnet50", "anomalydino": "dinov2-vits14"}
"""Detector -> classifier on the same pretrained backbone, by catalog names."""


def matched_pairs(contestants: Sequence[Contestant]) -> tuple[tuple[str, str], ...]:
    """Return (classifier, detector) labels of all pairs on one backbone with the same kind of weights."""
    return tuple(
        (ours.label, theirs.label)
        for theirs in contestants
        for ours in contestants
        if MATCHED.get(theirs.model) == ours.model and ours.weights == theirs.weights
    )
