"""The line-up as data: every model that a sweep may name, and what a user must know about it.

Nothing here imports a model's library; ``builder`` names the class that does, as ``module:class``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from defectbench.errors import UsageError, nearest

Family = Literal["classifier", "detector", "supervised"]
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
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if isinstance(value, float) and not math.isfinite(value):
            return False
        return self._high_enough(value) and (self.high is None or value <= self.high)

    def _high_enough(self, value: float) -> bool:
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
            return _is_name(value)
        if not isinstance(value, list | tuple) or not value or not all(map(_is_name, value)):
            return False
        return len(set(value)) == len(value)

    def __str__(self) -> str:
        """Say what is allowed, in words."""
        return (
            f"a list of {self.what}, at least one and none twice" if self.many else f"the name of {self.what}"
        )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", value) is not None


Rule = Bounds | Flag | Names

SETTINGS: Mapping[str, Rule] = MappingProxyType(
    {
        "architecture": Names("a timm network"),
        "backbone": Names("a timm network"),
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
    }
)
"""What a model's own settings may be, whichever model has them."""


@dataclass(frozen=True, slots=True)
class Weights:
    """One file of pretrained weights.

    Attributes:
        name: under which the store keeps it: ``weights/<name>/<sha256>``.
        source: where it comes from, as its library names it.
        licence: of the weights, which may differ from the code's.
    """

    name: str
    source: str
    licence: str


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: what sweeps call it.
        family: ``classifier``, ``detector`` or ``supervised`` (a detector that is taught defects).
        builder: ``module:class`` of the inspector.
        source: paper and code.
        licence: of the code.
        weights: files that ``weights: pretrained`` needs; empty where the model needs none.
        image_size: side in pixels that a sweep without ``image_size`` gets.
        smallest: smallest side that it takes.
        multiple_of: sides must be multiples of this.
        epochs: passes over the training images; 0 for a model that is not trained by gradient steps.
        patience: epochs without a better tuning figure before a fit stops; 0 for those that go to the end.
        ends: in words, how the fit ends.
        heat_map: in words, where the heat map comes from.
        settings: what an entry of a sweep may override, with the defaults.
        aliases: names of the model in published tables.
        extra: the extra of this package that it needs, or None.
        fit_version: raised whenever a change of ours makes the same settings fit differently.
        resumes: a fit that was stopped goes on from its last checkpoint; the others start it anew.
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
    multiple_of: int = 1
    settings: Mapping[str, Setting] = field(default_factory=lambda: MappingProxyType({}))
    aliases: tuple[str, ...] = ()
    extra: str | None = "train"
    fit_version: int = 1
    resumes: bool = False

    def takes(self, size: int) -> bool:
        """Whether the model takes pictures of ``size`` x ``size`` pixels."""
        return size >= self.smallest and size % self.multiple_of == 0

    @property
    def sizes(self) -> str:
        """Say which sides it takes, in words."""
        steps = f", in multiples of {self.multiple_of}" if self.multiple_of > 1 else ""
        return f"{self.smallest} px or more{steps}"


_TIMM = "https://github.com/huggingface/pytorch-image-models"
_ANOMALIB = "https://github.com/open-edge-platform/anomalib"
_EARLY = "cosine schedule; stops when the tuning images' AUROC has not risen for `patience` epochs"
_CLASSIFIER_SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {"learning_rate": 3e-4, "weight_decay": 0.05, "batch_size": 16, "warmup_epochs": 1, "freeze": False}
)

_WIDE_RESNET50 = Weights(
    "wide_resnet50_2.tv_in1k", "timm wide_resnet50_2.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause"
)
_RESNET18 = Weights("resnet18.tv_in1k", "timm resnet18.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause")


def _classifier(name: str, timm_name: str, source: str, size: int, heat_map: str, **more: object) -> Entry:
    """Return the entry of a fine-tuned timm classifier."""
    values: dict[str, object] = {
        "name": name,
        "family": "classifier",
        "builder": "defectbench.inspectors.classifier:TimmClassifier",
        "source": f"{source}; timm {timm_name}, {_TIMM}",
        "licence": "Apache-2.0",
        "image_size": size,
        "epochs": 30,
        "patience": 8,
        "ends": _EARLY,
        "heat_map": heat_map,
        "weights": (Weights(timm_name, f"timm {timm_name}", "Apache-2.0"),),
        "settings": MappingProxyType({"architecture": timm_name, **_CLASSIFIER_SETTINGS}),
        "resumes": True,
    }
    return Entry(**(values | more))  # type: ignore[arg-type]


ENTRIES: tuple[Entry, ...] = (
    Entry(
        name="filterbank-logreg",
        family="classifier",
        builder="defectbench.inspectors.baseline:FilterBankClassifier",
        source="our baseline: a Gabor and Gaussian filter bank pooled over the picture, logistic regression",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="L-BFGS to convergence; the penalty is fixed",
        heat_map="each place's share of the log-odds",
        settings=MappingProxyType({"penalty": 1.0}),
        extra=None,
        fit_version=2,
    ),
    _classifier(
        "mobilenetv3-small",
        "mobilenetv3_small_100.lamb_in1k",
        "Howard et al. 2019, arXiv:1905.02244",
        224,
        "Grad-CAM of the abnormal logit at the last block",
    ),
    _classifier(
        "resnet50",
        "resnet50.a1_in1k",
        "He et al. 2015, arXiv:1512.03385",
        224,
        "Grad-CAM of the abnormal logit at layer4's last block",
    ),
    _classifier(
        "tinyvit-21m-512",
        "tiny_vit_21m_512.dist_in22k_ft_in1k",
        "Wu et al. 2022, arXiv:2207.10666",
        512,
        "Grad-CAM of the abnormal logit at stage 4's last local_conv",
        aliases=("TinyViT-21M-512-distill",),
    ),
    Entry(
        name="filterbank-knn",
        family="detector",
        builder="defectbench.inspectors.baseline:FilterBankDetector",
        source="our baseline: a Gabor and Gaussian filter bank, distance to the nearest good patch",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="one pass over the training images",
        heat_map="each patch's distance to its nearest good patch",
        settings=MappingProxyType({"neighbours": 1, "bank": 20000}),
        extra=None,
    ),
    Entry(
        name="padim",
        family="detector",
        builder="defectbench.inspectors.detector:Padim",
        source=f"Defard et al. 2020, arXiv:2011.08785; anomalib's torch model, {_ANOMALIB}",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="one pass over the training images",
        heat_map="Mahalanobis distance of each patch",
        weights=(_RESNET18,),
        settings=MappingProxyType(
            {"backbone": "resnet18.tv_in1k", "layers": ("layer1", "layer2", "layer3"), "features": 100}
        ),
    ),
    Entry(
        name="patchcore",
        family="detector",
        builder="defectbench.inspectors.detector:Patchcore",
        source=f"Roth et al. 2021, arXiv:2106.08265; anomalib's torch model, {_ANOMALIB}, coreset of our own",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="one pass over the training images, then the coreset",
        heat_map="distance of each patch to the memory bank",
        weights=(_WIDE_RESNET50,),
        settings=MappingProxyType(
            {
                "backbone": "wide_resnet50_2.tv_in1k",
                "layers": ("layer2", "layer3"),
                "coreset": 0.1,
                "neighbours": 9,
            }
        ),
        aliases=("PatchCore",),
    ),
    Entry(
        name="glass",
        family="detector",
        builder="defectbench.inspectors.glass:Glass",
        source=f"Chen et al. 2024, arXiv:2407.09359; anomalib's torch model, {_ANOMALIB}",
        licence="Apache-2.0",
        image_size=288,
        epochs=640,
        ends="after its published epochs; in a holdout the epoch with the best tuning AUROC is kept, and a "
        "`patience` of its own ends the fit when that AUROC has not risen for so many epochs",
        heat_map="the discriminator's output at each patch",
        weights=(_WIDE_RESNET50,),
        settings=MappingProxyType(
            {
                "backbone": "wide_resnet50_2.tv_in1k",
                "layers": ("layer2", "layer3"),
                "batch_size": 8,
                "learning_rate": 1e-4,
            }
        ),
        aliases=("GLASS",),
        fit_version=2,
        resumes=True,
    ),
)

_BY_NAME: Mapping[str, Entry] = MappingProxyType({entry.name: entry for entry in ENTRIES})

BY_TABLE_NAME: Mapping[str, Entry] = MappingProxyType(
    {name: entry for entry in ENTRIES for name in (entry.name, *entry.aliases)}
)
"""What published tables call a model, or the catalog itself does -> its entry."""


def find(name: str) -> Entry:
    """Return the entry called ``name``.

    Raises:
        UsageError: no such model; names the nearest.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UsageError(f"unknown model {name!r}; {nearest(name, _BY_NAME)}") from None
