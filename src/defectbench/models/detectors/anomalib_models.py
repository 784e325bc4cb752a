"""anomalib's torch models, imported without the warnings of the libraries that they bring along.

Only the networks and their losses are used: no Engine, no post-processor, because those scale and clamp the
scores. Several models ask a hub for their backbone in the constructor, without a switch; ours come from
:mod:`backbone`, handed over by :func:`replaced`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

with warnings.catch_warnings():
    # Their first import compiles sources with invalid escapes and touches deprecated names.
    warnings.simplefilter("ignore")
    from anomalib.data.utils.generators.perlin import PerlinAnomalyGenerator
    from anomalib.models.image.anomaly_dino import torch_model as anomalydino
    from anomalib.models.image.cfa import torch_model as cfa
    from anomalib.models.image.cfa.loss import CfaLoss
    from anomalib.models.image.dinomaly import torch_model as dinomaly
    from anomalib.models.image.dinomaly.components import StableAdamW, WarmCosineScheduler
    from anomalib.models.image.draem import torch_model as draem
    from anomalib.models.image.draem.loss import DraemLoss
    from anomalib.models.image.efficient_ad import torch_model as efficientad
    from anomalib.models.image.fastflow import torch_model as fastflow
    from anomalib.models.image.fastflow.loss import FastflowLoss
    from anomalib.models.image.glass import torch_model as glass
    from anomalib.models.image.padim import torch_model as padim
    from anomalib.models.image.patchcore import torch_model as patchcore
    from anomalib.models.image.patchcore.anomaly_map import AnomalyMapGenerator
    from anomalib.models.image.reverse_distillation import torch_model as reverse_distillation
    from anomalib.models.image.reverse_distillation.anomaly_map import AnomalyMapGenerationMode
    from anomalib.models.image.reverse_distillation.loss import ReverseDistillationLoss
    from anomalib.models.image.stfpm import torch_model as stfpm
    from anomalib.models.image.stfpm.loss import STFPMLoss
    from anomalib.models.image.supersimplenet import torch_model as supersimplenet
    from anomalib.models.image.supersimplenet.loss import SSNLoss
    from anomalib.models.image.uninet import torch_model as uninet
    from anomalib.models.image.uninet.components import UniNetLoss

__all__ = [
    "AnomalyMapGenerationMode",
    "AnomalyMapGenerator",
    "CfaLoss",
    "DraemLoss",
    "FastflowLoss",
    "PerlinAnomalyGenerator",
    "ReverseDistillationLoss",
    "SSNLoss",
    "STFPMLoss",
    "StableAdamW",
    "UniNetLoss",
    "WarmCosineScheduler",
    "anomalydino",
    "cfa",
    "dinomaly",
    "draem",
    "efficientad",
    "fastflow",
    "glass",
    "padim",
    "patchcore",
    "replaced",
    "reverse_distillation",
    "stfpm",
    "supersimplenet",
    "uninet",
]


@contextmanager
def replaced(place: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module or class of anomalib have another ``name`` while one of its models is built."""
    before = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, before)
