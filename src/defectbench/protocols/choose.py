"""Names of protocols in a sweep."""

from __future__ import annotations

from collections.abc import Mapping

from defectbench.protocols.base import Protocol
from defectbench.protocols.contamination import Contamination
from defectbench.protocols.detection import Detection
from defectbench.protocols.scarcity import Scarcity
from defectbench.protocols.unseen import Unseen

PROTOCOLS: Mapping[str, type[Protocol]] = {
    kind.name: kind for kind in (Detection, Unseen, Scarcity, Contamination)
}
"""In the order of a plan: detection first, because its cells keep heat maps and others share them."""
