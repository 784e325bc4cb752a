"""What the splits of every protocol promise: no tested image is learnt from, tuned on or calibrated by."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest

from defectbench.data.manifest import GOOD, Image, Manifest, make_manifest
from defectbench.errors import DataError
from defectbench.protocols.base import EVERYONE, Protocol, Split
from defectbench.protocols.choose import PROTOCOLS, describe
from defectbench.protocols.folds import crossfit

CATEGORIES = 40
"""Made-up categories that the splits are made of."""


def made_up_category(train: int, good: int, defects: Mapping[str, int]) -> Manifest:
    """Return the manifest of a category without pictures.

    Args:
        train, good: goods in the training part and in the labelled part.
        defects: defect type -> how many.
    """
    images = [_image("train", GOOD, number) for number in range(train)]
    for kind, count in {GOOD: good, **defects}.items():
        images += [_image("test", kind, number) for number in range(count)]
    return make_manifest("parts", "bolt", images)


def _image(part: str, kind: str, number: int) -> Image:
    """Return an image whose content is its name."""
    name = f"{part}/{kind}/{number:03d}"
    label = int(kind != GOOD)
    return Image(name, name + ".png", name.encode().hex(), part, label, kind, 8, 8)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SplitCase:
    """A category and what its splits depend on."""

    manifest: Manifest
    folds: int
    seed: int


@cache
def split_cases() -> tuple[SplitCase, ...]:
    """Return categories of many shapes, the same at every call; all are large enough for five folds."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(CATEGORIES):
        counts = rng.integers(1, 16, rng.integers(1, 6)).tolist()
        counts[0] += max(0, 5 - sum(counts))
        kinds = {f"type{place}": count for place, count in enumerate(counts)}
        manifest = made_up_category(int(rng.integers(5, 41)), int(rng.integers(5, 31)), kinds)
        found.append(SplitCase(manifest, 3 + number % 3, number % 4))
    return tuple(found)


class ProtocolContract:
    """Subclass it as ``TestMine`` and give the fixture ``name``: what a sweep calls the protocol.

    Attributes:
        options: sets of options that its splits are made with; the defaults alone where there are no others.
    """

    options: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    @pytest.fixture
    def name(self) -> str:
        """What a sweep calls it, so that its registration is tested too."""
        raise NotImplementedError("give the fixture name: what a sweep calls the protocol")

    @pytest.fixture
    def kind(self, name: str) -> type[Protocol]:
        """Its class, as it is registered."""
        return PROTOCOLS[name]

    def made(self, kind: type[Protocol]) -> Iterator[tuple[SplitCase, Split]]:
        """Yield every split of every made-up category that is not refused."""
        for options in self.options:
            protocol = kind.model_validate(options)
            for case in split_cases():
                try:
                    splits = protocol.splits(case.manifest, case.seed, case.folds).splits
                except DataError:
                    continue
                for split in splits:
                    yield case, split

    def test_protocol_splits_some_categories(self, kind: type[Protocol]) -> None:
        assert len({case.manifest.digest for case, _ in self.made(kind)}) >= CATEGORIES // 4

    def test_no_tested_image_is_learnt_tuned_on_or_calibrated_by(self, kind: type[Protocol]) -> None:
        for case, split in self.made(kind):
            assert split.families, "nobody reads this split"
            assert set(split.families) <= set(EVERYONE)
            for family in split.families:
                learnt = [image for image, _ in split.train(family)]
                parts = [set(learnt), set(split.tune), set(split.calibration), set(split.test)]
                assert len(learnt) == len(parts[0]), "an image is trained on twice"
                assert sum(map(len, parts)) == len(set.union(*parts)), "two parts share an image"
            assert {case.manifest.by_id[image].label for image in split.test} == {0, 1}

    def test_paired_splits_test_the_images_of_their_fold(self, kind: type[Protocol]) -> None:
        for case, split in self.made(kind):
            if not describe(split.protocol).paired:
                continue
            cut = crossfit(case.manifest, case.seed, case.folds, split.protocol)
            own = next(fold for fold in cut if fold.fold == split.fold)
            assert set(split.test) <= set(own.test)
            assert set(split.tune) <= {*own.tune, *own.defects}

    def test_training_labels_are_true_but_for_contaminants(self, kind: type[Protocol]) -> None:
        for case, split in self.made(kind):
            for family in split.families:
                for image, label in split.train(family):
                    true = case.manifest.by_id[image]
                    assert true.label == (1 if image in split.contaminants else label)

    def test_paired_splits_learn_goods_and_calibrate_by_the_training_part(self, kind: type[Protocol]) -> None:
        for case, split in self.made(kind):
            if not describe(split.protocol).paired:
                continue
            by_id = case.manifest.by_id
            goods = [image for image in (*split.goods, *split.calibration) if not by_id[image].label]
            assert all(by_id[image].part == "train" for image in goods)
            calibrating = [image for image in split.calibration if by_id[image].label]
            assert split.contaminants or not calibrating, "a defect calibrates"

    def test_splits_come_from_the_split_seed_alone(self, kind: type[Protocol]) -> None:
        manifest = made_up_category(30, 12, {"crack": 9, "hole": 8, "stain": 9})
        for options in self.options:
            protocol = kind.model_validate(options)
            assert protocol.splits(manifest, 1, 4) == protocol.splits(manifest, 1, 4)
            assert protocol.splits(manifest, 1, 4) != protocol.splits(manifest, 2, 4)

    def test_a_category_too_small_is_refused_by_the_categorys_and_the_protocols_name(
        self, kind: type[Protocol], name: str
    ) -> None:
        with pytest.raises(DataError, match=rf"bolt: .*{name}"):
            kind().splits(made_up_category(20, 2, {"crack": 9, "stain": 9}), 0, 4)

    def test_every_split_carries_a_name_that_is_described(self, kind: type[Protocol], name: str) -> None:
        described = {each.name: each for each in kind.descriptions}
        assert next(iter(described)) == name == kind.name
        assert all(each.text.strip() for each in described.values())
        assert {split.protocol for _, split in self.made(kind)} <= set(described)

    def test_splits_and_options_can_be_kept_as_json(self, kind: type[Protocol]) -> None:
        for options in self.options:
            protocol = kind.model_validate(options)
            assert kind.model_validate(protocol.model_dump(mode="json")) == protocol
        _, split = next(self.made(kind))
        assert dict(json.loads(json.dumps(asdict(split)))["setting"]) == dict(split.setting)
