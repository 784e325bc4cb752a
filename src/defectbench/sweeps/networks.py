"""The timm networks that a sweep names beside the catalog's own, looked up before the first fit."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from defectbench import catalog
from defectbench.catalog.rules import NETWORK, Names
from defectbench.errors import SweepError
from defectbench.models.checks.network_check import unknown_networks
from defectbench.sweeps.config import ModelConfig, Sweep, resolve_models


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """A network that a model of the sweep names.

    Attributes:
        place: ``file:line`` of it.
        key: by which it is named: ``timm``, ``architecture``, ``backbone``...
    """

    place: str
    label: str
    key: str
    name: str


def named_networks(sweep: Sweep, labels: Collection[str] = ()) -> tuple[NamedNetwork, ...]:
    """Return the networks that are not the catalog's own, of the named models or of all."""
    return tuple(
        NamedNetwork(sweep.line("models", position, key), model.label, key, name)
        for position, model in enumerate(resolve_models(sweep))
        if not labels or model.label in labels
        for key, name in _of(model)
    )


def check_networks(sweep: Sweep, labels: Collection[str] = ()) -> None:
    """Refuse networks that timm does not have, where timm is installed to be asked.

    Raises:
        SweepError: names each with its line and the nearest name.
        TryAgainError: timm gave no answer.
    """
    named = named_networks(sweep, labels)
    unknown = unknown_networks([each.name for each in named])
    wrong = [
        f"{each.place}: {each.label}: {each.key}: unknown timm network {each.name!r}; {unknown[each.name]}"
        for each in named
        if each.name in unknown
    ]
    if wrong:
        raise SweepError("\n".join(wrong))


def _of(model: ModelConfig) -> Iterator[tuple[str, str]]:
    """Yield (key, network) of a model's networks that its entry does not name itself."""
    entry = model.entry
    free = entry.name.startswith(catalog.TIMM)
    for key, value in model.settings.items():
        rule = entry.rule(key)
        if isinstance(rule, Names) and rule.what == NETWORK and (free or value != entry.settings[key]):
            yield "timm" if free else key, str(value)
