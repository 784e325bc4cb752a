"""A table of pictures: CSV, TSV or Parquet, with paths relative to the table's folder.

=========  ==================================================================
path       the picture; also ``image``, ``file``, ``filename``
label      good, bad or uncertain, in any of the words for them; or 0 and 1
type       optional: the defect type of a bad one; ``defect`` by default
mask       optional: its mask; several with ``;`` between them
group      optional: the part, lot, module or day that it belongs to
category   optional: by default all are of one, named after the folder
split      optional: train, validation or test; else a share of the goods is tested
=========  ==================================================================
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from defectbench.data.layouts.base import Draft, FileEntry, Label, Layout
from defectbench.data.layouts.labels import UNCERTAIN_WORDS, fold, polarity, split_of
from defectbench.data.layouts.visa import READ
from defectbench.data.layouts.walk import DATA_SUFFIXES, Tree, shown
from defectbench.data.manifest import GOOD, Part
from defectbench.errors import DataError
from defectbench.util.image_io import SUFFIXES, is_picture

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "path": ("path", "image", "image_path", "file", "filename", "file_name"),
    "label": ("label",),
    "type": ("type", "defect_type"),
    "mask": ("mask", "mask_path"),
    "group": ("group",),
    "category": ("category", "object"),
    "split": ("split", "part"),
}
"""What is read, and the names that a column of it may have, the first that is there counting."""

TABLES = DATA_SUFFIXES - {".json"}
_ALLOWED = "allowed: good, bad, uncertain, or 0 and 1"
Row = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """Rows by what is read of them, each with its number, and the columns that are not read."""

    rows: tuple[tuple[int, Row], ...]
    ignored: tuple[str, ...]


def _load(file: Path) -> _Table | None:
    """Return the table; None if it has no column of paths and labels.

    Raises:
        ValueError: it cannot be read; says why.
    """
    names, records, first = _parquet(file) if file.suffix.lower() == ".parquet" else _text(file)
    folded = {fold(name).strip(): name for name in names if isinstance(name, str)}
    columns = {
        what: folded[next(one for one in known if one in folded)]
        for what, known in COLUMNS.items()
        if any(one in folded for one in known)
    }
    if not {"path", "label"} <= columns.keys():
        return None
    rows = [{what: _cell(record.get(name)) for what, name in columns.items()} for record in records]
    ignored = tuple(str(name) for name in names if name not in columns.values())
    return _Table(tuple((first + place, row) for place, row in enumerate(rows)), ignored)


def _text(file: Path) -> tuple[Sequence[str], list[Mapping[str, object]], int]:
    """Return a text table's columns, its rows, and the number of the first, as a spreadsheet counts them."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            start = lines.readline()
            lines.seek(0)
            mark = max("\t;,|", key=start.count)
            reader = csv.DictReader(lines, delimiter=mark)
            return tuple(reader.fieldnames or ()), [dict(row) for row in reader], 2
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ValueError(f"cannot be read as a table ({error}); save it as CSV in UTF-8") from error


def _parquet(file: Path) -> tuple[Sequence[str], list[Mapping[str, object]], int]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        return table.column_names, table.to_pylist(), 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"cannot be read as Parquet ({str(error).splitlines()[0]})") from error


def _cell(value: object) -> str:
    """Return a cell as text; a whole number without its decimal point."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def _found(tree: Tree) -> dict[Path, _Table | str]:
    """Return the tables of the data set's own folder: their rows, or why they cannot be read."""
    found: dict[Path, _Table | str] = {}
    for file in tree.files:
        if file.parent == tree.root and file.suffix.lower() in TABLES:
            try:
                table = _load(file)
            except ValueError as error:
                found[file] = str(error)
            else:
                if table:
                    found[file] = table
    return found


def _read(tree: Tree) -> Draft:
    tables = {file: table for file, table in _found(tree).items() if isinstance(table, _Table)}
    if len(tables) != 1:
        names = ", ".join(shown(file.name) for file in tables) or "none"
        raise DataError(f"{tree.root}: one table with path and label is needed, found {names}; give the file")
    return read_table(tree, *tables)


def read_table(tree: Tree, file: Path) -> Draft:
    """Return what a table says of the pictures below its folder.

    Raises:
        DataError: it is no table with paths and labels.
    """
    try:
        table = _load(file)
    except ValueError as error:
        raise DataError(f"{file}: {error}") from error
    if table is None:
        raise DataError(f"{file}: no columns path and label; the table's first row names its columns")
    draft = Draft(cut_goods="split" not in (table.rows[0][1] if table.rows else {}))
    draft.unused[file] = READ
    seen: dict[Path, int] = {}
    for number, row in table.rows:
        try:
            entry, masks, label = _entry(tree, row)
        except ValueError as error:
            draft.problems += [f"{file}: row {number}: {line}" for line in str(error).splitlines()]
            continue
        if seen.setdefault(entry.file, number) != number:
            draft.problems.append(
                f"{file}: row {number}: {row['path']} stands in row {seen[entry.file]} already; keep one"
            )
            continue
        draft.entries.append(entry)
        if masks:
            draft.masks[entry.file] = masks
        if label == "uncertain":
            draft.uncertain.add(entry.file)
    draft.entries += _others(tree, draft)
    draft.notes += _notes(file, table)
    return draft


def _others(tree: Tree, draft: Draft) -> Iterator[FileEntry]:
    """Yield the pictures that no row names: masks may be among them."""
    named = {entry.file for entry in draft.entries} | {mask for own in draft.masks.values() for mask in own}
    categories = {entry.category for entry in draft.entries}
    for category in categories if len(categories) == 1 else ():
        for path in tree.pictures:
            if path not in named:
                yield FileEntry(path, category, tree.parts(path)[:-1])


def _notes(file: Path, table: _Table) -> Iterator[str]:
    if table.ignored:
        yield f"{file}: columns that are not read: {', '.join(table.ignored)}"
    typed = sum(
        _label(row["label"]) == "good" and polarity(row.get("type") or GOOD) != "good"
        for _, row in table.rows
    )
    if typed:
        yield f"{file}: the type of {typed} good pictures is not read: it is that of a defect"


def _entry(tree: Tree, row: Row) -> tuple[FileEntry, tuple[Path, ...], Label]:
    """Return a row's picture, its masks and its label; ValueError names all that is wrong, a line each."""
    faults: list[str] = []
    file = _file(tree, row["path"], "path", faults)
    masks = tuple(
        mask
        for name in row.get("mask", "").split(";")
        if name.strip() and (mask := _file(tree, name.strip(), "mask", faults))
    )
    label, split = _label(row["label"]), split_of(row["split"]) if row.get("split") else None
    if label is None:
        faults.append(f"label {row['label']!r}; {_ALLOWED}")
    if row.get("split") is not None and split is None:
        faults.append(f"split {row['split']!r}; allowed: train, validation, test")
    kind = GOOD if label == "good" else row.get("type") or "defect"
    if label != "good" and (polarity(kind) == "good" or "/" in kind or kind.startswith(".")):
        faults.append(f"type {kind!r} cannot name a defect type")
    if faults or file is None or label is None:
        raise ValueError("\n".join(faults))
    part: Part = "test" if label != "good" or split == "test" else "train"
    names = tree.parts(file)
    category = row.get("category") or tree.root.name
    away = (split, label) in (("validation", "good"), ("validation", "bad"), ("train", "bad"))
    moved = row["split"] if away else ""
    group = row.get("group") or None
    return FileEntry(file, category, names[:-1], part, kind, names, False, group, moved), masks, label


def _file(tree: Tree, name: str, column: str, faults: list[str]) -> Path | None:
    """Return the picture that a cell names; what is wrong with it goes to ``faults``."""
    if not name:
        faults.append(f"no {column}")
        return None
    path = Path(tree.root, name.replace("\\", "/"))
    path = Path(*[part for part in path.parts if part != "."])
    path = tree.named(path)
    if ".." in path.parts or not path.is_relative_to(tree.root):
        faults.append(f"{column} {name}: outside the table's folder")
    elif path in tree.unused:
        faults.append(f"{column} {name}: cannot be used: {tree.unused[path]}")
    elif not _is_file(path):
        faults.append(f"{column} {name}: no such file")
    elif not is_picture(path):
        faults.append(f"{column} {name}: not a picture by its name; allowed: {' '.join(sorted(SUFFIXES))}")
    else:
        return path
    return None


def _label(text: str) -> Label | None:
    """Return what a cell says; None if it is none of the words."""
    folded = fold(text)
    if folded in UNCERTAIN_WORDS:
        return "uncertain"
    if folded in ("0", "1", "0.0", "1.0"):
        return "good" if folded[0] == "0" else "bad"
    said = polarity(text)
    return said if said in ("good", "bad") else None


TABLE = Layout(
    "table",
    "a CSV, TSV or Parquet file with the columns path and label (type, mask, group, category, split)",
    lambda tree: any(isinstance(table, _Table) for table in _found(tree).values()),
    _read,
)


def _is_file(path: Path) -> bool:
    """Whether there is such a file; a name that the disk cannot have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
