"""The cross-fitting folds that all protocols share; each protocol changes what its question asks for."""

from __future__ import annotations

from collections.abc import Sequence

from defectbench.data.manifest import Image, Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import Split, deal, part_training_goods
from defectbench.protocols.groups import units_of, without_groups_of

FOLDS = 4
"""How many, where a sweep does not say."""


def crossfit(manifest: Manifest, split_seed: int, folds: int, protocol: str) -> tuple[Split, ...]:
    """Return the folds: fold k is tested, fold k + 1 tunes, the others' defects (the *pool*) are learnt.

    The pool's goods stay unused: goods of the test part never train. Defects of the training part's groups
    are in each fold's pool, but for those whose group calibrates.

    Args:
        protocol: whose splits they become.

    Raises:
        DataError: too few images for so many folds.
    """
    check_size(manifest, folds, protocol)
    goods, calibration = part_training_goods(manifest, split_seed)
    also = without_groups_of(manifest, [image.id for image in manifest.train_defects], calibration)
    parts = deal(manifest, split_seed, "folds", range(folds))
    found = []
    for fold, test in enumerate(parts):
        tuning = (fold + 1) % folds
        pool = [name for k, part in enumerate(parts) if k not in (fold, tuning) for name in part]
        split = Split(
            protocol=protocol,
            condition="crossfit",
            fold=fold,
            goods=goods,
            calibration=calibration,
            defects=tuple(sorted((*of_label(manifest, pool, 1), *also))),
            tune=parts[tuning],
            test=test,
        )
        found.append(split)
    return tuple(found)


def of_label(manifest: Manifest, names: Sequence[str], label: int) -> tuple[str, ...]:
    """Return those of the ids that are good (0) or abnormal (1), in order."""
    return tuple(name for name in names if manifest.by_id[name].label == label)


def check_size(manifest: Manifest, least: int, protocol: str) -> None:
    """Refuse a category whose test part cannot be cut into ``least`` parts with both classes in each.

    Raises:
        DataError: all that it lacks.
    """
    problems = [
        f"{manifest.category}: {_counted(images, what)}, the {protocol} protocol needs at least {needed}"
        for what, images, needed in (
            ("training goods", manifest.train, 2),
            ("good labelled images", _labelled(manifest, 0), least),
            ("defective labelled images", _labelled(manifest, 1), least),
        )
        if len(units_of(images)) < needed
    ]
    if problems:
        raise DataError(problems)


def _counted(images: Sequence[Image], what: str) -> str:
    """Say how many images there are, and in how many groups, which count where there are any."""
    units = len(units_of(images))
    return f"{len(images)} {what}" + (f" in {units} groups" if units < len(images) else "")


def _labelled(manifest: Manifest, label: int) -> list[Image]:
    """Return the test part's images of one class."""
    return [image for image in manifest.labelled if image.label == label]
