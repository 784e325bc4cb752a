from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.runners.kubernetes.submission import load_sweep
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from fakes import put_category


@pytest.mark.parametrize("detection", [{}, {"folds": 3}, {"scheme": "holdout"}], ids=str)
def test_load_by_name_gives_the_cells_that_were_submitted(
    tmp_path: Path, detection: dict[str, object]
) -> None:
    store = DirectoryStore(tmp_path / "store")
    put_category(store, "parts", "nut", 12, 6, 9, ("crack", "stain"), True)
    document = {
        "name": "again",
        "data": {"dataset": "parts"},
        "models": ["filterbank-logreg", {"name": "filterbank-knn", "bank": 500}],
        "weights": "none",
        "seeds": [0, 3],
        "protocols": {"detection": detection},
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("again.yaml", {})), store)
    plans.write_plan(plan, store, list(plan.cells))
    assert list(plans.make_plan(load_sweep(store, "again"), store).cells) == list(plan.cells)
