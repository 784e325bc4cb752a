"""The models of this package."""

from __future__ import annotations

from dataclasses import replace

from defectbench.catalog.classifiers import CLASSIFIERS
from defectbench.catalog.detectors import DETECTORS
from defectbench.catalog.entry import Entry
from defectbench.catalog.measured import MEASURED

ENTRIES: tuple[Entry, ...] = tuple(
    replace(entry, measured=MEASURED.get(entry.name)) for entry in (*CLASSIFIERS, *DETECTORS)
)
