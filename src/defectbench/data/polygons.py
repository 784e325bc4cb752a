"""Outlines of defects, from labelme and COCO files, and the masks that they make.

A point is (x, y) in pixels from the upper left corner, as both tools write it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]

MOST_BYTES = 512 << 20
"""Size of an annotation file beyond which it is not read."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The defects of one picture.

    Attributes:
        file: where they are written.
        width, height: of the picture, as the file states it; 0 where it does not.
        polygons: their corners.
        runs: COCO's run lengths, column by column, the first of them background; each over the whole picture.
    """

    file: Path
    width: int
    height: int
    polygons: tuple[tuple[Point, ...], ...] = ()
    runs: tuple[tuple[int, ...], ...] = ()

    def mask(self) -> NDArray[np.bool_]:
        """Return (height, width) bool, True where a defect is; pixels on the line belong to it."""
        picture = Image.new("1", (self.width, self.height))
        draw = ImageDraw.Draw(picture)
        for corners in self.polygons:
            draw.polygon(corners, fill=1, outline=1)
        found = np.asarray(picture).astype(bool)
        for runs in self.runs:
            found |= _from_runs(runs, self.height, self.width)
        return found


def read_labelme(file: Path) -> Outline | None:
    """Return what a labelme file outlines; None if the file is something else.

    Raises:
        ValueError: it is labelme's, but a shape of it cannot be read; says which.
    """
    document = _load(file)
    if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
        return None
    if "imagePath" not in document and "imageHeight" not in document:
        return None
    polygons = tuple(
        polygon
        for place, shape in enumerate(document["shapes"])
        for polygon in [_labelme_polygon(shape, f"shape {place + 1}")]
        if polygon
    )
    width, height = _size(document.get("imageWidth"), document.get("imageHeight"))
    return Outline(file, width, height, polygons)


@dataclass(frozen=True, slots=True)
class Annotated:
    """A picture of a COCO file: its name there, its defects, and their categories' names."""

    name: str
    outline: Outline
    kinds: tuple[str, ...]


def read_coco(file: Path) -> tuple[Annotated, ...] | None:
    """Return the pictures of a COCO file, those without annotations too; None if the file is something else.

    Raises:
        ValueError: it is COCO's, but an entry cannot be read; says which.
    """
    document = _load(file)
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations")
    ):
        return None
    kinds = {entry.get("id"): str(entry.get("name")) for entry in _records(document.get("categories"))}
    marks: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in _records(document["annotations"]):
        marks[_hashable(entry.get("image_id"))].append(entry)
    return tuple(_annotated(file, image, marks, kinds) for image in _records(document["images"]))


def _annotated(
    file: Path,
    image: Mapping[str, Any],
    marks: Mapping[Any, Sequence[Mapping[str, Any]]],
    kinds: Mapping[Any, str],
) -> Annotated:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise ValueError("an image without file_name")
    width, height = _size(image.get("width"), image.get("height"))
    polygons: list[tuple[Point, ...]] = []
    runs: list[tuple[int, ...]] = []
    own = marks.get(_hashable(image.get("id")), ())
    for entry in own:
        where, shape = f"annotation {entry.get('id')} of {name}", entry.get("segmentation")
        if isinstance(shape, dict):
            runs.append(_run_lengths(shape, (height, width), where))
        elif isinstance(shape, list) and shape:
            polygons += [_pairs(ring, where) for ring in shape]
        else:
            raise ValueError(f"{where}: no segmentation, only a box: it outlines no defect")
    found = tuple(sorted({str(kinds.get(entry.get("category_id"), "defect")) for entry in own}))
    return Annotated(name, Outline(file, width, height, tuple(polygons), tuple(runs)), found)


def _load(file: Path) -> Any:
    """Return the JSON document, or None."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _records(value: object) -> list[Mapping[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _hashable(value: object) -> object:
    return value if isinstance(value, (int, str)) else repr(value)


def _size(width: object, height: object) -> tuple[int, int]:
    """Return a stated size; 0, 0 where it is none that a picture can have."""
    sides = [side for side in (width, height) if isinstance(side, int) and 0 < side <= 1 << 17]
    return (sides[0], sides[1]) if len(sides) == 2 else (0, 0)


def _labelme_polygon(shape: object, where: str) -> tuple[Point, ...]:
    """Return a shape's corners: a polygon's own, a rectangle's four, a circle's 64; points have none."""
    if not isinstance(shape, dict) or not isinstance(shape.get("points"), list):
        raise ValueError(f"{where}: no points")
    points, kind = _points(shape["points"], where), shape.get("shape_type", "polygon")
    if kind == "rectangle" and len(points) >= 2:
        (left, top), (right, bottom) = points[0], points[-1] if len(points) == 2 else points[2]
        return (left, top), (right, top), (right, bottom), (left, bottom)
    if kind == "circle" and len(points) == 2:
        return _circle(points[0], math.dist(points[0], points[1]))
    if kind in ("polygon", "linestrip", "line") and len(points) >= 2:
        return points
    if kind == "point":
        return points * 2
    raise ValueError(f"{where}: {kind!r} of {len(points)} points; polygon, rectangle and circle make a mask")


def _circle(centre: Point, radius: float) -> tuple[Point, ...]:
    turns = (2 * math.pi * step / 64 for step in range(64))
    return tuple((centre[0] + radius * math.cos(turn), centre[1] + radius * math.sin(turn)) for turn in turns)


def _points(values: Sequence[object], where: str) -> tuple[Point, ...]:
    try:
        points = tuple((float(pair[0]), float(pair[1])) for pair in values)  # type: ignore[index]
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError(f"{where}: a point that is no pair of numbers") from error
    if not all(abs(number) < 1e6 for point in points for number in point):
        raise ValueError(f"{where}: a point that no picture has")
    return points


def _pairs(ring: object, where: str) -> tuple[Point, ...]:
    """Return COCO's x, y, x, y, ... as points."""
    if not isinstance(ring, list) or len(ring) < 6 or len(ring) % 2:
        raise ValueError(f"{where}: a polygon needs three points or more, as x, y, x, y, ...")
    return _points(list(zip(ring[::2], ring[1::2], strict=True)), where)


def _run_lengths(shape: Mapping[str, Any], size: tuple[int, int], where: str) -> tuple[int, ...]:
    """Return COCO's run lengths, which are numbers or a text of six bits a character."""
    counts = shape.get("counts")
    runs = _unpacked(counts) if isinstance(counts, str) else counts
    whole = [run for run in runs if isinstance(run, int) and run >= 0] if isinstance(runs, list) else []
    if whole != runs or list(size) != shape.get("size") or sum(whole) != size[0] * size[1]:
        raise ValueError(f"{where}: run lengths that do not make up the picture's {size[1]} x {size[0]}")
    return tuple(whole)


def _unpacked(text: str) -> list[int]:
    """Return the numbers of a compressed run length text (cocoapi, `maskApi.c`, rleFrString)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def _from_runs(runs: Sequence[int], height: int, width: int) -> NDArray[np.bool_]:
    marks = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.asarray(marks.reshape(width, height).T)
