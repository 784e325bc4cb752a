"""A category's pictures, decoded once, and their features, computed once: what models look at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray

from defectbench.data.manifest import Image, Manifest
from defectbench.data.unpacked import forget
from defectbench.errors import BugError, DataError, TryAgainError
from defectbench.models.base import Pictures
from defectbench.models.features.versions import made_with
from defectbench.util.array_cache import Cache, default_cache
from defectbench.util.files import disk_errors
from defectbench.util.image_io import FULL, UNLIMITED, Intensity, read_mask, read_resized, resize_mask

__all__ = ["BATCH", "ArrayPictures", "FilePictures", "ImageSet", "default_cache"]

BATCH = 8
"""Pictures of one call of ``compute``."""

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

_PICTURES, _FEATURES = "pictures", "features"
_DECODER = f"1-pillow{PIL.__version__}"
"""Names how a file becomes an array; another Pillow may round otherwise."""


class ImageSet:
    """One category at one size.

    Args:
        root: the category's unpacked archive; the manifest's paths lie below it.
        size: side of the pictures in pixels.
        cache: directory for decoded pictures and features.
        threads: that compute features. They decide rounding, so the cache's key holds them.
    """

    def __init__(self, manifest: Manifest, root: Path, size: int, cache: Path, threads: int = 1) -> None:
        if size < 1:
            raise BugError(f"pictures of {size} pixels a side")
        self.manifest = manifest
        self.size = size
        self.threads = threads
        self._root = root
        self._cache = Cache(cache, (_PICTURES, _FEATURES))
        self._kept: NDArray[np.uint8] | None = None
        self._uncached = False
        self._masks: dict[str, NDArray[np.uint8]] = {}

    def prepare(self) -> None:
        """Decode all pictures now, unless the cache has them or cannot keep them."""
        self._array()

    def select(self, ids: Sequence[str]) -> Pictures:
        """Return a view of these pictures, in this order, that shows nothing else about them.

        Raises:
            BugError: an id that the manifest does not have.
        """
        unknown = [name for name in ids if name not in self.manifest.position]
        if unknown:
            raise BugError(f"{self.manifest.category} has no images {unknown[:3]}")
        places = np.array([self.manifest.position[name] for name in ids], np.int64)
        return _PictureView(places, self._picture, self._batch)

    def mask(self, name: str) -> NDArray[np.bool_] | None:
        """Return an image's ground truth, (size, size) bool, or None where it has none."""
        image = self.manifest.by_id[name]
        if image.mask is None:
            return None
        if name not in self._masks:
            mask = read_mask(self._bytes(image.mask, image.mask_sha256), image.mask, UNLIMITED)
            # A bit a pixel: all masks of a category are kept, and as bytes they take eight times the memory.
            self._masks[name] = np.packbits(resize_mask(mask, self.size))
        return np.unpackbits(self._masks[name], count=self.size**2).reshape(self.size, -1).astype(np.bool_)

    def _picture(self, place: int) -> NDArray[np.uint8]:
        """Return the picture at a place of the manifest, a copy that the caller may change."""
        kept = self._array()
        return self._decode(self.manifest.images[place]) if kept is None else np.array(kept[place])

    def _array(self) -> NDArray[np.uint8] | None:
        """Return all pictures, (n, size, size, 3), decoded at most once; None where they cannot be kept."""
        if self._kept is None and not self._uncached:
            entry = f"{_PICTURES}/{self.manifest.digest}-{self.size}-{_DECODER}"
            shape = (len(self.manifest.images), self.size, self.size, 3)
            self._kept = self._whole(entry, "pictures", shape)
            if self._kept is None:
                # Looked up again under the lock: another process may have decoded meanwhile.
                with self._cache.lock(entry, "pictures"):
                    self._kept = self._whole(entry, "pictures", shape)
                    if self._kept is None:
                        rows = map(self._decode, self.manifest.images)
                        self._kept = self._cache.keep(entry, "pictures", shape, np.uint8, rows)
            self._uncached = self._kept is None
        return self._kept

    def _whole(self, entry: str, name: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
        """Return a cache entry, or None: one of another shape was cut short or is foreign."""
        found = self._cache.find(entry, name)
        return found if found is not None and found.shape == shape else None

    def _decode(self, image: Image) -> NDArray[np.uint8]:
        """Return an image's picture at this set's size, on the manifest's scale of grey."""
        data = self._bytes(image.path, image.sha256)
        try:
            return read_resized(data, self.size, image.path, self.manifest.intensity, UNLIMITED)
        except DataError as error:
            if isinstance(error.__cause__, MemoryError):  # the import read it: want of memory may pass
                raise error.__cause__ from None
            raise

    def _bytes(self, path: str, sha256: str | None) -> bytes:
        """Return a file's bytes, held to the manifest: the disk may have lost some since it was unpacked.

        Raises:
            TryAgainError: they are others, or cannot be read; the next attempt unpacks the archive anew.
        """
        with disk_errors(self._root / path):
            data = (self._root / path).read_bytes()
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            forget(self._root)
            raise TryAgainError(f"{self._root / path}: damaged on this machine; run the same command again")
        return data

    def _batch(
        self, number: int, later: Sequence[int], extractor: str, compute: Compute
    ) -> NDArray[np.float32]:
        """Return the features of batch ``number`` of the category, kept or computed now.

        While another process computes it, this one goes ahead with one of the batches needed ``later``.
        """
        entry = f"{_FEATURES}/{self._feature_entry(extractor)}"

        def make(which: int, wait: bool) -> NDArray[np.float32] | None:
            return self._make_batch(which, entry, extractor, compute, wait=wait)

        # Without this, two workers on one category would compute the same batch in step, one always waiting.
        while (found := make(number, False)) is None:
            missing = () if self._cache.full else later
            ahead = (which for which in missing if not self._cache.has(entry, _batch_name(which)))
            if all(make(which, False) is None for which in ahead):
                found = make(number, True)
                break
        if found is None:
            raise BugError(f"batch {number} of {extractor} was neither found nor made")
        return found

    def _make_batch(
        self, number: int, entry: str, extractor: str, compute: Compute, *, wait: bool
    ) -> NDArray[np.float32] | None:
        """Return a batch's features; None, without ``wait``, when another process computes them now."""
        name = _batch_name(number)
        found = self._cache.find(entry, name)
        if found is not None:
            return found
        pictures = self._stack(number)  # decoded first: nobody waits for a lock while holding another
        with self._cache.lock(entry, name, wait=wait) as free:
            if not free:
                return None
            found = self._cache.find(entry, name)
            if found is not None:
                return found
            features = _computed(pictures, extractor, compute)
            self._cache.keep(entry, name, features.shape, np.float32, features)
            return features

    def _stack(self, number: int) -> NDArray[np.uint8]:
        """Return the pictures of a batch, (b, size, size, 3)."""
        places = range(number * BATCH, min((number + 1) * BATCH, len(self.manifest.images)))
        return np.stack([self._picture(place) for place in places])

    def _feature_entry(self, extractor: str) -> str:
        """Return a file name: the extractor's for people, a hash for all that decides the features."""
        kept_as = f"{self.manifest.digest}\n{self.size}\n{_DECODER}\n{made_with('numpy')}"
        decided = f"{extractor}\n{self.threads}\n{kept_as}"
        readable = re.sub(r"[^A-Za-z0-9_-]+", "-", extractor)[:40]
        return f"{readable}-{self.size}-{hashlib.sha256(decided.encode()).hexdigest()[:32]}"


def _batch_name(number: int) -> str:
    """Return a batch's name in the cache."""
    return f"{number:05d}"


class _PictureView:
    """Some pictures of a set, in an order: no ids, labels, masks or paths."""

    __slots__ = ("_batch", "_picture", "_places")

    def __init__(
        self,
        places: NDArray[np.int64],
        picture: Callable[[int], NDArray[np.uint8]],
        batch: Callable[[int, Sequence[int], str, Compute], NDArray[np.float32]],
    ) -> None:
        self._places = places
        self._picture = picture
        self._batch = batch

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return self._picture(int(self._places[index]))

    def features(self, extractor: str, compute: Compute) -> Iterator[NDArray[np.float32]]:
        """Yield each picture's features; one batch is in memory at a time."""
        needed = list(dict.fromkeys(int(place) // BATCH for place in self._places))
        held, batch = -1, np.zeros(0, np.float32)
        for place in self._places:
            number, row = divmod(int(place), BATCH)
            if number != held:
                later = needed[needed.index(number) + 1 :]
                held, batch = number, self._batch(number, later, extractor, compute)
            yield np.array(batch[row])


class ArrayPictures:
    """Pictures in memory: (n, size, size, 3) uint8. Features are computed at every call, batch by batch."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] != 3:
            raise BugError(f"pictures are (n, size, size, 3) uint8, got {array.shape} {array.dtype}")
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return np.array(self._array[index])

    def features(self, extractor: str, compute: Compute) -> Iterator[NDArray[np.float32]]:
        """Yield each picture's features."""
        for start in range(0, len(self._array), BATCH):
            yield from _computed(np.array(self._array[start : start + BATCH]), extractor, compute)


class FilePictures:
    """Picture files that no manifest knows, decoded as those of a category are; one batch is in memory.

    Features are computed on batches of :data:`BATCH` pictures, the last one filled up with its last picture:
    rounding may depend on how many pictures a batch has, and in a category nearly all have as many.
    """

    def __init__(self, paths: Sequence[Path], size: int, intensity: Intensity = FULL) -> None:
        self._paths = tuple(paths)
        self._size = size
        self._intensity = intensity

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return read_resized(self._paths[index], self._size, intensity=self._intensity)

    def features(self, extractor: str, compute: Compute) -> Iterator[NDArray[np.float32]]:
        """Yield each picture's features."""
        for start in range(0, len(self), BATCH):
            rows = [self[index] for index in range(start, min(start + BATCH, len(self)))]
            whole = np.stack(rows + rows[-1:] * (BATCH - len(rows)))
            yield from _computed(whole, extractor, compute)[: len(rows)]


def _computed(pictures: NDArray[np.uint8], extractor: str, compute: Compute) -> NDArray[np.float32]:
    """Compute features, and hold the extractor to its promise: a float32 row for each picture."""
    features = compute(pictures)
    if features.dtype != np.float32 or len(features) != len(pictures):
        raise BugError(
            f"{extractor} gave {features.shape} {features.dtype} for {len(pictures)} pictures; "
            "a float32 row for each is wanted"
        )
    return features
