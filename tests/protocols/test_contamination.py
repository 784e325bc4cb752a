from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import EVERYONE, Split
from defectbench.protocols.contamination import Contamination, replaced
from defectbench.protocols.folds import crossfit
from manifests import categories, category

LARGE = category(100, 12, {"crack": 24, "stain": 24})
"""80 training goods, 20 calibration goods, pools of 24 defects."""


def splits(manifest: Manifest = LARGE, seed: int = 0, folds: int = 4, **options: object) -> tuple[Split, ...]:
    return Contamination.model_validate(options).splits(manifest, seed, folds).splits


def among(manifest: Manifest, split: Split) -> set[str]:
    """The defects among the calibration goods."""
    return {name for name in split.calibration if manifest.by_id[name].label}


@settings(max_examples=60, deadline=None)
@given(
    manifest=categories(),
    folds=st.integers(3, 5),
    seed=st.integers(0, 3),
    shares=st.lists(st.sampled_from([0.02, 0.05, 0.1, 0.3, 0.9]), min_size=1, unique=True),
)
def test_defects_of_the_pool_replace_goods_and_serve_nothing_else(
    manifest: Manifest, folds: int, seed: int, shares: list[float]
) -> None:
    cut = crossfit(manifest, seed, folds, "contamination")
    try:
        found = splits(manifest, seed, folds, shares=shares)
    except DataError:
        return
    for split in found:
        fold, share = cut[split.fold], float(split.setting["share"])
        wrong = set(split.contaminants) | among(manifest, split)
        assert wrong <= set(fold.defects)
        assert set(split.defects) == set(fold.defects) - wrong
        assert split.defects, "a classifier has nothing left to learn"
        assert not wrong & {*split.test, *split.tune}
        # They replace: the numbers of training and of calibration images stay.
        assert len(split.train("detector")) == len(fold.goods)
        assert len(split.calibration) == len(fold.calibration)
        assert len(split.contaminants) == replaced(share, len(fold.goods))
        assert len(among(manifest, split)) == replaced(share, len(fold.calibration))
        assert (split.test, split.tune, split.families) == (fold.test, fold.tune, EVERYONE)


def test_both_families_are_taught_contaminants_as_good() -> None:
    for split in splits(shares=[0.1]):
        for family in EVERYONE:
            taught = dict(split.train(family))
            assert {taught[name] for name in split.contaminants} == {0}
            assert sum(taught.values()) == (0 if family == "detector" else 24 - 8 - 2)


def test_a_share_holds_all_that_a_smaller_one_does() -> None:
    found = {(split.fold, split.setting["share"]): split for split in splits()}
    for fold in range(4):
        none, some, more = (found[fold, share] for share in (0, 0.05, 0.1))
        assert set(none.contaminants) < set(some.contaminants) < set(more.contaminants)
        assert among(LARGE, none) < among(LARGE, some) < among(LARGE, more)
        assert set(none.goods) > set(some.goods) > set(more.goods)
        assert not set(some.contaminants) & among(LARGE, more)


def test_conditions_and_numbers_are_those_of_the_default_shares() -> None:
    found = [split for split in splits() if split.fold == 0]
    told = [(s.condition, len(s.contaminants), len(among(LARGE, s)), len(s.defects)) for s in found]
    assert told == [("share=0", 0, 0, 24), ("share=0.05", 4, 1, 19), ("share=0.1", 8, 2, 14)]


def test_a_share_above_what_the_pool_gives_is_lowered_in_all_folds_and_said() -> None:
    # 80 + 20 goods and 24 defects, one of which stays to be learnt: 0.231 asks for 18 + 5.
    made = Contamination(shares=(0.0, 0.5, 0.3)).splits(LARGE, 0, 4)
    assert {split.condition for split in made.splits} == {"share=0", "share=0.231"}
    assert len([split for split in made.splits if split.condition == "share=0.231"]) == 4
    gives = "the smallest fold's pool gives 23 defects and keeps 1 to learn"
    assert made.notes == (f"share 0.3 lowered to 0.231: {gives}", f"share 0.5 lowered to 0.231: {gives}")


def test_a_share_that_replaces_nothing_is_dropped_and_said() -> None:
    made = Contamination(shares=(0.0, 0.05)).splits(category(10, 9, {"crack": 12}), 0, 4)
    assert {split.condition for split in made.splits} == {"share=0"}
    assert made.notes == ("share 0.05 dropped: it replaces none of 8 training goods",)
    with pytest.raises(DataError, match=r"bolt: no share of 0.05 puts a defect among 8 training goods"):
        splits(category(10, 9, {"crack": 12}), shares=[0.05])


def test_calibration_goods_too_few_for_a_share_are_said() -> None:
    made = Contamination(shares=(0.05,)).splits(category(40, 9, {"crack": 12}), 0, 4)
    assert made.notes == ("share 0.05 replaces none of 8 calibration goods",)


@pytest.mark.parametrize("options", [{"shares": []}, {"shares": [1]}, {"shares": [-0.1]}, {"shares": [0, 0]}])
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Contamination.model_validate(options)
