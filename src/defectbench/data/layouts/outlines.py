"""Outlines in labelme and COCO files, as masks that are looking for their pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from PIL import Image

from defectbench.data.layouts.base import FileEntry
from defectbench.data.layouts.labels import fold, says_mask
from defectbench.data.layouts.pairing import MaskCandidate
from defectbench.data.layouts.walk import Tree, shown
from defectbench.data.polygons import Annotated, Outline, read_coco, read_labelme

READ = "annotations, read"


@dataclass(slots=True)
class Outlines:
    """Candidates by category, files that were read as a whole, and what is wrong with some."""

    candidates: dict[str, list[MaskCandidate]] = field(default_factory=lambda: defaultdict(list))
    read: dict[Path, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def outlined(tree: Tree, entries: Sequence[FileEntry]) -> Outlines:
    """Return the outlines of the tree's JSON files; a file that is neither labelme's nor COCO's is left."""
    found = Outlines()
    by_stem: dict[str, list[FileEntry]] = defaultdict(list)
    for entry in entries:
        if entry.part:
            by_stem[fold(entry.file.stem)].append(entry)
    for file in tree.files:
        if file.suffix.lower() != ".json" or file in tree.borrowed:
            continue
        try:
            _labelme(tree, file, by_stem, found)
            _coco(file, by_stem, found)
        except ValueError as error:
            found.problems.append(f"{shown(file)}: {error}")
            found.read[file] = READ
    return found


def _labelme(tree: Tree, file: Path, by_stem: Mapping[str, Sequence[FileEntry]], found: Outlines) -> None:
    """Add a labelme file's outlines: to the category below which it lies, or whose picture has its stem."""
    same = by_stem.get(fold(file.stem), ())
    if not same and not any(says_mask(name) for name in tree.parts(file)):
        return
    outline = read_labelme(file)
    if outline is None:
        return
    if not outline.polygons:
        found.read[file] = READ
        return
    near = [entry for entry in same if entry.category in tree.parts(file)] or same
    if near:
        where = tuple(name for name in tree.parts(file)[:-1] if name != near[0].category)
        sized = _sized(outline, near[0].file)
        found.candidates[near[0].category].append(MaskCandidate(sized, where, file.stem))
    else:
        found.problems.append(f"{shown(file)}: outlines of a picture that is not here")
        found.read[file] = READ


def _coco(file: Path, by_stem: Mapping[str, Sequence[FileEntry]], found: Outlines) -> None:
    """Add a COCO file's outlines, each to the picture that it names."""
    for annotated in read_coco(file) or ():
        found.read[file] = READ
        outline = annotated.outline
        if not outline.polygons and not outline.runs:
            continue
        best = _named(annotated, by_stem)
        if len(best) == 1:
            entry = best[0]
            candidate = MaskCandidate(_sized(outline, entry.file), entry.where, entry.file.stem)
            found.candidates[entry.category].append(candidate)
        else:
            why = " and ".join(str(entry.file) for entry in best[:3])
            found.problems.append(
                f"{shown(file)}: {shown(annotated.name)}: "
                + (f"may be {why}; write it with its folders" if best else "outlined, but not here")
            )


def _named(annotated: Annotated, by_stem: Mapping[str, Sequence[FileEntry]]) -> list[FileEntry]:
    """Return the pictures whose paths end most like the name in a COCO file."""
    names = PurePosixPath(annotated.name.replace("\\", "/")).parts
    ranked: dict[int, list[FileEntry]] = defaultdict(list)
    for entry in by_stem.get(fold(PurePosixPath(names[-1]).stem), ()):
        if fold(entry.file.name) == fold(names[-1]):
            pairs = zip(reversed(names), reversed(entry.file.parts), strict=False)
            same = [fold(one) == fold(two) for one, two in pairs]
            ranked[same.index(False) if False in same else len(same)].append(entry)
    return ranked[max(ranked)] if ranked else []


def _sized(outline: Outline, picture: Path) -> Outline:
    """Return the outline with its picture's size where its file states none."""
    if outline.width:
        return outline
    try:
        with Image.open(picture) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        width, height = 1, 1
    return replace(outline, width=width, height=height)
