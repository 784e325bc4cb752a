"""Names of protocols in a sweep: those of this package, then those of other packages.

Another package registers a protocol by an entry point of the group ``defectbench.protocols``: its object is
the class (docs/extending.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from defectbench.errors import ConfigurationError
from defectbench.protocols.base import Description, Protocol
from defectbench.protocols.contamination import Contamination
from defectbench.protocols.detection import Detection
from defectbench.protocols.goods import Goods
from defectbench.protocols.scarcity import Scarcity
from defectbench.protocols.unseen import Unseen
from defectbench.util.plugins import Plugin, load_plugins

GROUP = "defectbench.protocols"

BUILTIN: Mapping[str, type[Protocol]] = {
    kind.name: kind for kind in (Detection, Unseen, Scarcity, Contamination, Goods)
}
"""In the order of a plan: detection first, because its cells keep heat maps and others share them."""


def _read(plugin: Plugin, given: Any) -> Iterator[tuple[str, type[Protocol]]]:
    """Yield the class of an entry point under each name that its splits may carry."""
    if not (isinstance(given, type) and issubclass(given, Protocol)):
        raise ConfigurationError(
            f"expected a subclass of defectbench.protocols.base.Protocol, got {given!r:.80}"
        )
    names = [each.name for each in given.descriptions]
    if names[:1] != [given.name] or any(not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name) for name in names):
        raise ConfigurationError(
            f"names {names}: the first description is of the protocol's name {given.name!r}; "
            "small letters, digits and _ are allowed"
        )
    if any(each.primary for each in given.descriptions):
        raise ConfigurationError(f"{given.name} calls itself primary, which detection alone is")
    for name in names:
        yield name, given


_FOREIGN = load_plugins(GROUP, _read, [each.name for kind in BUILTIN.values() for each in kind.descriptions])

PROTOCOLS: Mapping[str, type[Protocol]] = {
    **BUILTIN,
    **{name: kind for name, kind in _FOREIGN.items.items() if name == kind.name},
}
"""All that a sweep may name."""

CLASHES = _FOREIGN.clashes
"""Name -> that several packages register it."""

REMARKS = _FOREIGN.remarks
"""Packages whose protocol cannot be used, for the end of a message about a name that is not known."""

_DESCRIPTIONS = {each.name: each for kind in PROTOCOLS.values() for each in kind.descriptions}

PRIMARY = next(each.name for each in _DESCRIPTIONS.values() if each.primary)
"""The protocol that the verdict and the main tables are made of."""


def describe(name: str) -> Description:
    """Return the description of the splits that carry ``name``.

    Of a protocol whose package is not installed here nothing more is known.
    """
    unknown = f"A protocol of a package that is not installed here: {name}."
    return _DESCRIPTIONS.get(name) or Description(name, unknown, paired=False)
