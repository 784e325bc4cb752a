"""Kill each command before each of its writes, then let it end: nothing may be lost, doubled or half there.

``python benchmarks/kills.py [EVERY]``. A write is what Python's audit hooks call one: a file opened for
writing, made, renamed or removed, anywhere. Each command is run in a fork of this process that ends itself,
as kill -9 does, at its n-th write; n is 1, then EVERY more (default 1: every write), to the last. Then the
same command is run to its end, and what it leaves must be what an undisturbed one leaves. Ends with 1 where
it is not.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from defectbench.__main__ import run
from defectbench.records.result import find_verified_result
from defectbench.stores.directory import DirectoryStore

SWEEP = """\
name: tiny
data: {dataset: mine, categories: [brick, coin]}
models: [filterbank-knn, filterbank-logreg]
weights: none
threads: 1
seeds: [0]
image_size: 64
protocols: {detection: {folds: 3}}
"""
KILLED = 137
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Hook:
    """Counts this process's writes and ends it at one of them."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.last and writes(event, arguments):
            self.count += 1
            if self.count == self.last:
                os._exit(KILLED)


def writes(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether an audit event is a write to a file."""
    if event == "open":
        name, _, flags = arguments
        return isinstance(flags, int) and bool(flags & WRITING) and not str(name).startswith("/dev/")
    return event in (
        "os.rename",
        "os.remove",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.truncate",
        "shutil.rmtree",
    )


HOOK = Hook()
sys.addaudithook(HOOK)


def ended(words: list[str], last: int) -> int:
    """Run a command in a fork that is killed at its ``last`` write (0: never); return how it ended."""
    pid = os.fork()
    if pid == 0:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        HOOK.last = last
        os._exit(run(words))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def state(place: Path) -> dict[str, str]:
    """What there is, by content: of results what they say, of attempts whatever number they had."""
    store, found = DirectoryStore(place / "bench"), {}
    for key in list(store.keys()) if (place / "bench").is_dir() else []:
        parts = key.split("/")
        if parts[0] == "cells" and parts[-1] == "result.json":
            result = find_verified_result(store, parts[1])
            found[key] = repr(sorted(result.metrics.items())) if result else "not verified"
        elif parts[0] == "cells" and parts[-1] in ("predictions.parquet", "history.parquet", "heatmaps.npz"):
            found[f"cells/{parts[1]}/{parts[-1]}"] = digest(store.get(key).data)
        elif parts[0] in ("datasets", "weights", "sweeps") or parts[-1] == "spec.json":
            found[key] = digest(store.get(key).data)
        elif parts[-1] in ("log.txt", "lease.json") or parts[0] == "tracking":
            continue
        elif not key.startswith("mlflow"):
            found[key] = "left over"
    for folder in ("page", "model"):
        # Times and paths of files stand in pages and cards: what must be there is the same list of files.
        found |= {str(path.relative_to(place)): "" for path in (place / folder).rglob("*") if path.is_file()}
    return found


def digest(data: bytes) -> str:
    """Return the SHA-256."""
    return hashlib.sha256(data).hexdigest()


def commands(place: Path) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Yield each command's name and its words, once what comes before it has run."""
    store = DirectoryStore(place / "bench")
    yield "import", lambda: f"data import mine --name mine --store {store.url}".split()
    yield (
        "plan --write-specs",
        lambda: f"plan tiny.yaml --write-specs --format values --store {store.url}".split(),
    )

    def cells() -> list[str]:
        return sorted({key.split("/")[1] for key in store.keys("cells/")})

    yield "job", lambda: ["job", "--store", store.url, *(w for key in cells() for w in ("--cell", key))]
    yield "track", lambda: f"track tiny --store {store.url} --tracking-uri mlflow.db".split()
    yield "report", lambda: f"report tiny --store {store.url} --out page".split()
    yield "export", lambda: f"export {cells()[0]} --store {store.url} --out model".split()


def main(every: int = 1) -> int:
    """Return 1 where a kill left its mark, else 0."""
    worst = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.chdir(place)
        os.environ |= {
            "DEFECTBENCH_CACHE": str(place / "cache"),
            "MLFLOW_TRACKING_URI": "",
            "OMP_NUM_THREADS": "1",
        }
        run(
            [
                "data",
                "synth",
                "mine",
                "--size",
                "64",
                "--train-good",
                "12",
                "--test-good",
                "6",
                "--defects",
                "3",
            ]
        )
        (place / "tiny.yaml").write_text(SWEEP)
        print(f"{'command':20} {'writes':>7} {'kills':>6} {'wrong':>6} {'slowest end, s':>15}", flush=True)
        for name, words in commands(place):
            before = Path(shutil.copytree(place, f"{folder}.before", symlinks=True, dirs_exist_ok=False))
            worst |= trial(name, words, place, before, every)
            shutil.rmtree(before)
    return worst


def trial(name: str, words: Callable[[], list[str]], place: Path, before: Path, every: int) -> int:
    """Kill one command everywhere; leave the place as an undisturbed one leaves it."""

    def reset() -> None:
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(before, place, symlinks=True, dirs_exist_ok=True)

    code = ended(words(), 0)
    if code:
        raise SystemExit(f"{name} ends with {code} undisturbed")
    whole, kills, wrong, slowest, last = state(place), 0, 0, 0.0, 1
    while True:
        reset()
        if ended(words(), last) != KILLED:
            break
        began = time.monotonic()
        code = ended(words(), 0)
        slowest = max(slowest, time.monotonic() - began)
        found = state(place)
        kills += 1
        if code or found != whole:
            wrong += 1
            different = sorted(key for key in found.keys() | whole.keys() if found.get(key) != whole.get(key))
            print(f"{name}, killed at write {last}: ended with {code}; {different[:4]}", file=sys.stderr)
        last += every
    print(f"{name:20} {'< ' * (every > 1)}{last:>7} {kills:>6} {wrong:>6} {slowest:>15.1f}", flush=True)
    reset()
    return int(bool(wrong) or ended(words(), 0) != 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
