"""Detection: how well is a defect found? Cross-fitted, or by the original study's single split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from defectbench.errors import DataError
from defectbench.manifest import Image, Manifest
from defectbench.protocols.base import Protocol, Split, deal, part_training_goods
from defectbench.schema import Whole, refuse


class Detection(Protocol):
    """The ``detection`` protocol.

    Attributes:
        scheme: ``crossfit`` scores every labelled image held-out by both families; ``holdout`` is the
            original study's split, in which the families' test sets differ: nothing paired comes of it.
        folds: of crossfit.
    """

    name: ClassVar[str] = "detection"
    scheme: Literal["crossfit", "holdout"] = "crossfit"
    folds: Whole = Field(default=4, ge=3, le=20)

    @model_validator(mode="after")
    def _folds_are_of_crossfit(self) -> Detection:
        if self.scheme == "holdout" and "folds" in self.model_fields_set:
            refuse(
                "holdout is one split, without folds: leave `folds` out, or take scheme: crossfit", "folds"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_a_sweep_says_it(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``folds`` out of a holdout: what a record holds must read as a sweep again."""
        options: dict[str, Any] = write(self)
        if self.scheme == "holdout":
            del options["folds"]
        return options

    def splits(self, manifest: Manifest, split_seed: int) -> Iterator[Split]:
        """Yield one split a fold, or the holdout's split of each family."""
        if self.scheme == "crossfit":
            return crossfit(manifest, split_seed, self.folds)
        return holdout(manifest, split_seed)


def crossfit(manifest: Manifest, split_seed: int, folds: int) -> Iterator[Split]:
    """Yield the cross-fitting folds: fold k is tested, fold k + 1 tunes, the others' defects are learnt.

    The pool's goods stay unused: goods of the test part never train.
    """
    _need(manifest, folds)
    goods, calibration = part_training_goods(manifest, split_seed)
    parts = deal(manifest, split_seed, "folds", range(folds))
    for fold, test in enumerate(parts):
        tuning = (fold + 1) % folds
        pool = [name for k, part in enumerate(parts) if k not in (fold, tuning) for name in part]
        yield Split(
            protocol="detection",
            condition="crossfit",
            fold=fold,
            goods=goods,
            calibration=calibration,
            defects=tuple(sorted(name for name in pool if manifest.by_id[name].label)),
            tune=parts[tuning],
            test=test,
        )


def holdout(manifest: Manifest, split_seed: int) -> Iterator[Split]:
    """Yield the original study's splits, one for each family.

    Detector: all training goods; the test part halved into validation (which stops it) and test.
    Classifier: half of the defects at four rotations, a quarter to validate, a quarter to test. The
    original's counts of goods are unknown; we cut the test goods 1/2, 1/4, 1/4 as well, and the first half
    joins the training goods.
    """
    _need(manifest, 4)
    halves = deal(manifest, split_seed, "holdout/detector", (0, 1))
    quarters = deal(manifest, split_seed, "holdout/classifier", (0, 1, 0, 2))
    goods = tuple(image.id for image in manifest.train)
    learnt = manifest.by_id
    yield Split(
        protocol="detection",
        condition="holdout",
        fold=0,
        goods=goods,
        calibration=(),
        defects=(),
        tune=halves[0],
        test=halves[1],
        families=("detector",),
        detector_stops=True,
    )
    yield Split(
        protocol="detection",
        condition="holdout",
        fold=0,
        goods=tuple(sorted((*goods, *(name for name in quarters[0] if not learnt[name].label)))),
        calibration=(),
        defects=tuple(name for name in quarters[0] if learnt[name].label),
        tune=quarters[1],
        test=quarters[2],
        families=("classifier", "supervised"),
        defect_turns=True,
    )


def _need(manifest: Manifest, least: int) -> None:
    """Refuse a category whose test part cannot be cut into ``least`` parts with both classes in each."""
    problems = [
        f"{manifest.category}: {len(images)} {what}, the detection protocol needs at least {needed}"
        for what, images, needed in (
            ("training goods", manifest.train, 2),
            ("good labelled images", _of(manifest, 0), least),
            ("defective labelled images", _of(manifest, 1), least),
        )
        if len(images) < needed
    ]
    if problems:
        raise DataError(problems)


def _of(manifest: Manifest, label: int) -> list[Image]:
    return [image for image in manifest.labelled if image.label == label]
