"""Published weights that several models share."""

from __future__ import annotations

from defectbench.catalog.entry import Weights

WIDE_RESNET50 = Weights(
    "wide_resnet50_2.tv_in1k", "timm wide_resnet50_2.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause"
)
RESNET18 = Weights("resnet18.tv_in1k", "timm resnet18.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause")
