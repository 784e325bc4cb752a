"""CFA's distances: the nearest alone are held, and they are those of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from defectbench.models.detectors import anomalib_models, cfa

pytestmark = pytest.mark.torch


class Means(nn.Module):
    """What of anomalib's model compares features with means."""

    compute_distance = anomalib_models.cfa.CfaModel.compute_distance

    def __init__(self) -> None:
        super().__init__()
        self.memory_bank = torch.rand(8, 12, generator=torch.Generator().manual_seed(1))


def distances_and_gradient(features: Tensor) -> tuple[Tensor, Tensor]:
    given = features.clone().requires_grad_()
    found = cfa.nearest(Means(), given)
    found.square().sum().backward()
    assert given.grad is not None
    return found.detach(), given.grad


def test_distances_in_blocks_and_their_gradient_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.rand(2, 8, 3, 5, generator=torch.Generator().manual_seed(2))
    means: Any = Means()
    all_of_them = means.compute_distance(features).topk(6, largest=False).values
    whole, its_gradient = distances_and_gradient(features)
    monkeypatch.setattr(cfa, "_AT_ONCE", 7 * 12)
    blocks, gradient = distances_and_gradient(features)
    assert whole.shape == (2, 15, 6)
    torch.testing.assert_close(whole, all_of_them)
    torch.testing.assert_close(blocks, whole)
    torch.testing.assert_close(gradient, its_gradient)
