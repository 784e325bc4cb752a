"""Contamination: what if some of the goods that a line learns from are defective?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import Description, Protocol, Split, Splits, generator
from defectbench.protocols.folds import crossfit
from defectbench.protocols.groups import shuffled, without_groups_of
from defectbench.util.strict_yaml import Number, distinct

_STEPS = 1000
"""A share is lowered to whole thousandths."""


class Contamination(Protocol):
    """The ``contamination`` protocol. Conditions are ``share=0.05``.

    Attributes:
        shares: of the training goods, and of the calibration goods, that defects of the fold's pool replace.
            0 is the detection fit of that fold.
    """

    name: ClassVar[str] = "contamination"
    changes_goods: ClassVar[bool] = True
    descriptions: ClassVar[tuple[Description, ...]] = (
        Description(
            name,
            "A share of the training goods and of the calibration goods is replaced by defects, which both "
            "families take for good.",
        ),
    )
    shares: tuple[Annotated[Number, Field(ge=0, lt=1)], ...] = Field(default=(0.0, 0.05, 0.1), min_length=1)

    @field_validator("shares")
    @classmethod
    def _once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        """Refuse a share given twice."""
        return distinct(value, "share")

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return a split for each fold and share; one above what a pool gives is lowered, in all folds."""
        cut = [_Mixed(manifest, split_seed, f) for f in crossfit(manifest, split_seed, folds, self.name)]
        # Less 1: a classifier needs one defect to learn from.
        most = min(len(mixed.fold.defects) for mixed in cut) - 1
        goods, calibration = len(cut[0].fold.goods), len(cut[0].fold.calibration)
        wanted = {share: _lowered(share, goods, calibration, most) for share in sorted(self.shares)}
        kept = [share for share in dict.fromkeys(wanted.values()) if not share or replaced(share, goods)]
        if not kept:
            raise DataError(
                f"{manifest.category}: no share of {', '.join(f'{s:g}' for s in wanted)} puts a defect among "
                f"{goods} training goods; the smallest fold's pool can give {most}"
            )
        notes = _notes(wanted, goods, calibration, most)
        return Splits(tuple(mixed.split(share) for mixed in cut for share in kept), tuple(notes))


@dataclass(frozen=True)
class _Mixed:
    """A fold whose goods are replaced in one order: a share holds all that a smaller one does."""

    manifest: Manifest
    split_seed: int
    fold: Split

    def split(self, share: float) -> Split:
        fold = self.fold
        swapped, kept = (replaced(share, len(names)) for names in (fold.goods, fold.calibration))
        # One order from both its ends: a contaminant of a small share is never calibration at a larger one.
        contaminants, among = self._pool[:swapped], self._pool[len(self._pool) - kept :]
        # A group of which some contaminate is neither calibration as well nor learnt as a defect.
        among = without_groups_of(self.manifest, among, contaminants)
        defects = without_groups_of(self.manifest, fold.defects, (*contaminants, *among))
        return replace(
            fold,
            condition=f"share={share:g}",
            goods=tuple(sorted(self._goods[swapped:])),
            calibration=tuple(sorted((*self._calibration[kept:], *among))),
            defects=tuple(sorted(defects)),
            contaminants=tuple(sorted(contaminants)),
            setting={"share": share},
        )

    @cached_property
    def _pool(self) -> Sequence[str]:
        """The fold's defects in the order in which they contaminate, the same at every share."""
        return self._order(self.fold.defects, f"pool/{self.fold.fold}")

    @cached_property
    def _goods(self) -> Sequence[str]:
        """The training goods in the order in which they are replaced."""
        return self._order(self.fold.goods, "goods")

    @cached_property
    def _calibration(self) -> Sequence[str]:
        """The calibration goods in the order in which they are replaced."""
        return self._order(self.fold.calibration, "calibration")

    def _order(self, names: Sequence[str], purpose: str) -> Sequence[str]:
        """Return the names in an order of their own random numbers."""
        rng = generator(self.manifest, self.split_seed, f"contamination/{purpose}")
        return shuffled([self.manifest.by_id[name] for name in names], rng)


def replaced(share: float, goods: int) -> int:
    """Return how many of ``goods`` a share replaces: to the nearest, halves up.

    >>> replaced(0.05, 209), replaced(0.1, 5), replaced(0.05, 9)
    (10, 1, 0)
    """
    return int(share * goods + 0.5)


def _lowered(share: float, goods: int, calibration: int, most: int) -> float:
    """Return the share, or the largest below it that needs no more than ``most`` defects."""

    def needs(of: float) -> int:
        return replaced(of, goods) + replaced(of, calibration)

    if needs(share) <= most:
        return share
    # Counted down in whole steps: halving would end at a share that depends on rounding.
    return next(k / _STEPS for k in range(int(share * _STEPS), -1, -1) if needs(k / _STEPS) <= most)


def _notes(wanted: dict[float, float], goods: int, calibration: int, most: int) -> Iterator[str]:
    """Say which shares are not what was asked for."""
    for share, lowered in wanted.items():
        if lowered and not replaced(lowered, goods):
            yield f"share {share:g} dropped: it replaces none of {goods} training goods"
            continue
        if lowered < share:
            gives = f"the smallest fold's pool gives {most} defects and keeps 1 to learn"
            yield f"share {share:g} lowered to {lowered:g}: {gives}"
        if lowered and not replaced(lowered, calibration):
            yield f"share {lowered:g} replaces none of {calibration} calibration goods"
