"""Are planted crossovers, blind spots and losses by contamination recovered? By simulation.

    python benchmarks/experiments.py [--trials 500] [--resamples 999]

Crossovers: each trial makes up a learning curve of four folds and ten draws
(tests/metrics/test_crossover.py).
Unseen defects and contamination: the made-up sweeps of tests/tables/test_experiments.py, through plan, store,
collect and the report's tables. Seeds are fixed: the same command prints the same figures. The tables in
docs/statistics.md are its output.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "tables"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "metrics"))

import test_experiments as planted
from test_crossover import MARGIN, NUMBERS, curve

from defectbench.metrics.crossover import crossover

DETECTOR = 0.85
CURVES: Mapping[str, tuple[float, ...]] = {
    "steep": (0.65, 0.75, 0.90, 0.94, 0.96),
    "slow": (0.70, 0.78, 0.82, 0.88, 0.92),
    "just enough from 4 on": (0.70, 0.80, 0.85, 0.85, 0.85),
    "from the first on": (0.90, 0.92, 0.94, 0.95, 0.96),
    "never": (0.60, 0.65, 0.70, 0.75, 0.80),
}
"""Image AUROC of the classifier with 1, 2, 4, 8 and 16 labelled defects; the detector has 0.85."""


def truth(aurocs: tuple[float, ...]) -> float:
    """Return the planted crossover: from where on the classifier is worse by no more than the margin."""
    enough = math.inf
    for n, auroc in reversed(list(zip(NUMBERS, aurocs, strict=True))):
        if auroc - DETECTOR <= -MARGIN:
            break
        enough = n
    return enough


def crossovers(trials: int, resamples: int) -> None:
    print("| curve | images a fold | planted | interval covers it | n found below it | at it | above it |")
    print("|---|---|---|---|---|---|---|")
    for name, aurocs in CURVES.items():
        for images in (20, 60):
            wanted, found = truth(aurocs), []
            for seed in range(trials):
                points = curve(dict(zip(NUMBERS, aurocs, strict=True)), DETECTOR, seed, images)
                found.append(crossover(points, margin=MARGIN, seed=0, resamples=resamples))
            shares = (
                sum(each.low <= wanted <= each.high for each in found),
                sum(each.n < wanted for each in found),
                sum(each.n == wanted for each in found),
                sum(each.n > wanted for each in found),
            )
            text = " | ".join(f"{100 * count / trials:.1f} %" for count in shares)
            print(f"| {name} | {images} | {'none' if wanted == math.inf else wanted} | {text} |", flush=True)


def unseen() -> None:
    print("| model | mode | tested on | planted | found, least and most of the matrix |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        entries = [e for e in planted.blind_tables(Path(folder)).unseen if not e.control]
    for label in planted.MODELS:
        for mode in ("one", "all_but_one"):
            own = [e for e in entries if (e.label, e.mode) == (label, mode)]
            for what, sees in (("seen by it", True), ("not seen by it", False)):
                values = [e.value for e in own if planted.visible(e) == sees]
                wanted = planted.auroc(planted.VISIBLE) if sees else 0.5
                print(
                    f"| {label} | {mode} | {what} | {wanted:.3f} | {min(values):.3f} to {max(values):.3f} |"
                )


def contamination() -> None:
    print("| share | detector, planted | found | classifier, planted | found |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        lines = planted.spoilt_tables(Path(folder)).conditions
    found = {(line.label, line.condition): line.value for line in lines}
    for share in planted.SHARES:
        cells = [
            f"{figure:.3f}"
            for label in (planted.DETECTOR, planted.LEARNER)
            for figure in (planted.spoilt(label, share), found[label, f"share={share:g}"])
        ]
        print(f"| {share:g} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--resamples", type=int, default=999)
    given = parser.parse_args()
    started = time.perf_counter()
    crossovers(given.trials, given.resamples)
    unseen()
    contamination()
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
