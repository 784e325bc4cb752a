"""What data sets and categories may be called: their names are parts of keys, paths and labels."""

from __future__ import annotations

import re

from defectbench.errors import UsageError

LAYOUT_NAMES = ("mvtec", "visa", "folder", "loco", "ad2", "btad", "kolektor", "real_iad", "table")
"""Of ``--layout``, for a command line that loads no layout."""

NAME_RULE = "only letters, digits, '.', '_' and '-', a letter or digit first, at most 63"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def is_name(name: str) -> bool:
    """Whether a data set or a category may be called so; a sweep allows the same names.

    >>> is_name("metal_nut"), is_name("../x"), is_name("two words"), is_name("x" * 64)
    (True, False, False, False)
    """
    return _NAME.fullmatch(name) is not None


def check_name(name: str, what: str) -> str:
    """Return ``name`` if a data set or a category may be called so; else UsageError."""
    if not is_name(name):
        raise UsageError(
            f"{what} {name!r}: {NAME_RULE}; "
            f"{'give another with --name' if what == 'data set' else 'rename the folder'}"
        )
    return name
