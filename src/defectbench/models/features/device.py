"""Where torch computes, and what makes it compute the same again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from defectbench.errors import ConfigurationError

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve(device: str) -> str:
    """Return ``cpu``, ``cuda`` or ``mps``; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigurationError: an unknown device, or one that this machine lacks.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device not in present:
        raise ConfigurationError(f"unknown device {device!r}; allowed: {', '.join(DEVICES)}")
    if not present[device]:
        raise ConfigurationError(f"device {device!r} is not there; use auto or cpu")
    return device


def describe() -> str:
    """Say what ``auto`` takes here: each CUDA GPU with its memory, else the CPU."""
    if not torch.cuda.is_available():
        apple = "; MPS by --device mps" if torch.backends.mps.is_available() else ""
        return f"CPU, {os.cpu_count()} cores, no CUDA GPU{apple}"
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return "CUDA: " + ", ".join(f"{gpu.name} with {gpu.total_memory / 2**30:.0f} GiB" for gpu in found)


def placed(network: nn.Module, device: str) -> nn.Module:
    """Return the network on the device; on CUDA with channels last, in which its convolutions are fastest."""
    if device == "cuda":
        network = network.to(memory_format=torch.channels_last)
    return network.to(device)


@contextmanager
def repeatable(seed: int, device: str) -> Iterator[None]:
    """Seed torch's own generators and ask for deterministic kernels; on leaving, put back what was there.

    On the CPU two runs are equal bit for bit. A few CUDA kernels have no deterministic form: they still run.
    """
    # cuBLAS is deterministic only with a fixed workspace (its documentation, "Results reproducibility").
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    memory: Any = torch.utils.deterministic
    filled = memory.fill_uninitialized_memory
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Benchmarking picks a kernel by its speed in this run, hence other bits in the next.
        torch.backends.cudnn.benchmark = False
        # By default every new tensor would be filled with NaN first.
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark
            memory.fill_uninitialized_memory = filled
