"""What `models check` counted at 512 px; `python docs/models.py` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from defectbench.catalog.entry import Measured

MEASURED: Mapping[str, Measured] = MappingProxyType(
    {
        "anomalydino": Measured(24_158_976, 99_150_901_248, side=518),
        "cfa": Measured(31_292_224, 1_163_978_670_080),
        "convnext-tiny": Measured(27_820_897, 46_547_731_968),
        "dinomaly": Measured(147_972_864, 474_962_905_088, side=518),
        "dinov2-vits14": Measured(22_056_577, 93_393_479_424, side=518),
        "draem": Measured(97_422_725, 1_583_634_972_672),
        "efficientad-m": Measured(20_739_204, 1_013_529_100_288),
        "efficientad-s": Measured(8_058_628, 330_199_425_024),
        "efficientnet-lite0": Measured(3_372_289, 4_011_444_736),
        "efficientnet-lite0-probe": Measured(3_372_289, 4_011_444_736),
        "efficientnetv2-s": Measured(20_178_769, 29_734_167_040),
        "fastflow": Measured(102_900_544, 340_803_977_216),
        "filterbank-knn": Measured(624_112, 5_560_369_152),
        "filterbank-logreg": Measured(1_559, 448_266_240),
        "fixefficientnet-b3": Measured(10_697_769, 10_027_560_064),
        "fixefficientnet-b4": Measured(17_550_409, 15_667_179_712),
        "fixefficientnet-b6": Measured(40_738_009, 35_023_036_608),
        "fixefficientnet-b7": Measured(63_789_521, 53_892_529_152),
        "glass": Measured(72_821_032, 128_782_434_304),
        "mobilenetv3-small": Measured(1_518_881, 570_918_912),
        "noisystudent-b4": Measured(17_550_409, 15_667_179_712),
        "noisystudent-b7": Measured(63_789_521, 53_892_529_152),
        "padim": Measured(177_167_912, 14_985_854_976),
        "padim-lite0": Measured(166_179_168, 2_872_868_864),
        "patchcore": Measured(71_399_208, 116_601_651_200),
        "patchcore-16shot": Measured(71_399_208, 116_601_651_200),
        "patchcore-large": Measured(236_347_832, 418_402_795_520),
        "patchcore-lite0": Measured(949_744, 4_581_523_456),
        "resnet50": Measured(23_510_081, 42_706_407_424),
        "reverse-distillation": Measured(89_002_304, 227_424_075_776),
        "simplenet": Measured(28_800_320, 128_247_169_024),
        "stfpm": Measured(5_565_568, 29_309_796_352),
        "supersimplenet": Measured(33_719_363, 386_367_226_372),
        "supersimplenet-supervised": Measured(33_719_363, 386_367_226_372),
        "swinv2-b": Measured(86_894_841, 277_318_772_736),
        "tinyvit-21m-512": Measured(20_691_697, 53_766_096_000),
        "uninet": Measured(123_177_601, 458_416_980_992),
        "wide-resnet50": Measured(66_836_289, 119_076_294_656),
    }
)
