"""A protocol makes the splits of one experiment from a manifest."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from defectbench.catalog import Family
from defectbench.data.manifest import GOOD, Manifest
from defectbench.protocols.groups import boundary, deal_groups, shuffled, units_of
from defectbench.util.strict_yaml import StrictModel

EVERYONE: tuple[Family, ...] = ("classifier", "detector", "supervised")
LEARNERS: tuple[Family, ...] = ("classifier", "supervised")
"""Families that learn from labelled defects."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which images a model may learn from, tune on, and is tested on. All tuples hold image ids.

    Attributes:
        condition: which table of the protocol it belongs to, ``crossfit`` or ``n=4`` for example.
        fold: the part of the labelled images that is tested, counted from 0.
        goods: good pictures that both families learn from.
        calibration: goods that no fit sees; in contamination there are defects among them.
        defects: labelled defects that a classifier learns from as well.
        tune: labelled images that end a classifier's fit and set the tuned threshold of both families.
        test: labelled images that the tables of this split are made of.
        families: who reads it.
        detector_stops: the tuning images end a detector's fit too (holdout only).
        rotate_defects: each defect is learnt at four rotations (the original study's splits only).
        contaminants: defects that every family trains on as good (contamination only).
        draw: which of several random draws of one condition; None where nothing is drawn several times.
        setting: what the condition's text says, name by name: ``{"n": 4}``.
    """

    protocol: str
    condition: str
    fold: int
    goods: tuple[str, ...]
    calibration: tuple[str, ...]
    defects: tuple[str, ...]
    tune: tuple[str, ...]
    test: tuple[str, ...]
    families: tuple[Family, ...] = EVERYONE
    detector_stops: bool = False
    rotate_defects: bool = False
    contaminants: tuple[str, ...] = ()
    draw: int | None = None
    setting: Mapping[str, str | int | float] = field(default_factory=dict)

    @property
    def drawn(self) -> str:
        """The condition, with its draw where it has several: ``n=4/draw2``."""
        return self.condition if self.draw is None else f"{self.condition}/draw{self.draw}"

    def train(self, family: Family) -> tuple[tuple[str, int], ...]:
        """Return (image id, training label) of all that ``family`` learns from here."""
        labelled = [(name, 0) for name in (*self.goods, *self.contaminants)]
        if family != "detector":
            labelled += [(name, 1) for name in self.defects]
        return tuple(sorted(labelled))

    def tuning(self, family: Family) -> tuple[str, ...]:
        """Return the ids that may end a fit of ``family``."""
        return self.tune if family != "detector" or self.detector_stops else ()


@dataclass(frozen=True, slots=True)
class Splits:
    """What a protocol makes of a category.

    Attributes:
        notes: what was asked for and is not among them, in words.
    """

    splits: tuple[Split, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """What reports and trackers must know of the splits that carry one protocol's name.

    Attributes:
        name: as in :attr:`Split.protocol`.
        text: what it asks, in sentences, for the report.
        paired: all families are tested on the same images of a fold. Without it nothing is compared in pairs.
        heat_maps: its cells keep heat maps.
        primary: the report's verdict and main tables are made of it; of one protocol alone.
        draws: a condition is an average over random draws, whose spread is given.
    """

    name: str
    text: str
    paired: bool = True
    heat_maps: bool = False
    primary: bool = False
    draws: bool = False


class Protocol(StrictModel, ABC):
    """One experiment. Its fields are its options in a sweep.

    Attributes:
        name: what a sweep calls it.
        descriptions: of each name that its splits carry; the first is of ``name``.
        changes_goods: its question is about the goods that models learn from, so a detector's fits are its
            own. Without it a detector has one fit a seed, whatever the protocol.
    """

    name: ClassVar[str]
    descriptions: ClassVar[tuple[Description, ...]]
    changes_goods: ClassVar[bool] = False

    @abstractmethod
    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return the splits. They depend on the data digest and ``split_seed``, never on a training seed.

        Args:
            folds: of the sweep; all protocols cut the same ones, so that they share fits.

        Raises:
            DataError: the category cannot be split so; names what it has and what is needed.
        """


def generator(manifest: Manifest, split_seed: int, purpose: str) -> np.random.Generator:
    """Return the random numbers of one ``purpose``, so that one draw cannot shift another."""
    # A hash of the purpose, and no counter: a new draw elsewhere leaves every other one as it was.
    text = f"{manifest.digest}/{split_seed}/{purpose}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))


def part_training_goods(manifest: Manifest, split_seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Cut the training part into (training goods, calibration goods): four fifths and a fifth, sorted.

    Groups stay whole, and each has at least one group.
    """
    order = shuffled(manifest.train, generator(manifest, split_seed, "calibration"))
    fifth = boundary(manifest, order, max(1, round(len(order) / 5)))
    if fifth in (0, len(order)):  # the first group, or all but the last, is nearer to a fifth than a cut is
        sizes = [len(unit) for unit in units_of([manifest.by_id[name] for name in order])]
        fifth = sizes[0] if fifth == 0 else len(order) - sizes[-1]
    return tuple(sorted(order[fifth:])), tuple(sorted(order[:fifth]))


def deal(manifest: Manifest, split_seed: int, purpose: str, pattern: Sequence[int]) -> list[tuple[str, ...]]:
    """Cut the labelled images into parts, goods and each defect type spread evenly; ids sorted in each part.

    Args:
        pattern: the parts in the order of dealing: ``range(4)`` for four folds.

    Raises:
        DataError: groups that are never split leave a part without a good or a defect.
    """
    if any(image.group is not None for image in manifest.labelled):
        rng = generator(manifest, split_seed, purpose)
        units = units_of(manifest.labelled)
        dealt_units = [units[place] for place in rng.permutation(len(units))]
        found = deal_groups(dealt_units, max(pattern) + 1, manifest.category)
        return [tuple(sorted(part)) for part in found]
    parts: list[list[str]] = [[] for _ in range(max(pattern) + 1)]
    dealt = 0
    for kind in (GOOD, *manifest.defect_types):
        images = [image for image in manifest.labelled if image.defect_type == kind]
        # Dealing on where the last type ended keeps rare types from all falling into the first part.
        for name in shuffled(images, generator(manifest, split_seed, f"{purpose}/{kind}")):
            parts[pattern[dealt % len(pattern)]].append(name)
            dealt += 1
    return [tuple(sorted(part)) for part in parts]
