"""What groups are worth: figures of folds with and without them, against parts that nobody has seen.

python benchmarks/grouped_folds.py [--sets 5] [--frames 4]

Each made-up set has parts with a face of their own (a grain and shades that all frames of the part share) and
several frames of each: moved, lit and exposed anew. Bad parts have a weak bar. Both baselines are run on the
same pictures twice, without groups and with ``group='part(\\d+)'``; their fits then score fresh parts, good
and bad. Printed for each model: the cross-fitted image AUROC, that of the same fits on fresh parts, the
false-alarm rate that the calibration goods promised, and the one on fresh good parts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import defectbench as db
from defectbench.export.refit import fit_again, gather_cell
from defectbench.metrics.image import image_auroc, quantile_threshold
from defectbench.models.pictures.images import ArrayPictures
from defectbench.stores.base import Store

SIZE = 64
RATE = 0.08
GOODS, TESTED, BAD, FRESH = 24, 12, 12, 40
"""Parts: good ones that train, good and bad ones that are tested, fresh ones of each class."""

SWEEP: dict[str, Any] = {
    "name": "groups",
    "data": {"dataset": "parts"},
    "models": ["filterbank-logreg", "filterbank-knn"],
    "weights": "none",
    "image_size": SIZE,
    "seeds": [0],
    "threads": 1,
    "protocols": {"detection": {"folds": 4}},
}


def frames(part: int, bad: bool, number: int) -> list[NDArray[np.uint8]]:
    """Return frames of one part, (SIZE, SIZE, 3) each."""
    rng = np.random.default_rng([part, int(bad)])
    grain = Image.fromarray(rng.normal(0, 28, (12, 12)).astype(np.float32))
    face = np.asarray(grain.resize((SIZE + 4, SIZE + 4), Image.Resampling.BICUBIC)) + 110 + rng.normal(0, 8)
    if bad:
        top, left = rng.integers(12, 44, 2)
        face = face.copy()
        face[top : top + 4, left : left + 14] += 36
    found = []
    for _ in range(number):
        row, column = rng.integers(0, 5, 2)
        seen = face[row : row + SIZE, column : column + SIZE] * rng.uniform(0.96, 1.04)
        grey = np.clip(seen + rng.normal(0, 6, seen.shape), 0, 255).astype(np.uint8)
        found.append(np.repeat(grey[:, :, None], 3, axis=2))
    return found


def write(folder: Path, first: int, number: int) -> None:
    """Write a data set with fixed parts: its groups stand in the files' names."""
    for place, kind, bad, parts in (
        ("train", "good", False, range(GOODS)),
        ("test", "good", False, range(GOODS, GOODS + TESTED)),
        ("test", "bar", True, range(BAD)),
    ):
        where = folder / "bolt" / place / kind
        where.mkdir(parents=True, exist_ok=True)
        for part in parts:
            for frame, picture in enumerate(frames(first + part, bad, number)):
                Image.fromarray(picture).save(where / f"part{part + 500 * bad:03}_{frame}.png")


def measure(
    store: Store, cache: Path, fresh: NDArray[np.uint8], labels: NDArray[np.int64]
) -> list[list[float]]:
    """Return a line for each model: its AUROC in folds and on fresh parts, false alarms promised and met."""
    rows = db.results("groups", store).predictions().to_pylist()
    lines = []
    for model in SWEEP["models"]:
        own, new, promised, met = [], [], [], []
        for key in dict.fromkeys(row["cell"] for row in rows if row["model"] == model):
            finished = gather_cell(store, key, cache)
            held = finished.predictions.of_role("held_out")
            fitted = fit_again(finished, finished.images(), lambda *_: None)
            scores = np.array([found.score for found in fitted.predict(ArrayPictures(fresh))])
            goods = finished.predictions.of_role("calibration").score
            limit = quantile_threshold(goods, RATE)
            own.append(image_auroc(held.label, held.score))
            new.append(image_auroc(labels, scores))
            promised.append(limit.false_alarm_rate)
            met.append(float((scores[labels == 0] > limit.threshold).mean()))
        lines.append([float(np.mean(each)) for each in (own, new, promised, met)])
    return lines


def fresh_parts(first: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return one frame of each of many parts that no fit saw, and their labels."""
    seen = [frames(first + part, bad, 1)[0] for bad in (False, True) for part in range(FRESH)]
    return np.stack(seen), np.repeat([0, 1], FRESH)


def main(sets: int, number: int) -> None:
    """Measure and print: means over the sets."""
    found: dict[str, list[list[list[float]]]] = {"without groups": [], "with groups": []}
    for place in range(sets):
        first = 10_000 * (place + 1)
        with tempfile.TemporaryDirectory() as name:
            folder, cache = Path(name), Path(name) / "cache"
            write(folder / "parts", first, number)
            for how, group in (("without groups", None), ("with groups", r"part(\d+)")):
                store = db.open_store(folder / how.replace(" ", "-"))
                db.import_dataset(folder / "parts", store, name="parts", group=group, accept_duplicates=True)
                db.run(SWEEP, store, cache=cache)
                found[how].append(measure(store, cache, *fresh_parts(first + 5_000)))
    head = "AUROC in folds, on fresh parts; false alarms promised, met"
    print(f"{sets} sets, {number} frames a part; {head}")
    for how, lines in found.items():
        for model, each in zip(SWEEP["models"], np.mean(lines, axis=0), strict=True):
            print(f"{how:15} {model:20} {each[0]:.3f} {each[1]:.3f}   {each[2]:.3f} {each[3]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--frames", type=int, default=4)
    given = parser.parse_args()
    main(given.sets, given.frames)
