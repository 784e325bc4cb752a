"""How much of a batch lies on the device at once: found by trial, so that the GPU at hand trains at 512.

Where a step runs out of the device's memory it is taken again: first with gradient checkpointing, which
gives the same gradients for a third more time, then in halves whose gradients are added up. Halves change
nothing but rounding, unless the network normalises over the batch: then each half has figures of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from defectbench.errors import TryAgainError
from defectbench.models.training import checkpoint
from defectbench.util.memory import ran_out

LEAST = 2
"""Pictures at once, at least: batch normalisation cannot learn from one."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _StepStart:
    """What a step that is taken again starts from."""

    buffers: Mapping[str, Tensor]
    generators: Mapping[str, Any]


class MicroBatcher:
    """The steps of one fit.

    Args:
        module: what is trained.
        batch: pictures of a step, all at once to begin with.
        rng: what the steps draw from, beside torch's own generators.
        adds_up: the loss is a sum over its pictures; by default it is a mean.

    Attributes:
        pictures: how many go through the network at once.
        saving: activations are computed twice instead of kept.
    """

    def __init__(
        self, module: nn.Module, batch: int, rng: np.random.Generator, *, adds_up: bool = False
    ) -> None:
        self._module = module
        self._adds_up = adds_up
        self._rng = rng
        self._batch = batch
        self._device = next(module.parameters()).device.type
        self.pictures = batch
        self.saving = False

    @property
    def full(self) -> bool:
        """Whether whole batches fit."""
        return self.pictures >= self._batch

    def figures(self) -> dict[str, float]:
        """Return what a learning curve must tell: how many pictures at once, where it is not the batch."""
        return {} if self.full else {"pictures_at_once": float(self.pictures)}

    def parts(self, chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Return a batch in parts that fit, none of a single picture; whole where whole batches fit."""
        if self.full:
            return [chosen]
        number = math.ceil(len(chosen) / self.pictures)
        return np.array_split(chosen, max(1, min(number, len(chosen) // LEAST)))

    def gradients(self, chosen: NDArray[np.int64], loss: Callable[[NDArray[np.int64]], Tensor]) -> float:
        """Leave the gradients of a batch's loss in the module, and return that loss.

        Where they do not fit, they are computed again from the beginning, with less at once.

        Args:
            chosen: the batch.
            loss: of a part of it, a mean over its pictures, or a sum where the loss adds up.

        Raises:
            TryAgainError: not even :data:`LEAST` pictures fit.
        """
        while True:
            before = _StepStart(self._buffers(), checkpoint.generators(self._rng, self._device))
            try:
                return self._added_up(chosen, loss)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                reason = str(error).partition("\n")[0]
            # Out of the handler, because the error's traceback holds all that did not fit.
            self._restore(before.buffers)
            checkpoint.restore_generators(before.generators, self._rng, self._device)
            self._lower(reason)

    def _added_up(self, chosen: NDArray[np.int64], loss: Callable[[NDArray[np.int64]], Tensor]) -> float:
        self._module.zero_grad(set_to_none=True)
        total = 0.0
        for part in self.parts(chosen):
            share = loss(part) * (1.0 if self._adds_up else len(part) / len(chosen))
            self._backward(share)
            total += float(share.detach())
        return total

    def _backward(self, loss: Tensor) -> None:
        """Add the loss's gradients; what the second computing of activations does to averages is undone."""
        kept = self._buffers() if self.saving else {}
        loss.backward()
        self._restore(kept)

    def _lower(self, reason: str) -> None:
        if not self.saving and set_checkpointing(self._module):
            self.saving = True
            log.warning("out of memory with %d pictures at once: gradient checkpointing", self.pictures)
        elif self.pictures > LEAST:
            self.pictures = max(LEAST, math.ceil(self.pictures / 2))
            log.warning("out of memory: %d pictures at once, gradients added up", self.pictures)
        else:
            raise TryAgainError(
                f"{self.pictures} pictures at once do not fit into the device's memory ({reason}): use a "
                "smaller image_size, or a GPU with more memory or fewer other processes"
            )
        if self._device == "cuda":
            torch.cuda.empty_cache()

    def state(self) -> dict[str, Any]:
        """Return what :meth:`restore` takes up."""
        return {"pictures": self.pictures, "saving": self.saving}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with what was found before."""
        self.pictures = int(state["pictures"])
        self.saving = bool(state["saving"]) and set_checkpointing(self._module)

    def _buffers(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self._module.named_buffers()}

    def _restore(self, kept: Mapping[str, Tensor]) -> None:
        now = dict(self._module.named_buffers())
        with torch.no_grad():
            for name, value in kept.items():
                now[name].copy_(value)


def set_checkpointing(module: nn.Module) -> bool:
    """Let the network compute activations again instead of keeping them; return whether it can."""
    switch = getattr(module, "set_grad_checkpointing", None)
    if switch is None:
        return False
    try:
        switch(True)
    except AssertionError:  # how timm says that a network does not
        return False
    return True
