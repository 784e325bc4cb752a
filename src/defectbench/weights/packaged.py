"""Weights that a Python package ships: found among what is installed, without a store or the internet."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from defectbench.catalog import Weights


def packaged_file(weights: Weights) -> Path | None:
    """Return the file that the package of ``weights`` has installed; None where none ships it or is there.

    The package is looked up and never imported: nothing of it runs.
    """
    if not weights.package:
        return None
    try:
        path = Path(str(distribution(weights.package).locate_file(weights.packaged)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None
