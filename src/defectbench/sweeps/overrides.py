"""``--set key.path=value``: values laid over a sweep's document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import yaml

from defectbench.errors import SweepError
from defectbench.sweeps.locations import KeyPath
from defectbench.util import bounded_yaml


def lay_over(document: dict[str, Any], overrides: Sequence[str], option: str = "--set") -> Iterator[KeyPath]:
    """Lay ``key.path=value`` over the document in place; yield the paths that were set.

    The value is YAML; ``\\.`` is a dot inside a key.

    Raises:
        SweepError: an override that is none, or whose path is not in the document.
    """
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SweepError(f"{option} {text}: expected key.path=value, for example seeds=[0,1]")
        try:
            new = bounded_yaml.load(value)
        except yaml.MarkedYAMLError as error:
            raise SweepError(f"{option} {text:.80}: the value is not YAML: {error.problem}") from error
        except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
            raise SweepError(f"{option} {text:.80}: the value is not YAML") from error
        yield _put(document, _key_path(name), new, f"{option} {text}")


def lay_values(document: dict[str, Any], values: Mapping[str, Any]) -> Iterator[KeyPath]:
    """Lay values over the document in place, key path -> value; yield the paths, as :func:`lay_over` does."""
    for name, value in values.items():
        yield _put(document, _key_path(name), deepcopy(value), f"override {name}")


def _key_path(name: str) -> list[str]:
    """Return the keys of a dotted path; ``\\.`` is a dot inside a key."""
    return [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name)]


def _put(document: dict[str, Any], names: Sequence[str], new: Any, option: str) -> KeyPath:
    """Set the value at ``names`` in the document, with the mappings on the way; return its path."""
    place: Any = document
    path: list[str | int] = []
    for depth, name in enumerate(names):
        step = _step(place, name, ".".join(map(str, path)), option)
        path.append(step)
        if depth == len(names) - 1:
            place[step] = new
        else:
            inner = place.get(step) if isinstance(place, dict) else place[step]
            if inner is None:
                inner = {}
            elif isinstance(inner, str) and path[:-1] == ["models"]:
                inner = {"name": inner}  # a model by its bare name
            place[step] = inner
            place = inner
    return tuple(path)


def _step(place: Any, name: str, above: str, option: str) -> str | int:
    """Return the key or list position that ``name`` means in ``place``, or refuse it."""
    if isinstance(place, dict):
        return name
    if not isinstance(place, list):
        raise SweepError(f"{option}: {above} is no mapping in this sweep")
    if not re.fullmatch(r"[0-9]{1,6}", name) or int(name) >= len(place):
        allowed = f"0 to {len(place) - 1}" if place else "none, it is empty"
        raise SweepError(f"{option}: {above} is a list of {len(place)}; allowed positions: {allowed}")
    return int(name)
