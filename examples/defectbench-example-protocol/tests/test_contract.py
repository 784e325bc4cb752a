"""The protocol under the contract of every protocol."""

from __future__ import annotations

import pytest

from defectbench.testing import ProtocolContract


class TestFewGoods(ProtocolContract):
    options = ({}, {"goods": [2, 3]})

    @pytest.fixture
    def name(self) -> str:
        return "few_goods"
