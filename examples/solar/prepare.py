"""Lay out the solar cells of `elpv-dataset` for `defectbench data import`: pictures and a table beside them.

    pip install elpv-dataset
    python examples/solar/prepare.py solar-cells
    defectbench data import solar-cells --name solar --store bench

The data (2,624 electroluminescence pictures of 300 px, CC BY-NC-SA 4.0) come with that package and are not
part of this project. Of the package only its files are used; nothing of it is imported.
"""

import argparse
import csv
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from itertools import groupby
from pathlib import Path

CELLS_PER_MODULE = 60
LABELS = {"0.0": "good", "1.0": "bad"}


def labels_file() -> Path:
    """The package's own table: a picture, its probability of a defect (0, 1/3, 2/3, 1), its kind of cell."""
    try:
        return Path(str(distribution("elpv-dataset").locate_file("elpv_dataset/data/labels.csv")))
    except PackageNotFoundError:
        sys.exit("elpv-dataset is not installed. Install it: pip install elpv-dataset")


def table(rows: list[list[str]]) -> list[dict[str, str]]:
    """The rows of table.csv: path, label, category (mono, poly) and group (the module, as far as is known).

    The package does not name modules. Its pictures lie in runs of one kind of cell, and a run of n holds
    round(n / 60) modules: that gives 18 mono and 26 poly ones, the very numbers that the data's authors
    state. A run is cut into so many parts of equal size, so a module's cells share a group but for a few at
    the edges.
    """
    made: list[dict[str, str]] = []
    modules = 0
    for kind, run in groupby(rows, key=lambda row: row[2]):
        cells = list(run)
        parts = max(round(len(cells) / CELLS_PER_MODULE), 1)
        for place, (path, probability, _) in enumerate(cells):
            made.append(
                {
                    "path": path,
                    # A third and two thirds: the expert was not sure. Scored, never learnt nor tested.
                    "label": LABELS.get(probability, "uncertain"),
                    "category": kind,
                    "group": f"module{modules + place * parts // len(cells) + 1:02d}",
                }
            )
        modules += parts
    return made


def main() -> None:
    """Copy the pictures to the folder that is named and write table.csv there."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path)
    folder: Path = arguments.parse_args().folder
    source = labels_file()
    rows = table([line.split() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()])
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for row in rows:
        shutil.copyfile(source.parent / row["path"], folder / row["path"])
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "category", "group"])
        writer.writeheader()
        writer.writerows(rows)
    print(f"{folder}: {len(rows)} pictures of {len({row['group'] for row in rows})} modules, and table.csv")


if __name__ == "__main__":
    main()
