"""What an import costs, from folder to store: CPU seconds, wall time and peak memory of the whole command.

    python benchmarks/imports.py 344 256
    python benchmarks/imports.py 10000 512
    python benchmarks/imports.py path/to/pictures   # a folder of your own

The pictures are made first, and that is not counted: colour PNGs of parts with a texture of their own under
fresh noise, so that the search for copies has keypoints to look at in every one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

SEED = 2026


def make_picture(number: int, side: int, root: Path, place: int) -> None:
    """Write one of ``number`` pictures: seven tenths train, half of the others have a scratch."""
    rng = np.random.default_rng([SEED, place])
    fine, coarse = (gaussian_filter(rng.normal(0, 1, (side, side)), sigma) for sigma in (1.5, 8))
    grey = 128 + 60 * fine + 200 * coarse
    share = place / number
    folder = "train/good" if share < 0.7 else "test/good" if share < 0.85 else "test/scratch"
    if folder == "test/scratch":
        row, column = rng.integers(side // 8, side * 3 // 4, 2)
        grey[row : row + 6, column : column + side // 6] -= 70
    colours = np.stack([grey, grey * 0.95 + 3, grey * 0.9], axis=-1)
    path = root / "part" / folder / f"{place:05d}.png"
    Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8)).save(path, compress_level=1)


def make_pictures(number: int, side: int, root: Path) -> None:
    for folder in ("train/good", "test/good", "test/scratch"):
        (root / "part" / folder).mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_picture, number, side, root), range(number), chunksize=16))


def measure(source: Path, store: Path) -> None:
    """Import the folder in a process of its own, print what it said and what it took."""
    words = ["-m", "defectbench", "data", "import", str(source), "--store", str(store), "--name", "made"]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words])
    _, status, used = os.wait4(process.pid, 0)  # what this child alone took, its peak too
    wall = time.perf_counter() - start
    print(
        f"exit {os.waitstatus_to_exitcode(status)}: {used.ru_utime + used.ru_stime:.1f} CPU s, "
        f"{wall:.1f} s, peak {used.ru_maxrss * 1024 / 1e9:.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", default="344", help="pictures to make, or a folder of them")
    parser.add_argument("side", nargs="?", type=int, default=256, help="of the pictures that are made")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(arguments.source)
        if arguments.source.isdecimal():
            source = Path(folder) / "pictures"
            make_pictures(int(arguments.source), arguments.side, source)
        measure(source, Path(folder) / "store")


if __name__ == "__main__":
    main()
