"""`report` from ten thousand made-up cells, against reading the same figures back by MLflow's search.

    python benchmarks/report.py [--categories 18] [--mlflow-runs 10000] [--keep FOLDER]

Writes a store of made-up cells (tests/fakes.py): 18 categories, 8 models, detection in 4 folds, learning
curves of 4 numbers of defects and 10 draws: 10,656 cells of some 96 rows each. Then, each in a process of its
own:

- `report`: `defectbench report`, everything included;
- `collect`: what it starts with, reading all results and predictions, checked against their SHA-256;
- `mlflow`: the same figures, a run for each cell and a metric for each figure that the cell's files hold
  (those of result.json, and score and explanation of each row), read back by MLflow's search, page by page.
  They are put into MLflow's own sqlite tables directly: through its API that alone would take an hour;
- `mlflow_frame`: the same by `mlflow.search_runs`, which makes a DataFrame of them;
- `mlflow_server`: the first again, through `mlflow server` over the same database, as a cluster's users have
  it; its `cpu` is the client's alone.

`seconds` and `cpu` of a way are without imports, `peak_mb` is of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from defectbench.records.predictions import EXPLANATION
from defectbench.records.result import find_result, read_predictions
from defectbench.records.sweep_record import Record, read_record
from defectbench.stores.directory import DirectoryStore
from defectbench.tables.collect import collect
from parts import MlflowServer

SWEEP = "madeup"
MODELS = (
    *("filterbank-logreg", "mobilenetv3-small", "resnet50", "tinyvit-21m-512"),
    *("filterbank-knn", "padim", "patchcore", "glass"),
)
PROTOCOLS = {"detection": {"folds": 4}, "scarcity": {"defects": [1, 2, 4, 8], "draws": 10}}


class QuickStore(DirectoryStore):
    """Writes without locks and without waiting for the disk: nobody else is there."""

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        target = self.path / key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return ""


def fill(folder: Path, categories: int) -> Record:
    """Make the sweep up; manifests are read once, not once a cell."""
    import fakes
    from defectbench.data.manifest import Manifest

    Manifest.from_json = staticmethod(lru_cache(Manifest.from_json))  # type: ignore[method-assign]
    return fakes.made_up_sweep(
        QuickStore(folder),
        name=SWEEP,
        categories=[f"part{number:02}" for number in range(categories)],
        models=MODELS,
        training_goods=100,
        goods=40,
        defects=40,
        protocols=PROTOCOLS,
    )


def measure_report(folder: str) -> dict[str, float]:
    from defectbench.report.page import write_report

    with tempfile.TemporaryDirectory() as place:
        page = write_report(DirectoryStore(folder), SWEEP, Path(place) / "out", Path(place) / "cache")
        return {"page_mb": page.stat().st_size / 1e6}


def measure_collect(folder: str) -> dict[str, float]:
    found = collect(DirectoryStore(folder), SWEEP)
    rows = sum(len(predictions) for predictions in found.predictions.values())
    return {"cells": len(found.results), "rows": rows}


def figures(store: DirectoryStore, key: str) -> dict[str, float]:
    """Return every figure of a cell under a name of its own."""
    result = find_result(store, key)
    assert result is not None
    found = {**result.metrics, **result.cost}
    rows = read_predictions(store, result)
    for column in ("score", *EXPLANATION):
        values = getattr(rows, column)
        found |= {
            f"{column}/{name}": float(value)
            for name, value in zip(rows.image_id.tolist(), values, strict=True)
            if not np.isnan(value)
        }
    return found


def log_runs(database: Path, store: DirectoryStore, keys: list[str]) -> None:
    """Copy a run of MLflow's own making, with its figures, once for each cell."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.create_experiment(SWEEP)
    run = client.create_run(experiment, run_name="first")
    client.log_metric(run.info.run_id, "first", 1.0, timestamp=1, step=0)
    client.set_terminated(run.info.run_id)
    with sqlite3.connect(database) as tables:
        for place, key in enumerate(keys):
            _copy(tables, run.info.run_id, f"{place:032x}", figures(store, key))
        tables.execute("delete from latest_metrics where run_uuid = ?", (run.info.run_id,))
        for table in ("metrics", "tags", "runs"):
            tables.execute(f"delete from {table} where run_uuid = ?", (run.info.run_id,))


def _copy(tables: sqlite3.Connection, source: str, run: str, found: dict[str, float]) -> None:
    tables.row_factory = sqlite3.Row
    for table in ("runs", "tags"):
        for row in tables.execute(f"select * from {table} where run_uuid = ?", (source,)).fetchall():
            _insert(tables, table, [{**dict(row), "run_uuid": run}])
    for table in ("metrics", "latest_metrics"):
        row = dict(tables.execute(f"select * from {table} where run_uuid = ?", (source,)).fetchone())
        rows = [{**row, "run_uuid": run, "key": name, "value": value} for name, value in found.items()]
        _insert(tables, table, rows)


def _insert(tables: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = list(rows[0])
    marks = ", ".join("?" * len(names))
    tables.executemany(
        f"insert into {table} ({', '.join(names)}) values ({marks})", [tuple(r.values()) for r in rows]
    )


def measure_mlflow(database: str) -> dict[str, float]:
    return searched(f"sqlite:///{database}")


def measure_mlflow_frame(database: str) -> dict[str, float]:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{database}")
    frame = mlflow.search_runs(experiment_names=[SWEEP])
    figures = frame.filter(like="metrics.")
    return {"runs": len(frame), "figures": int(figures.notna().to_numpy().sum())}


def measure_mlflow_server(uri: str) -> dict[str, float]:
    return searched(uri)


def searched(uri: str) -> dict[str, float]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(SWEEP)
    assert experiment is not None
    runs = count = 0
    for run in pages(client, experiment.experiment_id):
        runs, count = runs + 1, count + len(run.data.metrics)
    return {"runs": runs, "figures": count}


def pages(client: Any, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


WAYS = {
    "report": measure_report,
    "collect": measure_collect,
    "mlflow": measure_mlflow,
    "mlflow_frame": measure_mlflow_frame,
    "mlflow_server": measure_mlflow_server,
}


def child(way: str, place: object) -> dict[str, float]:
    """Measure one way in a process of its own; imports apart."""
    done = subprocess.run(
        [sys.executable, __file__, "--way", way, str(place)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(way: str, place: str) -> None:
    """Print what one way took and gave."""
    # Imports are not what is measured, and an environment without bytecode would compile them each time.
    import mlflow  # noqa: F401
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    start, cpu = time.perf_counter(), time.process_time()
    found = WAYS[way](place)
    took = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(json.dumps({**took, "peak_mb": peak, **found}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--categories", type=int, default=18)
    parser.add_argument("--mlflow-runs", type=int, default=10_000, help="cells that go into MLflow, at most")
    parser.add_argument("--keep", type=Path, help="a folder for the store and the database, used again")
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        measured(*given.way)
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(given.keep or Path(scratch), given.categories, given.mlflow_runs)


def compare(folder: Path, categories: int, runs: int) -> None:
    store = folder / "store"
    if not store.exists():
        fill(store, categories)
    record = read_record(DirectoryStore(store), SWEEP)
    tables = folder / f"mlflow-{runs}"
    database = tables / "mlflow.db"
    if not database.exists():
        tables.mkdir(parents=True, exist_ok=True)
        log_runs(database, DirectoryStore(store), list(record.cells)[:runs])
    load = os.getloadavg()[0]
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, load {load:.1f}"
    )
    told = {way: child(way, store) for way in ("report", "collect")}
    told |= {way: child(way, database) for way in ("mlflow", "mlflow_frame")}
    server = MlflowServer(tables)
    server.start()
    try:
        told["mlflow_server"] = child("mlflow_server", server.uri)
    finally:
        server.kill()
    for way, found in told.items():
        print(way, {name: round(value, 2) for name, value in found.items()})
    for way in ("mlflow", "mlflow_frame", "mlflow_server"):
        share = len(record.cells) / told[way]["runs"]
        times = [share * told[way][clock] / told["collect"][clock] for clock in ("seconds", "cpu")]
        print(
            f"{way} takes {times[0]:.1f} times as long as reading back, {times[1]:.1f} times its CPU", end=""
        )
        print(f" (times {share:.2f} for the cells that it was spared)" if share > 1 else "")


if __name__ == "__main__":
    main()
