"""What holds for the splits of every protocol: no tested image is learnt from, tuned on or calibrated by."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import EVERYONE, Split
from defectbench.protocols.choose import PROTOCOLS
from defectbench.protocols.folds import crossfit
from defectbench.records.cell import Fit
from manifests import categories, category

NAMES = sorted(PROTOCOLS)


def made(name: str, manifest: Manifest, seed: int, folds: int, **options: Any) -> tuple[Split, ...]:
    """The splits, or none where the category is refused."""
    try:
        return PROTOCOLS[name].model_validate(options).splits(manifest, seed, folds).splits
    except DataError:
        return ()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_no_tested_image_is_learnt_tuned_on_or_calibrated_by(
    name: str, manifest: Manifest, folds: int, seed: int
) -> None:
    cut = {fold.fold: fold for fold in crossfit(manifest, seed, folds, name)}
    for split in made(name, manifest, seed, folds):
        for family in split.families:
            learnt = [image for image, _ in split.train(family)]
            parts = [set(learnt), set(split.tune), set(split.calibration), set(split.test)]
            assert len(learnt) == len(parts[0]), "an image is taught twice"
            assert sum(map(len, parts)) == len(set.union(*parts)), "two parts share an image"
        assert set(split.test) <= set(cut[split.fold].test)
        assert set(split.tune) <= {*cut[split.fold].tune, *cut[split.fold].defects}
        assert {manifest.by_id[image].label for image in split.test} == {0, 1}


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_test_goods_never_train_and_labels_taught_are_true_but_for_contaminants(
    name: str, manifest: Manifest, folds: int, seed: int
) -> None:
    for split in made(name, manifest, seed, folds):
        for family in split.families:
            for image, taught in split.train(family):
                true = manifest.by_id[image]
                assert true.label == (1 if image in split.contaminants else taught)
                assert true.label or true.part == "train"
        assert name == "contamination" or not split.contaminants
        goods = [image for image in split.calibration if not manifest.by_id[image].label]
        assert all(manifest.by_id[image].part == "train" for image in goods)
        assert name == "contamination" or len(goods) == len(split.calibration)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"contamination"}))
@settings(max_examples=20, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_a_detector_has_one_lesson_in_all_protocols(
    name: str, manifest: Manifest, folds: int, seed: int
) -> None:
    training_data = crossfit(manifest, seed, folds, name)[0]
    for split in made(name, manifest, seed, folds):
        if "detector" in split.families:
            assert split.train("detector") == training_data.train("detector")
            assert split.calibration == training_data.calibration
            assert split.tuning("detector") == ()


@pytest.mark.parametrize("name", NAMES)
def test_splits_come_from_the_split_seed_alone(name: str) -> None:
    manifest = category(30, 12, {"crack": 9, "hole": 8, "stain": 9})
    assert made(name, manifest, 1, 4) == made(name, manifest, 1, 4)
    assert made(name, manifest, 1, 4) != made(name, manifest, 2, 4)


def key(split: Split, family: Any) -> str:
    """The key of a fit that nothing but the split decides."""
    train, tune = split.train(family), split.tuning(family)
    return Fit("d", train, tune, split.calibration, "m", {}, {}, 1, 64, 0, 0, 0, 1, "none").key()


@pytest.mark.parametrize(("name", "condition"), [("scarcity", "all"), ("contamination", "share=0")])
def test_the_ends_of_a_scale_are_the_fits_of_detection(name: str, condition: str) -> None:
    manifest = category(30, 12, {"crack": 9, "hole": 8, "stain": 9})
    detection = made("detection", manifest, 0, 4)
    ends = [split for split in made(name, manifest, 0, 4) if split.condition == condition]
    assert len(ends) == len(detection) == 4
    for end, split in zip(ends, detection, strict=True):
        assert (end.fold, end.test, end.tune) == (split.fold, split.test, split.tune)
        for family in EVERYONE:
            assert key(end, family) == key(split, family)


@pytest.mark.parametrize("name", NAMES)
def test_a_category_too_small_is_refused_by_the_protocols_name(name: str) -> None:
    with pytest.raises(
        DataError, match=f"bolt: 2 good labelled images, the {name} protocol needs at least 4"
    ):
        PROTOCOLS[name]().splits(category(20, 2, {"crack": 9, "stain": 9}), 0, 4)
