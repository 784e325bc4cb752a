"""A shell as the docs' reader has one, and what MLflow answers: for tests of whole walks on the cluster."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from parts import ROOT

VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SLIM = f"docker.io/library/defectbench:{VERSION}-slim"

PATIENCE = 480.0
"""Seconds for a whole walk on a busy machine; two minutes on a free one."""

TOOLS = """
set -eu -o pipefail
trap 'echo "failed: $BASH_COMMAND"' ERR
kubectl() {{ "{root}/.parts/bin/kubectl" --kubeconfig "{config}" "$@"; }}
helm() {{
    if [ "$1" = install ]; then set -- "$@" --values overrides.json; fi
    "{root}/.parts/bin/helm" --kubeconfig "{config}" "$@"
}}
defectbench() {{ "{python}" -m defectbench "$@"; }}
make() {{ command make --old-file .venv/.synced RUN="{python} -m" "$@"; }}
address() {{
    kubectl -n {namespace} get pod -l "app.kubernetes.io/name=$1" -o 'jsonpath={{.items[0].status.podIP}}'
}}
"""


def checkout(folder: Path) -> Path:
    """A folder that looks like the checkout and may be written into."""
    for name in ("Makefile", "charts", "docs", "jobs", "pyproject.toml", "src", "tools"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def environment(kubeconfig: Path) -> dict[str, str]:
    """The caller's, without any settings of its own for stores, trackers and clusters."""
    others = ("AWS_", "DEFECTBENCH_", "MLFLOW_", "KUBECONFIG", "HELM_", "MAKE", "MFLAGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    path = f"{ROOT / '.parts' / 'bin'}:{os.environ['PATH']}"
    settings = {"PATH": path, "PYTHONPATH": str(ROOT / "src"), "KUBECONFIG": str(kubeconfig)}
    return kept | settings | {"AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class Shell:
    """Bash with the test cluster's kubectl and helm, in a folder that looks like the checkout."""

    folder: Path
    namespace: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def run(self, script: str) -> str:
        """Run it, end all that it left running, and return what was printed; failing fails the test."""
        output = self.folder / "output"
        with output.open("w") as file:
            shell = subprocess.Popen(
                ["bash", "-c", self.tools() + script],
                cwd=self.folder,
                env={**environment(self.folder / "kubeconfig"), **self.variables},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
            try:
                code = shell.wait(PATIENCE)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(shell.pid, signal.SIGKILL)
        assert code == 0, output.read_text()[-6000:]
        return output.read_text()

    def tools(self) -> str:
        config = self.folder / "kubeconfig"
        return TOOLS.format(root=ROOT, config=config, python=sys.executable, namespace=self.namespace)


def ask_mlflow(uri: str, path: str, question: dict[str, Any]) -> Any:
    """MLflow's answer over its REST interface, asked as its own page in a browser does."""
    body = json.dumps(question).encode()
    headers = {"Content-Type": "application/json", "Origin": uri}
    request = Request(f"{uri}/ajax-api/2.0/mlflow/{path}", body, headers)
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def runs(uri: str, experiment: str) -> list[dict[str, Any]]:
    """All runs of an experiment in MLflow: name, status, tags, metrics."""
    (found,) = [
        each["experiment_id"]
        for each in ask_mlflow(uri, "experiments/search", {"max_results": 100})["experiments"]
        if each["name"] == experiment
    ]
    answer = ask_mlflow(uri, "runs/search", {"experiment_ids": [found], "max_results": 1000})
    return [
        {
            "name": each["info"]["run_name"],
            "status": each["info"]["status"],
            "tags": {tag["key"]: tag["value"] for tag in each["data"].get("tags", [])},
            "metrics": {metric["key"]: metric["value"] for metric in each["data"].get("metrics", [])},
        }
        for each in answer["runs"]
    ]
