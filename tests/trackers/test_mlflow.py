"""MLflow's client against a real server: also one that dies, hangs, or wants a password."""

from __future__ import annotations

import itertools
import logging
import socket
from pathlib import Path

import pytest

from parts import MlflowServer

pytest.importorskip("mlflow")
from defectbench.errors import ConfigurationError, TryAgainError
from defectbench.stores.directory import DirectoryStore
from defectbench.trackers.base import RunAttachments, TrackedRun
from defectbench.trackers.choose import open_tracker
from defectbench.trackers.mlflow import MlflowTracker, redacted
from defectbench.trackers.sync import SyncSummary, sync_sweep
from fakes import made_up_sweep

pytestmark = pytest.mark.mlflow


def server_tracker(uri: str) -> MlflowTracker:
    tracker = open_tracker(uri)
    assert isinstance(tracker, MlflowTracker)
    return tracker


def test_server_shows_a_sweep_as_a_database_does(mlflow_server: MlflowServer, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    made_up_sweep(store, name="shown", categories=("grass",), models=("padim",), heat_maps=True)
    tracker = server_tracker(mlflow_server.uri)
    assert sync_sweep(store, "shown", tracker) == SyncSummary(2, 0, 0)
    assert sync_sweep(store, "shown", tracker) == SyncSummary(0, 2, 0)
    client = tracker._client
    experiment = client.get_experiment_by_name("shown")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.level = 'parent'")
    (nested,) = client.search_runs(
        [experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    )
    assert "image_auroc" in parent.data.metrics
    files = {file.path for file in client.list_artifacts(nested.info.run_id)}
    assert files == {"heat_maps.png", "predictions.csv"}


def test_server_takes_a_run_of_many_figures_in_batches(mlflow_server: MlflowServer) -> None:
    tracker = server_tracker(mlflow_server.uri)
    figures = {f"figure {n}, one & all": float(n) for n in range(1100)}
    params = {f"p{n}": "x" * 7000 for n in range(130)}
    run = TrackedRun("many", "finished", 1.5, {"long": "y" * 9000}, params, figures, attach=RunAttachments)
    experiment = tracker.open("many")
    run_id = tracker.create(experiment, run, 1_000_000, "claim")
    tracker.write(run_id, run, 1_000_000)
    tracker.write(run_id, run, 1_000_000)
    found = tracker._client.get_run(run_id)
    assert (len(found.data.metrics), len(found.data.params)) == (1100, 130)
    assert (found.info.start_time, found.info.end_time) == (1_000_000, 1_001_500)
    assert tracker.find(experiment, "claim") == (run_id,)
    tracker.delete(run_id)
    tracker.delete(run_id)
    assert tracker.find(experiment, "claim") == ()


def test_server_that_was_killed_is_try_again_and_filled_later(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path)
    made_up_sweep(store, name="later", categories=("grass",), models=("padim",))
    tracker = server_tracker(mlflow_server.uri)
    mlflow_server.kill()
    try:
        with pytest.raises(TryAgainError, match="nothing is lost"):
            sync_sweep(store, "later", tracker)
    finally:
        mlflow_server.start()
    assert sync_sweep(store, "later", tracker) == SyncSummary(2, 0, 0)


def test_server_that_hangs_is_try_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """After few requests: with MLflow's own settings it would be eight, of two minutes each."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        with pytest.raises(TryAgainError):
            server_tracker(f"http://127.0.0.1:{silent.getsockname()[1]}").open("x")
        assert 1 <= connections(silent) <= 4


def connections(listening: socket.socket) -> int:
    """Count the connections that wait to be accepted."""
    listening.setblocking(False)
    for count in itertools.count():
        try:
            listening.accept()[0].close()
        except BlockingIOError:
            return count
    raise AssertionError("connections without end")


def test_credentials_reach_neither_message_nor_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token-of-mine")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    caplog.set_level(logging.DEBUG)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        tracker = server_tracker(f"http://someone:pass%40word@127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(TryAgainError) as caught:
            tracker.open("x")
    said = f"{tracker.place} {caught.value} {caught.value.__cause__} {caplog.text} {capfd.readouterr()}"
    assert caught.value.__suppress_context__
    for secret in ("someone", "pass%40word", "pass@word", "token-of-mine"):
        assert secret not in said


def test_redacted_hides_what_an_exception_decoded() -> None:
    uri = "postgresql://me:p%40ss@db/mlflow"
    assert redacted("login me with p@ss at postgresql://me:p%40ss@db/mlflow failed", uri) == (
        "login me with *** at postgresql://***@db/mlflow failed"
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModuleNotFoundError("No module named 'psycopg2'", name="psycopg2"), "needs the package psycopg2"),
        (
            PermissionError(13, "Permission denied", "/mlartifacts"),
            "lie at /mlartifacts, where",
        ),
        (OSError("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), "REQUESTS_CA_BUNDLE=/path"),
    ],
)
def test_what_no_second_try_mends_is_no_try_again(error: Exception, words: str) -> None:
    tracker = MlflowTracker("http://127.0.0.1:1")

    class Client:
        def delete_run(self, run_id: str) -> None:
            raise error

    tracker._opened = Client()  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match=words):
        tracker.delete("0" * 32)


def test_a_write_that_another_tracker_made_at_the_same_time_is_made_again() -> None:
    from mlflow.exceptions import MlflowException

    tracker, answers = MlflowTracker("http://127.0.0.1:1"), ["UNIQUE constraint failed: params.key"]

    class Client:
        def log_batch(self, *arguments: object, **words: object) -> None:
            if answers:
                raise MlflowException(answers.pop())

        def set_terminated(self, *arguments: object) -> None:
            """Done."""

    tracker._opened = Client()  # type: ignore[assignment]
    run = TrackedRun("a", "finished", 1.0, {}, {"p": "1"}, {})
    tracker.write("0" * 32, run, 0)
    assert not answers
    answers += ["UNIQUE constraint failed"] * 9
    with pytest.raises(TryAgainError):
        tracker.write("0" * 32, run, 0)
