"""YAML from files that anybody may have written: bounded in size, in aliases, in numbers, and in tags.

PyYAML expands nothing itself, but whoever walks through what it gives does: nine aliases of nine aliases,
nine deep, are a billion values. Its constructors raise whatever Python raises on ``!!bool abc``. Here all of
that is a :class:`yaml.MarkedYAMLError` with the line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20
"""Bytes of a file."""

MOST_VALUES = 100_000
"""Values, each counted as often as aliases repeat it."""

LONGEST_NUMBER = 1000
"""Characters."""

_DEEP = re.compile(r"(?:[\[{]\s*){200}")
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
Loader = type[yaml.SafeLoader]


def read_bounded(file: Path) -> str:
    """Return a file's text; of a pipe or a device no more than the limit is read.

    Raises:
        OSError: it cannot be read.
        UnicodeDecodeError: it is no UTF-8.
        yaml.YAMLError: it is too large.
    """
    with file.open("rb") as stream:
        data = stream.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise yaml.YAMLError(f"larger than {LARGEST >> 20} MiB")
    return data.decode("utf-8").replace("\r\n", "\n")


def compose(text: str, loader: Loader = yaml.SafeLoader) -> yaml.Node | None:
    """Return the nodes of one document, checked; None of an empty one.

    Raises:
        yaml.MarkedYAMLError: it is no YAML, or beyond a bound, with the place.
        RecursionError: it is nested too deeply.
    """
    if len(text) > LARGEST:
        raise yaml.YAMLError(f"larger than {LARGEST >> 20} MiB")
    if _DEEP.search(text):  # PyYAML needs seconds to find out
        raise RecursionError("nested too deeply")
    node: yaml.Node | None = yaml.compose(text, Loader=loader)
    if node is not None:
        maker = loader("")
        _check(node, {}, maker)
    return node


def construct(node: yaml.Node | None, loader: Loader = yaml.SafeLoader) -> Any:
    """Return the values of nodes that :func:`compose` gave."""
    return None if node is None else loader("").construct_document(node)


def load(text: str, loader: Loader = yaml.SafeLoader) -> Any:
    """Return a document's values; errors as of :func:`compose`."""
    return construct(compose(text, loader), loader)


def _check(node: yaml.Node, sizes: dict[int, int], maker: yaml.SafeLoader) -> int:
    """Return how many values a node comes to; refuse what is beyond a bound or cannot be made."""
    if id(node) in sizes:
        return sizes[id(node)]
    sizes[id(node)] = 1  # an alias inside what it names: the reader says it
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, maker)
        return 1
    size = 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _fault("a key is a list or a mapping; a key is one word", key)
            size += _check(key, sizes, maker) + _check(value, sizes, maker)
    else:
        for value in node.value:
            size += _check(value, sizes, maker)
    if node.tag not in (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq")):
        raise _fault(f"the tag {node.tag!r} is not allowed here", node)
    if size > MOST_VALUES:
        raise _fault(f"aliases multiply it to more than {MOST_VALUES} values", node)
    sizes[id(node)] = size
    return size


def _check_scalar(node: yaml.ScalarNode, maker: yaml.SafeLoader) -> None:
    """Refuse a number without end, and a scalar that its tag cannot be made of."""
    if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise _fault(f"a number of {len(node.value)} characters; {LONGEST_NUMBER} are allowed", node)
    if node.tag in ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value"):
        return
    try:
        maker.construct_object(node)
    except yaml.MarkedYAMLError:
        raise
    except ValueError as error:
        raise _fault(f"{error}", node) from error
    except Exception as error:  # PyYAML raises what Python raises: KeyError, IndexError, OverflowError...
        raise _fault(f"{node.value[:40]!r} is no {node.tag.rpartition(':')[2]}", node) from error


def _fault(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    """Return the error at a node's place."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
