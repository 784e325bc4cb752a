"""What is wrong with a sweep, in plain words: pydantic's findings, each with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from defectbench.errors import SweepError
from defectbench.sweeps.locations import KeyPath, SourceLines

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
AMOUNT = r"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)(Ki|Mi|Gi|Ti|k|M|G|T)?$"
TIME = r"^0*[1-9][0-9]*(s|m|h|d)$"
_PATTERNS = {
    NAME: "expected 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first",
    AMOUNT: "expected an amount above 0, such as 512Mi or 8Gi",
    TIME: "expected a time above 0, such as 90s, 30m, 6h or 2d",
}
"""What the patterns mean, for people."""


def refusal(error: ValidationError, where: SourceLines, above: KeyPath = ()) -> SweepError:
    """Return all of pydantic's findings as one error."""
    problems = error.errors()
    # pydantic leaves a wrong item out and then finds its list too short: that is no second problem.
    wrong = {problem["loc"][:-1] for problem in problems}
    kept = [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in wrong]
    return SweepError("\n".join(_describe(problem, where, above) for problem in kept))


def _describe(problem: Any, where: SourceLines, above: KeyPath = ()) -> str:
    """Put one of pydantic's findings into ``place: key: message``."""
    context = problem.get("ctx") or {}
    path = (*above, *_without_unions(problem["loc"]), *context.get("path", ()))
    got = "" if problem["type"] in ("refused", "missing") else f", got {problem['input']!r}"
    message = _in_plain_words(problem["type"], context) or problem["msg"]
    name = ".".join(map(str, path)) or "sweep"
    return f"{where.of(path)}: {name}: {message[0].lower()}{message[1:]}{got}"


_KINDS = {
    "missing": "is required",
    "int": "expected a whole number",
    "float": "expected a number",
    "finite_number": "expected a finite number",
    "string": "expected a text",
    "tuple": "expected a list",
    "dict": "expected a mapping",
    "model": "expected a mapping",
}

_CLASSES = {"ModelChoice": "expected a model's name, or a mapping with `name` or `timm`"}
"""Class that may be written as a text or as a mapping -> both, in words."""

_RANGES = {
    "greater_than_equal": "expected {ge:g} or more",
    "greater_than": "expected more than {gt:g}",
    "less_than_equal": "expected {le:g} or less",
    "less_than": "expected less than {lt:g}",
    "literal_error": "expected {expected}",
}


def _in_plain_words(kind: str, context: Mapping[str, Any]) -> str | None:
    """Say in plain words what pydantic's error ``kind`` means; None where its own are plain."""
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        return (
            f"expected a list of at least {least}"
            if kind == "too_short"
            else f"expected a list of {most} at most"
        )
    if kind in _RANGES:
        return _RANGES[kind].format(**context)
    if context.get("class_name") in _CLASSES:
        return _CLASSES[context["class_name"]]
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"])
    return _KINDS.get(kind) or _KINDS.get(kind.split("_")[0])


def _without_unions(path: KeyPath) -> KeyPath:
    """Drop the names that pydantic puts into a path for the members of a union."""
    return tuple(step for step in path if not (isinstance(step, str) and re.search(r"[\[(]", step)))
