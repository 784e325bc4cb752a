"""Anomaly detector or classifier? Both families on the same folds of the same parts.

The Python API, for notebooks and scripts (docs/python.md)::

    import defectbench as db

Its names are loaded when they are first used, so importing the package stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from defectbench.api import (
        DefectbenchError,
        Results,
        import_dataset,
        open_store,
        plan,
        results,
        run,
        synth,
        write_report,
    )

    __version__: str

__all__ = [
    "DefectbenchError",
    "Results",
    "__version__",
    "import_dataset",
    "open_store",
    "plan",
    "results",
    "run",
    "synth",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load a name of the API when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("defectbench")
    if name in __all__:
        from importlib import import_module

        return getattr(import_module("defectbench.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names for completion, those not loaded yet included."""
    return sorted({*globals(), *__all__})
