"""Whether a model does all that it must at a size: fit, score, explain, save, load, and score the same.

``python -m defectbench.models.checks.full_check SIDE MEMORY NAME`` does it for one model, with random
weights, two tiny batches and one thread, without network and in bounded memory, and prints a line of JSON;
:func:`full_check` starts that and reads it, so that a model that takes too much ends nothing but its own
check.
"""

from __future__ import annotations

import contextlib
import json
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from defectbench import catalog
from defectbench.catalog import Entry, Setting
from defectbench.errors import BugError, DefectbenchError, ExitCode
from defectbench.models.base import ModelSettings, Prediction, TrainingData
from defectbench.models.checks import subprocess_run
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures
from defectbench.util.memory import PeakMemory, ran_out

SECONDS = 1800.0
"""How long one model may take, its library's import included."""

MEMORY = 12 * 2**30
"""Bytes of data that one model's process may have."""

LEARNT = 4
"""Pictures to learn from: two batches."""

_SHORT: Mapping[str, Setting] = {"batch_size": 2, "steps": 2}
_MODULE = "defectbench.models.checks.full_check"


@dataclass(frozen=True, slots=True)
class FullCheckResult:
    """How one model did.

    Attributes:
        side: of the pictures: the one asked for, or the next that the model takes.
        code: 0 where it passed.
        says: in words, what it gave, or why it failed.
        heat_map: the map's height and width; (0, 0) where there is none.
        parameters, flops: counted; flops None where they cannot be.
        seconds: of the check, the library's import apart.
        peak_memory_bytes: of the process.
    """

    name: str
    side: int
    code: int
    says: str
    heat_map: tuple[int, int] = (0, 0)
    parameters: int = 0
    flops: int | None = None
    seconds: float = 0.0
    peak_memory_bytes: int = 0


def side_for(entry: Entry, side: int) -> int:
    """Return ``side``, or the next larger one that the model takes, or its own."""
    return next((size for size in range(side, side + 64) if entry.takes(size)), entry.image_size)


def full_check(
    names: Sequence[str], side: int, seconds: float = SECONDS, memory: int = MEMORY
) -> Iterator[FullCheckResult]:
    """Yield each model's result, one process after the other."""
    for name in names:
        own = side_for(catalog.find(name), side)
        output, end = subprocess_run.run_module(_MODULE, [str(own), str(memory), name], seconds)
        lines = output.splitlines()
        if lines:
            told = json.loads(lines[-1])
            yield FullCheckResult(**{**told, "heat_map": tuple(told["heat_map"])})
        else:
            yield FullCheckResult(name, own, ExitCode.TRY_AGAIN, end)


def main(arguments: Sequence[str]) -> None:
    """Examine a model and print a line of JSON; libraries' own words go to standard error."""
    side, memory, name = arguments
    _bound(int(memory))
    with contextlib.redirect_stdout(sys.stderr):
        result = _result(catalog.find(name), int(side))
    print(json.dumps(asdict(result)), flush=True)  # noqa: T201


def _bound(memory: int) -> None:
    """Let this process fail an allocation, before the machine runs out of memory."""
    if hasattr(resource, "RLIMIT_DATA") and sys.platform == "linux":
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        allowed = memory if most == resource.RLIM_INFINITY else min(memory, most)
        resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))


def _result(entry: Entry, side: int) -> FullCheckResult:
    try:
        return check_here(entry, side)
    except DefectbenchError as error:
        return FullCheckResult(entry.name, side, error.code, str(error))
    except Exception as error:  # a network raises whatever its first wrong shape leads to
        code = ExitCode.TRY_AGAIN if ran_out(error) else ExitCode.BUG
        return FullCheckResult(entry.name, side, code, subprocess_run.describe_error(error))


def check_here(entry: Entry, side: int) -> FullCheckResult:
    """Put a model through all of it in this process.

    Raises:
        BugError: the map or the score is wrong, or the loaded model scores otherwise.
    """
    from threadpoolctl import threadpool_limits

    with _no_network(), tempfile.TemporaryDirectory(prefix="defectbench-") as folder:
        model = build_model(entry, settings_for(entry, side))
        started = time.perf_counter()
        # After the library is loaded: the limit reaches only the pools that are there.
        with threadpool_limits(1), PeakMemory() as memory:
            model.fit(training_data_for(entry, side), lambda progress: None)
            shown = ArrayPictures(_pictures(1, side, 3))
            [first] = model.predict(shown)
            model.save(Path(folder) / "model")
            again = build_model(entry, settings_for(entry, side))
            again.load(Path(folder) / "model")
            [second] = again.predict(shown)
            _check(first, second)
            size = model.size()
    high, wide = first.heat_map.shape
    return FullCheckResult(
        entry.name,
        side,
        ExitCode.DONE,
        "fits, scores, explains, saves and loads",
        (high, wide),
        size.parameters,
        size.flops,
        round(time.perf_counter() - started, 1),
        memory.peak,
    )


def settings_for(entry: Entry, side: int) -> ModelSettings:
    """Return the entry's own settings with the smallest batch, two steps and one epoch at most."""
    settings = {name: _SHORT.get(name, value) for name, value in entry.settings.items()}
    return ModelSettings(settings, side, min(entry.epochs, 1), 0, seed=0, device="cpu")


def training_data_for(entry: Entry, side: int) -> TrainingData:
    """Return two tiny batches: goods for a detector, else both classes, with two pictures to tune on."""
    pictures = ArrayPictures(_pictures(LEARNT, side, 1))
    if entry.family == "detector":
        return TrainingData(pictures, np.zeros(LEARNT, np.int64))
    tuning = ArrayPictures(_pictures(2, side, 2))
    labels = np.arange(LEARNT) % 2
    mask = np.zeros((side, side), np.bool_)
    mask[side // 4 : side // 2, side // 4 : side // 2] = True
    masks = {int(place): mask for place in np.flatnonzero(labels)} if entry.family == "supervised" else {}
    return TrainingData(pictures, labels, tuning, np.array([0, 1]), masks)


def _pictures(number: int, side: int, seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (number, side, side, 3), np.uint8)


def _check(first: Prediction, second: Prediction) -> None:
    """Raise BugError unless the map is a finite square grid and the loaded model gives the same bits."""
    high, wide = first.heat_map.shape
    if not np.isfinite(first.score) or not np.isfinite(first.heat_map).all():
        raise BugError("the score or the heat map is not finite")
    if high != wide or high < 2:
        raise BugError(f"a square picture has a heat map of {high} x {wide}")
    if first.score != second.score or not np.array_equal(first.heat_map, second.heat_map):
        raise BugError("the loaded model does not score as the one that was saved")


@contextlib.contextmanager
def _no_network() -> Iterator[None]:
    """Refuse every connection and every name; whoever asks has a bug."""

    def refuse(*asked: object, **more: object) -> NoReturn:
        raise BugError(f"a model asked the network for {asked[1:] or asked}")

    connect, look_up = socket.socket.connect, socket.getaddrinfo
    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = refuse
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]
        socket.getaddrinfo = look_up


if __name__ == "__main__":
    main(sys.argv[1:])
