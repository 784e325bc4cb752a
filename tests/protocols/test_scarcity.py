from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from defectbench.data.manifest import Manifest
from defectbench.protocols.base import LEARNERS, Split
from defectbench.protocols.folds import crossfit
from defectbench.protocols.scarcity import Scarcity
from manifests import categories, category

LARGE = category(30, 12, {"crack": 24, "stain": 24})
"""Its pools have 24 defects."""


def splits(manifest: Manifest = LARGE, seed: int = 0, folds: int = 4, **options: object) -> tuple[Split, ...]:
    return Scarcity.model_validate(options).splits(manifest, seed, folds).splits


def used(manifest: Manifest, split: Split) -> set[str]:
    """All labelled defects that a split's classifier depends on."""
    return {name for name in (*split.defects, *split.tune) if manifest.by_id[name].label}


@settings(max_examples=60, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_n_counts_every_labelled_defect_and_a_quarter_tunes_from_eight_on(
    manifest: Manifest, folds: int, seed: int
) -> None:
    cut = crossfit(manifest, seed, folds, "scarcity")
    for split in splits(manifest, seed, folds, defects=[1, 2, 3, 4, 7, 8, 9, 11, 12, 16], draws=2):
        n = split.setting["n"]
        assert len(used(manifest, split)) == n
        tuning = [name for name in split.tune if manifest.by_id[name].label]
        if split.condition == "all":
            assert (split.defects, split.tune) == (cut[split.fold].defects, cut[split.fold].tune)
            continue
        assert used(manifest, split) <= set(cut[split.fold].defects)
        assert len(tuning) == (n // 4 if n >= 8 else 0)
        goods = {name for name in cut[split.fold].tune if not manifest.by_id[name].label}
        assert set(split.tune) - set(tuning) == (goods if tuning else set())


def test_a_draw_of_n_lies_in_that_of_twice_as_many() -> None:
    found = {(s.fold, s.draw, s.setting["n"]): s for s in splits(defects=list(range(1, 25)), draws=3)}
    for (fold, draw, n), split in found.items():
        twice = found.get((fold, draw, 2 * n))
        if twice is not None and draw is not None:
            assert used(LARGE, split) < used(LARGE, twice)


def test_what_the_default_numbers_teach_is_learnt_by_the_larger_ones() -> None:
    found = {(s.fold, s.draw, s.setting["n"]): set(s.defects) for s in splits()}
    for fold in range(4):
        for draw in range(10):
            lessons = [found[fold, draw, n] for n in (1, 2, 4, 8, 16)]
            assert all(small < large for small, large in pairwise(lessons))


def test_draws_differ_and_are_ten() -> None:
    eights = [split for split in splits() if split.condition == "n=8" and split.fold == 0]
    assert [split.draw for split in eights] == list(range(10))
    assert len({split.defects for split in eights}) == 10
    assert [split.drawn for split in eights[:2]] == ["n=8/draw0", "n=8/draw1"]


def test_detectors_read_all_alone() -> None:
    for split in splits():
        assert ("detector" in split.families) == (split.condition == "all")
        assert set(LEARNERS) <= set(split.families)


def test_supervised_detectors_learn_the_same_defects_as_classifiers() -> None:
    for split in splits():
        assert split.train("supervised") == split.train("classifier")
        assert split.tuning("supervised") == split.tuning("classifier") == split.tune


def test_a_number_above_the_smallest_pool_is_dropped_and_said() -> None:
    manifest = category(30, 12, {"crack": 13, "stain": 12})
    pools = [len(fold.defects) for fold in crossfit(manifest, 0, 4, "scarcity")]
    assert (min(pools), max(pools)) == (12, 13)
    made = Scarcity(defects=(4, 12, 13, 16)).splits(manifest, 0, 4)
    assert made.notes == ("n=13, 16 dropped: the smallest fold's pool has 12 defects",)
    assert {split.condition for split in made.splits} == {"n=4", "n=12", "all"}
    assert {split.fold for split in made.splits if split.condition == "n=12"} == {0, 1, 2, 3}


def test_all_is_there_where_no_number_is() -> None:
    found = splits(defects=[100])
    assert [split.condition for split in found] == ["all"] * 4


def test_few_draws_are_taken_and_said() -> None:
    made = Scarcity(draws=2, defects=(1,)).splits(LARGE, 0, 4)
    assert made.notes == ("fewer draws than 10 (2): the spread over draws is uncertain",)
    assert Scarcity(defects=(1,)).splits(LARGE, 0, 4).notes == ()


@pytest.mark.parametrize(
    "options",
    [{"defects": []}, {"defects": [0]}, {"defects": [2, 2]}, {"defects": [1.5]}, {"draws": 0}, {"n": [1]}],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scarcity.model_validate(options)
