"""The real kubectl, as the cluster's administrator."""

from __future__ import annotations

import subprocess

from layout import BIN, Layout
from services import clean_environment


def flags(layout: Layout) -> tuple[str, str]:
    """Who kubectl is, and where it may write: not to a home directory."""
    return f"--kubeconfig={layout.kubeconfig('admin')}", f"--cache-dir={layout.root / 'kubectl-cache'}"


def kubectl(layout: Layout, *words: str, check: bool = True, text: str | None = None) -> str:
    """Return what kubectl prints, stripped; a failure stops all with its message unless ``check`` is off."""
    command = [str(BIN / "kubectl"), *flags(layout), *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=clean_environment())
    if check and done.returncode:
        raise SystemExit(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()
