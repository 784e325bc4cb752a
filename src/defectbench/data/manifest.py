"""One category's images, and the digest that names them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal

from defectbench.errors import DataError, UsageError
from defectbench.util.documents import STRICT, read_document, typed, write_document
from defectbench.util.image_io import FULL, Intensity

Part = Literal["train", "test", "uncertain"]
UNCERTAIN: Part = "uncertain"
"""The part of images whose label nobody is sure of: never learnt, tuned on or tested, only scored."""

UNKNOWN_LABEL = -1
"""The label of an uncertain image."""

GOOD = "good"
"""The defect type of an image without a defect, as MVTec AD names the folder."""


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of ``value`` that digests are taken of: sorted keys, no spaces, UTF-8.

    Raises:
        ValueError: for NaN or infinity, which JSON has no text for.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


@dataclass(frozen=True, slots=True)
class Image:
    """One picture.

    Attributes:
        id: names the picture in splits and predictions: its path without the suffix, ``test/scratch/003``.
        path: inside the category's archive, MVTec layout, with forward slashes.
        sha256: of the file.
        part: the layout's part, ``train`` or ``test``; ``uncertain`` for a label that nobody is sure of.
        label: 0 good, 1 abnormal; -1 where uncertain.
        defect_type: the folder's name; ``good`` for label 0.
        width, height: in pixels, as a viewer shows the picture (EXIF rotation applied).
        mask: path of the ground truth, or None where there is none.
        mask_sha256: of the mask's file, or None.
        group: names the part, lot, module, camera or day that the image belongs to; None for none.
    """

    __pydantic_config__: ClassVar[Any] = STRICT

    id: str
    path: str
    sha256: str
    part: Part
    label: int
    defect_type: str
    width: int
    height: int
    mask: str | None = None
    mask_sha256: str | None = None
    group: str | None = None

    @property
    def unit(self) -> str:
        """What the image is cut and resampled with: its group, else itself."""
        return f"image {self.id}" if self.group is None else f"group {self.group}"

    def to_document(self) -> dict[str, Any]:
        """Return the record that the digest covers. Without a group it is that of version 0.1.0."""
        document = asdict(self)
        if self.group is None:
            del document["group"]
        return document


@dataclass(frozen=True)
class Manifest:
    """One category of a data set.

    Attributes:
        images: sorted by id; ids are unique.
        any_orientation: whether parts come in any orientation; None where an older version imported them.
        intensity: the scale of grey of more than 8 bits, one for the data set.
        accepted_duplicates: pairs of ids of copies under two labels that the user kept.
    """

    dataset: str
    category: str
    images: tuple[Image, ...]
    any_orientation: bool | None = None
    intensity: Intensity = FULL
    accepted_duplicates: tuple[tuple[str, str], ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) over the images' records, and the scale of values where it is not that of 16 bits.

        Neither the data set's nor the category's name enters.
        """
        records = [image.to_document() for image in self.images]
        named = {"images": records, **self._scale()}
        return hashlib.sha256(canonical_json(named if self._scale() else records)).hexdigest()

    def _scale(self) -> dict[str, str]:
        """Return the field of the scale; none where it is that of 16 bits, so that digests stay."""
        return {} if self.intensity == FULL else {"intensity": self.intensity.text}

    @cached_property
    def by_id(self) -> Mapping[str, Image]:
        """Image id -> image."""
        return {image.id: image for image in self.images}

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Image id -> its place in ``images``."""
        return {image.id: index for index, image in enumerate(self.images)}

    @cached_property
    def train(self) -> tuple[Image, ...]:
        """The goods of the training part."""
        return tuple(image for image in self.images if image.part == "train" and not image.label)

    @cached_property
    def train_defects(self) -> tuple[Image, ...]:
        """The defects of groups of which goods train: learnt by classifiers in each fold, never tested."""
        return tuple(image for image in self.images if image.part == "train" and image.label)

    @cached_property
    def labelled(self) -> tuple[Image, ...]:
        """The layout's test part: goods and defects, the *labelled images*."""
        return tuple(image for image in self.images if image.part == "test")

    @cached_property
    def uncertain(self) -> tuple[Image, ...]:
        """Images whose label nobody is sure of."""
        return tuple(image for image in self.images if image.part == UNCERTAIN)

    @cached_property
    def grouped(self) -> bool:
        """Whether any image belongs to a group."""
        return any(image.group is not None for image in self.images)

    @cached_property
    def defect_types(self) -> tuple[str, ...]:
        """Sorted names of the defect types of the labelled images, without ``good``."""
        return tuple(sorted({image.defect_type for image in self.labelled if image.label}))

    def to_json(self) -> bytes:
        """Return the text stored as ``manifest.json``; ends with a newline."""
        document: dict[str, Any] = {
            "dataset": self.dataset,
            "category": self.category,
            "digest": self.digest,
            "images": [image.to_document() for image in self.images],
            **self._scale(),
        }
        if self.any_orientation is not None:
            document["any_orientation"] = self.any_orientation
        if self.accepted_duplicates:
            document["accepted_duplicates"] = [list(pair) for pair in self.accepted_duplicates]
        return write_document(document, sort_keys=True)

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read what :meth:`to_json` wrote.

        Raises:
            DataError: when it is no manifest, of another schema, not as it was written, or of another digest.
        """
        kept = typed(_Kept, read_document(data, "manifest"), "manifest")
        try:
            scale = FULL if kept.intensity is None else Intensity.parse(kept.intensity)
        except UsageError as error:
            raise DataError(f"manifest is damaged: {error}") from error
        manifest = cls(
            kept.dataset, kept.category, kept.images, kept.any_orientation, scale, kept.accepted_duplicates
        )
        stated = kept.digest
        if stated != manifest.digest:
            raise DataError(
                f"manifest of {manifest.category} states digest {stated[:12]}, its images give "
                f"{manifest.digest[:12]}: import the data set again"
            )
        return manifest


@dataclass(frozen=True, slots=True)
class _Kept:
    """The fields of ``manifest.json``."""

    __pydantic_config__: ClassVar[Any] = STRICT

    dataset: str
    category: str
    digest: str
    images: tuple[Image, ...]
    any_orientation: bool | None = None
    intensity: str | None = None
    accepted_duplicates: tuple[tuple[str, str], ...] = ()


def make_manifest(
    dataset: str, category: str, images: Iterable[Image], intensity: Intensity = FULL
) -> Manifest:
    """Return the manifest with its images in order.

    Raises:
        DataError: when two images share an id.
    """
    ordered = tuple(sorted(images, key=lambda image: image.id))
    twins = [a.id for a, b in pairwise(ordered) if a.id == b.id]
    if twins:
        raise DataError([f"{category}: two files share the image id {name!r}" for name in twins])
    return Manifest(dataset, category, ordered, intensity=intensity)
