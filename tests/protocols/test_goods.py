from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import EVERYONE, Split
from defectbench.protocols.folds import crossfit
from defectbench.protocols.goods import Goods
from manifests import categories, category

LARGE = category(75, 12, {"crack": 24, "stain": 24})
"""It has 60 training goods."""


def splits(manifest: Manifest = LARGE, seed: int = 0, folds: int = 4, **options: object) -> tuple[Split, ...]:
    return Goods.model_validate(options).splits(manifest, seed, folds).splits


@settings(max_examples=40, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_only_the_goods_that_are_learnt_change(manifest: Manifest, folds: int, seed: int) -> None:
    cut = crossfit(manifest, seed, folds, "goods")
    if len(cut[0].goods) < 2:
        return
    for split in splits(manifest, seed, folds, goods=[1, 2, 5, 10], draws=2):
        fold = cut[split.fold]
        assert len(split.goods) == split.setting["n"]
        assert set(split.goods) <= set(fold.goods)
        assert (split.goods == fold.goods) == (split.condition == "all")
        kept = (fold.calibration, fold.defects, fold.tune, fold.test)
        assert (split.calibration, split.defects, split.tune, split.test) == kept
        assert split.families == EVERYONE


def test_a_draw_is_the_same_in_every_fold_and_lies_in_the_larger_ones() -> None:
    found: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for split in splits():
        if split.draw is not None:
            found.setdefault((split.draw, len(split.goods)), set()).add(split.goods)
    assert all(len(goods) == 1 for goods in found.values()), "a detector has one fit for all folds"
    for draw in range(3):
        [small, *_], *_ = [list(found[draw, n]) for n in (5, 10)]
        drawn = [set(next(iter(found[draw, n]))) for n in (5, 10, 20, 50)]
        assert set(small) == drawn[0]
        assert all(less < more for less, more in pairwise(drawn))
    assert len({next(iter(found[draw, 10])) for draw in range(3)}) == 3


def test_numbers_that_are_not_fewer_are_dropped_and_said() -> None:
    made = Goods(goods=(5, 60, 100), draws=1).splits(LARGE, 0, 4)
    assert {split.condition for split in made.splits} == {"n=5", "all"}
    assert made.notes == (
        "n=60, 100 dropped: there are 60 training goods, which `all` learns from",
        "fewer draws than 3 (1): the spread over draws is uncertain",
    )


def test_a_category_with_fewer_goods_than_any_number_is_refused() -> None:
    with pytest.raises(
        DataError, match="bolt: the goods protocol learns from 60, 80 goods, and there are 60"
    ):
        Goods(goods=(80, 60)).splits(LARGE, 0, 4)


@pytest.mark.parametrize(
    "options", [{"goods": []}, {"goods": [0]}, {"goods": [5, 5]}, {"draws": 0}, {"n": 1}]
)
def test_other_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Goods.model_validate(options)
