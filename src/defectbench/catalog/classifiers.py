"""The classifiers: fine-tuned timm networks, and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defectbench.catalog.entry import Entry, Weights
from defectbench.catalog.rules import Setting

_TIMM = "https://github.com/huggingface/pytorch-image-models"
_EARLY = "cosine schedule; stops when the tuning images' AUROC has not risen for `patience` epochs"
_CLASSIFIER_SETTINGS: Mapping[str, Setting] = MappingProxyType(
    {"learning_rate": 3e-4, "weight_decay": 0.05, "batch_size": 16, "warmup_epochs": 1, "freeze": False}
)


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


CLASSIFIERS: tuple[Entry, ...] = (
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
)
