from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import LEARNERS, Split
from defectbench.protocols.folds import crossfit
from defectbench.protocols.unseen import Unseen
from manifests import categories, category

THREE = category(30, 12, {"crack": 8, "hole": 8, "stain": 12})


def splits(manifest: Manifest = THREE, seed: int = 0, folds: int = 4, **options: object) -> tuple[Split, ...]:
    return Unseen.model_validate(options).splits(manifest, seed, folds).splits


def types(manifest: Manifest, names: tuple[str, ...]) -> set[str]:
    return {manifest.by_id[name].defect_type for name in names} - {"good"}


@settings(max_examples=60, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_no_unseen_type_is_learnt_or_tuned_on(manifest: Manifest, folds: int, seed: int) -> None:
    try:
        found = splits(manifest, seed, folds)
    except DataError:
        assert len(manifest.defect_types) == 1
        return
    kinds = set(manifest.defect_types)
    for split in found:
        kind, control = str(split.setting["type"]), split.setting["control"]
        seen = {kind} if split.setting["mode"] == "one" else kinds - {kind}
        learnt, tuned, tested = (types(manifest, part) for part in (split.defects, split.tune, split.test))
        assert learnt
        assert control or learnt | tuned <= seen
        assert tested <= (seen if split.setting["tested"] == "seen" else kinds - seen)


def test_modes_learn_one_type_or_all_but_one() -> None:
    for split in splits():
        if split.setting["control"]:
            continue
        kind = split.setting["type"]
        alone = split.setting["mode"] == "one"
        assert types(THREE, split.defects) == ({kind} if alone else {"crack", "hole", "stain"} - {kind})
        assert split.condition == f"{split.setting['mode']}/{kind}/{split.setting['tested']}"


def test_seen_and_unseen_together_are_the_fold() -> None:
    tested: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for split in splits():
        tested[split.fold, *list(split.setting.values())[:2], split.setting["control"]] += split.test
    folds = crossfit(THREE, 0, 4, "unseen")
    assert len(tested) == 4 * 2 * 3 * 2
    for (fold, *_), names in tested.items():
        assert isinstance(fold, int)
        goods = [name for name in folds[fold].test if not THREE.by_id[name].label]
        assert sorted(names) == sorted([*folds[fold].test, *goods])


def test_the_control_has_as_many_defects_and_the_same_images() -> None:
    found = {(split.condition, split.fold): split for split in splits()}
    controls = [split for split in found.values() if split.setting["control"]]
    assert len(controls) == len(found) / 2
    mixed = 0
    for control in controls:
        own = found[control.condition.removesuffix("/control"), control.fold]
        assert control.test == own.test
        assert len(control.defects) == len(own.defects)
        assert len(control.tune) == len(own.tune)
        assert control.families == LEARNERS
        mixed += types(THREE, control.defects) != types(THREE, own.defects)
    assert mixed > len(controls) / 2


def test_of_two_types_one_and_all_but_the_other_are_the_same_fit() -> None:
    manifest = category(30, 12, {"crack": 12, "stain": 12})
    found = {(split.condition, split.fold): split for split in splits(manifest)}
    for tail in ("", "/control"):
        one, other = found[f"one/crack/seen{tail}", 0], found[f"all_but_one/stain/seen{tail}", 0]
        assert (one.defects, one.tune, one.test) == (other.defects, other.tune, other.test)


def test_mixed_types_are_left_out_unless_asked_for() -> None:
    manifest = category(30, 12, {"crack": 8, "stain": 8, "combined": 8})
    used = {
        kind
        for s in splits(manifest)
        for part in (s.defects, s.tune, s.test)
        for kind in types(manifest, part)
    }
    assert used == {"crack", "stain"}
    assert {split.setting["type"] for split in splits(manifest, leave_out=[])} == {
        "combined",
        "crack",
        "stain",
    }


def test_without_a_seen_defect_in_the_tuning_fold_nothing_stops_the_fit() -> None:
    manifest = category(30, 12, {"crack": 2, "stain": 12})
    alone = [split for split in splits(manifest, modes=["one"]) if split.condition == "one/crack/unseen"]
    assert {bool(types(manifest, split.tune)) for split in alone} == {True, False}
    assert all(bool(types(manifest, split.tune)) == bool(split.tune) for split in alone)


def test_one_defect_type_only_is_refused_by_name() -> None:
    with pytest.raises(
        DataError, match=r"bolt: 1 defect type \(crack\), the unseen protocol needs at least 2"
    ):
        splits(category(20, 9, {"crack": 9, "combined": 9}))


def test_a_type_too_rare_to_learn_and_test_is_said() -> None:
    made = Unseen(modes=("one",)).splits(category(20, 9, {"crack": 1, "stain": 12}), 0, 4)
    assert made.notes == ("too few defects for one/crack/seen: no fold has some to learn and others to test",)
    assert {split.condition for split in made.splits} >= {
        "one/crack/unseen",
        "one/stain/seen",
        "one/stain/unseen",
    }


BOTTLE = {"broken_large": 20, "broken_small": 22, "contamination": 21}
HAZELNUT = {"crack": 18, "cut": 17, "hole": 18, "print": 17}
CARPET = {"color": 19, "cut": 17, "hole": 17, "metal_contamination": 17, "thread": 19}
GRID = {"bent": 12, "broken": 12, "glue": 11, "metal_contamination": 11, "thread": 11}


@pytest.mark.parametrize(
    ("defects", "kind", "learnt", "validated"),
    [
        (BOTTLE, "broken_small", 16, 6),
        (HAZELNUT, "crack", 13, 5),
        (CARPET, "color", 14, 5),
        (GRID, "bent", 9, 3),
        ({"z": 2, "a": 1}, "z", 1, 1),
        ({"crack": 3, "combined": 9, "stain": 2}, "crack", 2, 1),
    ],
)
def test_mode_study_learns_the_largest_type_and_tests_all_others_without_goods(
    defects: dict[str, int], kind: str, learnt: int, validated: int
) -> None:
    manifest = category(30, 12, defects)
    (split,) = splits(manifest, modes=["study"])
    goods = tuple(image.id for image in manifest.labelled if not image.label)
    assert split.condition == f"study/{kind}/unseen"
    assert split.setting == {"mode": "study", "type": kind, "tested": "unseen", "control": 0}
    assert (len(split.defects), len(split.tune)) == (learnt, validated + 12)
    assert types(manifest, split.defects) == types(manifest, split.tune) == {kind}
    assert set(goods) < set(split.tune)
    assert split.goods == tuple(sorted(image.id for image in manifest.train))
    tested = {image.id for image in manifest.labelled if image.defect_type not in ("good", kind, "combined")}
    assert set(split.test) == tested
    assert not set(split.test) & {*split.defects, *split.tune}
    assert (split.rotate_defects, split.families, split.calibration) == (True, LEARNERS, ())


def test_mode_study_changes_nothing_of_the_others() -> None:
    assert splits(modes=["one", "study", "all_but_one"])[:-1] == splits(modes=["one", "all_but_one"])
    assert splits() == splits(modes=["one", "all_but_one"])
    assert splits(modes=["study"], seed=1) != splits(modes=["study"])


def test_mode_study_needs_no_folds() -> None:
    small = category(4, 1, {"crack": 2, "stain": 1})
    assert len(splits(small, folds=9, modes=["study"])) == 1
    with pytest.raises(DataError, match="bolt: 1 good labelled images"):
        splits(small, folds=9, modes=["one", "study"])
    with pytest.raises(DataError, match="bolt: 0 good labelled images"):
        splits(category(4, 0, {"crack": 2, "stain": 1}), modes=["study"])


def test_mode_study_says_that_a_type_is_too_small() -> None:
    made = Unseen(modes=("study",)).splits(category(20, 9, {"crack": 1, "stain": 1}), 0, 4)
    assert made.splits == ()
    assert made.notes == ("mode study: crack, the largest type, has 1 defect: 2 are needed",)


@pytest.mark.parametrize(
    "options",
    [{"modes": []}, {"modes": ["two"]}, {"modes": ["one", "one"]}, {"modes": ["Study"]}, {"mode": "one"}],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Unseen.model_validate(options)
