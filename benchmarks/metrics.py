"""Time and memory of the pooled pixel metrics, against scikit-learn on all pixels at once.

    python benchmarks/metrics.py [--images 200] [--naive-images 50] [--size 512]

Each way runs in a process of its own, so that peaks do not mix. The ratio is taken at ``--naive-images``,
because scikit-learn needs some 80 bytes a pixel.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def maps(number: int, size: int) -> Iterator[tuple[NDArray[np.float32], NDArray[np.bool_]]]:
    """Yield heat maps and masks; two of three have 1 to 8 discs of defect, hotter than their surroundings."""
    rows, columns = np.ogrid[:size, :size]
    for index in range(number):
        rng = np.random.default_rng(index)
        mask = np.zeros((size, size), dtype=bool)
        for _ in range(int(rng.integers(1, 9)) if index % 3 else 0):
            y, x, radius = rng.random() * size, rng.random() * size, (0.01 + 0.07 * rng.random()) * size
            mask |= (rows - y) ** 2 + (columns - x) ** 2 < radius**2
        heat = rng.standard_normal((size, size), dtype=np.float32)
        yield heat + 1.5 * mask.astype(np.float32), mask


def measure_ours(number: int, size: int) -> dict[str, float]:
    from scipy import ndimage  # noqa: F401 - imported before the baseline is read

    from defectbench.metrics.pixel import PixelPool

    baseline, adding, pool = peak(), 0.0, PixelPool()
    for heat, mask in maps(number, size):
        start = time.perf_counter()
        pool.add(heat, mask)
        adding += time.perf_counter() - start
    start = time.perf_counter()
    figures = pool.figures()
    return figures | {"seconds": adding + time.perf_counter() - start, "bytes": peak() - baseline}


def measure_naive(number: int, size: int) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    baseline = peak()
    pairs = list(maps(number, size))
    start = time.perf_counter()
    truth = np.concatenate([mask.ravel() for _, mask in pairs])
    scores = np.concatenate([heat.ravel() for heat, _ in pairs])
    figures = {
        "pixel_auroc_pooled": float(roc_auc_score(truth, scores)),
        "pixel_ap_pooled": float(average_precision_score(truth, scores)),
    }
    return figures | {"seconds": time.perf_counter() - start, "bytes": peak() - baseline}


def peak() -> int:
    """Largest resident memory so far, in bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def in_a_process(way: str, number: int, size: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--way", way, "--images", str(number), "--size", str(size)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


def line(name: str, number: int, size: int, got: dict[str, float]) -> str:
    memory = f"peak {got['bytes'] / 1e9:.2f} GB, {got['bytes'] / (number * size * size):.0f} bytes a pixel"
    return f"{name:6}{number:4} images at {size} px: {got['seconds']:6.1f} s, {memory}"


def compare(images: int, naive_images: int, size: int) -> None:
    ours = in_a_process("ours", images, size)
    small, naive = (in_a_process(way, naive_images, size) for way in ("ours", "naive"))
    print(f"{platform.platform()}, {os.cpu_count()} CPUs")
    print(f"Python {platform.python_version()}, numpy {np.__version__}")
    print(line("ours", images, size, ours))
    print(line("ours", naive_images, size, small))
    print(line("naive", naive_images, size, naive))
    times, memory = (naive[key] / small[key] for key in ("seconds", "bytes"))
    print(f"naive, without AUPRO, needs {times:.1f} times the time and {memory:.1f} times the memory")
    gaps = [abs(small[key] - naive[key]) for key in ("pixel_auroc_pooled", "pixel_ap_pooled")]
    print(f"largest difference of AUROC and AP: {max(gaps):.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--naive-images", type=int, default=50)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--way", choices=["ours", "naive"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        ways = {"ours": measure_ours, "naive": measure_naive}
        print(json.dumps(ways[options.way](options.images, options.size)))
    else:
        compare(options.images, options.naive_images, options.size)


if __name__ == "__main__":
    main()
