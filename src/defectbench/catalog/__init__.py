"""The line-up as data: every model that a sweep may name, and what a user must know about it.

Nothing here imports a model's library; ``builder`` names the class that does, as ``module:class``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defectbench.catalog.builtin import ENTRIES
from defectbench.catalog.classifiers import TIMM
from defectbench.catalog.entry import Entry, Family, Measured, Weights
from defectbench.catalog.registry import check_package, entries, find, find_of, known, problems
from defectbench.catalog.rules import SETTINGS, Bounds, Flag, Names, Rule, Setting

__all__ = [
    "BY_TABLE_NAME",
    "ENTRIES",
    "SETTINGS",
    "TIMM",
    "Bounds",
    "Entry",
    "Family",
    "Flag",
    "Measured",
    "Names",
    "Rule",
    "Setting",
    "Weights",
    "check_package",
    "entries",
    "find",
    "find_of",
    "known",
    "problems",
]

BY_TABLE_NAME: Mapping[str, Entry] = MappingProxyType(
    {name: entry for entry in ENTRIES for name in (entry.name, *entry.aliases)}
)
"""What published tables call a model, or the catalog itself does -> its entry."""
