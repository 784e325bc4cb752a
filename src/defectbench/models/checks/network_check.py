"""Whether timm has the networks that a sweep names: asked of timm itself, in a process of its own.

``python -m defectbench.models.checks.network_check NAME...`` prints a line of JSON for each name that timm
does not have; :func:`unknown_networks` starts that and reads it. So the caller loads neither timm nor torch.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence

from defectbench.errors import TryAgainError, nearest
from defectbench.models.checks import subprocess_run

SECONDS = 300.0
"""How long timm's import may take."""

_MODULE = "defectbench.models.checks.network_check"


def unknown_networks(names: Sequence[str]) -> Mapping[str, str]:
    """Return those of ``names`` that timm does not have -> the nearest names, in words.

    Empty where timm is not installed: then each cell finds out at its start.

    Raises:
        TryAgainError: timm is installed, but its process gave no answer.
    """
    if not names or importlib.util.find_spec("timm") is None:
        return {}
    output, end = subprocess_run.run_module(_MODULE, list(dict.fromkeys(names)), SECONDS)
    lines = output.splitlines()
    if not lines:
        raise TryAgainError(f"whether timm has the sweep's networks is not known, because {end}")
    answer: dict[str, str] = json.loads(lines[-1])
    return answer


def main(names: Sequence[str]) -> None:
    """Print a line of JSON: unknown name -> the nearest; the library's own words go to standard error."""
    with contextlib.redirect_stdout(sys.stderr):
        import timm

        known = timm.list_models()
        found = {name: _nearest(name, known) for name in names if not timm.is_model(name.partition(".")[0])}
    print(json.dumps(found), flush=True)  # noqa: T201


def _nearest(name: str, known: Sequence[str]) -> str:
    """Say which of timm's names are meant, the same at every call.

    >>> _nearest("resnt18.a1_in1k", ["resnet18", "resnet34", "vit_tiny"])
    "did you mean 'resnet18'?"
    """
    suggestion = nearest(name.partition(".")[0], known)
    hint, asks, _ = suggestion.partition("? ")
    return f"{hint}?" if asks else f"timm has {len(known)} networks: `timm.list_models()` names them"


if __name__ == "__main__":
    main(sys.argv[1:])
