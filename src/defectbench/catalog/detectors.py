"""The detectors, and the baseline of theirs."""

from __future__ import annotations

from types import MappingProxyType

from defectbench.catalog.entry import Entry
from defectbench.catalog.networks import RESNET18, WIDE_RESNET50

_ANOMALIB = "https://github.com/open-edge-platform/anomalib"

DETECTORS: tuple[Entry, ...] = (
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
        weights=(RESNET18,),
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
        weights=(WIDE_RESNET50,),
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
        weights=(WIDE_RESNET50,),
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
