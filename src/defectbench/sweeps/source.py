"""A sweep from any source: a file, a YAML text, a mapping, or the name of one that ran."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any

from defectbench.errors import UsageError
from defectbench.sweeps.config import Sweep, parse_sweep, parse_text, read_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.overrides import lay_values

SweepSource = Path | str | Mapping[str, Any]
"""A path; a text, which is YAML if it has several lines or starts with a brace, else a path; or a mapping."""

_NO_OVERRIDES: Mapping[str, Any] = MappingProxyType({})
_TEXT = "the YAML text"
_MAPPING = "the sweep"
_FILES = (".yaml", ".yml")


def load_sweep(source: SweepSource, overrides: Mapping[str, Any] = _NO_OVERRIDES) -> Sweep:
    """Read and check a sweep.

    Args:
        overrides: key, or ``key.path`` with dots, -> the value to lay over it. The source is not changed.

    Raises:
        MissingInputError: there is no such file.
        SweepError: all that is wrong with it, each with its place.
        UsageError: ``source`` is none of the three.

    >>> text = "{name: a, data: {dataset: b}, models: [padim], weights: none, protocols: {detection: }}"
    >>> load_sweep(text, {"data.dataset": "mine"}).data.dataset
    'mine'
    """
    if isinstance(source, Mapping):
        document = deepcopy(dict(source))
        laid = frozenset(lay_values(document, overrides))
        return parse_sweep(document, SourceLines(_MAPPING, None, laid, "override"))
    if isinstance(source, str) and _is_text(source):
        return parse_text(source, _TEXT, values=overrides)
    if isinstance(source, str | Path):
        return read_sweep(Path(source), values=overrides)
    raise UsageError(
        f"a sweep is a path, a YAML text or a mapping, got {type(source).__name__}: {str(source)[:60]!r}"
    )


def sweep_name(source: SweepSource) -> str:
    """Return the name of a sweep; a bare text is the name itself.

    >>> sweep_name("demo")
    'demo'
    """
    if isinstance(source, str) and not _is_text(source) and Path(source).suffix not in _FILES:
        return source
    return load_sweep(source).name


def _is_text(source: str) -> bool:
    """Whether a text is YAML: no path has several lines, nor begins with a brace."""
    return "\n" in source or source.lstrip().startswith("{")
