"""Goods: how many good pictures does each family need?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import Description, Protocol, Split, Splits, generator
from defectbench.protocols.folds import crossfit
from defectbench.protocols.groups import shuffled
from defectbench.util.strict_yaml import Whole, distinct

WHOLE = "all"
"""The condition of all training goods: the detection fit of that fold."""

_ENOUGH_DRAWS = 3


class Goods(Protocol):
    """The ``goods`` protocol. Conditions are ``n=10`` with a ``draw``, and ``all``.

    Labelled defects, calibration goods and tested images are those of detection in every condition: what
    changes is the number of goods that a fit learns from. A draw's n goods are the same in every fold, so a
    detector has one fit for all of them.

    Attributes:
        goods: numbers of training goods.
        draws: random choices of each number, independent of the training seed.
    """

    name: ClassVar[str] = "goods"
    changes_goods: ClassVar[bool] = True
    descriptions: ClassVar[tuple[Description, ...]] = (
        Description(
            name,
            "Both families trained on n good pictures, each beside its own fit on all of them; mean over "
            "draws, ± their standard deviation. Labelled defects and calibration goods are those of "
            "detection.",
            draws=True,
        ),
    )
    goods: tuple[Annotated[Whole, Field(ge=1)], ...] = Field(default=(5, 10, 20, 50), min_length=1)
    draws: Whole = Field(default=_ENOUGH_DRAWS, ge=1, le=1000)

    @field_validator("goods")
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        """Refuse a number given twice."""
        return distinct(value, "number of goods")

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return a split for each fold, number and draw, then ``all``; other numbers are left out.

        Raises:
            DataError: no number is below that of the training goods.
        """
        cut = crossfit(manifest, split_seed, folds, self.name)
        goods = cut[0].goods
        numbers = [n for n in sorted(self.goods) if n < len(goods)]
        if not numbers:
            raise DataError(
                f"{manifest.category}: the goods protocol learns from "
                f"{', '.join(map(str, sorted(self.goods)))} goods, and there are {len(goods)} training "
                "goods: give smaller numbers"
            )
        orders = [self._order(manifest, split_seed, goods, draw) for draw in range(self.draws)]
        found = [
            replace(
                fold,
                condition=f"n={n}",
                goods=tuple(sorted(order[:n])),
                draw=draw,
                setting={"n": n},
            )
            for fold in cut
            for draw, order in enumerate(orders)
            for n in numbers
        ]
        return Splits((*found, *map(_whole, cut)), tuple(self._notes(len(goods))))

    def _order(self, manifest: Manifest, split_seed: int, goods: tuple[str, ...], draw: int) -> list[str]:
        """Return the goods in a draw's order, of which each number takes the beginning; groups together."""
        rng = generator(manifest, split_seed, f"goods/{draw}")
        return list(shuffled([manifest.by_id[name] for name in goods], rng))

    def _notes(self, goods: int) -> Iterator[str]:
        """Say which numbers are left out, and that few draws spread widely."""
        dropped = [str(n) for n in sorted(self.goods) if n >= goods]
        if dropped:
            names = ", ".join(dropped)
            yield f"n={names} dropped: there are {goods} training goods, which `all` learns from"
        if self.draws < _ENOUGH_DRAWS:
            yield f"fewer draws than {_ENOUGH_DRAWS} ({self.draws}): the spread over draws is uncertain"


def _whole(fold: Split) -> Split:
    """Return the fold as detection has it."""
    return replace(fold, condition=WHOLE, setting={"n": len(fold.goods)})
