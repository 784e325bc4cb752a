"""The line-up as data: every model that a sweep may name, and what a user must know about it.

Nothing here imports a model's library; ``builder`` names the class that does, as ``module:class``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from defectbench.catalog.classifiers import CLASSIFIERS
from defectbench.catalog.detectors import DETECTORS
from defectbench.catalog.entry import Entry, Family, Measured, Weights
from defectbench.catalog.measured import MEASURED
from defectbench.catalog.rules import SETTINGS, Bounds, Flag, Names, Rule, Setting
from defectbench.errors import UsageError, nearest

__all__ = [
    "BY_TABLE_NAME",
    "ENTRIES",
    "SETTINGS",
    "Bounds",
    "Entry",
    "Family",
    "Flag",
    "Measured",
    "Names",
    "Rule",
    "Setting",
    "Weights",
    "find",
]

ENTRIES: tuple[Entry, ...] = tuple(
    replace(entry, measured=MEASURED.get(entry.name)) for entry in (*CLASSIFIERS, *DETECTORS)
)

_BY_NAME: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in ENTRIES})

BY_TABLE_NAME: Mapping[str, Entry] = MappingProxyType(
    {name: entry for entry in ENTRIES for name in (entry.name, *entry.aliases)}
)
"""What published tables call a model, or the catalog itself does -> its entry."""


def find(name: str) -> Entry:
    """Return the entry called ``name``.

    Raises:
        UsageError: no such model; names the nearest.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UsageError(f"unknown model {name!r}; {nearest(name, _BY_NAME)}") from None
