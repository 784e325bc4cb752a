"""Layouts of data sets: which file is a picture, which a mask, and what is neither."""

from __future__ import annotations

from defectbench.data.layouts.assemble import NO_WISHES, Wishes
from defectbench.data.layouts.base import DatasetReading, Source
from defectbench.data.layouts.cutting import FEW, TEST_SHARE
from defectbench.data.layouts.registry import LAYOUTS, read_layout

__all__ = ["FEW", "LAYOUTS", "NO_WISHES", "TEST_SHARE", "DatasetReading", "Source", "Wishes", "read_layout"]
