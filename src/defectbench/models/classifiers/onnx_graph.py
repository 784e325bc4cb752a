"""A timm classifier as an ONNX graph that takes pictures as they are: standardising is in the graph."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from defectbench.catalog import Entry
from defectbench.errors import BugError, ConfigurationError
from defectbench.models.base import Model, Pictures
from defectbench.models.choose import load_class
from defectbench.models.classifiers.timm_classifier import TimmClassifier
from defectbench.models.features import backbone

OPSET = 18
INPUT, OUTPUT = "picture", "log_odds"
EXTRA = "export"
TOLERANCE = 1e-4
"""Largest difference in log-odds between the graph and torch; of log-odds beyond 1 this share of them."""

_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")


def takes(entry: Entry) -> bool:
    """Whether the entry's models can become a graph."""
    return issubclass(load_class(entry), TimmClassifier)


def check_extra() -> None:
    """Raise ConfigurationError unless the libraries are there."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"ONNX needs the extra {EXTRA!r}, but {', '.join(missing)} is not installed: "
            f"uv sync --extra {EXTRA}, or --no-onnx to do without"
        )


class _Graph(nn.Module):
    """uint8 (1, size, size, 3), RGB, to the log-odds of abnormal, float32 (1,)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        values = picture.permute(0, 3, 1, 2).float() / 255.0
        logits: Tensor = self.network(backbone.standardised(values, self.network))
        return logits[:, 0]


def write_graph(model: Model, path: Path) -> None:
    """Write the fitted classifier's graph, weights inside: one picture in, its log-odds out."""
    if not isinstance(model, TimmClassifier):
        raise BugError(f"{type(model).__name__} has no graph")
    graph = _Graph(model.network().cpu()).eval()
    side = model.settings.image_size
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (example,),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
        model.network().to(model.device)


def log_odds(path: Path, pictures: Pictures, threads: int) -> NDArray[np.float64]:
    """Return what onnxruntime makes of each picture on the CPU."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found = [session.run([OUTPUT], {INPUT: pictures[i][None]})[0][0] for i in range(len(pictures))]
    return np.array(found, np.float64)


def check_graph(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Return the largest difference between onnxruntime's log-odds and torch's.

    Raises:
        ConfigurationError: it is above :data:`TOLERANCE`.
    """
    apart = np.abs(found - wanted)
    if not (apart <= TOLERANCE * np.maximum(1, np.abs(wanted))).all():
        raise ConfigurationError(
            f"the ONNX graph's log-odds differ from torch's by up to {apart.max():.3g}, {TOLERANCE:g} is "
            "allowed: export with --no-onnx, or with other versions of torch and onnxruntime"
        )
    return float(apart.max())
