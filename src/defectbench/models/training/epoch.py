"""What both training loops keep of an epoch: the one under way, and the best so far.

The loops themselves stay two (``gradient_detector`` and ``timm_classifier``): each draws its random numbers
in an order of its own, which decides the bits of a fit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from defectbench.models.training import checkpoint


@dataclass
class Epoch:
    """An epoch under way.

    Attributes:
        order: the pictures in the order in which they are shown, (n,).
        losses: one for each batch that is done; their number is the place in the order, too.
        rate: learning rate at its beginning, where a loop reports it.
    """

    order: NDArray[np.int64]
    losses: list[float] = field(default_factory=list)
    rate: float = 0.0


@dataclass
class BestEpoch:
    """The best epoch so far.

    Attributes:
        figures: its tuning AUROC and, as the tie-break, its tuning loss with the sign changed.
        waited: how many epochs ago the AUROC last rose.
        state: what was trained, as it was then; None before the first tuning.
    """

    figures: tuple[float, float] = (-math.inf, -math.inf)
    waited: int = 0
    state: dict[str, Tensor] | None = None

    def see(self, auroc: float, state: Mapping[str, Tensor], loss: float = 0.0) -> None:
        """Note an epoch's figures; equal figures leave the earlier epoch the best."""
        # A lower loss at an equal AUROC keeps the state, but does not prolong the fit.
        self.waited = 0 if auroc > self.figures[0] else self.waited + 1
        if (auroc, -loss) > self.figures:
            self.figures, self.state = (auroc, -loss), checkpoint.copied(state)

    def over(self, patience: int) -> bool:
        """Whether the patience is used up; 0 is never used up."""
        return self.waited >= patience > 0
