"""Rendered Jobs from YAML to mappings, quickly: thousands of a sweep differ in a few names alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from defectbench.errors import ConfigurationError

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MARK = "@db"
_QUOTED = re.compile(r'"([^"\\\n]*)"')
_MARKED = re.compile(rf"{_MARK}([0-9]+)@")


class Reader:
    """Reads the Jobs that were rendered from ``jobs`` of the chart's values.

    PyYAML takes 1.5 ms for a Job, which would be the slowest part of submitting one. So a Job's own names are
    taken out, the rest, which most Jobs share, is parsed once, and the names are put back: 0.1 ms.
    """

    def __init__(self, jobs: Sequence[Mapping[str, Any]]) -> None:
        self._names = {
            job["name"]: [job["name"], job["model"], job["category"], *job["cells"]] for job in jobs
        }
        self._shapes: dict[str, str] = {}

    def read(self, document: str) -> dict[str, Any]:
        """Return a rendered Job.

        Raises:
            ConfigurationError: it is no YAML, or no mapping.
        """
        named = re.search(r'^  name: "(.*)"$', document, re.MULTILINE)
        names = self._names.get(named[1]) if named else None
        if names is None or _MARK in document:
            return _parse(document)
        marks = {name: f'"{_MARK}{place}@"' for place, name in enumerate(names)}
        shape = _QUOTED.sub(lambda found: marks.get(found[1], found[0]), document)
        if shape not in self._shapes:
            self._shapes[shape] = json.dumps(_parse(shape), ensure_ascii=False)
        text = self._shapes[shape]
        # Names need no escape in JSON: the chart's schema holds them to letters, digits, '.', '_' and '-'.
        manifest: dict[str, Any] = json.loads(_MARKED.sub(lambda found: names[int(found[1])], text))
        return manifest


def _parse(document: str) -> dict[str, Any]:
    """Return a YAML document, a mapping."""
    try:
        manifest = yaml.load(document, _LOADER)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"the chart renders no YAML with these values: {error}") from error
    if not isinstance(manifest, dict):
        raise ConfigurationError(f"the chart renders {manifest!r:.60} with these values, which is no Job")
    return manifest
