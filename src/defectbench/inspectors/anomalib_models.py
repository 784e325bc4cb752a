"""anomalib's torch models, imported without the warnings of the libraries that they bring along.

Only the networks are used: no Engine, no post-processor, because those scale and clamp the scores.
"""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    # Their first import compiles sources with invalid escapes and touches deprecated names.
    warnings.simplefilter("ignore")
    from anomalib.models.components import TimmFeatureExtractor
    from anomalib.models.image.glass.torch_model import GlassModel
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

__all__ = ["GlassModel", "PadimModel", "PatchcoreModel", "TimmFeatureExtractor"]
