"""Workers that are stopped, killed, paused or late, as processes: what is lost, and what they end with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from attempts import assert_same, finish, pointer, prepared, steps
from defectbench.catalog import registry
from defectbench.errors import TryAgainError
from defectbench.execution.lease import PATIENCE, HeldLease, Lease, take_lease
from defectbench.execution.watchdog import KILLED
from defectbench.records.lease import read_lease
from defectbench.records.result import find_failure, find_verified_result
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.stores.directory import OWN_FOLDER, DirectoryStore
from defectbench.util.files import locked
from parts import BUCKET, S3Server
from resumable_classifier import EPOCHS, NAME, STEPS, planted

STEPPER = Path(__file__).resolve().parents[1] / "resumable_classifier.py"


@contextmanager
def worker(
    store: Store, cells: list[str], cache: Path, *program: str, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run `defectbench job` as a process of its own, a checkpoint at every step."""
    words = [*(program or (str(STEPPER),)), "job", "--events", "--store", store.url, "--cache", str(cache)]
    words += [word for key in cells for word in ("--cell", key)]
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": "",
            "DEFECTBENCH_CHECKPOINT_SECONDS": "0",
            **environment,
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> int:
    _, said = process.communicate()
    print(said)
    return process.returncode


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until the condition holds, while the process runs."""
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def stepper() -> Iterator[None]:
    """This process knows the stepper, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.by_name(), NAME, planted()[NAME])
        yield


@pytest.fixture(scope="module")
def whole(stepper: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store in which the stepper's cells ran undisturbed."""
    place = tmp_path_factory.mktemp("whole")
    store = DirectoryStore(place / "store")
    for key in prepared(store, NAME):
        finish(store, key, place / "cache")
    return store


def test_a_worker_that_is_told_twice_to_go_saves_and_goes(whole: Store, store: Store, tmp_path: Path) -> None:
    keys = prepared(store, NAME)
    with worker(store, keys, tmp_path / "cache", STEP_SECONDS="0.1") as process:
        wait_for(lambda: steps(store, keys[0]) >= 3, process)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 143
    assert read_lease(store, keys[0]).released  # type: ignore[union-attr]
    assert 3 <= steps(store, keys[0]) < EPOCHS * STEPS
    with worker(store, keys, tmp_path / "cache") as process:
        assert ended(process) == 0
    for key in keys:
        assert_same(store, whole, key)
    result = find_verified_result(store, keys[0])
    assert result is not None
    assert result.cost["attempts"] == 2


def test_a_killed_worker_loses_at_most_an_interval(whole: Store, store: Store, tmp_path: Path) -> None:
    [key, *_] = prepared(store, NAME)
    with worker(store, [key], tmp_path / "cache", STEP_SECONDS="0.05") as process:
        wait_for(lambda: steps(store, key) >= 12, process)
        process.kill()
        process.wait()
    left = steps(store, key)
    assert left >= 12
    finish(store, key, tmp_path / "cache")
    log = store.get(f"cells/{key}/2/log.txt").data.decode()
    assert f"the fit goes on from {left // STEPS} of {EPOCHS}, step {left}" in log
    assert_same(store, whole, key)


def test_a_worker_that_is_stopped_while_it_scores_keeps_its_fit(whole: Store, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    [key, *_] = prepared(store, NAME)
    environment = {"STEP_SECONDS": "0.1", "DEFECTBENCH_CHECKPOINT_SECONDS": "1e9"}
    with worker(store, [key], tmp_path / "cache", **environment) as process:
        assert process.stdout is not None
        assert any('"phase": "scoring"' in line for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 143
    fit = pointer(store, key)["fit"]
    assert isinstance(fit, dict)
    assert fit["fitted"]
    finish(store, key, tmp_path / "cache")
    assert "scoring only" in store.get(f"cells/{key}/2/log.txt").data.decode()
    assert_same(store, whole, key)


def test_a_worker_that_still_imports_goes_at_once(stepper: None, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    keys = prepared(store, NAME)
    with worker(store, keys, tmp_path / "cache", IMPORT_SECONDS="1e6") as process:
        wait_for(lambda: read_lease(store, keys[0]), process)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 143
    assert read_lease(store, keys[0]).released  # type: ignore[union-attr]
    assert find_failure(store, keys[0]) is None


def test_a_paused_worker_that_lost_its_cell_spoils_nothing(
    whole: Store, store: Store, tmp_path: Path
) -> None:
    [key, *_] = prepared(store, NAME)
    with worker(store, [key], tmp_path / "cache", STEP_SECONDS="0.1") as process:
        wait_for(lambda: steps(store, key) >= 3, process)
        pause(process, tmp_path / "store")
        result = finish(store, key, tmp_path / "cache")
        assert result.files
        assert all(name.startswith("2/") for name in result.files)
        before = {
            name: store.get(name)
            for name in store.keys(f"cells/{key}/")
            if not name.startswith(f"cells/{key}/1/")
        }
        process.send_signal(signal.SIGCONT)
        assert ended(process) == 75
    after = {
        name: store.get(name)
        for name in store.keys(f"cells/{key}/")
        if not name.startswith(f"cells/{key}/1/")
    }
    assert after == before
    assert_same(store, whole, key)
    assert "took it over as attempt 2" in store.get(f"cells/{key}/1/log.txt").data.decode()


def pause(process: subprocess.Popen[str], store: Path) -> None:
    """Stop the process for a while, at a moment in which it holds none of a directory store's locks.

    Else who comes next would wait for the lock, and be told so: a lock is no lease, its holder still lives.
    """
    while True:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        try:
            for lock in (store / OWN_FOLDER / "locks").glob("*"):
                with locked(lock, patience=0):
                    pass
        except TryAgainError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.03)
        else:
            return


@pytest.mark.s3
def test_a_worker_outlives_outages_of_its_store(
    whole: Store, own_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At its start, during a fit and when its result is due: one attempt, no failure, the same bits."""
    store = open_store(f"s3://{BUCKET}/x")
    key, *_ = prepared(store, NAME)
    own_s3_server.kill()
    with worker(store, [key], tmp_path / "cache", STEP_SECONDS="0.05", AWS_MAX_ATTEMPTS="1") as process:
        time.sleep(3.0)
        own_s3_server.start()
        wait_for(lambda: steps(store, key) >= 3, process)
        own_s3_server.kill()
        time.sleep(6.0)  # the fit and its scores end meanwhile
        own_s3_server.start()
        assert ended(process) == 0
    assert_same(store, whole, key)
    result = find_verified_result(store, key)
    assert result is not None
    assert result.cost["attempts"] == 1


@pytest.mark.s3
def test_a_worker_whose_store_stays_away_ends_with_74_and_keeps_its_result(
    whole: Store, own_s3_server: S3Server, tmp_path: Path
) -> None:
    store = open_store(f"s3://{BUCKET}/x")
    key, other, *_ = prepared(store, NAME)
    impatient = {"AWS_MAX_ATTEMPTS": "1", "DEFECTBENCH_STORE_PATIENCE": "1"}
    with worker(store, [key, other], tmp_path / "cache", STEP_SECONDS="0.05", **impatient) as process:
        wait_for(lambda: steps(store, key) >= 3, process)
        own_s3_server.kill()
        assert ended(process) == 74
    own_s3_server.start()
    lease = read_lease(store, key)
    assert lease is not None
    assert not lease.released, "it could not give the cell back"
    started = time.monotonic()
    with worker(store, [key, other], tmp_path / "cache", HANG_AT="999") as process:
        wait_for(lambda: find_verified_result(store, key), process)
        assert time.monotonic() - started < PATIENCE - 20, "it waited for its own dead lease"
        assert ended(process) == 0
    for each in (key, other):
        assert_same(store, whole, each)
    assert "an earlier attempt had finished it" in store.get(f"cells/{key}/2/log.txt").data.decode()


def test_a_fit_that_hangs_is_ended_and_gone_on_with(whole: Store, store: Store, tmp_path: Path) -> None:
    key, *_ = prepared(store, NAME)
    hanging = {"HANG_AT": "15", "DEFECTBENCH_STUCK_SECONDS": "1"}
    with worker(store, [key], tmp_path / "cache", **hanging) as process:
        assert ended(process) == KILLED
    said = store.get(f"cells/{key}/1/log.txt").data.decode()
    assert "is stuck: no step for" in said
    assert "resumable_classifier.py" in said, "where it hangs"
    assert find_failure(store, key) is None, "another machine may do better"
    assert read_lease(store, key).released  # type: ignore[union-attr]
    finish(store, key, tmp_path / "cache")
    assert "the fit goes on from 1 of 4, step 15" in store.get(f"cells/{key}/2/log.txt").data.decode()
    assert_same(store, whole, key)


def test_the_deadline_holds_over_killed_workers(stepper: None, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    [key, *_] = prepared(store, NAME, resources={"deadline": "3s"})
    with worker(store, [key], tmp_path / "cache", STEP_SECONDS="0.2") as process:
        # Every checkpoint tells the lease, too; without any the time since the last beat is lost.
        wait_for(lambda: spent(store, key) > 1.5, process)
        process.kill()
        process.wait()
    before = spent(store, key)
    wait_out(store, key)
    with worker(store, [key], tmp_path / "cache", STEP_SECONDS="0.2") as process:
        assert ended(process) == 124
    assert spent(store, key) - before < 2.0
    failure = find_failure(store, key)
    assert failure is not None
    assert (failure.code, failure.attempt) == (124, 3)
    # A further worker does not even begin.
    with worker(store, [key], tmp_path / "cache") as process:
        assert ended(process) == 124


def spent(store: Store, key: str) -> float:
    record = read_lease(store, key)
    return float(record.progress.get("spent", 0.0)) if record else 0.0


def wait_out(store: Store, key: str) -> None:
    """Take a killed worker's cell after a short silence and give it back, so that no test waits for 90 s."""
    lease: Lease | HeldLease | None = None
    while not isinstance(lease, Lease):
        lease = take_lease(store, key, "undertaker", seen=lease, patience=0.3)
        time.sleep(0.05)
    lease.release()


DEEP = {
    "name": "resnet50",
    "architecture": "test_resnet.r160_in1k",
    "epochs": 4,
    "batch_size": 4,
    "learning_rate": 3e-3,
}


@pytest.mark.torch
def test_a_network_that_is_stopped_and_then_killed_ends_the_same(tmp_path: Path) -> None:
    """A fine-tuned network in two processes of `python -m defectbench job`; about 40 s, mostly imports."""
    whole, store = DirectoryStore(tmp_path / "whole"), DirectoryStore(tmp_path / "store")
    [key, *_] = prepared(whole, DEEP)
    assert prepared(store, DEEP)[0] == key
    with worker(store, [key], tmp_path / "cache", "-m", "defectbench") as process:
        wait_for(lambda: steps(store, key) >= 7, process)
        process.send_signal(signal.SIGTERM)
        assert ended(process) == 143
    stopped = steps(store, key)
    with worker(store, [key], tmp_path / "cache", "-m", "defectbench") as process:
        wait_for(lambda: steps(store, key) >= stopped + 7, process)
        process.kill()
        process.wait()
    found = pointer(store, key)["fit"]
    assert isinstance(found, dict)
    assert (found["fitted"], found["attempts"]) == (False, 2)
    assert found["done"] < found["total"]
    finish(whole, key, tmp_path / "cache")
    result = finish(store, key, tmp_path / "cache")
    assert f"step {found['steps']}" in store.get(f"cells/{key}/3/log.txt").data.decode()
    assert_same(store, whole, key)
    assert result.cost["attempts"] == 3
