"""Helm, which renders the chart: one process of its program, or its Python binding where there is none."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from defectbench.errors import ConfigurationError, nearest

_RELEASE = "defectbench"
"""Helm wants a release's name; the chart does not use it."""
_MISSING = (
    "rendering needs Helm: install its program (https://helm.sh/docs/intro/install; DEFECTBENCH_HELM names one "
    "outside PATH), or its Python binding: pip install 'defectbench[helm]'"
)


def template(chart: Path, values: Mapping[str, Any], namespace: str, kube_version: str) -> Iterator[str]:
    """Render a chart with ``values`` and return its documents one by one, as texts in YAML.

    Args:
        kube_version: the cluster's, such as 1.31.0; Helm checks it against the chart's.

    Raises:
        ConfigurationError: there is no Helm here, or it refuses the values.
    """
    program = find_program()
    if program is None:
        text = _by_binding(chart, values, namespace)
    else:
        text = _by_program(program, chart, values, namespace, kube_version)
    return _documents(text)


def find_program() -> str | None:
    """Return the helm program: $DEFECTBENCH_HELM, else the one in PATH, else None.

    Raises:
        ConfigurationError: DEFECTBENCH_HELM names something else.
    """
    named = os.environ.get("DEFECTBENCH_HELM")
    found = shutil.which(named or "helm")
    if named and found is None:
        raise ConfigurationError(
            f"DEFECTBENCH_HELM is {named!r}, which is no program; name helm, or unset it"
        )
    return found


def _by_program(
    program: str, chart: Path, values: Mapping[str, Any], namespace: str, kube_version: str
) -> str:
    """Run ``helm template``; the values go by standard input, for they may be long."""
    where = ["--namespace", namespace, "--kube-version", kube_version]
    # A user's HELM_NAMESPACE or kubeconfig must not decide what comes out.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HELM_")}
    try:
        done = subprocess.run(
            [program, "template", _RELEASE, str(chart), *where, "--values", "-"],
            input=json.dumps(values),
            capture_output=True,
            encoding="utf-8",
            env=environment | {"KUBECONFIG": os.devnull},
        )
    except OSError as error:
        raise ConfigurationError(f"cannot run {program}: {error.strerror}") from error
    if done.returncode:
        raise ConfigurationError(_plainly(done.stderr, chart))
    return done.stdout


def _by_binding(chart: Path, values: Mapping[str, Any], namespace: str) -> str:
    """Render in this process."""
    try:
        from helm_python import Chart, HelmError, HelmLibraryError
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    try:
        with Chart.load(chart) as loaded:
            files = loaded.render(values=dict(values), name=_RELEASE, namespace=namespace)
    except HelmLibraryError as error:
        raise ConfigurationError(f"Helm's Python binding cannot be loaded ({error}); {_MISSING}") from error
    except HelmError as error:
        raise ConfigurationError(_plainly(str(error), chart)) from error
    return "\n---\n".join(text for name, text in files.items() if name.endswith(".yaml"))


def _documents(text: str) -> Iterator[str]:
    """Cut YAML at its separators; documents without content are left out."""
    start = 0
    for mark in [*re.finditer(r"^---[ \t]*$\n?", text, re.MULTILINE), None]:
        document = text[start : mark.start() if mark else len(text)]
        if re.search(r"^[^#\s]", document, re.MULTILINE):
            yield document
        if mark:
            start = mark.end()


def _plainly(said: str, chart: Path) -> str:
    """Return Helm's message in a line for each problem, with the nearest name for an unknown key."""
    problems = re.findall(r"^- at '(.*?)': (.*)$", said, re.MULTILINE)
    if not problems:
        return f"Helm cannot render the chart: {' '.join(said.removeprefix('Error: ').split())}"
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    lines = []
    for pointer, message in problems:
        path = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        name = ".".join(path)
        lines.append(f"the chart's values: {name + ': ' if name else ''}{_hint(message, path, schema)}")
    return "\n".join(lines)


def _hint(message: str, path: list[str], schema: Mapping[str, Any]) -> str:
    """Name the keys that are allowed where the message is about one that is not."""
    unknown = re.match(r"additional properties (.*) not allowed", message)
    if unknown is None:
        return message
    inside: Any = schema
    for step in path:
        inside = inside.get("items", {}) if step.isdecimal() else inside.get("properties", {}).get(step, {})
    names = re.findall(r"'(.*?)'", unknown[1])
    allowed = inside.get("properties", {})
    return "; ".join(f"unknown key {name!r}; {nearest(name, allowed)}" for name in names)
