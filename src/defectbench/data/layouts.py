"""What lies where: the three layouts of a data set, read into one list of sources in MVTec AD's terms.

``mvtec``::

    ROOT/<category>/{train/good, test/<type>, ground_truth/<type>/<stem>_mask.png}    ROOT may be one category

``visa``::

    ROOT/split_csv/1cls.csv (object,split,label,image,mask) and the files it names

``folder``, a user's own::

    ROOT[/<category>]/{good, bad[/<type>], masks[/<type>]}     names as in GOOD_NAMES, BAD_NAMES, MASK_NAMES

Masks are paired with pictures by name, never by their place in a list.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from defectbench.data.manifest import GOOD, Part
from defectbench.errors import DataError, MissingInputError, UsageError, nearest
from defectbench.util.image_io import is_picture

GOOD_NAMES = frozenset({"good", "goods", "ok", "normal", "normals", "pass", "nominal", "defect-free"})
BAD_NAMES = frozenset(
    {"bad", "nok", "not_ok", "ng", "ko", "abnormal", "anomaly", "anomalies", "anomalous", "defect", "defects"}
    | {"defective", "fail", "faulty", "scrap"}
)
MASK_NAMES = frozenset({"masks", "mask", "ground_truth", "groundtruth", "gt"})
TEST_SHARE = 0.2
"""Share of the goods of a ``folder`` that goes to the test part: those in so much of the hashes' range."""

FEW = 4
"""Test goods below which more are taken from a small ``folder``, up to its share: what four folds need."""

_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass(frozen=True, slots=True)
class Source:
    """One picture as it lies on disk.

    Attributes:
        category: its category.
        path: its normalised path in the category, MVTec layout: ``test/scratch/003.png``.
        part: ``train`` or ``test``.
        defect_type: ``good`` or the defect's name.
        file: where it lies.
        mask: where its ground truth lies, or None.
    """

    category: str
    path: str
    part: Part
    defect_type: str
    file: Path
    mask: Path | None = None

    @property
    def id(self) -> str:
        """The normalised path without its suffix."""
        return str(PurePosixPath(self.path).with_suffix(""))

    @property
    def mask_path(self) -> str:
        """The normalised path of a mask: ``ground_truth/scratch/003_mask.png``."""
        return f"ground_truth/{self.defect_type}/{PurePosixPath(self.path).stem}_mask.png"


@dataclass(frozen=True, slots=True)
class Reading:
    """A data set, read but not yet checked.

    Attributes:
        root: the folder that was read.
        layout: ``mvtec``, ``visa`` or ``folder``.
        sources: sorted by category and path.
        spare_masks: masks that no picture goes with.
        problems: faults of the layout itself, one line each.
        notes: what was left out, one line each.
    """

    root: Path
    layout: str
    sources: tuple[Source, ...]
    spare_masks: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def categories(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted({source.category for source in self.sources}))


def read_layout(root: Path, layout: str | None = None) -> Reading:
    """Return what lies under ``root``.

    Args:
        layout: ``mvtec``, ``visa`` or ``folder``; None recognises it, in this order: visa, mvtec, folder.

    Raises:
        MissingInputError: no such folder.
        UsageError: no such layout.
        DataError: no layout fits; says what was looked for. Or the layout that was named finds no picture.
    """
    if not root.is_dir():
        raise MissingInputError(f"{root}: no such folder; give the folder that holds the data set")
    root = root.resolve()
    name = layout or _recognise(root)
    if name not in _READERS:
        raise UsageError(f"unknown layout {name!r}; {nearest(name, _READERS)}")
    reading = _READERS[name](root)
    if not reading.sources:
        raise DataError(
            [*reading.problems, f"{root}: no picture found in layout {name}; {_LOOKED_FOR[name]}"]
        )
    return replace(reading, sources=tuple(sorted(reading.sources, key=lambda s: (s.category, s.path))))


_LOOKED_FOR = {
    "visa": "visa: split_csv/1cls.csv and the files it names",
    "mvtec": "mvtec: <category>/train/good, <category>/test/<type>, <category>/ground_truth/<type>",
    "folder": f"folder: one of {'/'.join(sorted(GOOD_NAMES))} beside one of {'/'.join(sorted(BAD_NAMES))}",
}


def _recognise(root: Path) -> str:
    if _visa_csv(root).is_file():
        return "visa"
    if _mvtec_categories(root):
        return "mvtec"
    if _folder_categories(root):
        return "folder"
    raise DataError("\n  ".join((f"{root}: no known layout; looked for", *_LOOKED_FOR.values())))


def _entries(folder: Path) -> list[Path]:
    """Return what lies in the folder, sorted, without hidden files and what systems leave behind."""
    if not folder.is_dir():
        return []
    kept = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _JUNK)
    return sorted(kept, key=lambda path: path.name)


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _pictures(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_file() and is_picture(path)]


def _left_out(folders: Iterable[Path]) -> Iterator[str]:
    """Yield a note for each file among pictures that is none by its name."""
    for folder in folders:
        for path in _entries(folder):
            if path.is_file() and not is_picture(path):
                yield f"{path}: left out, not a picture by its name"


def _mask_stem(path: Path) -> str:
    return path.stem.removesuffix("_mask")


# --- mvtec


def _mvtec_categories(root: Path) -> list[Path]:
    def fits(folder: Path) -> bool:
        return (folder / "train").is_dir() or (folder / "test").is_dir()

    return [root] if fits(root) else [folder for folder in _folders(root) if fits(folder)]


def _read_mvtec(root: Path) -> Reading:
    sources: list[Source] = []
    spare: list[Path] = []
    problems: list[str] = []
    notes: list[str] = []
    for category in _mvtec_categories(root):
        train, types = category / "train", _folders(category / "test")
        for folder in _folders(train):
            if folder.name != GOOD:
                problems.append(f"{folder}: train holds good/ alone; move defects to test/{folder.name}")
        masks = {
            folder.name: _masks_by_stem(folder, problems) for folder in _folders(category / "ground_truth")
        }
        sources += [_source(category, "train", GOOD, path) for path in _pictures(train / GOOD)]
        for folder in types:
            own = masks.get(folder.name, {})
            for path in _pictures(folder):
                sources.append(_source(category, "test", folder.name, path, own.pop(path.stem, None)))
        spare += [mask for own in masks.values() for mask in own.values()]
        notes += _left_out([train, train / GOOD, category / "test", *types])
    return Reading(root, "mvtec", tuple(sources), tuple(spare), tuple(problems), tuple(notes))


def _source(category: Path, part: Part, defect_type: str, file: Path, mask: Path | None = None) -> Source:
    return Source(category.name, f"{part}/{defect_type}/{file.name}", part, defect_type, file, mask)


def _masks_by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Return the folder's masks by the name of the picture they belong to; two for one are a problem."""
    found: dict[str, Path] = {}
    for path in _pictures(folder):
        twin = found.setdefault(_mask_stem(path), path)
        if twin != path:
            problems.append(f"{path}: a second mask for the picture of {twin.name}")
    return found


# --- visa


def _visa_csv(root: Path) -> Path:
    return root / "split_csv" / "1cls.csv"


def _read_visa(root: Path) -> Reading:
    table = _visa_csv(root)
    if not table.is_file():
        raise DataError(f"{table}: not there; {_LOOKED_FOR['visa']}")
    sources: list[Source] = []
    problems: list[str] = []
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.DictReader(lines):
                try:
                    sources.append(_visa_source(root, row))
                except ValueError as error:
                    problems.append(f"{table}: row {row}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{table}: not a table: {error}")
    used = {source.mask for source in sources}
    folders = sorted({root / source.category / "Data" / "Masks" / "Anomaly" for source in sources})
    spare = tuple(path for folder in folders for path in _pictures(folder) if path not in used)
    return Reading(root, "visa", tuple(sources), spare, tuple(problems))


def _visa_source(root: Path, row: dict[str, str | None]) -> Source:
    """Return a row's picture; ValueError says what is wrong with the row."""
    missing = [name for name in ("object", "split", "label", "image") if not row.get(name)]
    if missing:
        raise ValueError(f"no value for {', '.join(missing)}")
    part, label, category = row["split"], row["label"], row["object"] or ""
    if part not in ("train", "test") or label not in ("normal", "anomaly"):
        raise ValueError(f"split {part!r}, label {label!r}; allowed: train, test and normal, anomaly")
    if part == "train" and label == "anomaly":
        raise ValueError("an anomaly in the training part, which holds good pictures alone")
    file = _inside(root, row["image"] or "")
    mask = _inside(root, row.get("mask") or "") if row.get("mask") else None
    kind = GOOD if label == "normal" else "anomaly"
    where: Part = "train" if part == "train" else "test"
    return Source(category, f"{where}/{kind}/{file.name}", where, kind, file, mask)


def _inside(root: Path, relative: str) -> Path:
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise ValueError(f"{relative}: outside the data set")
    return path


# --- folder


def _named(folder: Path, names: frozenset[str]) -> list[Path]:
    return [path for path in _folders(folder) if path.name.lower() in names]


def _folder_categories(root: Path) -> list[Path]:
    return (
        [root] if _named(root, GOOD_NAMES) else [path for path in _folders(root) if _named(path, GOOD_NAMES)]
    )


def _read_folder(root: Path) -> Reading:
    sources: list[Source] = []
    spare: list[Path] = []
    problems: list[str] = []
    notes: list[str] = []
    for category in _folder_categories(root):
        goods, bads = _named(category, GOOD_NAMES), _named(category, BAD_NAMES)
        masks = _folder_masks(category, problems)
        good_files = [(path, name) for folder in goods for path, name in _flattened(folder)]
        sources += _cut_goods(category, good_files)
        typed = [(folder, "defect") for folder in bads]
        typed += [(folder, folder.name) for bad in bads for folder in _folders(bad)]
        several = len({path.stem for folder, _ in typed for path in _pictures(folder)}) < sum(
            len(_pictures(folder)) for folder, _ in typed
        )
        for folder, kind in typed:
            if kind.lower() in GOOD_NAMES:
                problems.append(f"{folder}: {kind!r} cannot name a defect type")
                continue
            for path in _pictures(folder):
                mask = masks.pop((kind, path.stem), None)
                if mask is None and not several:
                    mask = masks.pop(("", path.stem), None)
                sources.append(_source(category, "test", kind, path, mask))
        spare += masks.values()
        notes += _left_out([*goods, *(folder for folder, _ in typed)])
    return Reading(root, "folder", tuple(sources), tuple(spare), tuple(problems), tuple(notes))


def _folder_masks(category: Path, problems: list[str]) -> dict[tuple[str, str], Path]:
    """Return masks by (defect type, picture's stem); the type is empty for masks that lie in no subfolder."""
    found: dict[tuple[str, str], Path] = {}
    for folder in _named(category, MASK_NAMES):
        places = [("", folder), *((sub.name, sub) for sub in _folders(folder))]
        for kind, place in places:
            kind = "defect" if kind.lower() in BAD_NAMES else kind
            for stem, path in _masks_by_stem(place, problems).items():
                twin = found.setdefault((kind, stem), path)
                if twin != path:
                    problems.append(f"{path}: a second mask for the picture of {twin}; keep one")
    return found


def _flattened(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield the pictures below the folder with a flat name: ``day1/a.png`` becomes ``day1_a.png``."""
    for path in _pictures(folder):
        yield path, path.name
    for sub in _folders(folder):
        for path, name in _flattened(sub):
            yield path, f"{sub.name}_{name}"


def _cut_goods(category: Path, files: list[tuple[Path, str]]) -> list[Source]:
    """Send the goods whose SHA-256 lies in the lowest fifth of its range to the test part.

    A good's own contents decide, so another good, name or order moves none, and equal files stay together.
    Only small sets need more than that: :func:`_test_hashes`.
    """
    hashed = sorted((hashlib.sha256(path.read_bytes()).digest(), path, name) for path, name in files)
    tested = _test_hashes([digest for digest, _, _ in hashed])

    def source(part: Part, path: Path, name: str) -> Source:
        return Source(category.name, f"{part}/{GOOD}/{name}", part, GOOD, path)

    return [source("test" if digest in tested else "train", path, name) for digest, path, name in hashed]


def _test_hashes(digests: Iterable[bytes]) -> frozenset[bytes]:
    """Return the hashes that go to the test part: those below a fifth of the range.

    Where chance sends fewer than four there, the next lowest join them, up to a fifth of the set (rounded, at
    least one); where it sends more than half, the highest of them train. A single good trains. As long as
    either is so, adding a good may move another.
    """
    ranked = sorted(set(digests))
    chance = sum(int.from_bytes(digest) < TEST_SHARE * 256 ** len(digest) for digest in ranked)
    least = min(FEW, max(1, round(TEST_SHARE * len(ranked))))
    return frozenset(ranked[: min(max(chance, least), len(ranked) // 2)])


_READERS = {"mvtec": _read_mvtec, "visa": _read_visa, "folder": _read_folder}
