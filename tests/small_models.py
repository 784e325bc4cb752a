"""Smaller networks of the same class, for tests that fit or differentiate every entry of the catalog.

What an entry adds to its class is a name and a depth: ``tests/models/checks/test_size_check.py``
builds each one as it stands and takes a score and a map of it.
"""

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
    "efficientad-s": {"width": 1 / 16, "steps": 3},
    "efficientad-m": {"width": 1 / 32, "steps": 3},
}
"""Settings that keep a detector's fits short."""
SWIN = "swinv2_tiny_window8_256.ms_in1k"
DINO = "vit_small_patch14_dinov2.lvd142m"

_EFFICIENTNET = "tf_efficientnet_b0.ns_jft_in1k"
_SMALLER: Mapping[str, str] = {
    **dict.fromkeys((f"fixefficientnet-b{variant}" for variant in (3, 4, 6, 7)), _EFFICIENTNET),
    **dict.fromkeys(("noisystudent-b4", "noisystudent-b7"), _EFFICIENTNET),
    "swinv2-b": SWIN,
    "convnext-tiny": "test_convnext.r160_in1k",
    "efficientnetv2-s": "test_efficientnet.r160_in1k",
    "wide-resnet50": "test_resnet.r160_in1k",
}


def changes(entry: catalog.Entry) -> dict[str, catalog.Setting]:
    """The smaller network and the shorter course, where the entry has such."""
    smaller = _SMALLER.get(entry.name)
    return {"architecture": smaller} if smaller else dict(DETECTORS.get(entry.name, {}))


def side(entry: catalog.Entry, least: int = 0) -> int:
    """The smallest size that the model takes, or the smallest from ``least`` on."""
    return next(size for size in range(least, 1025) if entry.takes(size))
