"""The detectors, and the baseline of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defectbench.catalog.entry import Entry, Weights
from defectbench.catalog.networks import (
    DENSENET201,
    DINOV2_BASE,
    DINOV2_S,
    DTD,
    EFFICIENTNET_LITE0,
    IMAGENETTE,
    RESNET18,
    RESNEXT101,
    TEACHER_M,
    TEACHER_S,
    WIDE_RESNET50,
    WIDE_RESNET101,
)
from defectbench.catalog.rules import Setting

_ANOMALIB = "https://github.com/open-edge-platform/anomalib"

_EPOCHS = (
    "after its published epochs; in a holdout the epoch with the best tuning AUROC is kept, and a "
    "`patience` of its own ends the fit when that AUROC has not risen for so many epochs"
)
_STEPS = "after `steps` steps or `epochs` epochs, whichever come first; in a holdout as the others"
_PYRAMID = "the decoder halves the picture five times and back"
_NOISE = "its noise has up to 32 periods on a grid of a quarter of the picture"
_PATCHES = "patches of 14 px: for 512 px take 504 or 518"


def _trained_detector(
    name: str, builder: str, paper: str, weights: tuple[Weights, ...], heat_map: str, **more: object
) -> Entry:
    """Return the entry of a detector that anomalib's torch model and our loop make."""
    values: dict[str, object] = {
        "name": name,
        "family": "detector",
        "builder": f"defectbench.models.detectors.{builder}",
        "source": f"{paper}; anomalib's torch model, {_ANOMALIB}",
        "licence": "Apache-2.0",
        "image_size": 256,
        "ends": _EPOCHS,
        "heat_map": heat_map,
        "weights": weights,
        "resumes": True,
    }
    settings: Mapping[str, Setting] = more.pop("settings")  # type: ignore[assignment]
    return Entry(**(values | more), settings=MappingProxyType(dict(settings)))  # type: ignore[arg-type]


def _efficientad(letter: str, teacher: Weights, builder: str) -> Entry:
    """Return the entry of one size of EfficientAD; ``builder`` is the class's name."""
    return _trained_detector(
        f"efficientad-{letter.lower()}",
        f"efficientad:{builder}",
        f"Batzner et al. 2023, arXiv:2303.14535 (EfficientAD-{letter})",
        (teacher, IMAGENETTE),
        "mean of the student's and the autoencoder's distances, on the scale of goods that are set aside",
        epochs=10000,
        ends=_STEPS,
        smallest=256,
        sizes_because="its autoencoder's code spans 8 x 8 thirty-seconds of the picture",
        settings={"width": 1.0, "steps": 70000, "learning_rate": 1e-4, "weight_decay": 1e-5},
        aliases=("EfficientAD",) if letter == "S" else (f"EfficientAD-{letter}",),
        fit_version=2,
    )


_SUPERSIMPLENET_PAPER = (
    "Rolih et al. 2025, doi:10.1007/s10845-025-02680-8, which extends Rolih et al. 2024, arXiv:2408.03143"
)
_SUPERSIMPLENET: Mapping[str, Setting] = MappingProxyType(
    {
        "backbone": WIDE_RESNET50.name,
        "layers": ("layer2", "layer3"),
        "batch_size": 32,
        "learning_rate": 1e-4,
    }
)
_PATCHCORE: Mapping[str, Setting] = MappingProxyType(
    {"backbone": WIDE_RESNET50.name, "layers": ("layer2", "layer3"), "coreset": 0.1, "neighbours": 9}
)


def _padim(name: str, weights: Weights, layers: tuple[str, ...], size: int, matched: str = "") -> Entry:
    """Return the entry of PaDiM on a backbone; ``matched`` is a classifier on the same one."""
    return Entry(
        name=name,
        family="detector",
        builder="defectbench.models.detectors.memory_bank:Padim",
        source=f"Defard et al. 2020, arXiv:2011.08785; anomalib's torch model, {_ANOMALIB}",
        licence="Apache-2.0",
        image_size=size,
        epochs=0,
        ends="one pass over the training images",
        heat_map="Mahalanobis distance of each patch",
        weights=(weights,),
        settings=MappingProxyType({"backbone": weights.name, "layers": layers, "features": 100}),
        matched_with=matched,
    )


def _patchcore(
    name: str,
    weights: Weights,
    layers: tuple[str, ...],
    size: int,
    matched: str,
    aliases: tuple[str, ...] = (),
) -> Entry:
    """Return the entry of PatchCore on a backbone; ``matched`` is a classifier on the same one."""
    return Entry(
        name=name,
        family="detector",
        builder="defectbench.models.detectors.memory_bank:Patchcore",
        source=f"Roth et al. 2021, arXiv:2106.08265; anomalib's torch model, {_ANOMALIB}, coreset of our own",
        licence="Apache-2.0",
        image_size=size,
        epochs=0,
        ends="one pass over the training images, then the coreset",
        heat_map="distance of each patch to the memory bank",
        weights=(weights,),
        settings=MappingProxyType({**_PATCHCORE, "backbone": weights.name, "layers": layers}),
        aliases=aliases,
        matched_with=matched,
    )


DETECTORS: tuple[Entry, ...] = (
    Entry(
        name="filterbank-knn",
        family="detector",
        builder="defectbench.models.baselines:FilterBankDetector",
        source="our baseline: a Gabor and Gaussian filter bank, distance to the nearest good patch",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="one pass over the training images",
        heat_map="each patch's distance to its nearest good patch",
        settings=MappingProxyType({"neighbours": 1, "bank": 20000}),
        extra=None,
        baseline=True,
    ),
    _padim("padim", RESNET18, ("layer1", "layer2", "layer3"), 256),
    _patchcore("patchcore", WIDE_RESNET50, ("layer2", "layer3"), 256, "wide-resnet50", ("PatchCore",)),
    _padim(
        "padim-lite0", EFFICIENTNET_LITE0, ("blocks.1", "blocks.2", "blocks.4"), 224, "efficientnet-lite0"
    ),
    _patchcore(
        "patchcore-lite0", EFFICIENTNET_LITE0, ("blocks.2", "blocks.4"), 224, "efficientnet-lite0-probe"
    ),
    Entry(
        name="glass",
        family="detector",
        builder="defectbench.models.detectors.glass:Glass",
        source=f"Chen et al. 2024, arXiv:2407.09359; anomalib's torch model, {_ANOMALIB}",
        licence="Apache-2.0",
        image_size=288,
        epochs=640,
        ends=_EPOCHS,
        heat_map="the discriminator's output at each patch",
        weights=(WIDE_RESNET50, DTD),
        settings=MappingProxyType(
            {
                "backbone": "wide_resnet50_2.tv_in1k",
                "layers": ("layer2", "layer3"),
                "batch_size": 8,
                "learning_rate": 1e-4,
            }
        ),
        aliases=("GLASS",),
        fit_version=3,
        resumes=True,
    ),
    Entry(
        name="patchcore-large",
        family="detector",
        builder="defectbench.models.detectors.ensemble:PatchcoreEnsemble",
        source="Roth et al. 2021, arXiv:2106.08265, its ensemble of three backbones; "
        f"anomalib's torch model, {_ANOMALIB}, coreset and scales of our own",
        licence="Apache-2.0",
        image_size=320,
        epochs=0,
        ends="one pass over nine tenths of the training images, then the coreset, for each backbone",
        heat_map="mean of three distances of each patch to a memory bank, on the scale of goods set aside",
        weights=(WIDE_RESNET101, RESNEXT101, DENSENET201),
        settings=MappingProxyType(
            {
                "backbone": WIDE_RESNET101.name,
                "second_backbone": RESNEXT101.name,
                "third_backbone": DENSENET201.name,
                "layers": ("layer2", "layer3"),
                "second_layers": ("layer2", "layer3"),
                "third_layers": ("features.denseblock2", "features.denseblock3"),
                "coreset": 0.01,
                "neighbours": 9,
            }
        ),
        aliases=("PatchCore Large",),
    ),
    Entry(
        name="patchcore-16shot",
        family="detector",
        builder="defectbench.models.detectors.ensemble:PatchcoreFewShot",
        source=f"Roth et al. 2021, arXiv:2106.08265; anomalib's torch model, {_ANOMALIB}, coreset of our own",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="one pass over 16 training images that the seed draws, then the coreset",
        heat_map="distance of each patch to the memory bank",
        weights=(WIDE_RESNET50,),
        settings=MappingProxyType({**_PATCHCORE, "shots": 16}),
        aliases=("PatchCore-16shot",),
    ),
    Entry(
        name="simplenet",
        family="detector",
        builder="defectbench.models.detectors.simplenet:SimpleNet",
        source="Liu et al. 2023, arXiv:2303.15140; written from the paper: anomalib has none",
        licence="Apache-2.0",
        image_size=224,
        epochs=160,
        ends=f"{_EPOCHS}; the authors' code picks the epoch on the test set",
        resumes=True,
        heat_map="the discriminator's output at each patch",
        weights=(WIDE_RESNET50,),
        settings=MappingProxyType(
            {
                "backbone": WIDE_RESNET50.name,
                "layers": ("layer2", "layer3"),
                "batch_size": 4,
                "learning_rate": 1e-4,
            }
        ),
        aliases=("SimpleNet",),
    ),
    _trained_detector(
        "supersimplenet",
        "supersimplenet:SuperSimpleNet",
        _SUPERSIMPLENET_PAPER,
        (WIDE_RESNET50,),
        "logits of the segmenting head",
        epochs=300,
        smallest=72,
        sizes_because=_NOISE,
        settings=_SUPERSIMPLENET,
    ),
    _trained_detector(
        "supersimplenet-supervised",
        "supersimplenet:SupervisedSuperSimpleNet",
        f"{_SUPERSIMPLENET_PAPER}; trained on labelled defects and their masks",
        (WIDE_RESNET50,),
        "logits of the segmenting head",
        family="supervised",
        epochs=300,
        smallest=72,
        sizes_because=_NOISE,
        ends="after its published epochs; the one with the best tuning AUROC is kept where there are "
        "tuning images",
        settings=_SUPERSIMPLENET,
    ),
    _trained_detector(
        "reverse-distillation",
        "reverse_distillation:ReverseDistillation",
        "Deng and Li 2022, arXiv:2201.10703",
        (WIDE_RESNET50,),
        "cosine distance of encoder's and decoder's features",
        epochs=200,
        smallest=64,
        multiple_of=32,
        sizes_because=_PYRAMID,
        settings={
            "backbone": WIDE_RESNET50.name,
            "layers": ("layer1", "layer2", "layer3"),
            "batch_size": 16,
            "learning_rate": 5e-3,
        },
    ),
    _trained_detector(
        "stfpm",
        "stfpm:Stfpm",
        "Wang et al. 2021, arXiv:2103.04257",
        (RESNET18,),
        "product of the layers' distances of student and teacher",
        epochs=100,
        settings={
            "backbone": RESNET18.name,
            "layers": ("layer1", "layer2", "layer3"),
            "batch_size": 32,
            "learning_rate": 0.4,
            "weight_decay": 1e-4,
        },
        fit_version=2,
    ),
    _trained_detector(
        "fastflow",
        "fastflow:FastFlow",
        "Yu et al. 2021, arXiv:2111.07677",
        (WIDE_RESNET50,),
        "less the probability of the features at each place",
        epochs=500,
        multiple_of=16,
        sizes_because="its flows are built for feature maps of a quarter, an eighth, a sixteenth",
        settings={
            "backbone": WIDE_RESNET50.name,
            "flow_steps": 8,
            "batch_size": 32,
            "learning_rate": 1e-3,
            "weight_decay": 1e-5,
        },
    ),
    _trained_detector(
        "cfa",
        "cfa:Cfa",
        "Lee et al. 2022, arXiv:2206.04325",
        (WIDE_RESNET50,),
        "distance of each patch to the nearest mean feature",
        image_size=224,
        epochs=30,
        settings={
            "backbone": WIDE_RESNET50.name,
            "batch_size": 4,
            "learning_rate": 1e-3,
            "weight_decay": 5e-4,
        },
        fit_version=2,
    ),
    _trained_detector(
        "draem",
        "draem:Draem",
        "Zavrtanik et al. 2021, arXiv:2108.07610",
        (DTD,),
        "log-odds of the segmentation",
        epochs=700,
        smallest=64,
        multiple_of=32,
        sizes_because="its networks halve the picture five times and back",
        settings={"channels": 128, "batch_size": 8, "learning_rate": 1e-4},
    ),
    _trained_detector(
        "uninet",
        "uninet:UniNet",
        "Wei et al. 2025 (CVPR), UniNet",
        (WIDE_RESNET50,),
        "cosine distances of student and teachers",
        epochs=100,
        smallest=64,
        multiple_of=32,
        sizes_because=_PYRAMID,
        settings={
            "backbone": WIDE_RESNET50.name,
            "batch_size": 8,
            "learning_rate": 5e-3,
            "weight_decay": 1e-5,
        },
        fit_version=2,
    ),
    _trained_detector(
        "dinomaly",
        "dinomaly:Dinomaly",
        "Guo et al. 2024, arXiv:2405.14325",
        (DINOV2_BASE,),
        "cosine distance of encoder's and decoder's tokens",
        image_size=392,
        epochs=10000,
        ends=_STEPS,
        smallest=56,
        multiple_of=14,
        sizes_because=_PATCHES,
        settings={
            "backbone": DINOV2_BASE.name,
            "decoder_depth": 8,
            "steps": 5000,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "weight_decay": 1e-4,
        },
    ),
    Entry(
        name="anomalydino",
        family="detector",
        builder="defectbench.models.detectors.anomalydino:AnomalyDino",
        source="Damm et al. 2024, arXiv:2405.14529, without masks; score and map of anomalib's torch model, "
        f"{_ANOMALIB}, search of our own",
        licence="Apache-2.0",
        image_size=448,
        epochs=0,
        ends="one pass over the training images",
        heat_map="cosine distance of each patch to the nearest good patch",
        smallest=56,
        multiple_of=14,
        sizes_because=_PATCHES,
        weights=(DINOV2_S,),
        settings=MappingProxyType({"backbone": DINOV2_S.name, "layer": "blocks.11"}),
        matched_with="dinov2-vits14",
    ),
    *(
        _efficientad(letter, teacher, builder)
        for letter, teacher, builder in (
            ("S", TEACHER_S, "EfficientAd"),
            ("M", TEACHER_M, "EfficientAdMedium"),
        )
    ),
)
