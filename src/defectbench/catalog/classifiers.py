"""The classifiers: fine-tuned timm networks, and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defectbench.catalog.entry import Entry, Weights
from defectbench.catalog.networks import DINOV2_S, DINOV2_SIDES, EFFICIENTNET_LITE0, WIDE_RESNET50
from defectbench.catalog.rules import Setting

TIMM = "timm:"
"""How the names of models begin that no entry stands for: ``timm:resnet34.a1_in1k``."""

_TIMM = "https://github.com/huggingface/pytorch-image-models"
_EARLY = "cosine schedule; stops when the tuning images' AUROC has not risen for `patience` epochs"
_CLASSIFIER_SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {"learning_rate": 3e-4, "weight_decay": 0.05, "batch_size": 16, "warmup_epochs": 1, "freeze": False}
)


_FIXRES = "https://dl.fbaipublicfiles.com/FixRes_data/FixRes_Pretrained_Models/FixEfficientNet"
_LAYER4 = "Grad-CAM of the abnormal logit at layer4's last block"
_LAST_BLOCK = "Grad-CAM of the abnormal logit at the last block"
_LITE = "Tan and Le 2019, arXiv:1905.11946, the Lite variant"
_TWO_CELLS = "a cell of its heat map spans 32 px, and a map of one cell explains nothing"


def _published(timm_name: str, licence: str = "Apache-2.0", digest: str = "") -> tuple[Weights, ...]:
    """Return the weights that timm publishes under a full name."""
    return (Weights(timm_name, f"timm {timm_name}", licence, digest=digest),)


def _classifier(
    name: str, timm_name: str, source: str, size: int, heat_map: str = _LAST_BLOCK, **more: object
) -> Entry:
    """Return the entry of a fine-tuned timm classifier."""
    values: dict[str, object] = {
        "name": name,
        "family": "classifier",
        "builder": "defectbench.models.classifiers.timm_classifier:TimmClassifier",
        "source": f"{source}; timm {timm_name}, {_TIMM}",
        "licence": "Apache-2.0",
        "image_size": size,
        "smallest": 64,
        "sizes_because": _TWO_CELLS,
        "epochs": 30,
        "patience": 8,
        "ends": _EARLY,
        "heat_map": heat_map,
        "weights": _published(timm_name),
        "settings": MappingProxyType({"architecture": timm_name, **_CLASSIFIER_SETTINGS}),
        "resumes": True,
    }
    return Entry(**(values | more))  # type: ignore[arg-type]


def _probe(
    name: str, weights: Weights, source: str, size: int, heat_map: str = _LAST_BLOCK, **more: object
) -> Entry:
    """Return the entry of a linear probe of one of timm's networks."""
    settings = {**_CLASSIFIER_SETTINGS, "learning_rate": 1e-2, "freeze": True}
    values: dict[str, object] = {
        "weights": (weights,),
        "settings": MappingProxyType({"architecture": weights.name, **settings}),
        "epochs": 100,
        "patience": 20,
    }
    source = f"{source}; linear probe: the network is frozen, the head alone learns"
    return _classifier(name, weights.name, source, size, heat_map, **(values | more))


def _fixefficientnet(variant: int, size: int) -> Entry:
    """Return EfficientNet-B``variant`` with the FixRes authors' weights, fine-tuned from NoisyStudent's.

    timm has the network but not these weights, so their name is the network's with a tag of our own.
    """
    name = f"tf_efficientnet_b{variant}.fixres_ns_jft_in1k"
    file = f"fixEfficientNet_b{variant}_ns.pth"
    weights = Weights(
        name,
        f"facebookresearch/FixRes, {file} (with NoisyStudent's extra data)",
        "CC-BY-NC-4.0",
        commercial=False,
        url=f"{_FIXRES}/{file}",
    )
    return _classifier(
        f"fixefficientnet-b{variant}",
        name,
        "Touvron et al. 2020, arXiv:2003.08237",
        size,
        weights=(weights,),
        aliases=(f"FixEfficientNet-B{variant}",),
    )


def _noisystudent(variant: int, size: int, digest: str) -> Entry:
    """Return EfficientNet-B``variant`` with NoisyStudent's weights; ``size`` is the authors' side."""
    name = f"tf_efficientnet_b{variant}.ns_jft_in1k"
    return _classifier(
        f"noisystudent-b{variant}",
        name,
        "Xie et al. 2019, arXiv:1911.04252",
        size,
        weights=_published(name, digest=digest),
        aliases=(f"NoisyStudent (EfficientNet-B{variant})",),
    )


def timm_entry(network: str) -> Entry:
    """Return the entry of any timm network, fine-tuned. Whether timm has it only timm knows.

    Nobody here has read the licence of its weights: whether it allows commercial use is unknown.
    """
    weights = Weights(network, f"timm {network}", "see timm's page of it", commercial=None)
    source = "a timm network that the sweep names"
    return _classifier(TIMM + network, network, source, 224, weights=(weights,))


CLASSIFIERS: tuple[Entry, ...] = (
    Entry(
        name="filterbank-logreg",
        family="classifier",
        builder="defectbench.models.baselines:FilterBankClassifier",
        source="our baseline: a Gabor and Gaussian filter bank pooled over the picture, logistic regression",
        licence="Apache-2.0",
        image_size=256,
        epochs=0,
        ends="L-BFGS to convergence; the penalty is fixed",
        heat_map="each place's share of the log-odds",
        settings=MappingProxyType({"penalty": 1.0}),
        extra=None,
        baseline=True,
        fit_version=2,
    ),
    _classifier(
        "mobilenetv3-small",
        "mobilenetv3_small_100.lamb_in1k",
        "Howard et al. 2019, arXiv:1905.02244",
        224,
        weights=_published("mobilenetv3_small_100.lamb_in1k", digest="266a294c"),
    ),
    _classifier(
        "resnet50",
        "resnet50.a1_in1k",
        "He et al. 2015, arXiv:1512.03385",
        224,
        _LAYER4,
        weights=_published("resnet50.a1_in1k", digest="14fe96d1"),
    ),
    _classifier(
        "tinyvit-21m-512",
        "tiny_vit_21m_512.dist_in22k_ft_in1k",
        "Wu et al. 2022, arXiv:2207.10666",
        512,
        "Grad-CAM of the abnormal logit at stage 4's last local_conv",
        aliases=("TinyViT-21M-512-distill",),
        sizes_because=f"{_TWO_CELLS}; below 512 px its attention windows are no wider than the picture",
        fit_version=2,
    ),
    _fixefficientnet(3, 472),
    _fixefficientnet(4, 472),
    _fixefficientnet(6, 680),
    _fixefficientnet(7, 632),
    _noisystudent(4, 380, "d6313a46"),
    _noisystudent(7, 600, "1dbc32de"),
    _classifier(
        "swinv2-b",
        "swinv2_base_window12to24_192to384.ms_in22k_ft_in1k",
        "Liu et al. 2021, arXiv:2111.09883",
        384,
        "Grad-CAM of the abnormal logit at the last block, its channels brought forward",
        weights=_published("swinv2_base_window12to24_192to384.ms_in22k_ft_in1k", "MIT"),
        aliases=("SwinV2-B",),
    ),
    _classifier("convnext-tiny", "convnext_tiny.fb_in1k", "Liu et al. 2022, arXiv:2201.03545", 224),
    _classifier(
        "efficientnetv2-s",
        "tf_efficientnetv2_s.in21k_ft_in1k",
        "Tan and Le 2021, arXiv:2104.00298",
        384,
        weights=_published("tf_efficientnetv2_s.in21k_ft_in1k", digest="d7dafa41"),
    ),
    _classifier(
        "wide-resnet50",
        WIDE_RESNET50.name,
        "Zagoruyko and Komodakis 2016, arXiv:1605.07146; the weights that PatchCore has",
        224,
        _LAYER4,
        weights=(WIDE_RESNET50,),
    ),
    _probe(
        "dinov2-vits14",
        DINOV2_S,
        "Oquab et al. 2023, arXiv:2304.07193",
        518,
        "Grad-CAM of the abnormal logit at the last block's first normalisation, on the patches' tokens",
        fit_version=2,
        smallest=28,
        multiple_of=14,
        sizes_because=DINOV2_SIDES,
    ),
    _classifier("efficientnet-lite0", EFFICIENTNET_LITE0.name, _LITE, 224, weights=(EFFICIENTNET_LITE0,)),
    _probe("efficientnet-lite0-probe", EFFICIENTNET_LITE0, _LITE, 224),
)
