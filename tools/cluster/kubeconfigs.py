"""Kubeconfigs: who talks to the API server. JSON is YAML, and needs no library."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from layout import NAMESPACE, Layout


def encoded(path: Path) -> str:
    """A file's content as kubeconfigs embed it."""
    return base64.b64encode(path.read_bytes()).decode()


def with_certificate(layout: Layout, name: str) -> None:
    """Write the kubeconfig of the certificate ``name``."""
    key, certificate = (encoded(layout.certificates / f"{name}.{end}") for end in ("key", "crt"))
    write(layout, name, {"client-certificate-data": certificate, "client-key-data": key})


def with_token(layout: Layout, name: str, token: str) -> None:
    """Write the kubeconfig of a bearer token."""
    write(layout, name, {"token": token})


def write(layout: Layout, name: str, credentials: dict[str, str]) -> None:
    """Write ``<name>.kubeconfig``, whole and readable by its owner only."""
    authority = encoded(layout.certificates / "ca.crt")
    context = {"cluster": "defectbench-test", "user": name, "namespace": NAMESPACE}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": "defectbench-test",
                "cluster": {"server": layout.api_url, "certificate-authority-data": authority},
            }
        ],
        "users": [{"name": name, "user": credentials}],
        "contexts": [{"name": "defectbench-test", "context": context}],
        "current-context": "defectbench-test",
    }
    new = layout.kubeconfig(name).with_suffix(".new")
    new.touch(mode=0o600)
    new.write_text(json.dumps(content, indent=2))
    new.replace(layout.kubeconfig(name))
