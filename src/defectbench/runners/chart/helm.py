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
    "rendering needs Helm: install its program (https://helm.sh/docs/intro/install; DEFECTBENCH_HELM names "
    "one outside PATH), or its Python binding: pip install 'defectbench[helm]'"
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
        raise ConfigurationError(_explain_refusal(done.stderr, chart))
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
        raise ConfigurationError(_explain_refusal(str(error), chart)) from error
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


def _explain_refusal(output: str, chart: Path) -> str:
    """Return Helm's message, for values that break the schema a line for each problem."""
    problems = re.findall(r"^- at '(.*?)': (.*)$", output, re.MULTILINE)
    if not problems:
        return f"Helm cannot render the chart: {' '.join(output.removeprefix('Error: ').split())}"
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    lines = []
    for pointer, message in problems:
        path = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        name = ".".join(["values", *path])
        lines.append(f"{name}: {_explain(message, _schema_at(schema, path))}")
    return "\n".join(lines)


def _schema_at(schema: Mapping[str, Any], path: list[str]) -> Mapping[str, Any]:
    """Return the part of a schema that a value has to keep to."""
    for step in path:
        schema = schema.get("items", {}) if step.isdecimal() else schema.get("properties", {}).get(step, {})
    return schema


def _explain(message: str, schema: Mapping[str, Any]) -> str:
    """Add what is allowed to one of Helm's findings; take out what was got, for it may be a credential."""
    if re.search(r"does not match pattern '", message):
        form = f"such as {schema['examples'][0]}" if "examples" in schema else f"like {schema.get('pattern')}"
        return f"expected a text {form} ({schema.get('description', 'see values.schema.json')})"
    if message == "false schema":
        return "is the chart's own to write"
    unknown = re.fullmatch(r"additional properties (.*) not allowed", message)
    if unknown is None:
        return message
    first, *others = sorted(re.findall(r"'(.*?)'", unknown[1]))
    also = f" (and {', '.join(map(repr, others))})" if others else ""
    return f"unknown key {first!r}{also}; {nearest(first, schema.get('properties', {}))}"
