"""Cells that several attempts bring to an end, as workers or in this process, and what must come out."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from defectbench.execution import run_cell
from defectbench.execution.events import Event
from defectbench.execution.lease import HeldLease, Lease, take_lease
from defectbench.records.lease import read_lease
from defectbench.records.result import Result, find_verified_result, read_file
from defectbench.stores.base import Store
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.util.shutdown import Stop
from fakes import put_category

QUALITY = ("predictions.parquet", "history.parquet")


def prepared(store: Store, *models: object, **keys: object) -> list[str]:
    """Put a category and a sweep's specs into the store; return its cells."""
    put_pictures(store)
    plan = plans.make_plan(parse_sweep(document(*models, **keys), SourceLines("small.yaml", {})), store)
    plans.write_plan(plan, store, list(plan.cells))
    return list(plan.cells)


def put_pictures(store: Store) -> None:
    put_category(store, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)


def document(*models: object, **keys: object) -> dict[str, object]:
    """A sweep over :func:`put_pictures`, as its file has it."""
    return {
        "name": "small",
        "data": {"dataset": "parts"},
        "models": list(models),
        "seeds": [0],
        "weights": "none",
        "image_size": 64,
        "threads": 1,
        "protocols": {"detection": {"folds": 3}},
        **keys,
    }


def pointer(store: Store, key: str) -> dict[str, object]:
    found = store.find(f"cells/{key}/checkpoint.json")
    return json.loads(found.data) if found else {}


def steps(store: Store, key: str) -> int:
    fit = pointer(store, key).get("fit", {"steps": 0})
    assert isinstance(fit, dict)
    return int(fit["steps"])


def finish(store: Store, key: str, cache: Path, patience: float = 0.3) -> Result:
    """Run the cell to its end in this process, taking over what nobody holds any more."""
    before = read_lease(store, key)
    lease: Lease | HeldLease | None = None
    while not isinstance(lease, Lease):
        lease = take_lease(store, key, "heir", seen=lease, patience=patience)
        time.sleep(0.05)

    def say(event: Event) -> None:
        """Nobody listens."""

    return run_cell.run_cell(
        run_cell.read_cell(store, key),
        run_cell.WorkerContext(store, cache, "cpu", Stop(), say),
        lease,
        before,
    )


def assert_same(store: Store, whole: Store, key: str, content: Callable[[bytes], object] = bytes) -> None:
    """Both ended the cell alike: files byte for byte, figures but the costs.

    Args:
        content: what is compared of the heat maps' file; all, where both Pythons have the same zlib.
    """
    one, other = find_verified_result(store, key), find_verified_result(whole, key)
    assert one is not None
    assert other is not None
    for name in QUALITY:
        assert read_file(store, one, name) == read_file(whole, other, name)
    maps = [read_file(*each, "heatmaps.npz") for each in ((store, one), (whole, other))]
    assert content(maps[0]) == content(maps[1])
    assert one.metrics == other.metrics
    assert one.calibration_threshold == other.calibration_threshold
    assert not [name for name in store.keys(f"cells/{key}/") if "checkpoint" in name]


def arrays(npz: bytes) -> dict[str, tuple[str, bytes]]:
    """The arrays of a file of numpy's, bit for bit, however they are packed."""
    with np.load(io.BytesIO(npz)) as file:
        return {name: (str(file[name].dtype), file[name].tobytes()) for name in file.files}
