"""A store that is away, or has rotated its credentials, and one that waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from defectbench.errors import (
    ConflictError,
    MissingObjectError,
    NoRightsError,
    StoppedError,
    StoreAwayError,
    TryAgainError,
)
from defectbench.stores.base import ABSENT, Blob, Store
from defectbench.stores.choose import open_store
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.patient import PATIENCE, PatientStore
from defectbench.util.shutdown import Stop
from parts import BUCKET, S3Server


class Troubled(DirectoryStore):
    """Raises what is planned before, or after, it does what it is asked to; then does it."""

    def __init__(self, path: Path, before: list[Exception], after: list[Exception] | None = None) -> None:
        super().__init__(path)
        self.before = before
        self.after = after or []
        self.renewed = 0

    def renew(self) -> None:
        self.renewed += 1

    def _act(self, act: Callable[[], Blob | str]) -> Blob | str:
        if self.before:
            raise self.before.pop(0)
        done = act()
        if self.after:
            raise self.after.pop(0)
        return done

    def get(self, key: str) -> Blob:
        found = self._act(lambda: DirectoryStore.get(self, key))
        assert isinstance(found, Blob)
        return found

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        return str(self._act(lambda: DirectoryStore.put(self, key, data, expected=expected)))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def patient(inner: Store, clock: Clock, stop: Stop | None = None) -> PatientStore:
    return PatientStore(inner, stop or Stop(), clock=clock, sleep=clock.sleep)


def away(times: int) -> list[Exception]:
    return [StoreAwayError("away")] * times


def test_a_store_that_comes_back_is_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    store = patient(Troubled(tmp_path, away(12)), clock)
    store.put("k", b"one")
    assert store.get("k").data == b"one"
    assert store.waited == sum(clock.pauses) > 60
    # Pauses grow, within bounds, and are drawn: workers that lost the store together come back one by one.
    assert max(clock.pauses) <= 30
    assert clock.pauses[0] <= 0.5
    assert len(set(clock.pauses)) == len(clock.pauses)
    assert 3 <= len(caplog.records) <= 8, "said at first, once a minute, and at the end"
    assert "answers again after" in caplog.text


def test_patience_ends(tmp_path: Path) -> None:
    clock = Clock()
    with pytest.raises(StoreAwayError):
        patient(Troubled(tmp_path, away(1000)), clock).get("k")
    assert PATIENCE - 1 < clock.now < PATIENCE + 31


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    stop = Stop()
    store = PatientStore(Troubled(tmp_path, away(1000)), stop)
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(StoppedError):
        store.get("k")
    assert time.monotonic() - began < 30


def test_other_troubles_are_not_waited_for(tmp_path: Path) -> None:
    """A full disk of this machine, a conflict, an object that is not there: the store is not away."""
    clock = Clock()
    troubles = (TryAgainError("a full cache"), ConflictError("somebody"), MissingObjectError("k"))
    for trouble in troubles:
        with pytest.raises(type(trouble)):
            patient(Troubled(tmp_path, [trouble]), clock).get("k")
    assert clock.pauses == []


@pytest.mark.parametrize("expected", [ABSENT, "version"])
def test_a_conditional_put_whose_answer_was_lost_is_recognised(tmp_path: Path, expected: str) -> None:
    clock = Clock()
    inner = Troubled(tmp_path, [])
    seen = ABSENT if expected == ABSENT else DirectoryStore.put(inner, "k", b"before")
    inner.after = away(1)
    version = patient(inner, clock).put("k", b"mine", expected=seen)
    assert inner.get("k") == Blob(b"mine", version)


def test_a_conditional_put_that_somebody_else_won_meanwhile_is_lost(tmp_path: Path) -> None:
    clock = Clock()
    inner = Troubled(tmp_path, away(2))
    store = patient(inner, clock)

    def sleep(seconds: float) -> None:
        if not inner.before[1:]:
            DirectoryStore.put(inner, "k", b"theirs")
        clock.now += seconds

    store = PatientStore(inner, Stop(), clock=clock, sleep=sleep)
    with pytest.raises(ConflictError):
        store.put("k", b"mine", expected=ABSENT)
    assert inner.get("k").data == b"theirs"


def test_credentials_that_never_were_good_are_refused_at_once(tmp_path: Path) -> None:
    clock = Clock()
    inner = Troubled(tmp_path, [NoRightsError("no")])
    with pytest.raises(NoRightsError):
        patient(inner, clock).get("k")
    assert clock.pauses == []


def test_credentials_that_are_being_rotated_are_read_anew(tmp_path: Path) -> None:
    clock = Clock()
    inner = Troubled(tmp_path, [])
    store = patient(inner, clock)
    store.put("k", b"one")
    inner.before = [NoRightsError("expired")] * 3
    assert store.get("k").data == b"one"
    assert inner.renewed == 3
    inner.before = [NoRightsError("for good")] * 1000
    with pytest.raises(NoRightsError, match="for good"):
        store.get("k")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 itself asks once."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.mark.s3
def test_a_real_server_that_goes_away_costs_time_alone(
    own_s3_server: S3Server, fast: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = PatientStore(open_store(f"s3://{BUCKET}/x"), Stop(), 60.0)
    version = store.put("k", b"one")
    (tmp_path / "large").write_bytes(b"x" * 1000)
    calls: list[Callable[[], object]] = [
        lambda: store.get("k"),
        lambda: list(store.keys()),
        lambda: store.put("k", b"two", expected=version),
        lambda: store.upload("large", tmp_path / "large"),
        lambda: store.download("large", tmp_path / "back"),
        lambda: store.delete("gone"),
    ]
    with caplog.at_level(logging.WARNING):
        for call in calls:
            own_s3_server.kill()
            threading.Timer(0.7, own_s3_server.start).start()
            call()
    assert store.get("k").data == b"two"
    assert (tmp_path / "back").read_bytes() == b"x" * 1000
    assert caplog.text.count("is out of reach") >= len(calls)


@pytest.mark.s3
def test_rotated_keys_in_a_credentials_file_are_taken_up(
    own_s3_server: S3Server, fast: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a mounted Secret is: the file changes below a process that runs."""
    file = tmp_path / "credentials"

    def rotate(secret: str) -> None:
        key = own_s3_server.access_key
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key={secret}\n")

    rotate(own_s3_server.secret_key)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    store = PatientStore(open_store(f"s3://{BUCKET}/x"), Stop(), 60.0)
    store.put("k", b"one")
    own_s3_server.kill()
    own_s3_server.secret_key = "another-secret"
    own_s3_server.start()
    with pytest.raises(NoRightsError):
        store.once.get("k")
    # The Secret's new text reaches the mounted file a while after the server has changed.
    threading.Timer(0.7, lambda: rotate("another-secret")).start()
    assert store.get("k").data == b"one"
