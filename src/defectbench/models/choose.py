"""From a catalog entry to its model, importing the model's library only then."""

from __future__ import annotations

import importlib
from typing import Any

from defectbench.catalog import Entry
from defectbench.errors import ConfigurationError
from defectbench.models.base import Model, ModelSettings


def build_model(entry: Entry, settings: ModelSettings) -> Model:
    """Return the entry's model, neither fitted nor loaded.

    Raises:
        ConfigurationError: as :func:`load_class`, or the device is not there.
    """
    return load_class(entry)(settings)


def load_class(entry: Entry) -> type[Model]:
    """Return the entry's class, its libraries imported.

    Raises:
        ConfigurationError: a library is not installed, or another package's builder is no model.
    """
    return _foreign(entry) if entry.package else _own(entry)


def _own(entry: Entry) -> type[Model]:
    """Return a class of this package, or name the extra that it needs."""
    try:
        builder: type[Model] = _load(entry)
    except ModuleNotFoundError as error:
        # A module of ours that is missing is a bug, not an extra to install.
        if entry.extra is None or (error.name or "").partition(".")[0] == "defectbench":
            raise
        raise ConfigurationError(
            f"{entry.name} needs the extra {entry.extra!r}, but {error.name} is not installed: "
            f"uv sync --extra {entry.extra}"
        ) from error
    return builder


def _foreign(entry: Entry) -> type[Model]:
    """Return another package's class; whatever is wrong with it names the package."""
    what = f"{entry.name}: the package {entry.package} {entry.version} names {entry.builder}"
    try:
        found = _load(entry)
    except Exception as error:  # a package's code raises what it likes
        raise ConfigurationError(
            f"{what}, which cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ConfigurationError(f"{what}, which is no subclass of defectbench.models.base.Model")
    return found


def _load(entry: Entry) -> Any:
    """Import an entry's module and return what it names there."""
    module, _, name = entry.builder.partition(":")
    return getattr(importlib.import_module(module), name)
