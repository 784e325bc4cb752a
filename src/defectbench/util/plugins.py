"""Entry points of installed packages: how models, protocols, stores and trackers come without a change here.

Finding them reads metadata alone. A package is imported when what it registers is loaded, and one that cannot
be loaded is told of and takes no other down.
"""

from __future__ import annotations

import importlib.metadata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

from defectbench.errors import ConfigurationError

Item = TypeVar("Item")

OURS = "defectbench itself"
"""Who registers what is built in, in messages about two that register one name."""


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        name: left of its ``=``.
        value: right of it, ``module:object``.
        package, version: of the distribution that has it.
        load: imports and returns the object; raises whatever the package's own code raises.
    """

    name: str
    value: str
    package: str
    version: str
    load: Callable[[], Any]

    @property
    def owner(self) -> str:
        """The distribution, for people: ``defectbench-example-model 0.1.0``."""
        return f"{self.package} {self.version}"

    def failed(self, why: object) -> str:
        """Say that this entry point cannot be used, and why."""
        reason = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
        return f"the package {self.owner} is left out: its entry point {self.name!r} ({self.value}): {reason}"


@cache
def find_plugins(group: str) -> tuple[Plugin, ...]:
    """Return the entry points of a group, such as ``defectbench.models``, in the order of their packages."""
    found = [
        Plugin(
            point.name,
            point.value,
            point.dist.name if point.dist is not None else "?",
            point.dist.version if point.dist is not None else "?",
            point.load,
        )
        for point in importlib.metadata.entry_points(group=group)
    ]
    return tuple(sorted(found, key=lambda plugin: (plugin.package, plugin.name)))


@dataclass(frozen=True)
class Found(Generic[Item]):
    """What a group's packages register.

    Attributes:
        items: name -> what one package alone registers under it.
        clashes: name -> that several register it, in words.
        problems: packages that cannot be used, in words.
    """

    items: Mapping[str, Item]
    clashes: Mapping[str, str]
    problems: Sequence[str]

    @property
    def remarks(self) -> str:
        """The problems as the end of a message about a name that is not known; empty where there are none."""
        return "".join(f"\n{problem}" for problem in self.problems)


def load_plugins(
    group: str, read: Callable[[Plugin, Any], Iterable[tuple[str, Item]]], ours: Iterable[str]
) -> Found[Item]:
    """Load all entry points of a group.

    Args:
        read: what an entry point gave -> (name, item) of all that it registers; raises
            :class:`ConfigurationError` where that is no such thing.
        ours: names that are built in.
    """
    claims: dict[str, list[tuple[str, Item | None]]] = defaultdict(list)
    for name in ours:
        claims[name].append((OURS, None))
    problems = []
    for plugin in find_plugins(group):
        try:
            registered = list(read(plugin, plugin.load()))
        except Exception as error:  # a package's code raises what it likes
            problems.append(plugin.failed(str(error) if isinstance(error, ConfigurationError) else error))
            continue
        for name, item in registered:
            claims[name].append((plugin.owner, item))
    single = {name: made[0][1] for name, made in claims.items() if len(made) == 1}
    return Found(
        {name: item for name, item in single.items() if item is not None},
        {
            name: clash(group, name, [owner for owner, _ in made])
            for name, made in claims.items()
            if len(made) > 1
        },
        problems,
    )


def clash(group: str, name: str, owners: Sequence[str]) -> str:
    """Say that several packages register one name."""
    return (
        f"{name!r} is registered by {' and by '.join(owners)} ({group}): "
        "uninstall one of them, or rename one's entry"
    )


def find_scheme(group: str, scheme: str, ours: Iterable[str]) -> Callable[[str], Any] | None:
    """Return what opens URLs of a scheme that a package registers; None where none does.

    The entry point's name is the scheme, its object takes the URL. Only that package is imported.

    Raises:
        ConfigurationError: several register the scheme, or the one package cannot be loaded.
    """
    plugins = [plugin for plugin in find_plugins(group) if plugin.name.lower() == scheme]
    owners = [OURS] * (scheme in set(ours)) + [plugin.owner for plugin in plugins]
    if len(owners) > 1:
        raise ConfigurationError(clash(group, scheme, owners))
    if not plugins:
        return None
    try:
        opener = plugins[0].load()
    except Exception as error:
        raise ConfigurationError(plugins[0].failed(error)) from error
    if not callable(opener):
        raise ConfigurationError(
            plugins[0].failed(f"expected a class or a function of a URL, got {opener!r:.60}")
        )
    made: Callable[[str], Any] = opener
    return made


def schemes(group: str) -> tuple[str, ...]:
    """Return the schemes that packages register, for messages."""
    return tuple(dict.fromkeys(plugin.name.lower() for plugin in find_plugins(group)))
