"""Our stores under the contract of every store."""

from __future__ import annotations

import pytest

from defectbench.testing import StoreContract


class TestStores(StoreContract):
    @pytest.fixture
    def store_url(self, store_url: str) -> str:
        """Each kind in turn: the fixture that many tests share."""
        return store_url
