"""The libraries' versions, for the names of what is kept: a cache must not outlive what made it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def made_with(*libraries: str) -> str:
    """Return the libraries' names and versions in one word, importing none; ``none`` for a missing one.

    >>> made_with("pip-that-is-not-there")
    'pip-that-is-not-there-none'
    """
    return "+".join(f"{library}-{_version(library)}" for library in libraries)


def _version(library: str) -> str:
    """Return a library's version, or ``none``."""
    try:
        return version(library)
    except PackageNotFoundError:
        return "none"
