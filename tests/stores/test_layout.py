"""The docs show the tree of the store that the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from defectbench.stores import layout

ROOT = Path(__file__).resolve().parents[2]


def shown(text: str) -> set[str]:
    """Return the keys that a tree shows: each line's first words, ``a/b.json, c.json`` taken apart."""
    found = set()
    for line in re.findall(r"^(?: {4})?((?:datasets|weights|cells|sweeps|tracking)/.*)$", text, re.MULTILINE):
        first, *others = re.split(r",\s+", re.split(r"\s{2,}|\s\(", line)[0])
        found |= {first, *(f"{first.rpartition('/')[0]}/{name}" for name in others)}
    return found


def keys() -> set[str]:
    """Return a key of each kind, in the words of the docs."""
    key, data = "<key>", ("<name>", "<category>")
    return {
        layout.manifest_key(*data),
        layout.archive_key(*data, "<digest>"),
        layout.shortcut_key(*data, "<digest>"),
        layout.widths_key(*data, "<digest>"),
        layout.importing_key("<name>", "<digest>"),
        layout.weights_key("<name>", "<sha256>"),
        layout.spec_key(key),
        layout.lease_key(key),
        layout.cell_key(key, layout.CHECKPOINT),
        layout.failure_key(key),
        layout.result_key(key),
        layout.cell_key(key, "<attempt>", ""),
        layout.sweep_key("<name>"),
        layout.views_key("<name>"),
        layout.tracking_key("<sweep>", "<run>"),
    }


@pytest.mark.parametrize("where", ["docs/results.md", "src/defectbench/stores/layout.py"])
def test_docs_show_every_key(where: str) -> None:
    text = (ROOT / where).read_text().replace("<attempt>/...", "<attempt>/")
    assert shown(text) == keys()


def test_no_other_module_writes_a_key_by_hand() -> None:
    by_hand = re.compile(r"f?[\"'](datasets|weights|cells|sweeps|tracking)/[^\"']*[\"']")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / "src" / "defectbench").rglob("*.py"))
        if path.parts[-2:] != ("stores", "layout.py") and "testing" not in path.parts
        for line in path.read_text().splitlines()
        if by_hand.search(line) and ">>>" not in line
    ]
    assert found == ['bundle.py: _WEIGHTS = "weights/"'], "an exported model's folder is no store"
