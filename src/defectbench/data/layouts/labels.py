"""Good or bad: what a folder's name, or a table's cell, says of the parts in it."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Literal

Polarity = Literal["good", "bad", "unsure"]

GOOD_WORDS = frozenset(
    {"good", "goods", "ok", "oks", "okay", "normal", "normals", "pass", "passed", "nominal", "io", "gut"}
    | {"healthy", "intact", "accept", "accepted", "undamaged", "flawless", "faultless"}
)
BAD_WORDS = frozenset(
    {"bad", "bads", "nok", "noks", "ng", "ngs", "ko", "nio", "abnormal", "abnormals", "anomaly", "anomalies"}
    | {"anomalous", "anomal", "defect", "defects", "defective", "fail", "fails", "failed", "fault", "faults"}
    | {"faulty", "scrap", "reject", "rejects", "rejected", "damaged", "notok", "notgood", "nogood"}
)
UNCERTAIN_WORDS = frozenset({"uncertain", "unsure", "unclear", "doubtful", "borderline", "?"})

_NOT = frozenset({"not", "no", "non", "without", "free", "un"})
_NEUTRAL = frozenset(
    {"part", "parts", "piece", "pieces", "product", "products", "unit", "units", "sample", "samples", "item"}
    | {"items", "image", "images", "img", "imgs", "picture", "pictures", "photo", "photos", "pics", "data"}
    | {"set", "class", "label", "front", "back", "rear", "top", "bottom", "left", "right", "side", "sides"}
    | {"up", "down", "view", "views", "cam", "camera", "day", "night", "line", "batch", "lot", "shift"}
    | {"week", "station", "all", "new", "old", "train", "test", "val", "only", "the"}
)
_TRAIN = frozenset({"train", "training"})
_VALIDATION = frozenset({"val", "valid", "validation", "dev"})
_TEST = frozenset({"test", "testing", "tests", "test_public"})
_MASK_WORDS = frozenset(
    {"mask", "masks", "gt", "gts", "groundtruth", "truth", "label", "labels", "annotation", "annotations"}
    | {"anno", "annos", "annot", "seg", "segs", "segm", "segmentation", "segmentations", "labelme", "maske"}
    | {"masken", "masque", "masques"}
)
MASK_NAMES = frozenset({"masks", "mask", "ground_truth", "groundtruth", "gt"})
"""Folders, case-folded, that hold masks and nothing else when they stand in a category."""

_MOST_NAMES = 4096

Split = Literal["train", "validation", "test"]


def fold(text: str) -> str:
    """Return a name for comparison: one form for names that look equal, without case.

    >>> fold("U\\u0308BER") == fold("\\u00fcber")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def words(name: str) -> list[str]:
    """Return a name's words, case-folded.

    >>> words("notOK_front-2")
    ['not', 'ok', 'front', '2']
    """
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFC", name))
    return re.findall(r"[^\W\d_]+|\d+|\?", parted.casefold())


@lru_cache(_MOST_NAMES)
def polarity(name: str) -> Polarity | None:
    """Return what a folder's name says of its parts; "unsure" where it also says something else.

    >>> [polarity(name) for name in ("OK_front", "defect-free", "Not OK", "n.i.O.", "good parts", "ng-dent")]
    ['good', 'good', 'bad', 'bad', 'good', 'unsure']
    >>> polarity("scratch") is None
    True
    """
    said = [word for word in words(name) if word not in _NEUTRAL and not word.isdigit()]
    joined = "".join(said)
    if joined in GOOD_WORDS or joined in BAD_WORDS:
        return "good" if joined in GOOD_WORDS else "bad"
    good, bad = (any(word in known for word in said) for known in (GOOD_WORDS, BAD_WORDS))
    if not good and not bad:
        return None
    if good == bad or any(word not in GOOD_WORDS | BAD_WORDS | _NOT for word in said):
        return "unsure"
    negated = any(word in _NOT for word in said)
    return "good" if good != negated else "bad"


def is_doubtful(name: str) -> bool:
    """Whether a folder's name has a word for good and says more, so that nobody knows what it holds.

    >>> [is_doubtful(name) for name in ("ok_vorne", "ok_front", "logical_anomalies", "good_masks")]
    [True, False, False, False]
    """
    return polarity(name) == "unsure" and not says_mask(name) and bool(GOOD_WORDS & {*words(name)})


def doubt(folder: Path) -> str:
    """Return what to say of a doubtful folder."""
    return (
        f"{folder}: {folder.name!r} may mean good parts or something else; call it good, or leave out the "
        "word for good"
    )


def split_of(name: str) -> Split | None:
    """Return which part of a data set a folder's name stands for."""
    folded = fold(name)
    if folded in _TRAIN:
        return "train"
    if folded in _VALIDATION:
        return "validation"
    return "test" if folded in _TEST else None


@lru_cache(_MOST_NAMES)
def says_mask(name: str) -> bool:
    """Whether a folder's name suggests masks: ``labels``, ``Ground Truth``, ``scratch_mask``.

    >>> says_mask("Ground Truth"), says_mask("gt_masks"), says_mask("scratch")
    (True, True, False)
    """
    return any(word in _MASK_WORDS for word in words(name))


_MASK_WORD = r"(?:ground[ _.\-]?truth|" + "|".join(sorted(_MASK_WORDS, key=lambda word: -len(word))) + ")"
_BEHIND = re.compile(rf"(?P<stem>.+?)[ _.\-]+{_MASK_WORD}(?:[ _.\-]*\d+)?", re.IGNORECASE)
_BEFORE = re.compile(rf"{_MASK_WORD}[ _.\-]+(?P<stem>.+)", re.IGNORECASE)
_SUFFIX = re.compile(r"(?P<stem>.+)\.(?:png|jpe?g|bmp|tiff?|webp)", re.IGNORECASE)
_IMAGE = re.compile(r"(?P<stem>.+?)[ _.\-]+(?:img|image|rgb|color|colour|orig|original|input)", re.IGNORECASE)


def mask_stems(stem: str) -> tuple[str, ...]:
    """Return the stems of pictures that a mask of this stem may belong to, the nearest first, folded.

    >>> mask_stems("003_mask"), mask_stems("mask_003"), mask_stems("003.png"), mask_stems("003")
    (('003_mask', '003'), ('mask_003', '003'), ('003.png', '003'), ('003',))
    """
    found = [stem]
    for pattern in (_SUFFIX, _BEHIND, _BEFORE, _SUFFIX):
        for known in tuple(found):
            match = pattern.fullmatch(known)
            if match and match["stem"] not in found:
                found.append(match["stem"])
    return tuple(dict.fromkeys(fold(name) for name in found))


def picture_stems(stem: str) -> tuple[str, ...]:
    """Return the stems under which a picture's masks may look for it: ``003_img`` answers to ``003`` too."""
    match = _IMAGE.fullmatch(stem)
    return (fold(stem), fold(match["stem"])) if match else (fold(stem),)
