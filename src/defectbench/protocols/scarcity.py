"""Scarcity: how many labelled defects does a classifier need?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from defectbench.data.manifest import Manifest
from defectbench.protocols.base import LEARNERS, Description, Protocol, Split, Splits, generator
from defectbench.protocols.folds import crossfit, of_label
from defectbench.protocols.groups import shuffled, whole_groups
from defectbench.util.strict_yaml import Whole, distinct

FEWEST_TUNING = 8
"""From so many labelled defects on a quarter of them tunes."""

_ENOUGH_DRAWS = 10


class Scarcity(Protocol):
    """The ``scarcity`` protocol.

    Conditions are ``n=4`` with a ``draw``, and ``all``: the detection fit of that fold. Detectors, which
    learn from no defect, read ``all`` alone.

    Attributes:
        defects: numbers of labelled defects, all that are used: those that tune included.
        draws: random choices of each number, independent of the training seed.
    """

    name: ClassVar[str] = "scarcity"
    descriptions: ClassVar[tuple[Description, ...]] = (
        Description(
            name,
            "A classifier trained on n labelled defects, those that tune it included; mean over draws, ± "
            "their standard deviation. Detectors learn from no defect: they are beside all, the fit of "
            "detection.",
            draws=True,
        ),
    )
    defects: tuple[Annotated[Whole, Field(ge=1)], ...] = Field(default=(1, 2, 4, 8, 16), min_length=1)
    draws: Whole = Field(default=_ENOUGH_DRAWS, ge=1, le=1000)

    @field_validator("defects")
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse a number given twice."""
        return distinct(value, "number of defects")

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return a split for each fold, number and draw, then ``all``; numbers above a pool are left out.

        A number is left out in all folds, so that every one is an average over the same images.
        """
        cut = crossfit(manifest, split_seed, folds, self.name)
        pool = min(len(fold.defects) for fold in cut)
        numbers = [n for n in sorted(self.defects) if n <= pool]
        found = [
            split
            for fold in cut
            for draw in range(self.draws)
            for split in _drawn(manifest, split_seed, fold, numbers, draw)
        ]
        return Splits((*found, *(_whole(manifest, fold) for fold in cut)), tuple(self._notes(pool)))

    def _notes(self, pool: int) -> Iterator[str]:
        """Say which numbers are left out, and that few draws spread widely."""
        dropped = [str(n) for n in sorted(self.defects) if n > pool]
        if dropped:
            yield f"n={', '.join(dropped)} dropped: the smallest fold's pool has {pool} defects"
        if self.draws < _ENOUGH_DRAWS:
            yield f"fewer draws than {_ENOUGH_DRAWS} ({self.draws}): the spread over draws is uncertain"


def tunes(place: int) -> bool:
    """Whether the defect at ``place`` of a draw's order tunes, where a draw has tuning defects at all.

    A quarter of the first n for every n from 8 on; and the first six never do, so that
    the training defects of 1, 2, 4 are training defects of 8 too.

    >>> [place for place in range(20) if tunes(place)]
    [6, 7, 11, 15, 19]
    """
    return place in (6, 7) if place < FEWEST_TUNING else place % 4 == 3


def _drawn(
    manifest: Manifest, split_seed: int, fold: Split, numbers: Sequence[int], draw: int
) -> Iterator[Split]:
    """Yield one draw's splits of one fold: each takes the beginning of one random order of the pool."""
    rng = generator(manifest, split_seed, f"scarcity/{fold.fold}/{draw}")
    order = shuffled([manifest.by_id[name] for name in fold.defects], rng)
    for n in numbers:
        tuning = whole_groups(manifest, order[:n], tunes) if n >= FEWEST_TUNING else set()
        goods = of_label(manifest, fold.tune, 0) if tuning else ()
        yield replace(
            fold,
            condition=f"n={n}",
            defects=tuple(sorted(set(order[:n]) - tuning)),
            tune=tuple(sorted((*goods, *tuning))),
            families=LEARNERS,
            draw=draw,
            setting={"n": n},
        )


def _whole(manifest: Manifest, fold: Split) -> Split:
    """Return the fold as detection has it."""
    used = len(fold.defects) + len(of_label(manifest, fold.tune, 1))
    return replace(fold, condition="all", setting={"n": used})
