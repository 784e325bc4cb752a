from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from defectbench.errors import BugError, LeaseLostError, TryAgainError
from defectbench.execution.home import Home, find_home
from defectbench.execution.lease import PATIENCE, HeldLease, Lease, take_lease
from defectbench.records.lease import LeaseRecord, read_lease
from defectbench.stores.base import Store
from defectbench.stores.choose import open_store
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import lease_key
from parts import BUCKET, S3Server
from waiting import wait_until


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def held(store: Store) -> LeaseRecord:
    """What the store has of the cell's lease, which somebody took."""
    record = read_lease(store, "k")
    assert record is not None
    return record


def taken(store: Store, owner: str = "a", **more: Any) -> Lease:
    lease = take_lease(store, "k", owner, **more)
    assert isinstance(lease, Lease)
    return lease


def test_take_free_cell(store: Store) -> None:
    assert read_lease(store, "k") is None
    lease = taken(store, "host:1")
    assert (lease.fence, lease.prefix, lease.lost) == (1, "cells/k/1/", False)
    record = held(store)
    assert (record.owner, record.fence, record.released) == ("host:1", 1, False)
    document = json.loads(store.get("cells/k/lease.json").data)
    assert document["owner"] == "host:1"
    assert document["fence"] == 1


def test_take_by_many_at_once_has_one_holder(store: Store) -> None:
    """For a free cell, a released one, and one whose holder is silent."""
    clock = Clock()
    seen: HeldLease | None = None
    for fence in (1, 2, 3):
        gate = threading.Barrier(8)

        def contend(
            name: str, gate: threading.Barrier = gate, seen: HeldLease | None = seen
        ) -> Lease | HeldLease:
            gate.wait()
            return take_lease(store, "k", name, seen=seen, clock=clock)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(contend, "abcdefgh"))
        leases = [result for result in results if isinstance(result, Lease)]
        assert [lease.fence for lease in leases] == [fence]
        if fence == 1:
            leases[0].release()
        else:
            found = take_lease(store, "k", "waiter", clock=clock)
            assert isinstance(found, HeldLease)
            seen = found
            clock.now += PATIENCE


def test_take_held_cell_waits_for_silence(store: Store) -> None:
    clock = Clock()
    holder = taken(store, clock=clock)
    seen = take_lease(store, "k", "b", clock=clock)
    assert isinstance(seen, HeldLease)
    assert seen.record.owner == "a"
    clock.now += PATIENCE - 1
    assert take_lease(store, "k", "b", seen=seen, clock=clock) is seen
    holder.beat()
    clock.now += 1
    later = take_lease(store, "k", "b", seen=seen, clock=clock)
    assert isinstance(later, HeldLease)
    assert later.since == clock.now
    clock.now += PATIENCE
    second = take_lease(store, "k", "b", seen=later, clock=clock)
    assert isinstance(second, Lease)
    assert second.fence == 2


def test_take_needs_its_own_eyes(store: Store) -> None:
    """However old the lease is, a worker that sees it for the first time waits."""
    clock = Clock()
    taken(store, clock=clock)
    clock.now += 100 * PATIENCE
    assert isinstance(take_lease(store, "k", "b", clock=clock), HeldLease)


def test_take_released_cell_at_once(store: Store) -> None:
    first = taken(store)
    first.release()
    first.release()
    assert held(store).released
    assert not first.lost
    assert taken(store, "b").fence == 2
    first.release()
    assert held(store).owner == "b"


def test_beat_after_release_is_a_bug(store: Store) -> None:
    lease = taken(store)
    lease.release()
    with pytest.raises(BugError, match="released lease"):
        lease.beat()


def test_beat_tells_progress(store: Store) -> None:
    lease = taken(store)
    before = store.get(lease_key("k")).version
    lease.beat({"epoch": 3, "epochs": 10, "seconds_left": 4.5})
    assert held(store).progress == {"epoch": 3, "epochs": 10, "seconds_left": 4.5}
    lease.beat()
    assert held(store).beat == 2
    assert held(store).progress["epoch"] == 3
    assert store.get(lease_key("k")).version != before


def test_fence_grows_even_when_the_lease_is_removed(store: Store) -> None:
    taken(store)
    store.put("cells/k/7/log.txt", b"")
    store.put("cells/k/spec.json", b"")
    store.delete(lease_key("k"))
    assert taken(store, "b").fence == 8


def test_lost_lease_can_do_nothing_more(store: Store) -> None:
    clock = Clock()
    old = taken(store, clock=clock)
    seen = take_lease(store, "k", "b", clock=clock)
    assert isinstance(seen, HeldLease)
    clock.now += PATIENCE
    new = taken(store, "b", seen=seen, clock=clock)
    current = store.get(lease_key("k"))
    with pytest.raises(LeaseLostError, match="cell k, attempt 1: b took it over as attempt 2"):
        old.beat()
    assert old.lost
    with pytest.raises(LeaseLostError):
        old.check()
    old.release()
    assert store.get(lease_key("k")) == current
    new.beat()
    new.check()


def test_removed_lease_is_lost(store: Store) -> None:
    lease = taken(store)
    store.delete(lease_key("k"))
    with pytest.raises(LeaseLostError, match="was removed"):
        lease.beat()


def test_silent_holder_that_nobody_replaced_goes_on(store: Store) -> None:
    clock = Clock()
    lease = taken(store, clock=clock)
    clock.now += 10 * PATIENCE
    lease.beat()
    assert not lease.lost


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[1]",
        b"null",
        b"[" * 99999,
        b'{"owner": "a"}',
        b"\xff",
        b'{"owner": "x", "holder": "y", "fence": "z"}',
        b'{"owner": "x", "holder": "y", "fence": 1, "progress": []}',
        b'{"owner": "x", "holder": "y", "fence": ' + b"1" * 5000 + b"}",
    ],
)
def test_a_damaged_lease_is_said_and_taken_over_at_once(
    data: bytes, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.put("cells/k/3/log.txt", b"")
    store.put(lease_key("k"), data)
    assert read_lease(store, "k") is None
    lease = take_lease(store, "k", "a")
    assert isinstance(lease, Lease)
    assert lease.fence == 4
    assert "cells/k/lease.json is damaged" in caplog.text


def test_standing_round_trip() -> None:
    record = LeaseRecord("über-host", "ab", 3, {"epoch": 1}, 7, "2026-01-01T00:00:00+00:00", True)
    assert LeaseRecord.from_json(record.to_json(), "x") == record


def test_beat_whose_answer_was_lost_is_recognised(store: Store) -> None:
    """The store has our write, but we were told that it failed."""
    lease = taken(store)
    mine = held(store)
    store.put(lease_key("k"), LeaseRecord(mine.owner, mine.holder, 1, beat=1, at="just now").to_json())
    lease.beat({"epoch": 2})
    assert held(store).progress == {"epoch": 2}
    lease.beat()
    assert not lease.lost


def wait_for_beat(store: Store, number: int) -> None:
    wait_until(lambda: held(store).beat >= number)


def test_beating_keeps_a_lease_and_releases_it(store: Store) -> None:
    """The lookout's patience is over each time that it looks, but the lease has changed since."""
    clock = Clock()
    seen: HeldLease | None = None
    with taken(store).beating(every=0.05) as lease:
        lease.progress = {"epoch": 5}
        for beats in (1, 3, 5):
            wait_for_beat(store, beats)
            clock.now += PATIENCE
            found = take_lease(store, "k", "b", seen=seen, clock=clock)
            assert isinstance(found, HeldLease)
            seen = found
        assert held(store).progress == {"epoch": 5}
    assert held(store).released
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease")]


def test_beating_releases_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), taken(store).beating():
        raise ZeroDivisionError
    assert held(store).released


def test_beating_notices_a_take_over(store: Store) -> None:
    with taken(store).beating(every=0.05) as lease:
        current = held(store)
        store.put(lease_key("k"), LeaseRecord("thief", "x", current.fence + 1).to_json())
        wait_until(lambda: lease.lost)
    assert held(store).owner == "thief"
    assert not held(store).released


@pytest.mark.s3
def test_beating_bears_a_store_that_is_away_for_a_while(
    own_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(f"s3://{BUCKET}/x")
    with taken(store, patience=60.0).beating(every=0.05) as lease:
        own_s3_server.kill()
        wait_until(lambda: "out of reach" in caplog.text)
        with pytest.raises(TryAgainError, match="out of reach"):
            lease.beat()
        own_s3_server.start()
        before = held(store).beat
        wait_until(lambda: held(store).beat > before)
        assert not lease.lost
    assert held(store).released


@pytest.mark.s3
def test_a_holder_outlives_a_store_that_is_away_for_longer_than_waiters_wait(
    own_s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can take the cell over while the store is away, so giving up would only lose the work."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store(f"s3://{BUCKET}/x")
    with taken(store, patience=0.2).beating(every=0.05) as lease:
        own_s3_server.kill()
        wait_until(lambda: "no beat, the work goes on" in caplog.text)
        time.sleep(0.5)
        lease.check()
        own_s3_server.start()
        lease.confirm()
        assert not lease.lost
    assert caplog.text.count("no beat") == 1, "said once for an outage, not every few seconds"


def test_a_worker_that_comes_back_takes_its_own_dead_lease_at_once(store: Store) -> None:
    job = Home("job 1")
    taken(store, "pod-a:1", home=job)
    assert isinstance(take_lease(store, "k", "x:1", home=Home("job 2")), HeldLease)
    assert isinstance(take_lease(store, "k", "x:1"), HeldLease)
    assert taken(store, "pod-b:1", home=job).fence == 2


def test_a_neighbour_on_this_machine_is_waited_for_while_it_lives(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as neighbour:
        here = find_home()
        taken(store, "it", home=Home(here.name, neighbour.pid))
        assert isinstance(take_lease(store, "k", "me", home=here), HeldLease)
        neighbour.kill()
        # A zombie first: its parent, this process, has not asked for its end.
        wait_until(lambda: isinstance(take_lease(store, "k", "me", home=here), Lease))
    assert held(store).owner == "me"
    assert held(store).process == here.process


def test_a_lease_tells_how_long_its_holder_has_made_no_step(store: Store) -> None:
    clock = Clock()
    lease = taken(store, clock=clock)
    clock.now += 7.0
    lease.beat()
    assert held(store).still == 7.0
    lease.progress = {"epoch": 1}
    clock.now += 1.0
    lease.beat()
    assert held(store).still == 1.0


def test_release_with_the_store_away_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lease = taken(DirectoryStore(tmp_path / "store"))
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    (tmp_path / "store").write_text("no directory")
    with caplog.at_level(logging.WARNING):
        lease.release()
    assert "could not be released" in caplog.text


HOLDER = """
import sys, time
from defectbench.errors import ConflictError, LeaseLostError
from defectbench.execution.lease import Lease, take_lease
from defectbench.stores.base import ABSENT
from defectbench.stores.choose import open_store
store = open_store(sys.argv[1])
lease = take_lease(store, "k", "victim")
assert isinstance(lease, Lease)
checkpoint = store.put("cells/k/checkpoint.json", b"victim 0", expected=ABSENT)
with lease.beating(every=0.1):
    print("holding", flush=True)
    while not lease.lost:
        time.sleep(0.02)
    store.put(lease.prefix + "late.txt", b"mine")
    for attempt in (lease.check, lease.beat):
        try:
            attempt()
        except LeaseLostError:
            print("refused", flush=True)
    try:
        store.put("cells/k/checkpoint.json", b"victim 1", expected=checkpoint)
    except ConflictError:
        print("refused", flush=True)
print("end", flush=True)
"""


def start_holder(url: str) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "holding\n"
    return holder


def wait_out(store: Store, patience: float) -> Lease:
    seen: Lease | HeldLease | None = None
    while not isinstance(seen, Lease):
        seen = take_lease(store, "k", "heir", seen=seen, patience=patience)
        time.sleep(0.05)
    return seen


def test_paused_holder_that_wakes_up_can_do_no_harm(store: Store, store_url: str) -> None:
    with start_holder(store_url) as holder:
        try:
            os.kill(holder.pid, signal.SIGSTOP)
            heir = wait_out(store, 1.0)
            found = store.get("cells/k/checkpoint.json")
            store.put("cells/k/checkpoint.json", b"heir", expected=found.version)
            before = store.get(lease_key("k"))
            os.kill(holder.pid, signal.SIGCONT)
            said = holder.communicate()[0].split()
        finally:
            holder.kill()
    assert said == ["refused", "refused", "refused", "end"]
    assert holder.returncode == 0
    assert store.get(lease_key("k")) == before
    assert store.get("cells/k/checkpoint.json").data == b"heir"
    assert heir.fence == 2
    assert list(store.keys(heir.prefix)) == []
    heir.beat()


def test_killed_holder_is_replaced(store: Store, store_url: str) -> None:
    with start_holder(store_url) as holder:
        holder.kill()
    heir = wait_out(store, 0.5)
    assert heir.fence == 2
    heir.release()
    assert held(store).released
