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
from defectbench.testing import ProtocolContract
from manifests import categories, category

NAMES = sorted(PROTOCOLS)


def made(name: str, manifest: Manifest, seed: int, folds: int, **options: Any) -> tuple[Split, ...]:
    """The splits, or none where the category is refused."""
    try:
        return PROTOCOLS[name].model_validate(options).splits(manifest, seed, folds).splits
    except DataError:
        return ()


class TestProtocols(ProtocolContract):
    @pytest.fixture(params=NAMES)
    def name(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)


class TestBothSchemes(ProtocolContract):
    options = ({"scheme": "both"},)

    @pytest.fixture
    def name(self) -> str:
        return "detection"


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"contamination"}))
def test_contaminants_are_of_contamination_alone(name: str) -> None:
    manifest = category(30, 12, {"crack": 9, "hole": 8, "stain": 9})
    assert not any(split.contaminants for split in made(name, manifest, 0, 4))


@pytest.mark.parametrize("name", [name for name in NAMES if not PROTOCOLS[name].changes_goods])
@settings(max_examples=20, deadline=None)
@given(manifest=categories(), folds=st.integers(3, 5), seed=st.integers(0, 3))
def test_a_detector_learns_the_same_in_every_protocol_that_keeps_the_goods(
    name: str, manifest: Manifest, folds: int, seed: int
) -> None:
    training_data = crossfit(manifest, seed, folds, name)[0]
    for split in made(name, manifest, seed, folds):
        if "detector" in split.families:
            assert split.train("detector") == training_data.train("detector"), (
                f"{name}: a detector learns other goods than in detection; if asked, set changes_goods"
            )
            assert split.calibration == training_data.calibration
            assert split.tuning("detector") == ()


def key(split: Split, family: Any) -> str:
    """The key of a fit that nothing but the split decides."""
    train, tune = split.train(family), split.tuning(family)
    return Fit("d", train, tune, split.calibration, "m", {}, {}, 1, 64, 0, 0, 0, 1, "none").key()


@pytest.mark.parametrize(
    ("name", "condition"), [("scarcity", "all"), ("contamination", "share=0"), ("goods", "all")]
)
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
