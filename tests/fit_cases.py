"""Fits whose text is pinned. ``python tests/fit_cases.py`` writes tests/sweeps/golden/fits.json anew."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from defectbench.records.cell import Fit
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.sweeps.plan import make_plan
from defectbench.weights.store import push_weights
from manifests import category

GOLDEN = Path(__file__).parent / "sweeps" / "golden" / "fits.json"
MODELS = ("filterbank-logreg", "filterbank-knn", "supersimplenet-supervised")
"""A classifier, a detector, and a detector that learns from defects too."""
BACKBONE = "resnet18.tv_in1k"


@dataclass(frozen=True)
class Case:
    """A sweep, and which of each model's fits are pinned.

    Attributes:
        keys: what the sweep says beside the models.
        chosen: places in each model's list of fits; None for all.
    """

    keys: Mapping[str, Any]
    models: tuple[Any, ...] = MODELS
    chosen: tuple[int, ...] | None = (0, -1)


CASES = {
    "detection by folds": Case({"protocols": {"detection": {"folds": 3}}}, chosen=None),
    "detection by holdout": Case({"protocols": {"detection": {"scheme": "holdout"}}}, chosen=None),
    "unseen": Case({"protocols": {"unseen": {}}}),
    "scarcity": Case({"protocols": {"scarcity": {"defects": [1, 4], "draws": 2}}}),
    "contamination": Case({"protocols": {"contamination": {"shares": [0, 0.25]}}}),
    "other keys": Case(
        {"protocols": {"detection": {}}, "seeds": [7], "split_seed": 3, "image_size": 96, "threads": 2}
    ),
    "stored weights": Case(
        {"protocols": {"detection": {"folds": 3}}, "weights": "pretrained"},
        (
            {"name": "mobilenetv3-small", "architecture": BACKBONE},
            {"name": "patchcore", "backbone": BACKBONE, "layers": ["layer1", "layer2"]},
        ),
    ),
}


def fits(case: str, folder: Path) -> dict[str, Fit]:
    """Plan a case in a store below ``folder`` and return its pinned fits by name."""
    store = DirectoryStore(folder / "store")
    manifest = replace(category(25, 12, {"crack": 6, "stain": 6}), dataset="golden")
    store.put("datasets/golden/bolt/manifest.json", manifest.to_json())
    (folder / "network").write_bytes(b"weights")
    push_weights(store, BACKBONE, folder / "network")
    given = CASES[case]
    document = {
        "name": "pinned",
        "data": {"dataset": "golden"},
        "models": list(given.models),
        "seeds": [0],
        "weights": "none",
        **given.keys,
    }
    plan = make_plan(parse_sweep(document, SourceLines("pinned.yaml", {})), store)
    found: dict[str, list[Fit]] = {}
    for key, cell in plan.cells.items():
        found.setdefault(plan.labels[key], []).append(cell.fit)
    return {
        f"{case}: {label}, fit {number % len(planned) + 1} of {len(planned)}": planned[number]
        for label, planned in found.items()
        for number in (range(len(planned)) if given.chosen is None else given.chosen)
    }


def document(fit: Fit) -> dict[str, Any]:
    """Return the fit as its JSON is read."""
    return dict(json.loads(json.dumps(fit.to_document())))


def to_text(pinned: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the golden file's text: a line for each field, so that a change is one line."""
    blocks = (
        f"{json.dumps(name)}: {{\n"
        + ",\n".join(f" {json.dumps(field)}: {json.dumps(value)}" for field, value in entry.items())
        + "\n}"
        for name, entry in pinned.items()
    )
    return "{\n" + ",\n".join(blocks) + "\n}\n"


def write() -> None:
    """Write the golden file."""
    pinned = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            for name, fit in fits(case, Path(folder)).items():
                pinned[name] = {"key": fit.key(), **document(fit)}
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(to_text(pinned))


if __name__ == "__main__":
    write()
