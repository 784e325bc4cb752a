"""Bring docs/models.json, what `models check --format json` gave, into docs/models.md and the catalog."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from defectbench import catalog

PAGE, RESULTS = (Path(__file__).with_name(name) for name in ("models.md", "models.json"))
MODULE = Path(catalog.__file__).with_name("measured.py")
HEAD = "| model | size | heat map | parameters (M) | GFLOP | seconds | peak memory (GiB) | result |"
MARKS = re.compile(r"(<!-- written by .*? -->\n).*?(<!-- end -->)", re.DOTALL)


def row(result: dict[str, Any]) -> str:
    """Return one model's line."""
    entry = catalog.find(result["name"])
    flops = "-" if result["flops"] is None else f"{result['flops'] / 1e9:.1f}"
    cells = [
        f"`{entry.name}`",
        str(result["side"]),
        "{} x {}".format(*result["heat_map"]),
        f"{result['parameters'] / 1e6:.2f}",
        flops,
        f"{result['seconds']:.0f}",
        f"{result['peak_memory_bytes'] / 2**30:.1f}",
        " ".join([_outcome(result), *_remarks(entry)]),
    ]
    return f"| {' | '.join(cells)} |"


def _outcome(result: dict[str, Any]) -> str:
    return "passes" if not result["code"] else f"**fails**: {result['says']}"


def _remarks(entry: catalog.Entry) -> list[str]:
    remarks = [] if entry.takes(512) else [f"does not take 512: {entry.sizes}"]
    if not entry.commercial:
        remarks.append("published weights: non-commercial")
    if any(weights.kind == "pictures" for weights in entry.weights):
        remarks.append("textures: scikit-image's photographs in place of the published ones")
    return [f"({'; '.join(remarks)})"] if remarks else []


def render(page: str, results: Sequence[dict[str, Any]]) -> str:
    """Return the page with the table of these results, in the catalog's order."""
    order = [entry.name for entry in catalog.ENTRIES]
    rows = [row(result) for result in sorted(results, key=lambda one: order.index(one["name"]))]
    table = "\n".join([HEAD, "|" + "---|" * 8, *rows])
    return MARKS.sub(lambda found: f"{found[1]}\n{table}\n\n{found[2]}", page)


def figures(results: Sequence[dict[str, Any]]) -> str:
    """Return the text of the catalog's module."""
    lines = [HEADER]
    for result in sorted(results, key=lambda one: str(one["name"])):
        flops = "None" if result["flops"] is None else f"{result['flops']:_}"
        side = "" if result["side"] == 512 else f", side={result['side']}"
        lines.append(f'        "{result["name"]}": Measured({result["parameters"]:_}, {flops}{side}),')
    return "\n".join([*lines, "    }", ")", ""])


HEADER = '''"""What `models check` counted at 512 px; `python docs/models.py` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defectbench.catalog.entry import Measured

MEASURED: Mapping[str, Measured] = MappingProxyType(
    {'''


if __name__ == "__main__":
    MODULE.write_text(figures(json.loads(RESULTS.read_text())))
    PAGE.write_text(render(PAGE.read_text(), json.loads(RESULTS.read_text())))
