"""The contract tests: what every model, protocol, store and tracker owes, ours and those of other packages.

A package subclasses the class of its kind in its own tests and gives the fixture that it asks for; pytest
then runs the same tests as for ours (docs/extending.md). pytest is needed here alone.
"""

from __future__ import annotations

import sys

from defectbench.errors import ConfigurationError

try:
    import pytest
except ModuleNotFoundError as _missing:
    raise ConfigurationError(
        "defectbench.testing needs pytest, which is not installed: pip install pytest"
    ) from _missing

# Before they are imported: so that a failed assert says what was compared.
for _name in ("models", "protocols", "stores", "trackers"):
    if f"{__name__}.{_name}" not in sys.modules:
        pytest.register_assert_rewrite(f"{__name__}.{_name}")

from defectbench.testing.models import (  # noqa: E402
    ClassifierContract,
    DetectorContract,
    GrossDefectContract,
    ModelCase,
    ModelContract,
    no_network,
)
from defectbench.testing.protocols import ProtocolContract, made_up_category  # noqa: E402
from defectbench.testing.stores import StoreContract  # noqa: E402
from defectbench.testing.trackers import TrackerContract  # noqa: E402

__all__ = [
    "ClassifierContract",
    "DetectorContract",
    "GrossDefectContract",
    "ModelCase",
    "ModelContract",
    "ProtocolContract",
    "StoreContract",
    "TrackerContract",
    "made_up_category",
    "no_network",
]
