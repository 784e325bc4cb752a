"""The chart's values that a user gives: files, single keys, an image."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from defectbench.errors import ConfigurationError, MissingInputError, UsageError
from defectbench.sweeps.overrides import lay_over
from defectbench.util import bounded_yaml
from defectbench.util.secrets import is_secret

Values = dict[str, Any]

OWN: Mapping[tuple[str, ...], str] = {
    ("sweep",): "it is the sweep's name",
    ("jobs",): "--model, --category, --cell and the sweep's cellsPerJob decide them",
    ("environment",): "it holds the sweep's threads; further variables go into extraEnv",
    ("store", "url"): "give --store",
}
"""Values that the commands write themselves -> what decides them."""

_IMAGE = re.compile(
    r"(?P<repository>(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]+)?/)?[a-z0-9][a-z0-9._-]*(?:/[a-z0-9][a-z0-9._-]*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def read_values(files: Sequence[Path], overrides: Sequence[str] = (), image: str | None = None) -> Values:
    """Return the values of all ``files``, later ones over earlier, then ``overrides``, then ``image``.

    Args:
        overrides: ``key.path=value``, the value in YAML.

    Raises:
        MissingInputError: a file is not there.
        UsageError: an override or an image reference is none.
        ConfigurationError: a file is no mapping in YAML, or sets what the commands write themselves.
    """
    given: Values = {}
    for file in files:
        given = merge(given, _read(file))
    for path in lay_over(given, overrides, "--set-values"):
        _plain(at(given, path), f"--set-values {'.'.join(map(str, path))}")
    if image is not None:
        given = merge(given, {"image": split_image(image)})
    _refuse_secrets(given)
    if not isinstance(given.get("store", {}), dict):
        raise ConfigurationError(f"the values: store: expected a mapping, got {given['store']!r}")
    for path, reason in OWN.items():
        if at(given, path) is not None:
            raise ConfigurationError(f"the values set {'.'.join(path)}, which the command writes: {reason}")
    return given


def _refuse_secrets(given: Values) -> None:
    """Refuse a secret's text: values end in Jobs, which whoever may list Jobs can read.

    Raises:
        ConfigurationError: names the value, never its text.
    """
    for path, name, text in _texts(given, "", ""):
        if is_secret(name, text):
            raise ConfigurationError(
                f"the values set {path} to what looks like a secret, which everybody who may see Jobs could "
                "read: put it into a Secret (kubectl create secret generic NAME --from-literal=...) and name "
                "that: extraEnv with valueFrom.secretKeyRef, or extraEnvFrom"
            )


def _texts(value: Any, path: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, name that says what it is, text) of each literal in the values."""
    if isinstance(value, Mapping):
        if isinstance(value.get("name"), str) and "value" in value:
            yield f"{path} ({value['name']})", value["name"], str(value["value"])
            return
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}".lstrip("."), "")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        before = ""
        for place, inner in enumerate(value):
            option = before if before.startswith("-") and "=" not in before else ""
            yield from _texts(inner, f"{path}[{place}]", option)
            before = inner if isinstance(inner, str) else ""
    elif isinstance(value, str):
        option, equals, rest = value.partition("=")
        yield (path, option, rest) if equals and option.startswith("-") else (path, name, value)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Values:
    """Return ``above`` laid over ``below``: mappings are joined, all else is replaced.

    >>> merge({"a": {"x": 1, "y": [1]}, "b": 1}, {"a": {"y": [2]}})
    {'a': {'x': 1, 'y': [2]}, 'b': 1}
    """
    merged = dict(below)
    for key, value in above.items():
        before = merged.get(key)
        both = isinstance(before, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(before, value) if both else value  # type: ignore[arg-type]
    return merged


def split_image(reference: str) -> dict[str, str]:
    """Return an image reference as the chart's values; without a tag the chart takes its own version.

    Raises:
        UsageError: it is none.

    >>> split_image("registry.local:5000/bench/defectbench:1.2")
    {'repository': 'registry.local:5000/bench/defectbench', 'tag': '1.2', 'digest': ''}
    """
    found = _IMAGE.fullmatch(reference)
    if found is None:
        raise UsageError(
            f"image {reference!r}: expected [registry/]name[:tag][@sha256:digest], the name in lower case"
        )
    return found.groupdict(default="")


class _Loader(yaml.SafeLoader):
    """YAML as Helm reads it: a date is text, and no key is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                mark = key.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(file: Path) -> Values:
    """Return one file's values; an empty file has none."""
    try:
        document = bounded_yaml.load(bounded_yaml.read_bounded(file), _Loader)
    except OSError as error:
        raise MissingInputError(f"cannot read the values file {file}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigurationError(f"{file}:{line}: not YAML: {error.problem}") from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigurationError(f"{file}: not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"{file}: expected a mapping of chart values, got {document!r:.60}")
    try:
        plain: Values = _plain(document, str(file))
    except RecursionError:
        raise ConfigurationError(f"{file}: holds itself by an alias, or is nested too deeply") from None
    return plain


def _plain(value: Any, where: str) -> Any:
    """Return a copy without aliases; refuse what JSON, in which values go to Helm, cannot hold."""
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ConfigurationError(f"{where}: the key {key!r} is no text; write it in quotes")
        return {key: _plain(inner, f"{where}: {key}") for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner, where) for inner in value]
    if isinstance(value, str | int | None) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ConfigurationError(f"{where}: {value!r} is no chart value; write it in quotes")


def at(values: Any, path: Sequence[str | int]) -> Any:
    """Return the value at a path, or None where there is none."""
    for step in path:
        if isinstance(values, dict):
            values = values.get(step)
        elif isinstance(values, list) and isinstance(step, int):
            values = values[step]
        else:
            return None
    return values
