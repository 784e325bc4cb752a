"""What names features in the cache: the versions of the libraries that decide them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import numpy as np
import pytest

from defectbench import catalog
from defectbench.models.base import ModelSettings, TrainingData
from defectbench.models.choose import build_model
from defectbench.models.features.versions import made_with
from defectbench.models.pictures.images import ArrayPictures, Compute

SIDE = 64


class Listening(ArrayPictures):
    """Pictures of noise that remember by which names their features were asked for."""

    def __init__(self) -> None:
        super().__init__(np.random.default_rng(0).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8))
        self.heard: set[str] = set()

    def features(self, extractor: str, compute: Compute) -> Iterator[np.ndarray]:
        self.heard.add(extractor)
        return super().features(extractor, compute)


def test_made_with_names_versions_and_needs_no_library() -> None:
    expected = f"numpy-{version('numpy')}+no-such-library-none"
    assert made_with("numpy", "no-such-library") == expected


@pytest.mark.torch
@pytest.mark.parametrize(
    ("model", "settings", "libraries"),
    [
        ("filterbank-knn", {}, ("numpy", "scipy")),
        ("filterbank-logreg", {}, ("numpy", "scipy")),
        ("padim", {}, ("torch", "timm", "anomalib")),
        ("patchcore", {"backbone": "resnet18.tv_in1k"}, ("torch", "timm", "anomalib")),
        ("mobilenetv3-small", {"freeze": True, "batch_size": 4}, ("torch", "timm")),
    ],
)
def test_feature_names_hold_the_versions_that_decide_them(
    model: str, settings: dict[str, catalog.Setting], libraries: tuple[str, ...]
) -> None:
    entry, pictures = catalog.find(model), Listening()
    model_settings = ModelSettings(
        {**entry.settings, **settings}, SIDE, min(entry.epochs, 1), 0, 0, device="cpu"
    )
    labels = np.array([0, 0, 0, 0, 1, 1]) if entry.family == "classifier" else np.zeros(6, np.int64)
    build_model(entry, model_settings).fit(TrainingData(pictures, labels), lambda progress: None)
    (name,) = pictures.heard
    assert all(f"{library}-{version(library)}" in name for library in libraries), name
