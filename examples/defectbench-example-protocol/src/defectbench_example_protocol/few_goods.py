"""Few goods: how many good pictures does a model need?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from defectbench.data.manifest import Manifest
from defectbench.protocols.base import Description, Protocol, Split, Splits, generator
from defectbench.protocols.folds import crossfit
from defectbench.util.strict_yaml import Whole, distinct


class FewGoods(Protocol):
    """The ``few_goods`` protocol. Conditions are ``goods=8``.

    Attributes:
        goods: numbers of good training pictures, the same ones in every fold; a smaller number's are among a
            larger one's.
    """

    name: ClassVar[str] = "few_goods"
    descriptions: ClassVar[tuple[Description, ...]] = (
        Description(
            name, "Both families learn from n good pictures alone, classifiers from their defects as well."
        ),
    )
    goods: tuple[Annotated[Whole, Field(ge=2)], ...] = Field(default=(4, 8, 16), min_length=1)

    @field_validator("goods")
    @classmethod
    def _once(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return distinct(value, "number of goods")

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return a split for each fold and number; numbers that the category does not have are left out."""
        cut = crossfit(manifest, split_seed, folds, self.name)
        rng = generator(manifest, split_seed, self.name)
        order = [cut[0].goods[place] for place in rng.permutation(len(cut[0].goods))]
        numbers = [n for n in sorted(self.goods) if n <= len(order)]
        return Splits(tuple(_splits(cut, order, numbers)), tuple(_notes(self.goods, len(order))))


def _splits(cut: Sequence[Split], order: Sequence[str], numbers: Sequence[int]) -> Iterator[Split]:
    """Yield each fold with the first goods of the order."""
    for fold in cut:
        for n in numbers:
            goods = tuple(sorted(order[:n]))
            yield replace(fold, condition=f"goods={n}", goods=goods, setting={"n": n})


def _notes(wanted: Sequence[int], there: int) -> Iterator[str]:
    dropped = [str(n) for n in sorted(wanted) if n > there]
    if dropped:
        yield f"goods={', '.join(dropped)} dropped: there are {there} training goods"
