"""Pixel metrics: does the heat map fall on the true defect, in one image and over all images of one fit.

Heat maps are (h, w) float32, higher = more abnormal, of any size; :func:`fit_map` first brings them to the
mask's size. Masks are (h, w), non-zero on the defect. A pixel is called abnormal when it is ``> threshold``.

Every figure is exact, keeps ties, and reads only the order of the fitted map's pixels. It follows from two
sorted lists, the defect's pixels (*hot*) and the others (*cold*): the rank of each hot pixel among the cold
ones is all that AUROC, AP, AUPRO and the best IoU need. What is undefined (no defect, nothing but defect) is
NaN; a map with NaN or infinity is a :class:`~defectbench.errors.DataError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from defectbench.errors import DataError

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
NAN = float("nan")
AUPRO_LIMIT = 0.3
QUANTILE = 0.99
_CHUNK = 1 << 20
"""Hot pixels ranked at a time: bounds the working memory at some 50 MB."""


@dataclass(frozen=True, slots=True)
class MapFigures:
    """How well one heat map falls on one defect.

    Attributes:
        pixel_auroc, pixel_ap: of the pixels within the image.
        pointing_hit: 1 where the hottest pixel lies on the defect, 0 where not; with several hottest pixels
            the share of them that does.
        iou: overlap with the mask at the threshold given; NaN where none was.
        iou_oracle: the best overlap over all thresholds: an upper bound.
        chance: the defect's share of the image: what pixel_ap and pointing_hit would be by chance.
    """

    pixel_auroc: float
    pixel_ap: float
    pointing_hit: float
    iou: float
    iou_oracle: float
    chance: float


def explain(heat_map: ArrayLike, mask: ArrayLike, threshold: float = NAN) -> MapFigures:
    """Return all figures of one image; ``threshold`` is on the map's own scale.

    >>> figures = explain([[0.0, 1.0], [2.0, 3.0]], [[0, 1], [0, 1]], threshold=1.5)
    >>> figures.pixel_auroc, figures.pointing_hit, round(figures.iou, 4), round(figures.iou_oracle, 4)
    (0.75, 1.0, 0.3333, 0.6667)

    Raises:
        DataError: the map or the mask is not a picture, or the map is not finite.
    """
    region = _region(mask)
    fitted = fit_map(heat_map, region.shape)
    # Sorted once: all figures below are searches in these two.
    hot, cold = np.sort(fitted[region]), np.sort(fitted[~region])
    return MapFigures(
        pixel_auroc=_auroc(hot, cold),
        pixel_ap=_ap(hot, cold),
        pointing_hit=_pointing(fitted, region),
        iou=_iou(fitted, region, threshold),
        iou_oracle=_iou_oracle(hot, cold),
        chance=chance(region),
    )


def explain_centre(mask: ArrayLike) -> MapFigures:
    """Return the figures of the centre prior, which knows nothing of the image.

    Its IoU is taken at its own 99 % quantile, which is the same for every image of one size.

    >>> explain_centre([[0, 0, 0], [0, 1, 0], [0, 0, 0]]).pointing_hit
    1.0
    """
    region = _region(mask)
    prior = centre_prior(region.shape)
    quantile = PixelQuantile()
    quantile.add(prior, region.shape)
    return explain(prior, region, quantile.value())


def centre_prior(size: tuple[int, ...]) -> Map:
    """Return a map of ``size`` (height, width) that falls with the distance from the centre, in pixels.

    >>> centre_prior((1, 3)).tolist()
    [[-1.0, -0.0, -1.0]]
    """
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in size)
    return np.asarray(-np.hypot(rows[:, None], columns[None, :]), dtype=np.float32)


def chance(mask: ArrayLike) -> float:
    """Return the defect's share of the image's area.

    >>> chance([[0, 1], [0, 0]])
    0.25
    """
    return float(_region(mask).mean())


def pixel_auroc(heat_map: ArrayLike, mask: ArrayLike) -> float:
    """Return the AUROC of the pixels within one image.

    >>> pixel_auroc([[0.0, 1.0], [2.0, 3.0]], [[0, 1], [0, 1]])
    0.75
    """
    return explain(heat_map, mask).pixel_auroc


def pixel_ap(heat_map: ArrayLike, mask: ArrayLike) -> float:
    """Return the average precision of the pixels within one image.

    >>> round(pixel_ap([[0.0, 1.0], [2.0, 3.0]], [[0, 1], [0, 1]]), 4)
    0.8333
    """
    return explain(heat_map, mask).pixel_ap


def pointing_hit(heat_map: ArrayLike, mask: ArrayLike) -> float:
    """Return the share of the map's hottest pixels that lie on the defect: 0 or 1 without ties.

    The pointing game of Zhang et al. 2016 (arXiv:1608.00507), without tolerance.

    >>> pointing_hit([[0.0, 3.0], [2.0, 3.0]], [[0, 1], [0, 0]])
    0.5
    """
    return explain(heat_map, mask).pointing_hit


def iou(heat_map: ArrayLike, mask: ArrayLike, threshold: float) -> float:
    """Return intersection over union of the mask and the pixels above ``threshold``.

    >>> iou([[0.0, 1.0], [2.0, 3.0]], [[0, 1], [0, 1]], 0.5)
    0.6666666666666666
    """
    return explain(heat_map, mask, threshold).iou


def iou_oracle(heat_map: ArrayLike, mask: ArrayLike) -> float:
    """Return the best intersection over union that any threshold gives.

    >>> iou_oracle([[0.0, 1.0], [2.0, 3.0]], [[0, 0], [1, 1]])
    1.0
    """
    return explain(heat_map, mask).iou_oracle


def fit_map(heat_map: ArrayLike, size: tuple[int, ...]) -> Map:
    """Return the map at ``size`` (height, width), by bilinear interpolation; it covers the same picture.

    Pixel centres lie at half integers, and the border's pixels go on outwards (PyTorch's
    ``interpolate(mode="bilinear", align_corners=False)``). A map of that size comes back as it is, and a flat
    region stays exactly flat.

    >>> fit_map([[0.0, 1.0]], (1, 4)).tolist()
    [[0.0, 0.25, 0.75, 1.0]]

    Raises:
        DataError: not (h, w) or empty, or a value is NaN or infinite.
    """
    values = np.asarray(heat_map, dtype=np.float32)
    if values.ndim != 2 or not values.size:
        raise DataError(f"a heat map is (height, width), got shape {values.shape}")
    bad = int(values.size - np.isfinite(values).sum())
    if bad:
        raise DataError(
            f"heat map: {bad} of {values.size} values are NaN or infinite: the model is not usable"
        )
    if values.shape == size:
        return values
    tall = _stretch(values.astype(np.float64), size[0])
    return np.ascontiguousarray(_stretch(tall.T, size[1]).T, dtype=np.float32)


class PixelPool:
    """Pixel AUROC, AP and AUPRO over all scored images of one fit, exact, fed image by image.

    Memory at the peak: 5 bytes for each pixel off the defects, 13 for each on them, and some 50 MB: 0.33 GB
    for 200 images of 512 x 512 with 5 % of defect pixels.

    >>> pool = PixelPool()
    >>> pool.add([[0.0, 1.0], [2.0, 3.0]], [[0, 0], [0, 1]])
    >>> pool.add([[0.5, 2.5]], [[0, 0]])
    >>> pool.figures()
    {'pixel_auroc_pooled': 1.0, 'pixel_ap_pooled': 1.0, 'aupro': 1.0}
    """

    def __init__(self, limit: float = AUPRO_LIMIT) -> None:
        self._limit = limit
        self._cold = _Buffer(np.float32)
        self._hot = _Buffer(np.float32)
        self._sizes = _Buffer(np.int32)

    def add(self, heat_map: ArrayLike, mask: ArrayLike) -> None:
        """Take in one image. A good one has a mask of zeros; leave out a defective one without a mask.

        Raises:
            DataError: the map or the mask is not a picture, or the map is not finite.
        """
        region = _region(mask)
        fitted = fit_map(heat_map, region.shape)
        self._cold.append(fitted[~region])
        if region.any():
            self._hot.append(fitted[region])
            self._sizes.append(_component_sizes(region)[region])

    def figures(self) -> dict[str, float]:
        """Return the figures of kind ``pooled`` by name; NaN without pixels on and off defects.

        AUPRO (Bergmann et al. 2021, IJCV 129): the mean over all 8-connected regions of their covered share,
        integrated over the share of defect-free pixels called abnormal (those of good images included) from 0
        to the limit, divided by the limit.
        """
        cold, hot = self._cold.view(), self._hot.view()
        cold.sort()
        aupro = _aupro(hot, self._sizes.view(), cold, self._limit)
        ordered = np.sort(hot)
        return {
            "pixel_auroc_pooled": _auroc(ordered, cold),
            "pixel_ap_pooled": _ap(ordered, cold),
            "aupro": aupro,
        }


class PixelQuantile:
    """The threshold that a share of all pixels of good maps does not exceed, exact, fed map by map.

    The value is the smallest pixel that at least ``level`` of all pixels lie at or below, so that at most
    ``1 - level`` of them are called abnormal. Memory: 5 bytes a pixel.

    >>> quantile = PixelQuantile(0.75)
    >>> quantile.add([[1.0, 4.0], [2.0, 3.0]], (2, 2))
    >>> quantile.value()
    3.0
    """

    def __init__(self, level: float = QUANTILE) -> None:
        self._level = level
        self._pixels = _Buffer(np.float32)

    def add(self, heat_map: ArrayLike, size: tuple[int, ...]) -> None:
        """Take in the map of one image of ``size`` (height, width), the size its mask would have.

        Raises:
            DataError: the map is not a picture or not finite.
        """
        self._pixels.append(fit_map(heat_map, size))

    def value(self) -> float:
        """Return the quantile; NaN without a map."""
        pixels = self._pixels.view()
        if not pixels.size:
            return NAN
        # 0.55 x 100 is 55.00000000000001 in floats: without the 1e-6 the next pixel would be taken.
        place = max(int(np.ceil(self._level * pixels.size - 1e-6)) - 1, 0)
        pixels.partition(place)
        return float(pixels[place])


class _Buffer:
    """A flat array that grows by a quarter. realloc moves pages, so that no second copy is ever held."""

    def __init__(self, kind: Any) -> None:
        self._data: NDArray[Any] = np.empty(0, dtype=kind)
        self._used = 0

    def append(self, values: NDArray[Any]) -> None:
        end = self._used + values.size
        if end > self._data.size:
            # refcheck would count a debugger's references too and refuse; :meth:`view` warns its readers.
            self._data.resize(max(end, self._data.size * 5 // 4), refcheck=False)
        self._data[self._used : end] = values.ravel()
        self._used = end

    def view(self) -> NDArray[Any]:
        """What was appended; holds until the next append, and may be put in another order."""
        return self._data[: self._used]


def _region(mask: ArrayLike) -> Mask:
    """Return the mask as booleans, (h, w)."""
    # Masks are read as 0 and 255, as 0 and 1, and as booleans.
    region: Mask = np.asarray(mask) != 0
    if region.ndim != 2 or not region.size:
        raise DataError(f"a mask is (height, width), got shape {region.shape}")
    return region


def _stretch(values: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Interpolate along the first axis."""
    old = values.shape[0]
    place = np.clip((np.arange(length) + 0.5) * (old / length) - 0.5, 0, old - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, old - 1)
    share = (place - low)[:, None]
    return np.asarray(values[low] + share * (values[high] - values[low]), dtype=np.float64)


def _component_sizes(region: Mask) -> NDArray[np.int32]:
    """Return each pixel's number of pixels in its 8-connected component."""
    from scipy import ndimage

    labels, _ = ndimage.label(region, structure=np.ones((3, 3)))
    sizes: NDArray[np.int32] = np.bincount(labels.ravel()).astype(np.int32)[labels]
    return sizes


def _chunks(length: int) -> Iterator[slice]:
    """Yield slices that cover ``length`` places, :data:`_CHUNK` at a time."""
    return (slice(start, start + _CHUNK) for start in range(0, length, _CHUNK))


def _auroc(hot: Map, cold: Map) -> float:
    """Mann-Whitney's U over the pairs, in integers. Both sorted."""
    if not (hot.size and cold.size):
        return NAN
    twice = 0
    for part in _chunks(hot.size):
        below, upto = (np.searchsorted(cold, hot[part], side) for side in ("left", "right"))
        twice += int(below.sum()) + int(upto.sum())
    return twice / (2 * hot.size * cold.size)


def _ap(hot: Map, cold: Map) -> float:
    """Mean of the precision at each hot pixel's value: recall steps of one pixel. Both sorted."""
    if not (hot.size and cold.size):
        return NAN
    total = 0.0
    for part in _chunks(hot.size):
        tp = hot.size - np.searchsorted(hot, hot[part], "left")
        fp = cold.size - np.searchsorted(cold, hot[part], "left")
        total += float((tp / (tp + fp)).sum())
    return total / hot.size


def _iou_oracle(hot: Map, cold: Map) -> float:
    """Best overlap; a best threshold always lies at a hot pixel's value. Both sorted."""
    if not (hot.size and cold.size):
        return NAN
    tp = hot.size - np.searchsorted(hot, hot, "left")
    fp = cold.size - np.searchsorted(cold, hot, "left")
    return float((tp / (hot.size + fp)).max())


def _aupro(hot: Map, sizes: NDArray[np.int32], cold: Map, limit: float) -> float:
    """Integrate each hot pixel's share of the curve by itself; ``cold`` is sorted, ``hot`` is not.

    The curve is a sum of ramps, one for each hot pixel: 0 up to the rate ``a`` of cold pixels above it, then
    rising in a straight line (over the cold pixels that tie with it) to 1 at the rate ``b``.
    """
    if not (hot.size and cold.size):
        return NAN
    total = regions = 0.0
    for part in _chunks(hot.size):
        order = np.argsort(hot[part])  # sorted queries keep the search in the cache
        values, weights = hot[part][order], 1 / sizes[part][order]
        # searchsorted is exact under ties: "right" leaves tied cold pixels out, "left" counts them.
        a = (cold.size - np.searchsorted(cold, values, "right")) / cold.size
        b = (cold.size - np.searchsorted(cold, values, "left")) / cold.size
        low, high = np.minimum(a, limit), np.minimum(b, limit)
        rising = (high - low) ** 2 / (2 * np.where(b > a, b - a, 1))
        total += float((weights * (rising + limit - high)).sum())
        regions += float(weights.sum())
    return total / (regions * limit)


def _pointing(fitted: Map, region: Mask) -> float:
    """Return the share of the hottest pixels that lies on the defect."""
    if not region.any():
        return NAN
    return float(region[fitted == fitted.max()].mean())


def _iou(fitted: Map, region: Mask, threshold: float) -> float:
    """Return the overlap at a threshold; NaN without a threshold or a defect."""
    if np.isnan(threshold) or not region.any():
        return NAN
    # In float64: a float32 threshold could round onto a pixel and lose it.
    called = fitted > np.float64(threshold)
    return float((called & region).sum() / (called | region).sum())
