"""What a layout makes of a tree of files: sources, masks, and an account of every file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from defectbench.data.layouts.walk import Tree
from defectbench.data.manifest import GOOD, Part
from defectbench.data.polygons import Outline

Label = Literal["good", "bad", "uncertain"]
Mask = Path | Outline
"""A picture of a mask, or the outlines that make one."""


def mask_file(mask: Mask) -> Path:
    """Return the file that a mask stands in."""
    return mask if isinstance(mask, Path) else mask.file


@dataclass(frozen=True, slots=True)
class Source:
    """One picture as it lies on disk.

    Attributes:
        category: its category.
        path: its normalised path in the category, MVTec layout: ``test/scratch/003.png``.
        part: ``train`` or ``test``; ``uncertain`` where nobody knows whether it is good.
        defect_type: ``good`` or the defect's name; ``uncertain`` where nobody knows.
        file: where it lies.
        masks: its ground truth; several are united, none means that there is no ground truth.
        group: what it belongs to (a part, a sample, a lot), or None.
        uncertain: nobody knows whether it is good: neither learnt nor tested.
    """

    category: str
    path: str
    part: Part
    defect_type: str
    file: Path
    masks: tuple[Mask, ...] = ()
    group: str | None = None
    uncertain: bool = False

    @property
    def id(self) -> str:
        """The normalised path without its suffix."""
        return str(PurePosixPath(self.path).with_suffix(""))

    @property
    def label(self) -> Label:
        """What is known of it."""
        if self.uncertain:
            return "uncertain"
        return "good" if self.defect_type == GOOD else "bad"

    @property
    def mask_path(self) -> str:
        """The normalised path of a mask: ``ground_truth/scratch/003_mask.png``."""
        return f"ground_truth/{self.defect_type}/{PurePosixPath(self.path).stem}_mask.png"


@dataclass(frozen=True, slots=True)
class Unused:
    """Files that are neither picture nor mask: why, and which."""

    why: str
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """Every file below a data set's folder: ``total`` is the sum of the others.

    Attributes:
        pictures: that are learnt from, tested or, uncertain ones, scored.
        masks: files of masks, those without a picture too.
        unused: by reason.
    """

    pictures: int
    masks: int
    unused: tuple[Unused, ...]

    @property
    def total(self) -> int:
        """All files."""
        return self.pictures + self.masks + sum(len(entry.files) for entry in self.unused)


@dataclass(frozen=True, slots=True)
class DatasetReading:
    """A data set, read but not yet checked.

    Attributes:
        root: the folder that was read.
        layout: its name.
        sources: sorted by category and path.
        uncertain: sources whose label nobody knows, sorted alike; not among ``sources``.
        spare_masks: masks that no picture goes with.
        problems: faults of the layout itself, one line each.
        notes: what was read otherwise than it lies, one line each.
        account: what became of every file.
        cut_goods: a share of the goods is tested; else the layout says which are.
        test_goods: that share, where the user says it.
    """

    root: Path
    layout: str
    sources: tuple[Source, ...]
    uncertain: tuple[Source, ...] = ()
    spare_masks: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    account: Account = Account(0, 0, ())
    cut_goods: bool = False
    test_goods: float | None = None

    @property
    def categories(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted({source.category for source in self.sources}))


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file in a category, with the meaning that its place gives it.

    Attributes:
        file: where it lies.
        category: its category.
        where: folders from the category down to it.
        part: where its picture would go, or None if no picture belongs there.
        kind: ``good`` or the defect type, if it is a picture.
        name: the folders below the type's own, and the file's name.
        mask: it stands where masks alone stand.
        group: what it belongs to.
        moved_from: the folder whose name says another part than ``part``; empty if none does.
    """

    file: Path
    category: str
    where: tuple[str, ...]
    part: Part | None = None
    kind: str = GOOD
    name: tuple[str, ...] = ()
    mask: bool = False
    group: str | None = None
    moved_from: str = ""


@dataclass(slots=True)
class Draft:
    """What a layout finds, before masks are told from pictures and paired with them.

    Attributes:
        entries: files of categories, each with its meaning.
        settled: sources whose masks and parts the layout knows itself.
        masks: picture -> its masks, where the layout knows them.
        uncertain: pictures whose label nobody knows.
        unused: files that the layout leaves out, and why.
        cut_goods: its goods are one set, of which a share is tested.
        problems, notes: one line each.
    """

    entries: list[FileEntry] = field(default_factory=list)
    settled: list[Source] = field(default_factory=list)
    masks: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    uncertain: set[Path] = field(default_factory=set)
    unused: dict[Path, str] = field(default_factory=dict)
    cut_goods: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Layout:
    """A way to lay a data set out.

    Attributes:
        name: for ``--layout``.
        looked_for: what makes it up, in words.
        fits: whether a tree is laid out so.
        read: what it makes of a tree.
    """

    name: str
    looked_for: str
    fits: Callable[[Tree], bool]
    read: Callable[[Tree], Draft]


Roots = Mapping[tuple[str, ...], str]
"""Folders of categories, the root itself or some of its own, and the categories' names."""


def find_categories(tree: Tree, fits: Callable[[frozenset[tuple[str, ...]]], bool]) -> Roots:
    """Return the root itself if its own folders fit, else those of its folders that do.

    Args:
        fits: takes the folders below a candidate, as names from it down.
    """
    if fits(tree.folders):
        return {(): tree.root.name}
    below: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for names in tree.folders:
        below[names[0]] |= {names[1:]} - {()}
    return {(top,): top for top in sorted(below) if fits(frozenset(below[top]))}


def in_categories(tree: Tree, roots: Roots) -> list[tuple[Path, str, tuple[str, ...]]]:
    """Return (file, category, names from the category down) for every picture that lies in one."""
    found = []
    for path in tree.pictures:
        names = tree.parts(path)
        for root in ((), names[:1]):
            if root in roots and len(names) > len(root):
                found.append((path, roots[root], names[len(root) :]))
    return found
