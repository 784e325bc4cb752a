"""UniNet's loss in blocks is anomalib's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from defectbench.models.detectors import uninet
from defectbench.models.detectors.anomalib_models import UniNetLoss

pytestmark = pytest.mark.torch
LABELS = torch.zeros(2)


def features(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 8, 4, side, generator=generator).requires_grad_() for side in (6, 3)]


def loss_and_gradients(loss: UniNetLoss, stop: bool) -> tuple[Tensor, list[Tensor | None]]:
    ours, theirs = features(1), features(2)
    value = loss(ours, theirs, mask=LABELS, stop_gradient=stop)
    value.backward()
    return value.detach(), [each.grad for each in (*ours, *theirs)]


@pytest.mark.parametrize("stop", [False, True])
@pytest.mark.parametrize("at_once", [1 << 24, 2 * 24 * 5])
def test_loss_of_goods_is_anomalib_s(monkeypatch: pytest.MonkeyPatch, stop: bool, at_once: int) -> None:
    monkeypatch.setattr(uninet, "_AT_ONCE", at_once)
    expected, gradients = loss_and_gradients(UniNetLoss(temperature=0.1), stop)
    value, found = loss_and_gradients(uninet.GoodsLoss(temperature=0.1), stop)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(found, gradients, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
