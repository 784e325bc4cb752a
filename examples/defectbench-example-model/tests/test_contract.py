"""The model under the contract of every detector."""

from __future__ import annotations

import pytest

from defectbench import catalog
from defectbench.testing import DetectorContract


class TestThumbnailKnn(DetectorContract):
    @pytest.fixture
    def entry(self) -> catalog.Entry:
        return catalog.find("thumbnail-knn")
