"""Our stores under the contract of every store."""

from __future__ import annotations

import pytest

from defectbench.stores.base import Store
from defectbench.stores.patient import PatientStore
from defectbench.testing import StoreContract
from defectbench.util.shutdown import Stop


class TestStores(StoreContract):
    @pytest.fixture
    def store_url(self, store_url: str) -> str:
        """Each kind in turn: the fixture that many tests share."""
        return store_url


class TestPatientStores(TestStores):
    @pytest.fixture
    def store(self, store: Store) -> Store:
        """The same, waited for while it is away."""
        return PatientStore(store, Stop())
