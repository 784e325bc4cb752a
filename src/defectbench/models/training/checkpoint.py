"""A torch fit on disk: tensors, numbers and texts in torch's format, read back without running its pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from defectbench.errors import CheckpointError

State = dict[str, Any]


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write nested dicts and lists of tensors, numbers and texts."""
    torch.save(_plain(state), path)


def _plain(value: Any) -> Any:
    """Return the value without numpy's scalars, which some schedules leave in an optimiser's rates.

    The reader, which runs no pickle, knows none of numpy's types.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


@contextmanager
def restoring(path: Path) -> Iterator[State]:
    """Give what :func:`write_checkpoint` wrote, on the CPU; errors inside are CheckpointErrors."""
    try:
        # On the CPU: another GPU may have written the state, and load_state_dict copies it to this one.
        yield torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler and load_state_dict raise whatever the bytes lead them to
        raise CheckpointError(f"no fit can go on from it ({type(error).__name__}: {error})") from error


def generators(rng: np.random.Generator, device: str) -> State:
    """Return the states of numpy's generator and of torch's own on the CPU and on ``device``."""
    # numpy's state holds integers of 128 bits: as text they need nothing of the file's format.
    state: State = {"numpy": json.dumps(rng.bit_generator.state), "cpu": torch.get_rng_state()}
    if device != "cpu":
        state[device] = _library(device).get_rng_state()
    return state


def restore_generators(state: Mapping[str, Any], rng: np.random.Generator, device: str) -> None:
    """Put back what :func:`generators` gave."""
    rng.bit_generator.state = json.loads(state["numpy"])
    torch.set_rng_state(state["cpu"])
    if device != "cpu":
        _library(device).set_rng_state(state[device])


def _library(device: str) -> Any:
    """Return torch's module of a device, ``torch.cuda`` or ``torch.mps``."""
    return getattr(torch, device)


def copied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a module's state as it is now; the module may go on learning."""
    return {key: value.detach().clone() for key, value in state.items()}
