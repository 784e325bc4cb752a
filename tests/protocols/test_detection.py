"""What the splits promise, over made-up categories of many shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from defectbench.data.manifest import GOOD, Manifest, make_manifest
from defectbench.errors import DataError
from defectbench.protocols.base import Split, part_training_goods
from defectbench.protocols.detection import Detection
from manifests import categories, category


def splits(manifest: Manifest, seed: int = 0, **options: object) -> list[Split]:
    protocol = Detection.model_validate(options)
    return list(protocol.splits(manifest, seed, protocol.folds).splits)


@settings(max_examples=60, deadline=None)
@given(
    train=st.integers(5, 40),
    good=st.integers(5, 30),
    defects=st.lists(st.integers(1, 15), min_size=1, max_size=5).filter(lambda counts: sum(counts) >= 5),
    folds=st.integers(3, 5),
    seed=st.integers(0, 3),
)
def test_crossfit_tests_every_labelled_image_once_and_never_learns_from_it(
    train: int, good: int, defects: list[int], folds: int, seed: int
) -> None:
    manifest = category(train, good, {f"type{k}": count for k, count in enumerate(defects)})
    found = splits(manifest, seed, folds=folds)
    labelled = sorted(image.id for image in manifest.labelled)
    assert sorted(name for split in found for name in split.test) == labelled
    for split in found:
        learnt = {name for name, _ in split.train("classifier")}
        assert not learnt & set(split.test)
        assert not learnt & set(split.tune)
        assert not learnt & set(split.calibration)
        assert not set(split.tune) & set(split.test)
        labels = {manifest.by_id[name].label for name in split.test}
        assert labels == {0, 1}
        # Goods of the test part never train, and every taught label is the true one.
        assert all(manifest.by_id[name].label == label for name, label in split.train("classifier"))
        assert all(
            manifest.by_id[name].part == "train" for name, label in split.train("classifier") if not label
        )


def test_crossfit_spreads_every_defect_type_evenly() -> None:
    manifest = category(20, 12, {"crack": 8, "stain": 9, "hole": 3})
    for kind, count in {"crack": 8, "stain": 9, "hole": 3, GOOD: 12}.items():
        by_fold = [
            sum(manifest.by_id[name].defect_type == kind for name in split.test) for split in splits(manifest)
        ]
        assert sum(by_fold) == count
        assert max(by_fold) - min(by_fold) <= 1


def test_crossfit_gives_a_detector_one_lesson_in_all_folds() -> None:
    found = splits(category())
    assert len({(split.train("detector"), split.tuning("detector")) for split in found}) == 1
    assert all(not split.tuning("detector") for split in found)
    assert len({split.train("classifier") for split in found}) == len(found)


def test_crossfit_tunes_on_the_next_fold() -> None:
    found = splits(category(), folds=3)
    assert [split.tune for split in found] == [found[1].test, found[2].test, found[0].test]


def test_splits_depend_on_the_split_seed_and_the_data_alone() -> None:
    manifest = category()
    assert splits(manifest, 1) == splits(manifest, 1)
    assert splits(manifest, 1) != splits(manifest, 2)
    other = make_manifest("parts", "bolt", [*manifest.images[:-1], replace(manifest.images[-1], sha256="0")])
    assert splits(other, 1) != splits(manifest, 1)


def test_calibration_is_a_fixed_fifth_of_the_training_part() -> None:
    manifest = category(train=50)
    goods, calibration = part_training_goods(manifest, 0)
    assert len(calibration) == 10
    assert sorted((*goods, *calibration)) == [image.id for image in manifest.train]
    assert all(split.calibration == calibration for split in splits(manifest, 0, folds=5))


def counted(manifest: Manifest, names: Iterable[str]) -> tuple[int, int]:
    """Return (goods, defects)."""
    labels = [manifest.by_id[name].label for name in names]
    return labels.count(0), labels.count(1)


@pytest.mark.parametrize(
    ("goods", "defects", "detector_tests", "classifier"),
    [
        # MVTec AD's bottle, hazelnut, carpet, grid: tested as the published figures of the study have it.
        (20, {"broken_large": 20, "broken_small": 22, "contamination": 21}, (10, 32), (31, 16, 16)),
        (40, {"crack": 18, "cut": 17, "hole": 18, "print": 17}, (20, 35), (35, 17, 18)),
        (28, {"color": 19, "cut": 17, "hole": 17, "metal": 17, "thread": 19}, (14, 45), (44, 22, 23)),
        (21, {"bent": 12, "broken": 12, "glue": 11, "metal": 11, "thread": 11}, (11, 29), (28, 14, 15)),
        (3, {"crack": 3}, (2, 2), (1, 1, 1)),
        (4, {"crack": 5}, (2, 3), (2, 1, 2)),
    ],
)
def test_holdout_has_the_sizes_of_the_original_study(
    goods: int, defects: dict[str, int], detector_tests: tuple[int, int], classifier: tuple[int, int, int]
) -> None:
    manifest = category(30, goods, defects)
    ours, theirs = reversed(splits(manifest, scheme="holdout"))
    number = sum(defects.values())
    assert counted(manifest, theirs.test) == detector_tests
    assert counted(manifest, theirs.tune) == (goods - detector_tests[0], number - detector_tests[1])
    learnt, validated, tested = classifier
    assert len(ours.defects) == learnt
    assert counted(manifest, ours.tune) == (goods - detector_tests[0], validated)
    assert counted(manifest, ours.test) == (detector_tests[0], tested)


@settings(max_examples=60, deadline=None)
@given(manifest=categories(), seed=st.integers(0, 3))
def test_holdout_uses_every_labelled_image_once_and_trains_on_no_good_of_the_test_part(
    manifest: Manifest, seed: int
) -> None:
    detector, classifier = splits(manifest, seed, scheme="holdout")
    labelled = sorted(image.id for image in manifest.labelled)
    assert sorted((*detector.tune, *detector.test)) == labelled
    assert sorted((*classifier.defects, *classifier.tune, *classifier.test)) == labelled
    for split in (detector, classifier):
        assert split.goods == tuple(sorted(image.id for image in manifest.train))
        assert split.calibration == ()
        assert all((*counted(manifest, split.test), *counted(manifest, split.tune))), "both classes in each"
    assert set(classifier.test) <= set(detector.test)
    assert (detector.families, classifier.families) == (("detector",), ("classifier", "supervised"))
    assert detector.tuning("detector") == detector.tune
    assert (detector.detector_stops, classifier.rotate_defects) == (True, True)
    assert not detector.rotate_defects


def test_holdout_draws_over_the_class_without_strata() -> None:
    manifest = category(20, 12, {"crack": 8, "hole": 8, "stain": 8})
    drawn = set()
    for seed in range(8):
        detector, _ = splits(manifest, seed, scheme="holdout")
        kinds = Counter(manifest.by_id[name].defect_type for name in detector.test)
        assert kinds.total() - kinds[GOOD] == 12
        drawn.add((kinds["crack"], kinds["hole"], kinds["stain"]))
    assert len(drawn) > 2, "strata would give 4, 4, 4 each time"


def test_both_is_crossfit_and_beside_it_the_holdout_under_its_own_name() -> None:
    manifest = category(30, 20, {"crack": 12, "stain": 12})
    found = splits(manifest, scheme="both")
    assert found[:4] == splits(manifest)
    assert [replace(split, protocol="detection") for split in found[4:]] == list(
        splits(manifest, scheme="holdout")
    )
    assert {split.protocol for split in found[4:]} == {"holdout"}
    assert Detection(scheme="both", folds=3).model_dump() == {"scheme": "both", "folds": 3}


def test_holdout_needs_some_of_each_class_in_every_part() -> None:
    with pytest.raises(DataError) as caught:
        splits(category(1, 2, {"crack": 2}), scheme="holdout")
    assert caught.value.problems == (
        "bolt: 1 training goods, the detection protocol needs at least 2",
        "bolt: 2 good labelled images, the detection protocol needs at least 3",
        "bolt: 2 defective labelled images, the detection protocol needs at least 3",
    )


def test_a_category_too_small_is_refused_with_all_that_it_lacks() -> None:
    with pytest.raises(DataError) as caught:
        splits(category(1, 2, {"crack": 2}), folds=3)
    assert caught.value.problems == (
        "bolt: 1 training goods, the detection protocol needs at least 2",
        "bolt: 2 good labelled images, the detection protocol needs at least 3",
        "bolt: 2 defective labelled images, the detection protocol needs at least 3",
    )
