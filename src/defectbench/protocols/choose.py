"""Names of protocols in a sweep."""

from __future__ import annotations

from collections.abc import Mapping

from defectbench.protocols.base import Protocol
from defectbench.protocols.detection import Detection

PROTOCOLS: Mapping[str, type[Protocol]] = {Detection.name: Detection}
