"""Smaller networks of the same class, for tests that fit every entry of the catalog."""

from __future__ import annotations

from collections.abc import Mapping

from defectbench import catalog

_RESNET = "test_resnet.r160_in1k"

DETECTORS: Mapping[str, Mapping[str, catalog.Setting]] = {
    **{
        name: {"backbone": _RESNET, "batch_size": 4}
        for name in ("glass", "simplenet", "supersimplenet", "supersimplenet-supervised", "stfpm")
    },
    "patchcore": {"backbone": _RESNET},
    "patchcore-16shot": {"backbone": _RESNET, "shots": 3},
    "patchcore-large": {
        **dict.fromkeys(("backbone", "second_backbone", "third_backbone"), _RESNET),
        "third_layers": ("layer2", "layer3"),
        "coreset": 0.1,
    },
    # Anomalib's decoders, flows and descriptors are made for these alone.
    "reverse-distillation": {"backbone": "resnet18.tv_in1k", "batch_size": 4},
    "fastflow": {"backbone": "resnet18.tv_in1k", "batch_size": 4, "flow_steps": 2},
    "cfa": {"backbone": "resnet18.tv_in1k"},
    "uninet": {"backbone": "resnet50.a1_in1k"},
    "draem": {"channels": 8},
    "dinomaly": {"backbone": "vit_small_patch14_reg4_dinov2.lvd142m", "batch_size": 4},
    # 256 px is the smallest that these take.
    "efficientad-s": {"width": 1 / 16, "steps": 3},
    "efficientad-m": {"width": 1 / 32, "steps": 3},
}
"""Settings that keep a detector's fits short."""


def side(entry: catalog.Entry, least: int = 64) -> int:
    """The smallest size from ``least`` on that the model takes."""
    return next(size for size in range(least, 1025) if entry.takes(size))
