"""Groups stay whole in every protocol; without groups nothing changes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from defectbench.data.manifest import GOOD, Image, Manifest, Part, make_manifest
from defectbench.errors import DataError
from defectbench.protocols.base import Protocol, Split, deal, part_training_goods
from defectbench.protocols.contamination import Contamination
from defectbench.protocols.detection import Detection
from defectbench.protocols.groups import boundary, cut, shuffled, units_of
from defectbench.protocols.scarcity import Scarcity
from defectbench.protocols.unseen import Unseen
from manifests import category

EVERY: Mapping[str, Protocol] = {
    "detection": Detection(),
    "holdout": Detection(scheme="holdout"),
    "unseen": Unseen(modes=("one", "all_but_one", "study")),
    "scarcity": Scarcity(defects=(1, 2, 4, 8, 16), draws=3),
    "contamination": Contamination(shares=(0.0, 0.1, 0.2)),
}


def grouped(frames: int = 3, train: int = 20, goods: int = 12, defects: int = 8) -> Manifest:
    """Return parts with ``frames`` images each: two types of defect, and some parts with a good frame too."""
    images = []
    for part in range(train):
        images += [_image("train", GOOD, f"t{part}", frame) for frame in range(frames)]
    for part in range(goods):
        images += [_image("test", GOOD, f"g{part}", frame) for frame in range(frames)]
    for kind in ("crack", "stain"):
        for part in range(defects):
            images += [_image("test", kind, f"{kind}{part}", frame) for frame in range(frames)]
            if part % 4 == 0:
                images.append(_image("test", GOOD, f"{kind}{part}", frames))
    return make_manifest("parts", "bolt", images)


def _image(part: Part, kind: str, group: str, frame: int) -> Image:
    name = f"{part}/{kind}/{group}_{frame}"
    return Image(name, f"{name}.png", "0" * 64, part, int(kind != GOOD), kind, 8, 8, group=group)


def roles(split: Split) -> dict[str, set[str]]:
    return {
        "learnt": {*split.goods, *split.contaminants, *split.defects},
        "calibration": set(split.calibration),
        "tune": set(split.tune),
        "test": set(split.test),
    }


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("frames", [2, 5])
def test_group_is_never_split_between_learning_and_testing(name: str, frames: int) -> None:
    manifest = grouped(frames)
    made = EVERY[name].splits(manifest, 0, 4).splits
    assert made
    for split in made:
        found = defaultdict(set)
        for role, ids in roles(split).items():
            for each in ids:
                found[manifest.by_id[each].unit].add(role)
        spread = {unit: where for unit, where in found.items() if len(where) > 1}
        assert not spread, f"{split.condition}: {spread}"


def test_folds_hold_every_image_once_and_are_stratified() -> None:
    manifest = grouped(3)
    parts = deal(manifest, 0, "folds", range(4))
    assert sorted(name for part in parts for name in part) == sorted(i.id for i in manifest.labelled)
    counts = [Counter(manifest.by_id[name].defect_type for name in part) for part in parts]
    for kind in (GOOD, "crack", "stain"):
        sizes = [each[kind] for each in counts]
        assert max(sizes) - min(sizes) <= 4, (kind, sizes)


def test_calibration_takes_about_a_fifth_in_whole_groups() -> None:
    manifest = grouped(3, train=20)
    goods, calibration = part_training_goods(manifest, 0)
    assert (len(goods), len(calibration)) == (48, 12)
    for few in (2, 3):
        goods, calibration = part_training_goods(grouped(5, train=few), 0)
        assert len(calibration) == 5
        assert len(goods) == 5 * (few - 1)


@given(st.integers(0, 5))
def test_groups_of_one_image_cut_as_none_do(seed: int) -> None:
    """Each image in a group of its own: other digests and so other draws, but the same sizes."""
    plain = category(25, 12, {"crack": 6, "stain": 7})
    alone = Manifest(
        plain.dataset, plain.category, tuple(replace(image, group=image.id) for image in plain.images)
    )
    assert alone.digest != plain.digest
    for name, protocol in EVERY.items():
        ours, theirs = (protocol.splits(each, seed, 4).splits for each in (alone, plain))
        assert [split.condition for split in ours] == [split.condition for split in theirs], name
        if name != "unseen":
            assert [len(split.goods) for split in ours] == [len(split.goods) for split in theirs], name


def test_digest_without_groups_is_that_of_version_0_1_0() -> None:
    manifest = category(2, 1, {"crack": 1})
    assert all("group" not in image.to_document() for image in manifest.images)
    assert b"group" not in manifest.to_json()
    some = make_manifest("d", "c", [replace(manifest.images[0], group="a"), *manifest.images[1:]])
    assert Manifest.from_json(some.to_json()) == some
    assert some.digest != manifest.digest


def test_shuffled_groups_follow_one_another() -> None:
    manifest = grouped(4)
    order = shuffled(manifest.train, np.random.default_rng(1))
    units = [manifest.by_id[name].unit for name in order]
    assert len(units_of(manifest.train)) == 1 + sum(a != b for a, b in pairwise(units))
    place = boundary(manifest, order, 6)
    assert place in (4, 8)
    halves = cut(manifest, order, 0.5)
    assert not {manifest.by_id[n].unit for n in halves[0]} & {manifest.by_id[n].unit for n in halves[1]}


def test_too_few_groups_are_named() -> None:
    manifest = grouped(6, train=20, goods=2, defects=1)
    with pytest.raises(DataError, match=r"good labelled images in 4 groups|would have no"):
        Detection(folds=5).splits(manifest, 0, 5)
    single = make_manifest(
        "parts", "bolt", [replace(image, group="one") for image in category(9, 9, {"crack": 9}).images]
    )
    with pytest.raises(DataError) as caught:
        Detection().splits(single, 0, 4)
    assert (
        "bolt: 9 training goods in 1 groups, the detection protocol needs at least 2" in caught.value.problems
    )


def test_uncertain_images_are_in_no_split() -> None:
    manifest = grouped(2)
    doubt = Image("uncertain/x", "uncertain/x.png", "1" * 64, "uncertain", -1, "uncertain", 8, 8)
    wider = make_manifest("parts", "bolt", [*manifest.images, doubt])
    assert wider.uncertain == (doubt,)
    for protocol in EVERY.values():
        for split in protocol.splits(wider, 0, 4).splits:
            assert all("uncertain/x" not in ids for ids in roles(split).values())
