"""Detection: how well is a defect found? Cross-fitted, or by the original study's single split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from defectbench.data.manifest import Manifest
from defectbench.protocols.base import LEARNERS, Description, Protocol, Split, Splits, generator
from defectbench.protocols.folds import FOLDS, check_size, crossfit
from defectbench.protocols.groups import cut, shuffled, without_groups_of
from defectbench.util.strict_yaml import Whole, refuse

HOLDOUT = "holdout"
"""The holdout's condition, and its protocol in tables where it is beside crossfit."""

_FEWEST = 3
"""Images of each class that give a half and two quarters with one in each."""


class Detection(Protocol):
    """The ``detection`` protocol.

    Attributes:
        scheme: ``crossfit`` scores every labelled image held-out by both families; ``holdout`` is the
            original study's split, in which the families' test sets differ: nothing paired comes of it;
            ``both`` is crossfit, and beside it the holdout as an experiment of its own, named ``holdout``.
        folds: of crossfit; the other protocols of the sweep share them.
    """

    name: ClassVar[str] = "detection"
    descriptions: ClassVar[tuple[Description, ...]] = (
        Description(
            name,
            "Every labelled image is scored held-out by both families; each fold's model has learnt from the "
            "others.",
            heat_maps=True,
            primary=True,
        ),
        Description(
            HOLDOUT,
            "The original study's single split: the detector is stopped by half of the labelled images and "
            "tested on the other half; the classifier learns half of the defects at four rotations and is "
            "tested on a quarter of them, with the goods that the detector is tested on. The shares of "
            "defects differ, and so does the F1 of calling everything abnormal, which each F1 must be held "
            "against: nothing is paired. The threshold is the tuned one.",
            paired=False,
        ),
    )
    scheme: Literal["crossfit", "holdout", "both"] = "crossfit"
    folds: Whole = Field(default=FOLDS, ge=3, le=20)

    @model_validator(mode="after")
    def _folds_are_of_crossfit(self) -> Detection:
        """Refuse `folds` where nothing is cut into folds."""
        if self.scheme == "holdout" and "folds" in self.model_fields_set:
            refuse(
                "holdout is one split, without folds: leave `folds` out, or take scheme: crossfit or both",
                "folds",
            )
        return self

    @model_serializer(mode="wrap")
    def _as_in_a_sweep(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``folds`` out of a holdout: what a record holds must read as a sweep again."""
        options: dict[str, Any] = write(self)
        if self.scheme == "holdout":
            del options["folds"]
        return options

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return one split a fold, the holdout's split of each family, or both."""
        if self.scheme == "holdout":
            return Splits(tuple(holdout(manifest, split_seed, self.name)))
        crossed = crossfit(manifest, split_seed, folds, self.name)
        # Under a name of its own: tables read detection as paired, and the holdout is not.
        single = holdout(manifest, split_seed, HOLDOUT) if self.scheme == "both" else ()
        return Splits((*crossed, *single))


def holdout(manifest: Manifest, split_seed: int, protocol: str) -> Iterator[Split]:
    """Yield the original study's splits, one for each family.

    Goods and defects of the test part are each drawn into one order, without strata, and cut by the
    cumulative shares, rounded down. Goods: half validates, half tests, for both families; none trains.
    Defects: a detector validates on half and is tested on half; a classifier learns half at four rotations,
    validates on a quarter and is tested on the last quarter, which is a part of the detector's test half.
    Detectors are stopped by their validation images, and all goods of the training part train.

    Args:
        protocol: whose splits they become.

    Raises:
        DataError: too few images to have some of each class in every part.
    """
    check_size(manifest, _FEWEST, protocol)
    goods, defects = (
        shuffled(of, generator(manifest, split_seed, f"holdout/{label}"))
        for label in (0, 1)
        if (of := [image for image in manifest.labelled if image.label == label])
    )
    # The original had no groups. Here a good that shares one with a defect has no part to go to.
    tuned, tested = cut(manifest, without_groups_of(manifest, goods, defects), 0.5)
    whole = Split(
        protocol=protocol,
        condition=HOLDOUT,
        fold=0,
        goods=tuple(sorted(image.id for image in manifest.train)),
        calibration=(),
        defects=(),
        tune=(),
        test=(),
    )
    halves = cut(manifest, defects, 0.5)
    yield replace(
        whole,
        tune=tuple(sorted((*tuned, *halves[0]))),
        test=tuple(sorted((*tested, *halves[1]))),
        families=("detector",),
        detector_stops=True,
    )
    learnt, *quarters = cut(manifest, defects, 0.5, 0.75)
    yield replace(
        whole,
        defects=learnt,
        tune=tuple(sorted((*tuned, *quarters[0]))),
        test=tuple(sorted((*tested, *quarters[1]))),
        families=LEARNERS,
        rotate_defects=True,
    )
