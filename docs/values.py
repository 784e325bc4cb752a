"""Write the table of the chart's values into docs/chart.md from the chart itself: `make docs`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

PAGE = Path(__file__).with_name("chart.md")
CHART = Path(__file__).parents[1] / "charts" / "defectbench"
BEGIN, END = "<!-- values: written by make docs -->\n", "<!-- /values -->"
UNLISTED = ("global",)


def rows(schema: Mapping[str, Any], defaults: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield a line of the table for each value; a mapping whose keys have defaults is one line a key."""
    for name, part in schema["properties"].items():
        if name in UNLISTED:
            continue
        default = defaults.get(name)
        if isinstance(default, dict) and default:
            yield from rows(part, default, f"{above}{name}.")
        else:
            yield f"| `{above}{name}` | {shown(default)} | {part['description']} |"


def shown(default: Any) -> str:
    """Return a default as YAML has it."""
    return f"`{default}`" if default and isinstance(default, str) else f"`{json.dumps(default)}`"


def table() -> str:
    """Return the table."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    head = ["| value | default | what it is |", "|---|---|---|"]
    return "\n".join([*head, *rows(schema, defaults)]) + "\n"


def render() -> str:
    """Return the whole page, its table new."""
    page = PAGE.read_text(encoding="utf-8")
    start, rest = page.split(BEGIN)
    return f"{start}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
