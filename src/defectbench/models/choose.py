"""From a catalog entry to its inspector, importing the model's library only then."""

from __future__ import annotations

import importlib

from defectbench.catalog import Entry
from defectbench.errors import ConfigurationError
from defectbench.models.base import Inspector, Recipe


def build(entry: Entry, recipe: Recipe) -> Inspector:
    """Return the entry's inspector, neither fitted nor loaded.

    Raises:
        ConfigurationError: the extra that it needs is not installed, or the device is not there.
    """
    return load(entry)(recipe)


def load(entry: Entry) -> type[Inspector]:
    """Return the entry's class, its libraries imported; ConfigurationError where one is not installed."""
    module, _, name = entry.builder.partition(":")
    try:
        builder: type[Inspector] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if entry.extra is None or (error.name or "").partition(".")[0] == "defectbench":
            raise
        raise ConfigurationError(
            f"{entry.name} needs the extra {entry.extra!r}, but {error.name} is not installed: "
            f"uv sync --extra {entry.extra}"
        ) from error
    return builder
