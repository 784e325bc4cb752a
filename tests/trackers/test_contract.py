"""MLflow under the contract of every tracker."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("mlflow")
from defectbench.testing import TrackerContract
from defectbench.trackers.base import Tracker
from defectbench.trackers.choose import open_tracker

pytestmark = pytest.mark.mlflow


class TestDatabase(TrackerContract):
    @pytest.fixture
    def tracker(self, database: Path) -> Tracker:
        return open_tracker(str(database))
