"""KolektorSDD and KolektorSDD2: each picture has a mask beside it, and is bad if the mask marks anything.

::

    {train, test}/<stem>.png with <stem>_GT.png          KolektorSDD2
    <item>/<stem>.jpg with <stem>_label.bmp              KolektorSDD; an item's pictures are one group
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from defectbench.data.layouts.base import Draft, FileEntry, Layout, Roots, in_categories
from defectbench.data.layouts.labels import Split, fold, mask_stems, polarity, split_of
from defectbench.data.layouts.walk import Tree
from defectbench.data.manifest import GOOD, Part
from defectbench.errors import DataError
from defectbench.util.image_io import read_mask

_KIND = "defect"


def _pairs(files: list[Path]) -> Iterator[tuple[Path, Path | None]]:
    """Yield each picture of a folder with the mask beside it, or None."""
    by_stem = {fold(path.stem): path for path in files}
    masks = {by_stem[stem]: path for path in files for stem in mask_stems(path.stem)[1:] if stem in by_stem}
    taken = set(masks.values())
    for path in files:
        if path not in taken:
            yield path, masks.get(path)


def _folders(tree: Tree, roots: Roots) -> dict[tuple[str, tuple[str, ...]], list[Path]]:
    """Return the pictures of each folder one below a category, by category and the folder's name."""
    found: dict[tuple[str, tuple[str, ...]], list[Path]] = {}
    for file, category, names in in_categories(tree, roots):
        if len(names) == 2:
            found.setdefault((category, names[:-1]), []).append(file)
    return found


def _roots(tree: Tree) -> Roots:
    """Return the root, or those of its folders, whose folders hold pictures beside their masks."""
    if _fits((), list(_folders(tree, {(): tree.root.name}).items())):
        return {(): tree.root.name}
    tops: Roots = {names: names[0] for names in tree.folders if len(names) == 1}
    below = defaultdict(list)
    for (category, names), files in _folders(tree, tops).items():
        below[category].append(((category, names), files))
    return {(top,): top for top, folders in sorted(below.items()) if _fits((top,), folders)}


def _fits(root: tuple[str, ...], folders: Sequence[tuple[tuple[str, tuple[str, ...]], list[Path]]]) -> bool:
    """Whether nothing but masks says good or bad: each folder has them beside most of its pictures."""
    if any(polarity(name) for (_, names), _ in folders for name in (*root, *names)):
        return False
    shares = [
        sum(mask is not None for _, mask in pairs) / len(pairs)
        for _, files in folders
        if (pairs := list(_pairs(files)))
    ]
    return bool(shares) and min(shares) > 0.5


def _read(tree: Tree) -> Draft:
    """Return each picture with the label that its mask gives; goods are cut where no folder says test."""
    draft, folders = Draft(), _folders(tree, _roots(tree))
    draft.cut_goods = not any(split_of(names[0]) for _, names in folders)
    for (category, names), files in folders.items():
        split = split_of(names[0])
        for file, mask in _pairs(files):
            if mask is None:
                draft.problems.append(
                    f"{file}: no mask beside it, as {file.stem}_GT or {file.stem}_label: good or bad?"
                )
                continue
            entry = _entry(file, category, names, split, _is_marked(mask))
            draft.entries += [entry, FileEntry(mask, category, names, mask=True)]
    return draft


def _entry(file: Path, category: str, names: tuple[str, ...], split: Split | None, bad: bool) -> FileEntry:
    own = split == "test" or (split == "train" and not bad)
    name = (file.name,) if own else (*names, file.name)
    part: Part = "test" if bad or split == "test" else "train"
    kind, group = (_KIND if bad else GOOD), (None if split else names[0])
    moved = names[0] if split and not own else ""
    return FileEntry(file, category, names, part, kind, name, group=group, moved_from=moved)


def _is_marked(mask: Path) -> bool:
    """Whether a mask marks anything; one that cannot be read counts as marked, and the check names it."""
    try:
        return bool(read_mask(mask).any())
    except DataError:
        return True


KOLEKTOR = Layout(
    "kolektor",
    "{train, test}/<stem>.png beside <stem>_GT.png, or <item>/<stem>.jpg beside <stem>_label.bmp",
    lambda tree: bool(_roots(tree)),
    _read,
)
