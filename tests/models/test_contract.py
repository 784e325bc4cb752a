"""What every model of the catalog owes, by enumeration: a new entry is tested by being there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest

import small_models
from defectbench import catalog
from defectbench.testing import ClassifierContract, DetectorContract, GrossDefectContract, ModelContract

pytestmark = pytest.mark.torch

SMALL: dict[str, catalog.Setting] = {"bank": 40, "batch_size": 8, "features": 20}
"""Settings that keep fits short; an entry takes those that it has."""


def each(family: str, *, at_once: bool) -> pytest.MarkDecorator:
    """Parametrise over the models that learn in one pass, or over those trained by gradient steps.

    Of class scope, so that pytest runs one model's tests after the other's and few fits are kept.
    """
    found = [entry for entry in catalog.ENTRIES if entry.family == family and bool(entry.epochs) != at_once]
    return pytest.mark.parametrize("entry", found, ids=[entry.name for entry in found], scope="class")


class OurModels:
    """How ours are kept short."""

    def changes(self, entry: catalog.Entry) -> Mapping[str, catalog.Setting]:
        own = {name: value for name, value in SMALL.items() if name in entry.settings}
        return own | small_models.changes(entry)

    def epochs(self, entry: catalog.Entry) -> int:
        """Two, to see one follow the other; one for those whose steps take long, or that count them."""
        return min(entry.epochs, 2 if entry.image_size <= 288 and "steps" not in entry.settings else 1)

    def draws(self, entry: catalog.Entry) -> bool:
        return bool(entry.weights) or "bank" in entry.settings


@each("classifier", at_once=False)
class TestClassifiers(OurModels, ClassifierContract):
    pass


@each("classifier", at_once=True)
class TestClassifiersAtOnce(OurModels, ClassifierContract, GrossDefectContract):
    pass


@each("detector", at_once=False)
class TestDetectors(OurModels, DetectorContract):
    pass


@each("detector", at_once=True)
class TestDetectorsAtOnce(OurModels, DetectorContract, GrossDefectContract):
    pass


@each("supervised", at_once=False)
class TestSupervised(OurModels, ModelContract):
    pass


class TestAnyNetwork(OurModels, ClassifierContract):
    """A network that no entry stands for."""

    @pytest.fixture
    def entry(self) -> catalog.Entry:
        return catalog.find("timm:test_vit.r160_in1k")


def test_build_names_the_missing_extra() -> None:
    code = """
import sys
sys.modules["timm"] = None
from defectbench import catalog
from defectbench.errors import ConfigurationError
from defectbench.models.base import ModelSettings
from defectbench.models.choose import build_model
entry = catalog.find("mobilenetv3-small")
try:
    build_model(entry, ModelSettings(entry.settings, 64, 1, 1, 0))
except ConfigurationError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs the extra 'train', but timm is not installed: uv sync --extra train" in ended.stdout
