"""From a catalog entry to its model, importing the model's library only then."""

from __future__ import annotations

import importlib

from defectbench.catalog import Entry
from defectbench.errors import ConfigurationError
from defectbench.models.base import Model, ModelSettings


def build_model(entry: Entry, settings: ModelSettings) -> Model:
    """Return the entry's model, neither fitted nor loaded.

    Raises:
        ConfigurationError: the extra that it needs is not installed, or the device is not there.
    """
    return load_class(entry)(settings)


def load_class(entry: Entry) -> type[Model]:
    """Return the entry's class, its libraries imported; ConfigurationError where one is not installed."""
    module, _, name = entry.builder.partition(":")
    try:
        builder: type[Model] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if entry.extra is None or (error.name or "").partition(".")[0] == "defectbench":
            raise
        raise ConfigurationError(
            f"{entry.name} needs the extra {entry.extra!r}, but {error.name} is not installed: "
            f"uv sync --extra {entry.extra}"
        ) from error
    return builder
