"""VisA: a table that says which picture is what, or its folders alone."""

from __future__ import annotations

import csv
from pathlib import Path

from defectbench.data.layouts.base import Draft, FileEntry, Layout, Source
from defectbench.data.layouts.folder import is_visa_folders, read_visa_folders
from defectbench.data.layouts.walk import Tree
from defectbench.data.manifest import GOOD, Part

TABLE = ("split_csv", "1cls.csv")
READ = "the table of the data set, read"


def _fits(tree: Tree) -> bool:
    return tree.root.joinpath(*TABLE).is_file()


def _read(tree: Tree) -> Draft:
    """Return the rows' pictures, and masks that no row names."""
    if not _fits(tree):
        return read_visa_folders(tree)
    table, draft = tree.root.joinpath(*TABLE), Draft()
    draft.unused[table] = READ
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.DictReader(lines):
                try:
                    draft.settled.append(_source(tree, row))
                except ValueError as error:
                    draft.problems.append(f"{table}: row {row}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        draft.problems.append(f"{table}: not a table: {error}")
    used = {mask for source in draft.settled for mask in source.masks}
    categories = {source.category for source in draft.settled}
    for path in tree.pictures:
        names = tree.parts(path)
        if names[1:4] == ("Data", "Masks", "Anomaly") and names[0] in categories and path not in used:
            draft.entries.append(FileEntry(path, names[0], names[1:-1], mask=True))
    return draft


def _source(tree: Tree, row: dict[str, str | None]) -> Source:
    """Return a row's picture; ValueError says what is wrong with the row."""
    missing = [name for name in ("object", "split", "label", "image") if not row.get(name)]
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}")
    part, label, category = row["split"], row["label"], row["object"] or ""
    if part not in ("train", "test") or label not in ("normal", "anomaly"):
        raise ValueError(f"split {part!r}, label {label!r}; allowed: train, test and normal, anomaly")
    if part == "train" and label == "anomaly":
        raise ValueError("an anomaly in the training part, which holds good pictures alone")
    file = _inside(tree, row["image"] or "")
    masks = (_inside(tree, row["mask"]),) if row.get("mask") else ()
    kind = GOOD if label == "normal" else "anomaly"
    where: Part = "train" if part == "train" else "test"
    return Source(category, f"{where}/{kind}/{file.name}", where, kind, file, masks)


def _inside(tree: Tree, relative: str | None) -> Path:
    """Return the file that the table names; ValueError if it lies outside the data set."""
    path = (tree.root / (relative or "")).resolve()
    if not path.is_relative_to(tree.root):
        raise ValueError(f"{relative}: outside the data set")
    return tree.named(path)


VISA = Layout(
    "visa",
    "split_csv/1cls.csv and the files it names, or <object>/Data/Images/{Normal, Anomaly}",
    lambda tree: _fits(tree) or is_visa_folders(tree),
    _read,
)
