"""What defectbench must know of the model. `plan` imports this module: it loads no model's library."""

from __future__ import annotations

from defectbench.catalog import Bounds, Entry

ENTRY = Entry(
    name="thumbnail-knn",
    family="detector",
    builder="defectbench_example_model.model:ThumbnailKnn",
    source="defectbench's example: the distance to the nearest good thumbnails",
    licence="Apache-2.0",
    image_size=128,
    epochs=0,
    ends="one pass over the training images",
    heat_map="each place's squared difference from the nearest good thumbnail",
    settings={"neighbours": 1, "thumbnail": 16},
    # `neighbours` has a rule in the catalog, `thumbnail` is ours.
    rules={"thumbnail": Bounds(4, 64, whole=True)},
    extra=None,
)
