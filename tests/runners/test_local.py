"""Cells in real worker processes: same predictions however they run, and nothing lost when they are ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from defectbench.data.archive import import_dataset
from defectbench.data.synthetic.synth import synth
from defectbench.records.result import find_failure, find_verified_result, read_predictions
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.sweeps.config import read_sweep
from defectbench.sweeps.plan import make_plan
from parts import S3Server
from processes import finish
from waiting import wait_until

SWEEP = """\
name: small
data: {dataset: parts, categories: [grass]}
models: [filterbank-logreg, filterbank-knn]
weights: none
image_size: 64
threads: 1
seeds: [0, 1]
protocols: {detection: {folds: 3}}
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of real photographs."""
    place = tmp_path_factory.mktemp("pictures") / "parts"
    synth(place, categories=("grass",), size=64, train_good=12, test_good=6, defects_per_type=2, seed=1)
    return place


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("sweep") / "small.yaml"
    file.write_text(SWEEP)
    return file


def command(*arguments: object, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `defectbench` with the arguments."""
    return subprocess.Popen(
        [sys.executable, "-m", "defectbench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": "",
            "PYTHONFAULTHANDLER": "1",
            **(environment or {}),
        },
    )


def call(*arguments: object, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """Run `defectbench`, check its exit code, return what it said."""
    process = command(*arguments, environment=environment)
    out, err = finish(process)
    assert process.returncode == code, err
    return out + err


def run(
    sweep: Path, store: object, cache: Path, *more: object, code: int = 0, **keys: Mapping[str, str]
) -> str:
    arguments = ("run", sweep, "--store", store, "--cache", cache, "--no-track", *more)
    return call(*arguments, code=code, **keys)


def scores(store: Store, sweep: Path, cells: int = 8) -> dict[str, bytes]:
    """Every cell's predictions, as bytes."""
    found = {}
    for key in make_plan(read_sweep(sweep), store).cells:
        result = find_verified_result(store, key)
        assert result is not None
        found[key] = read_predictions(store, result).to_parquet()
    assert len(found) == cells
    return found


@pytest.fixture(scope="module")
def first(pictures: Path, sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory store in which one worker has run the sweep. Nobody may change it."""
    place = tmp_path_factory.mktemp("first")
    store = open_store(str(place / "store"))
    import_dataset(pictures, store)
    run(sweep, store.url, place / "cache")
    return place / "store"


@pytest.fixture(scope="module")
def reference(first: Path, sweep: Path) -> dict[str, bytes]:
    """The predictions of that run."""
    return scores(open_store(str(first)), sweep)


def test_workers_stores_and_repetition_change_no_bit(
    pictures: Path, sweep: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "three"))
    import_dataset(pictures, store)
    said = run(sweep, store.url, tmp_path / "three-cache", "--workers", 3)
    assert "8 of 8 finished, 0 failed" in said
    assert scores(store, sweep) == reference
    # A second run finds everything finished.
    before = {key: store.get(key).version for key in store.keys("cells/")}
    assert "8 finished, 0 to run" in run(sweep, store.url, tmp_path / "three-cache", "--workers", 3)
    assert {key: store.get(key).version for key in store.keys("cells/")} == before


DEEP = """\
name: deep
data: {dataset: parts, categories: [grass]}
models:
  - {name: mobilenetv3-small, epochs: 1, batch_size: 4}
  - {name: patchcore, backbone: resnet18.tv_in1k}
weights: none
seeds: [0]
image_size: 64
threads: 1
protocols: {detection: {folds: 3}}
"""


@pytest.mark.torch
def test_workers_and_stores_change_no_bit_of_deep_models(pictures: Path, tmp_path: Path) -> None:
    """A fine-tuned classifier and a memory bank, 3 cells and 1; about 60 s, most of it imports."""
    sweep = tmp_path / "deep.yaml"
    sweep.write_text(DEEP)
    found = []
    for workers in (1, 3):
        store = open_store(str(tmp_path / f"store-{workers}"))
        import_dataset(pictures, store)
        run(sweep, store.url, tmp_path / f"cache-{workers}", "--workers", workers)
        found.append(scores(store, sweep, cells=4))
    assert found[0] == found[1]
    assert len(set(found[0].values())) == 4


@pytest.mark.s3
def test_the_s3_store_changes_no_bit(
    pictures: Path,
    sweep: Path,
    reference: dict[str, bytes],
    tmp_path: Path,
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://bench/{tmp_path.name}")
    import_dataset(pictures, store)
    run(sweep, store.url, tmp_path / "s3-cache", "--workers", 2, environment=s3_server.environment)
    assert scores(store, sweep) == reference


def test_a_damaged_result_is_run_again(
    first: Path, sweep: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    place = shutil.copytree(first, tmp_path / "copy")
    store = open_store(str(place))
    victim = next(iter(reference))
    next(place.glob(f"cells/{victim}/*/predictions.parquet")).write_bytes(b"half-writ")
    assert "7 finished, 1 to run" in run(sweep, place, tmp_path / "cache")
    assert scores(store, sweep) == reference


def test_a_failing_cell_keeps_its_traceback_and_spares_the_others(
    pictures: Path, sweep: Path, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    import_dataset(pictures, store)
    # More features than the backbone has: only the detector can find that, in its fit.
    said = run(sweep, store.url, tmp_path / "cache", "--set", FAILING[0], code=1)
    assert "6 of 8 finished, 2 failed" in said
    failed = [key for key in make_plan(read_sweep(sweep, FAILING), store).cells if find_failure(store, key)]
    assert len(failed) == 2
    failure = find_failure(store, failed[0])
    assert failure is not None
    assert "Traceback" in failure.traceback
    log = store.get(f"cells/{failed[0]}/{failure.attempt}/log.txt").data.decode()
    assert "Traceback" in log
    # Tried again by the next run; it fails again, under the next attempt.
    run(sweep, store.url, tmp_path / "cache", "--set", FAILING[0], code=1)
    again = find_failure(store, failed[0])
    assert again is not None
    assert again.attempt == failure.attempt + 1


FAILING = ["models=[filterbank-logreg, {name: padim, features: 10000}]"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_leaves_nothing_half_written_and_the_same_command_goes_on(
    number: signal.Signals, pictures: Path, sweep: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    place = tmp_path / "stopped"
    store = open_store(str(place))
    import_dataset(pictures, store)
    arguments = ("run", sweep, "--store", place, "--cache", tmp_path / "stopped-cache", "--no-track")
    process = command(*arguments, "--workers", 2)
    # At the first lease: by the first result a busy machine may have all of them.
    wait_until(lambda: list(place.glob("cells/*/lease.json")))
    process.send_signal(number)
    _, err = finish(process)
    assert process.returncode == 143, err
    for result in place.glob("cells/*/result.json"):
        assert find_verified_result(store, result.parent.name) is not None
    assert not list(place.rglob("*.part*"))
    run(sweep, place, tmp_path / "stopped-cache", "--workers", 2)
    assert scores(store, sweep) == reference


def test_a_killed_worker_is_replaced(
    pictures: Path, sweep: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    place = tmp_path / "killed"
    store = open_store(str(place))
    import_dataset(pictures, store)
    arguments = ("run", sweep, "--store", place, "--cache", tmp_path / "killed-cache", "--no-track")
    process = command(*arguments)
    wait_until(psutil.Process(process.pid).children)
    psutil.Process(process.pid).children()[0].kill()
    _, err = finish(process)
    assert process.returncode == 0, err
    assert "SIGKILL" in err
    assert scores(store, sweep) == reference


def test_a_cell_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    from defectbench.records.state import CellState
    from defectbench.runners.local import LocalRunner

    deadly = tmp_path / "defectbench_deadly.py"
    deadly.write_text(DEADLY)
    runner = LocalRunner(store="x", workers=1, program=(sys.executable, str(deadly)))
    ended = runner.run(["bad", "good"], lambda event: None)
    assert ended["good"].state is CellState.FINISHED
    assert ended["bad"].state is CellState.FAILED
    assert "SIGKILL twice" in ended["bad"].message


@pytest.mark.parametrize(
    ("code", "state"), [(1, "failed"), (70, "failed"), (75, "again"), (143, "stopped"), (0, "finished")]
)
def test_a_worker_that_leaves_early_leaves_no_cell_unsaid(code: int, state: str) -> None:
    from defectbench.runners.local import LocalRunner

    if state == "finished":
        state = "failed"  # it said nothing of its cells, whatever it ended with
    runner = LocalRunner(store="x", workers=2, program=("/bin/sh", "-c", f"exit {code}"))
    ended = runner.run(["one", "two"], lambda event: None)
    assert {key: str(event.state) for key, event in ended.items()} == {"one": state, "two": state}


DEADLY = """\
import json, os, signal, sys
for cell in [sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == "--cell"]:
    print(json.dumps({"cell": cell, "state": "running"}), flush=True)
    if cell == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    print(json.dumps({"cell": cell, "state": "finished"}), flush=True)
"""
