"""The layouts, and which of them a folder has."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from defectbench.data.layouts.assemble import NO_WISHES, Wishes, assemble, stray_masks
from defectbench.data.layouts.base import DatasetReading, Draft, Layout
from defectbench.data.layouts.folder import FOLDER, REAL_IAD
from defectbench.data.layouts.kolektor import KOLEKTOR
from defectbench.data.layouts.labels import polarity, split_of
from defectbench.data.layouts.splits import AD2, BTAD, LOCO, MVTEC
from defectbench.data.layouts.table import TABLE, TABLES, read_table
from defectbench.data.layouts.visa import VISA
from defectbench.data.layouts.walk import Tree, listed, shown, walk
from defectbench.data.names import LAYOUT_NAMES
from defectbench.errors import DataError, MissingInputError, UsageError, nearest

LAYOUTS: tuple[Layout, ...] = (VISA, KOLEKTOR, AD2, LOCO, BTAD, MVTEC, REAL_IAD, FOLDER, TABLE)
"""In the order in which they are tried: what is special before what is general."""

_BY_NAME = {layout.name: layout for layout in LAYOUTS}
_MOST_FOLDERS = 8


def read_layout(
    root: Path, layout: str | None = None, *, follow_links: bool = False, wishes: Wishes = NO_WISHES
) -> DatasetReading:
    """Return what lies under ``root``.

    Args:
        root: a folder, or a table of pictures.
        layout: a name among :data:`LAYOUTS`; None recognises it.
        follow_links: read what links out of ``root`` lead to as well.
        wishes: groups, and the share of goods that is tested.

    Raises:
        MissingInputError: no such folder.
        UsageError: no such layout.
        DataError: no layout fits; says what is there and which layout is nearest. Or the layout that was
            named finds no picture.
    """
    if layout is not None and layout not in _BY_NAME:
        raise UsageError(f"unknown layout {layout!r}; {nearest(layout, LAYOUT_NAMES)}")
    if root.is_file():
        return _read_file(root, layout, follow_links, wishes)
    if not root.is_dir():
        raise MissingInputError(f"{root}: no such folder; give the folder that holds the data set")
    tree = walk(root, follow_links)
    chosen = _BY_NAME[layout] if layout else next((one for one in LAYOUTS if one.fits(tree)), None)
    if chosen is None:
        raise DataError([*map(shown, tree.problems), _unknown(tree)])
    draft = chosen.read(tree)
    if layout is None and chosen is not TABLE and TABLE.fits(tree):
        draft.notes.append("a table here has the columns path and label: --layout table reads it instead")
    return _whole(tree, chosen.name, draft, chosen.looked_for, wishes)


def _read_file(file: Path, layout: str | None, follow_links: bool, wishes: Wishes) -> DatasetReading:
    """Return what a table of pictures says."""
    if file.suffix.lower() not in TABLES or layout not in (None, TABLE.name):
        raise MissingInputError(
            f"{file}: a file, no folder; give the folder that holds the data set, or a table of pictures "
            f"({', '.join(sorted(TABLES))})"
        )
    file = file.resolve()
    tree = walk(file.parent, follow_links)
    return _whole(tree, TABLE.name, read_table(tree, file), TABLE.looked_for, wishes)


def _whole(tree: Tree, name: str, draft: Draft, looked_for: str, wishes: Wishes) -> DatasetReading:
    """Return the reading of a draft; without a picture it is an error."""
    reading = assemble(tree, name, draft, wishes)
    if not reading.sources:
        raise DataError(
            [
                *reading.problems,
                f"{tree.root}: no picture found in layout {name}; {name}: {looked_for}; {_seen(tree)}",
            ]
        )
    strays = tuple(stray_masks(reading))
    if not strays:
        return reading
    problem = (
        f"{tree.root}: {len(strays)} files outside the categories look like masks of their pictures "
        f"({listed(strays, tree.root)}); put them into <category>/ground_truth/"
    )
    return replace(reading, problems=(*reading.problems, problem))


def _unknown(tree: Tree) -> str:
    """Say which layouts there are, what is there, and which layout is nearest."""
    lines = [f"{tree.root}: no known layout; looked for"]
    lines += [f"{layout.name}: {layout.looked_for}" for layout in LAYOUTS]
    return "\n  ".join([*lines, f"found: {_seen(tree)}", _near(tree)])


def _seen(tree: Tree) -> str:
    """Say which folders hold how many pictures."""
    counts = Counter("/".join(tree.parts(path)[:-1][:3]) or "." for path in tree.pictures)
    if not counts:
        kinds = Counter(path.suffix.lower() or "no suffix" for path in [*tree.files, *tree.unused])
        there = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(5)) or "no file"
        return f"no picture, but {there}" if kinds else "no file"
    first = ", ".join(f"{shown(name)} {number}" for name, number in sorted(counts.items())[:_MOST_FOLDERS])
    more = f" and {len(counts) - _MOST_FOLDERS} more folders" if len(counts) > _MOST_FOLDERS else ""
    return f"pictures by folder: {first}{more}"


def _near(tree: Tree) -> str:
    """Say which layout is nearest, and what it lacks here; a folder below that has a layout counts most."""
    tops = sorted({tree.parts(path)[0] for path in tree.pictures if len(tree.parts(path)) > 1})
    for top in tops[:_MOST_FOLDERS]:
        below = walk(tree.root / top)
        fitting = next((layout for layout in LAYOUTS if layout.fits(below)), None)
        if fitting:
            return f"nearest: {top}/ has the layout {fitting.name}; give {tree.root / top}"
    names = {name for path in tree.pictures for name in tree.parts(path)[:-1]}
    if any(split_of(name) for name in names):
        return "nearest: mvtec; its folders train/good and test/<type> stand in SRC, or in each category"
    if any(polarity(name) for name in names):
        return "nearest: folder; it needs a folder of goods, named good, ok or normal, beside that of the bad"
    if any(path.suffix.lower() in TABLES for path in tree.files):
        return "nearest: table; name its columns path and label in the first row"
    return "nearest: folder; put good pictures into good/ and bad ones into bad/<type>/, or write a table"
