"""What a model's own settings may be, checked without loading any library."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

Setting = bool | int | float | str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A number's range; infinite and undefined numbers are in none.

    Attributes:
        low, high: the least and the largest number allowed; ``high`` None for no limit.
        above: ``low`` itself is not allowed.
        whole: whole numbers only.
    """

    low: float
    high: float | None = None
    above: bool = False
    whole: bool = False

    def reads(self, value: object) -> bool:
        """Whether a sweep may give this value."""
        # bool is an int to Python: `epochs: true` must not mean one epoch.
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return self._high_enough(value) and (self.high is None or value <= self.high)

    def _high_enough(self, value: float) -> bool:
        """Whether the value is above the lower bound, or on it where that is allowed."""
        return value > self.low if self.above else value >= self.low

    def __str__(self) -> str:
        """Say what is allowed, in words.

        >>> print(Bounds(0, 1, above=True))
        a number above 0 and up to 1
        >>> print(Bounds(2, whole=True))
        a whole number, 2 or more
        """
        kind = "a whole number" if self.whole else "a number"
        low = f" above {self.low:g}" if self.above else f", {self.low:g} or more"
        if self.high is None:
            return kind + low
        if self.above:
            return f"{kind}{low} and up to {self.high:g}"
        return f"{kind} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def reads(self, value: object) -> bool:
        """Whether a sweep may give this value."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        """Say what is allowed, in words."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class Names:
    """One name, or ``many``: a list of names that is not empty and has none twice.

    Whether a network of the name exists only its library knows, which planning must not load.
    """

    what: str
    many: bool = False

    def reads(self, value: object) -> bool:
        """Whether a sweep may give this value."""
        if not self.many:
            return is_name(value)
        if not isinstance(value, list | tuple) or not value or not all(map(is_name, value)):
            return False
        return len(set(value)) == len(value)

    def __str__(self) -> str:
        """Say what is allowed, in words."""
        return (
            f"a list of {self.what}, at least one and none twice" if self.many else f"the name of {self.what}"
        )


def is_name(value: object) -> bool:
    """Whether a value is a network's or a layer's name, as timm and torch.nn write them."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", value) is not None


Rule = Bounds | Flag | Names

NETWORK = "a timm network"
"""What :class:`Names` allows of settings whose network timm must have."""

SETTINGS: Mapping[str, Rule] = MappingProxyType(
    {
        "architecture": Names(NETWORK),
        "backbone": Names(NETWORK),
        "layers": Names("the backbone's layers", many=True),
        "learning_rate": Bounds(0, 1, above=True),
        "weight_decay": Bounds(0, 1),
        "batch_size": Bounds(2, 4096, whole=True),  # batch normalisation cannot learn from one picture
        "warmup_epochs": Bounds(0, whole=True),
        "freeze": Flag(),
        "penalty": Bounds(1e-6, 1e6),  # beyond these the regression is all data or all penalty
        "neighbours": Bounds(1, 1000, whole=True),
        "bank": Bounds(1, whole=True),
        "features": Bounds(1, whole=True),
        "coreset": Bounds(0, 1, above=True),
        "second_backbone": Names(NETWORK),
        "third_backbone": Names(NETWORK),
        "second_layers": Names("the second backbone's layers", many=True),
        "third_layers": Names("the third backbone's layers", many=True),
        "layer": Names("a layer of the backbone"),
        "shots": Bounds(1, whole=True),
        "steps": Bounds(1, whole=True),
        "flow_steps": Bounds(1, 64, whole=True),
        "decoder_depth": Bounds(8, 64, whole=True),  # eight of its layers are compared with the encoder's
        "channels": Bounds(2, 4096, whole=True),
        "width": Bounds(0, 1, above=True),
    }
)
"""What a model's own settings may be, whichever model has them."""
