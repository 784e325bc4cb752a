"""SIGTERM: a flag in a fit, an end at once elsewhere; the second one changes nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from defectbench.errors import StoppedError
from defectbench.util.shutdown import Stop


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    found = Stop()
    found.listen()
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_stop(stop: Stop, number: signal.Signals) -> None:
    assert not stop.is_set()
    signal.raise_signal(number)
    signal.raise_signal(number)
    assert stop.is_set()


def test_a_signal_ends_what_has_nothing_to_save(stop: Stop) -> None:
    cleaned = []

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(1e6)
        finally:
            signal.raise_signal(signal.SIGTERM)  # the second one does not cut the cleaning short
            cleaned.append(True)

    with pytest.raises(StoppedError), stop.at_once():
        work()
    assert cleaned
    signal.raise_signal(signal.SIGTERM)


def test_what_has_nothing_to_save_does_not_begin_after_a_signal(stop: Stop) -> None:
    signal.raise_signal(signal.SIGTERM)
    begun = False
    with pytest.raises(StoppedError), stop.at_once():
        begun = True
    assert not begun


def test_waiting_ends_with_the_stop(stop: Stop) -> None:
    started = time.monotonic()
    stop.wait(0.3)
    assert time.monotonic() - started >= 0.3
    assert not stop.is_set()
    stop.set()
    stop.wait(1e6)  # would not end within pytest's timeout


def test_a_signal_after_the_end_changes_nothing() -> None:
    code = """
import atexit, signal
import defectbench.__main__ as main_module
class Last:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
Last.kept = Last()
atexit.register(signal.raise_signal, signal.SIGTERM)
main_module.run = lambda words: 143
main_module.main()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 143
