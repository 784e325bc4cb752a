"""What a user must know about a model, and what planning must: one entry of the line-up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from defectbench.catalog.rules import SETTINGS, Rule, Setting

Family = Literal["classifier", "detector", "supervised"]


@dataclass(frozen=True, slots=True)
class Weights:
    """Published weights, or pictures that a model learns its faults from: one file in the store.

    Attributes:
        name: under which the store keeps it: ``weights/<name>/<sha256>``.
        source: where it comes from, as its library or its authors name it.
        licence: of the weights, which may differ from the code's.
        commercial: the licence allows commercial use; None where that is unknown. Tables say so of both.
        url: where the published file lies; empty where timm's own table knows.
        digest: how the published file's SHA-256 begins, as far as it is published; empty where it is not.
        member: the one file of the zip at ``url`` that is meant; empty where that is no zip.
        archive: as ``digest``, of that zip.
        kind: ``file`` of a network's weights, or ``pictures``: a folder of them, kept as one tar.
        package: distribution that ships the file, as pip names it; with one, ``digest`` is the whole SHA-256.
        packaged: the file's path in that distribution.
    """

    name: str
    source: str
    licence: str
    commercial: bool | None = True
    url: str = ""
    digest: str = ""
    member: str = ""
    archive: str = ""
    kind: Literal["file", "pictures"] = "file"
    package: str = ""
    packaged: str = ""

    @property
    def terms(self) -> str:
        """Say the licence, and whether it rules commercial use out or nobody knows."""
        if self.commercial is None:
            return f"{self.licence} (UNKNOWN whether for commercial use: check it)"
        return self.licence if self.commercial else f"{self.licence} (NON-COMMERCIAL)"


@dataclass(frozen=True, slots=True)
class Measured:
    """What `models check --size 512` counted.

    Attributes:
        parameters: with the head for two classes; a memory bank as four pictures fill it.
        flops: operations to score one picture (products of matrices, convolutions), or None where they
            cannot be counted.
        side: of the picture.
    """

    parameters: int
    flops: int | None
    side: int = 512


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: what sweeps call it.
        family: ``classifier``, ``detector`` or ``supervised`` (a detector that trains on defects too).
        builder: ``module:class`` of the model.
        source: paper and code.
        licence: of the code.
        weights: files that ``weights: pretrained`` needs; empty where the model needs none.
        image_size: side in pixels that a sweep without ``image_size`` gets.
        smallest: smallest side that it takes.
        largest: largest side that it takes; None for no limit.
        multiple_of: sides must be multiples of this.
        sizes_because: in words, why it takes no others (a sweep that asks for one is refused), or what
            becomes of the network at other sizes than its own.
        epochs: passes over the training images; 0 for a model that is not trained by gradient steps.
        patience: epochs without a better tuning figure before a fit stops; 0 for those that go to the end.
        ends: in words, how the fit ends.
        heat_map: in words, where the heat map comes from.
        settings: what an entry of a sweep may override, with the defaults.
        aliases: names of the model in published tables.
        matched_with: a classifier on the same backbone with the same weights, or empty: between such two the
            family alone differs, so a report shows them first.
        extra: the extra of this package that it needs, or None.
        fit_version: raised whenever a change of ours makes the same settings fit differently.
        resumes: a fit that was stopped goes on from its last checkpoint; the others start it anew.
        measured: its size and its cost, from :mod:`defectbench.catalog.measured`; None where nothing is.
        rules: what settings may be that no model of this package has.
        baseline: it needs no weights and learns no features: it keeps the deep models honest.
        package, version: of the distribution that registers it, filled when it is found; empty for ours.
    """

    name: str
    family: Family
    builder: str
    source: str
    licence: str
    image_size: int
    epochs: int
    ends: str
    heat_map: str
    patience: int = 0
    weights: tuple[Weights, ...] = ()
    smallest: int = 32
    largest: int | None = None
    multiple_of: int = 1
    sizes_because: str = ""
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    aliases: tuple[str, ...] = ()
    matched_with: str = ""
    extra: str | None = "train"
    fit_version: int = 1
    resumes: bool = False
    measured: Measured | None = None
    rules: Mapping[str, Rule] = field(default_factory=lambda: MappingProxyType({}))
    baseline: bool = False
    package: str = ""
    version: str = ""

    @property
    def label(self) -> str:
        """What tables call it where a sweep gives no label: its name, as a label may be written."""
        return re.sub(r"^[^A-Za-z0-9]+", "", self.name.rpartition(":")[2])[:63]

    @property
    def requirement(self) -> str:
        """Its package as pip names it, ``name==version``; empty for ours."""
        return f"{self.package}=={self.version}" if self.package else ""

    def rule(self, setting: str) -> Rule:
        """Return what a sweep may set ``setting`` to."""
        return self.rules[setting] if setting in self.rules else SETTINGS[setting]

    def takes(self, size: int) -> bool:
        """Whether the model takes pictures of ``size`` x ``size`` pixels."""
        low_enough = self.largest is None or size <= self.largest
        return self.smallest <= size and low_enough and size % self.multiple_of == 0

    @property
    def sizes(self) -> str:
        """Say which sides it takes, in words, and why no others."""
        if self.smallest == self.largest:
            sides = f"{self.smallest} px alone"
        elif self.largest is None:
            sides = f"{self.smallest} px or more"
        else:
            sides = f"{self.smallest} to {self.largest} px"
        steps = f", in multiples of {self.multiple_of}" if self.multiple_of > 1 else ""
        because = f" ({self.sizes_because})" if self.sizes_because else ""
        return sides + steps + because

    @property
    def commercial(self) -> bool | None:
        """Whether the licences of all its weights allow commercial use; None where that is unknown of one."""
        allowed = {weights.commercial for weights in self.weights}
        return False if False in allowed else None if None in allowed else True
