"""How long a worker takes to the end of its first training batch: a classifier and a detector, on the CPU.

.venv/bin/python benchmarks/first_batch.py, and `make image-test` runs it inside the image. What counts is
mostly imports; so it is done twice, with the environment's compiled modules and without any.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

from defectbench.__main__ import run
from defectbench.stores.choose import open_store
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import read_sweep

SWEEP = """\
name: first
data: {dataset: synth, categories: [grass]}
models: [{name: mobilenetv3-small, epochs: 1}, {name: glass, epochs: 1}]
weights: none
seeds: [0]
image_size: 128
threads: 1
protocols: {detection: {folds: 3}}
"""


def prepare(folder: Path) -> dict[str, str]:
    """Make pictures, a store and the specs; return a cell's key for each model."""
    store, sweep = folder / "store", folder / "first.yaml"
    sweep.write_text(SWEEP)
    words = [
        ["data", "synth", str(folder / "pictures"), "--size", "128", "--defects", "6"],
        ["data", "import", str(folder / "pictures"), "--name", "synth", "--store", str(store)],
    ]
    with redirect_stdout(sys.stderr):
        for each in words:
            if code := run(each):
                sys.exit(f"defectbench {' '.join(each)} ended with {code}")
    planned = plans.make_plan(read_sweep(sweep), open_store(str(store)))
    keys = {planned.labels[key]: key for key in planned.cells}
    plans.write_plan(planned, open_store(str(store)), list(keys.values()))
    return keys


def job(folder: Path, key: str) -> list[str]:
    """Return a worker's arguments, over a store of its own: one that is cut off leaves its lease behind."""
    store = tempfile.mkdtemp(dir=folder)
    shutil.copytree(folder / "store", store, dirs_exist_ok=True)
    return ["job", "--store", store, "--cache", str(folder / "cache"), "--cell", key]


def child(started: float, words: list[str]) -> None:
    """Be the worker, and leave as soon as the first batch is learnt."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def leave(*_: object) -> None:
        print(time.time() - started, flush=True)
        os._exit(0)

    register_optimizer_step_post_hook(leave)
    sys.exit(run(words))


def seconds(folder: Path, key: str, *options: str) -> float:
    """Return the time from a fresh worker's start to the end of its first batch; the pictures are there."""
    command = [sys.executable, *options, __file__, "child", str(time.time()), *job(folder, key)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def lines(folder: Path) -> Iterator[str]:
    """Measure model by model, then let the smaller one finish its cell."""
    keys = prepare(folder)
    uncompiled = ("-B", "-X", f"pycache_prefix={folder / 'empty'}")
    for model, key in keys.items():
        seconds(folder, key)
        warm = min(seconds(folder, key) for _ in range(2))
        cold = seconds(folder, key, *uncompiled)
        yield f"{model:18} {warm:5.1f} s compiled, {cold:5.1f} s not ({cold / warm:.1f} times)"
    model, key = next(iter(keys.items()))
    yield f"{model:18} {whole_cell(folder, key):5.1f} s for its whole cell of one epoch, weights none"


def whole_cell(folder: Path, key: str) -> float:
    """Return the wall time of a worker that goes through a cell."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "defectbench", *job(folder, key)], check=True)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    print(f"{machine}; from a worker's start to the end of its first batch:", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for line in lines(Path(folder)):
            print(line, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        child(float(sys.argv[2]), sys.argv[3:])
    else:
        main()
