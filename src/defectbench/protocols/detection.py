"""Detection: how well is a defect found? Cross-fitted, or by the original study's single split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from defectbench.data.manifest import Manifest
from defectbench.protocols.base import LEARNERS, Description, Protocol, Split, Splits, deal
from defectbench.protocols.folds import FOLDS, check_size, crossfit
from defectbench.util.strict_yaml import Whole, refuse

HOLDOUT = "holdout"
"""What the holdout is called in tables where it stands beside crossfit."""


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
            "tested on a quarter. The families' test images differ, so nothing is paired; the threshold is "
            "the tuned one.",
            paired=False,
        ),
    )
    scheme: Literal["crossfit", "holdout", "both"] = "crossfit"
    folds: Whole = Field(default=FOLDS, ge=3, le=20)

    @model_validator(mode="after")
    def _folds_are_of_crossfit(self) -> Detection:
        if self.scheme == "holdout" and "folds" in self.model_fields_set:
            refuse(
                "holdout is one split, without folds: leave `folds` out, or take scheme: crossfit or both",
                "folds",
            )
        return self

    @model_serializer(mode="wrap")
    def _as_a_sweep_says_it(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave ``folds`` out of a holdout: what a record holds must read as a sweep again."""
        options: dict[str, Any] = write(self)
        if self.scheme == "holdout":
            del options["folds"]
        return options

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return one split a fold, the holdout's split of each family, or both."""
        if self.scheme == "holdout":
            return Splits(tuple(holdout(manifest, split_seed, self.name)))
        cut = crossfit(manifest, split_seed, folds, self.name)
        # Under a name of its own: what is told of detection is paired, and the holdout is not.
        single = holdout(manifest, split_seed, HOLDOUT) if self.scheme == "both" else ()
        return Splits((*cut, *single))


def holdout(manifest: Manifest, split_seed: int, protocol: str) -> Iterator[Split]:
    """Yield the original study's splits, one for each family.

    Detector: all training goods; the test part halved into validation (which stops it) and test.
    Classifier: half of the defects at four rotations, a quarter to validate, a quarter to test. The
    original's counts of goods are unknown; we cut the test goods 1/2, 1/4, 1/4 as well, and the first half
    joins the training goods.

    Args:
        protocol: whose splits they become.
    """
    check_size(manifest, 4, protocol)
    halves = deal(manifest, split_seed, "holdout/detector", (0, 1))
    quarters = deal(manifest, split_seed, "holdout/classifier", (0, 1, 0, 2))
    goods = tuple(image.id for image in manifest.train)
    learnt = manifest.by_id
    yield Split(
        protocol=protocol,
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
        protocol=protocol,
        condition="holdout",
        fold=0,
        goods=tuple(sorted((*goods, *(name for name in quarters[0] if not learnt[name].label)))),
        calibration=(),
        defects=tuple(name for name in quarters[0] if learnt[name].label),
        tune=quarters[1],
        test=quarters[2],
        families=LEARNERS,
        defect_turns=True,
    )
