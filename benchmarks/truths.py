"""Are planted truths recovered? Coverage of the intervals and false verdicts, by simulation.

    python benchmarks/truths.py [--trials 2000] [--resamples 1999] [--only GROUP]

Each trial makes up the scores of two models on the same images, in folds and seeds, with the AUROCs planted
(tests/simulated_scores.py), and asks :mod:`defectbench.metrics.comparison` what the report asks it. Seeds
are fixed: the same command prints the same figures. The tables in docs/statistics.md are its output.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from simulated_scores import Found, Truth, trials

SIZES = ((70, 40), (60, 0))
"""Defects, and goods; 0 for as many."""

GROUPS: dict[str, tuple[Truth, ...]] = {
    "equal": tuple(
        Truth(auroc, auroc, each=each, goods=goods, luck=luck, group=group)
        for each, goods in SIZES
        for auroc in (0.80, 0.90, 0.95)
        for luck, group in ((0, 1), (0.03, 1), (0, 3), (0.03, 3))
    ),
    "shapes and ties": (
        Truth(0.90, 0.90, skewed=True, luck=0.03),
        Truth(0.95, 0.95, skewed=True),
        Truth(0.95, 0.95, levels=5),
        Truth(0.99, 0.99, levels=5),
    ),
    "near one": tuple(Truth(a, b) for a, b in ((0.98, 0.98), (0.995, 0.995))),
    "few": tuple(Truth(a, b, each=15) for a, b in ((0.80, 0.80), (0.90, 0.90), (0.98, 0.98))),
    "power": tuple(
        Truth(a, b, luck=luck, seeds=seeds)
        for a, b in ((0.90, 0.80), (0.95, 0.90))
        for luck in (0, 0.03)
        for seeds in (3, 5, 10)
    ),
}

COLUMNS = (
    "planted",
    "interval of the difference covers",
    "of one model covers",
    "p <= 0.05",
    "equivalent",
    "warned",
)


def line(truth: Truth, found: Found) -> str:
    """Return a row of the table in docs/statistics.md."""
    equivalent = found.verdicts["equivalent"]
    counts = (found.covered, found.covered_single, found.rejected, equivalent, found.warned)
    shares = [f"{100 * count / found.trials:.1f} %" for count in counts]
    return f"| {' | '.join([truth.name, *shares])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1999)
    parser.add_argument("--only", choices=GROUPS, help="one group of truths")
    given = parser.parse_args()
    start = time.process_time()
    print(f"{given.trials} trials, {given.resamples} resamples, numpy {np.__version__}\n")
    for name, truths in GROUPS.items():
        if given.only not in (None, name):
            continue
        print(f"{name}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for truth in truths:
            print(line(truth, trials(truth, given.trials, given.resamples)), flush=True)
        print()
    print(f"{time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    main()
