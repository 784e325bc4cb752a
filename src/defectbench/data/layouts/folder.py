"""A user's own folders of good and bad parts, and two data sets that are laid out alike.

``folder``::

    ROOT[/<category>]/{good, bad[/<type>], masks[/<type>]}

``real_iad``, where folders of samples hold several views of one part::

    <category>/{OK/<sample>, NG/<type>/<sample>}

``visa`` without its table::

    <object>/Data/{Images/{Normal, Anomaly}, Masks/Anomaly}
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from defectbench.data.layouts.base import Draft, FileEntry, Layout, Roots, find_categories, in_categories
from defectbench.data.layouts.labels import BAD_WORDS, MASK_NAMES, doubt, fold, is_doubtful, polarity, words
from defectbench.data.layouts.walk import Tree
from defectbench.data.manifest import GOOD

Folders = frozenset[tuple[str, ...]]
_PLAIN_GOOD = frozenset({"good", "goods", "ok", "normal", "normals", "pass", "nominal", "defect-free"})
_SAMPLE = re.compile(r"S\d+", re.IGNORECASE)


def _is_folder(folders: Folders) -> bool:
    return any(_is_goods(names, folders) for names in folders if len(names) == 1)


def _is_goods(names: tuple[str, ...], folders: Folders) -> bool:
    """Whether a category's own folder holds goods, rather than being a category with such a name."""
    if names[0].lower() in _PLAIN_GOOD:
        return True
    inner = {polarity(below[1]) for below in folders if len(below) == 2 and below[0] == names[0]}
    return polarity(names[0]) == "good" and not {"good", "bad"} <= inner


def read_folder(tree: Tree, roots: Roots) -> Draft:
    """Return what the categories' files mean; their goods are still to be cut into train and test."""
    draft = Draft(cut_goods=True)
    wrong: set[Path] = set()
    doubtful: set[Path] = set()
    for file, category, names in in_categories(tree, roots):
        entry = _entry(file, category, names)
        draft.entries.append(entry)
        if entry.part and entry.kind != GOOD and polarity(entry.kind) == "good":
            wrong.add(file.parents[len(entry.name) - 1])
        if entry.part is None and len(names) > 1 and is_doubtful(names[0]):
            doubtful.add(file.parents[len(names) - 2])
    draft.problems += [f"{folder}: {folder.name!r} cannot name a defect type" for folder in sorted(wrong)]
    draft.problems += [doubt(folder) for folder in sorted(doubtful)]
    return draft


def _entry(file: Path, category: str, names: tuple[str, ...]) -> FileEntry:
    """Return the meaning of a picture below a category."""
    where = names[:-1]
    said = polarity(names[0]) if where else None
    if said == "good":
        return FileEntry(file, category, where, "train", GOOD, names[1:])
    if said == "bad" and len(where) > 1:
        return FileEntry(file, category, where, "test", names[1], names[2:])
    if said == "bad":
        return FileEntry(file, category, where, "test", "defect", names[1:])
    if said == "unsure" and BAD_WORDS & {words(names[0])[0], words(names[0])[-1]}:
        return FileEntry(file, category, where, "test", names[0], names[1:])
    return FileEntry(
        file, category, where, mask=bool(where) and fold(names[0]).replace(" ", "_") in MASK_NAMES
    )


def _is_real_iad(folders: Folders) -> bool:
    goods = (names for names in folders if len(names) == 2 and polarity(names[0]) == "good")
    bads = [names for names in folders if len(names) == 3 and polarity(names[0]) == "bad"]
    return any(_SAMPLE.fullmatch(names[1]) for names in goods) and any(
        _SAMPLE.fullmatch(names[2]) for names in bads
    )


def _read_real_iad(tree: Tree) -> Draft:
    """Return a folder's reading, with each sample's views in one group."""
    draft = read_folder(tree, find_categories(tree, _is_real_iad) or find_categories(tree, _is_folder))
    draft.entries = [
        replace(entry, group="/".join(entry.where)) if _SAMPLE.fullmatch(entry.where[-1]) else entry
        for entry in draft.entries
        if entry.where
    ]
    return draft


def _is_visa(folders: Folders) -> bool:
    return {("Data", "Images", "Normal"), ("Data", "Images", "Anomaly")} <= folders


def read_visa_folders(tree: Tree) -> Draft:
    """Return what VisA's folders mean without its table; their goods are still to be cut."""
    draft = Draft(cut_goods=True)
    draft.notes.append("split_csv/1cls.csv is not there: a share of the goods is tested, by a hash of each")
    for file, category, names in in_categories(tree, find_categories(tree, _is_visa)):
        kind = names[:3]
        if kind == ("Data", "Images", "Normal"):
            draft.entries.append(FileEntry(file, category, names[:-1], "train", GOOD, names[3:]))
        elif kind == ("Data", "Images", "Anomaly"):
            draft.entries.append(FileEntry(file, category, names[:-1], "test", "anomaly", names[3:]))
        else:
            draft.entries.append(FileEntry(file, category, names[:-1], mask=names[:2] == ("Data", "Masks")))
    return draft


def is_visa_folders(tree: Tree) -> bool:
    """Whether a tree has VisA's folders."""
    return bool(find_categories(tree, _is_visa))


FOLDER = Layout(
    "folder",
    "good/ or ok/ or normal/ beside bad/ or nok/ or abnormal/ (or other words for them), and masks/",
    lambda tree: bool(find_categories(tree, _is_folder)),
    lambda tree: read_folder(tree, find_categories(tree, _is_folder)),
)
REAL_IAD = Layout(
    "real_iad",
    "<category>/OK/<sample>/*.jpg, <category>/NG/<type>/<sample>/*.jpg with masks of the same stem",
    lambda tree: bool(find_categories(tree, _is_real_iad)),
    _read_real_iad,
)
