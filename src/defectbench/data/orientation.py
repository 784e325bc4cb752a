"""Whether a category's parts come in any orientation: declared with the data set, never guessed from a name.

Data sets that version 0.1.0 imported declare nothing; for them alone its list of names counts.

Where they do, a classifier sees pictures of both classes rotated by 90 degrees and mirrored. Where they do
not, nothing is rotated: rotating the defects alone would make orientation a label, and a part whose defect
is one of orientation or handedness (MVTec AD's flipped metal nut) would become a good one.
"""

from __future__ import annotations

from collections.abc import Collection

from defectbench.data.manifest import Manifest
from defectbench.errors import UsageError, nearest

MVTEC_AD = frozenset({"bottle", "hazelnut", "leather", "tile"})
"""Categories of MVTec AD whose parts come in any orientation, with no defect of orientation or handedness."""

_BEFORE_DECLARATION = MVTEC_AD | {"grass", "gravel"}
"""Names that version 0.1.0 went by. Data sets that it imported declare nothing, and their cells keep their
keys; import a data set again to declare it."""


def comes_in_any_orientation(manifest: Manifest, override: Collection[str] | None = None) -> bool:
    """Return what the sweep says (``override``: the categories that do), else what the manifest declares."""
    if override is not None:
        return manifest.category in override
    if manifest.any_orientation is None:
        return manifest.category in _BEFORE_DECLARATION
    return manifest.any_orientation


def check_declared(named: Collection[str], categories: Collection[str]) -> None:
    """Raise UsageError where a category is ``named`` that the data set does not have."""
    for name in named:
        if name not in categories:
            raise UsageError(f"--any-orientation {name}: no such category; {nearest(name, categories)}")
