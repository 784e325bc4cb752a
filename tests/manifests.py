"""Made-up categories without pictures: what splits are made of."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import strategies as st

from defectbench.data.manifest import GOOD, Image, Manifest, make_manifest


def picture(part: str, kind: str, number: int) -> Image:
    """An image whose content is its name."""
    name = f"{part}/{kind}/{number:03d}"
    label = int(kind != GOOD)
    return Image(name, name + ".png", name.encode().hex(), part, label, kind, 8, 8)  # type: ignore[arg-type]


def category(train: int = 20, good: int = 9, defects: Mapping[str, int] | None = None) -> Manifest:
    """A category with so many images."""
    kinds = {"crack": 5, "stain": 7} if defects is None else defects
    images = [picture("train", GOOD, k) for k in range(train)] + [
        picture("test", GOOD, k) for k in range(good)
    ]
    images += [picture("test", kind, k) for kind, count in kinds.items() for k in range(count)]
    return make_manifest("parts", "bolt", images)


def categories() -> st.SearchStrategy[Manifest]:
    """Categories of many shapes, large enough for five folds."""
    counts = st.lists(st.integers(1, 15), min_size=1, max_size=5).filter(lambda found: sum(found) >= 5)
    kinds = counts.map(lambda found: {f"type{k}": count for k, count in enumerate(found)})
    return st.builds(category, st.integers(5, 40), st.integers(5, 30), kinds)
