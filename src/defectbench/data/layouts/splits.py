"""Trees cut into train, validation and test: MVTec AD, MVTec LOCO, MVTec AD 2, BTAD, and users' own.

::

    <category>/{train, validation, test}/<good or defect type>/...     and masks in ground_truth/
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from defectbench.data.layouts.base import Draft, FileEntry, Layout, Roots, find_categories, in_categories
from defectbench.data.layouts.labels import MASK_NAMES, Split, doubt, fold, is_doubtful, polarity, split_of
from defectbench.data.layouts.walk import Tree
from defectbench.data.manifest import GOOD, Part

UNLABELLED = "their labels are not public; export a model and score them with: defectbench inspect"
TYPELESS = "not in a folder that says good or a defect type"
_SURE = frozenset({"ground_truth", "groundtruth", "ground truth", "gt"})
Folders = frozenset[tuple[str, ...]]


def _is_split(folders: Folders) -> bool:
    return any(split_of(names[0]) in ("train", "test") for names in folders)


def _has_train(folders: Folders) -> bool:
    return any(split_of(names[0]) == "train" for names in folders)


def _is_loco(folders: Folders) -> bool:
    kinds = {("test", "logical_anomalies"), ("test", "structural_anomalies")}
    return _has_train(folders) and bool(kinds & folders)


def _is_ad2(folders: Folders) -> bool:
    return _has_train(folders) and ("test_public",) in folders


def _is_btad(folders: Folders) -> bool:
    return ("train", "ok") in folders and bool({("test", "ok"), ("test", "ko")} & folders)


def read_splits(tree: Tree, roots: Roots) -> Draft:
    """Return what the categories' files mean by the folders that they are in."""
    draft, files = Draft(), in_categories(tree, roots)
    tested = {category for _, category, names in files if split_of(names[0]) == "test"}
    for file, category, names in files:
        split = split_of(names[0]) if len(names) > 1 else None
        if split == "validation" and category not in tested:
            split = "test"
            draft.notes.append(f"{category}: {names[0]}/ is the test part: there is no test/")
        if len(names) > 1 and fold(names[0]).startswith("test_private"):
            draft.unused[file] = UNLABELLED
        elif split is None:
            draft.entries.append(FileEntry(file, category, names[:-1], mask=_holds_masks(names)))
        elif len(names) == 2:
            draft.unused[file] = TYPELESS
        else:
            draft.entries.append(_entry(file, category, names, split))
    draft.notes = list(dict.fromkeys(draft.notes))
    doubtful = {
        file.parents[len(names) - 3]
        for file, _, names in files
        if len(names) > 2 and split_of(names[0]) and is_doubtful(names[1])
    }
    draft.problems += [doubt(folder) for folder in sorted(doubtful)]
    return draft


def _holds_masks(names: tuple[str, ...]) -> bool:
    return len(names) > 1 and fold(names[0]).replace(" ", "_") in MASK_NAMES


def _entry(file: Path, category: str, names: tuple[str, ...], split: Split) -> FileEntry:
    """Return the meaning of a picture below a split's folder."""
    if fold(names[1]) in _SURE:
        return FileEntry(file, category, names[:-1], mask=True)
    said, below = polarity(names[1]), names[2:]
    kind = GOOD if said == "good" else names[1]
    if said == "bad" and len(below) > 1:
        kind, below = below[0], below[1:]
    good = kind == GOOD
    part: Part = "train" if split != "test" and good else "test"
    moved = names[0] if split == "validation" or (split == "train" and not good) else ""
    name = (moved, *below) if moved else below
    return FileEntry(file, category, names[:-1], part, kind, name, moved_from=moved)


def _layout(name: str, looked_for: str, fits: Callable[[Folders], bool]) -> Layout:
    return Layout(
        name,
        looked_for,
        lambda tree: bool(find_categories(tree, fits)),
        lambda tree: read_splits(tree, find_categories(tree, fits) or find_categories(tree, _is_split)),
    )


MVTEC = _layout(
    "mvtec", "<category>/train/good, <category>/test/<type>, <category>/ground_truth/<type>", _is_split
)
LOCO = _layout(
    "loco",
    "<category>/{train/good, validation/good, test/{good, logical_anomalies, structural_anomalies}}, "
    "<category>/ground_truth/<type>/<stem>/<number>.png",
    _is_loco,
)
AD2 = _layout(
    "ad2",
    "<category>/{train/good, validation/good, test_public/{good, bad}}, "
    "<category>/test_public/ground_truth/bad/<stem>_mask.png",
    _is_ad2,
)
BTAD = _layout("btad", "<category>/{train/ok, test/{ok, ko}}, <category>/ground_truth/ko", _is_btad)
