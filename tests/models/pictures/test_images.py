from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from defectbench.data.manifest import Image, Manifest, Part, make_manifest
from defectbench.errors import BugError, TryAgainError
from defectbench.models.pictures import images as images_module
from defectbench.models.pictures.images import BATCH, ArrayPictures, ImageSet
from defectbench.util.image_io import read_resized
from parts import mounted

SIZE = 32
COUNT = 21


def make_category(root: Path) -> Manifest:
    """Write pictures of noise, 48 x 40; every third is abnormal, every sixth without a mask."""
    generator = np.random.default_rng(0)
    records = []
    for index in range(COUNT):
        bad = index % 3 == 0
        kind = "hole" if bad else "good"
        part: Part = "test" if bad else "train"
        path = f"{part}/{kind}/{index:03d}.png"
        mask = f"ground_truth/hole/{index:03d}_mask.png" if bad and index % 6 else None
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(generator.integers(0, 256, (40, 48, 3), np.uint8)).save(root / path)
        if mask:
            (root / mask).parent.mkdir(parents=True, exist_ok=True)
            defect = np.zeros((40, 48), np.uint8)
            defect[10:20, index : index + 9] = 255
            PIL.Image.fromarray(defect).save(root / mask)
        digest = hashlib.sha256((root / path).read_bytes()).hexdigest()
        records.append(Image(path[:-4], path, digest, part, int(bad), kind, 48, 40, mask))
    return make_manifest("noise", "c", records)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "category"


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return make_category(root)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were decoded so far."""
    seen: list[Path] = []

    def count(source: bytes, size: int, name: str, *scale: Any) -> np.ndarray:
        seen.append(Path(name))
        return read_resized(source, size, name, *scale)

    monkeypatch.setattr(images_module, "read_resized", count)
    return seen


class Extractor:
    """Features whose last bits depend on the batch they were computed in, as those of a GPU do."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        self.batches.append(len(pictures))
        flat = pictures.reshape(len(pictures), -1).astype(np.float32)
        return np.asarray((flat[:, :12].reshape(-1, 3, 4) + flat.mean()) / np.float32(3))


def ids_of(manifest: Manifest) -> list[str]:
    return [image.id for image in manifest.images]


def test_select_gives_resized_pictures_in_order(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    ids = ids_of(manifest)[::-2]
    view = ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids)
    assert len(view) == len(ids)
    for index, name in enumerate(ids):
        picture = PIL.Image.open(root / manifest.by_id[name].path)
        expected = np.asarray(picture.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR))
        assert view[index].dtype == np.uint8
        np.testing.assert_array_equal(view[index], expected)
    view[0][:] = 0
    assert view[0].any()
    with pytest.raises(IndexError):
        view[len(ids)]


def test_pictures_are_decoded_once(
    manifest: Manifest, root: Path, tmp_path: Path, decoded: list[Path]
) -> None:
    ids = ids_of(manifest)
    for _ in range(3):
        images = ImageSet(manifest, root, SIZE, tmp_path / "cache")
        for _ in range(2):
            view = images.select(ids)
            assert sum(int(view[index].sum()) for index in range(len(view))) > 0
    assert len(decoded) == COUNT
    assert len(set(decoded)) == COUNT


def test_prepare_decodes_all_pictures_at_once(
    manifest: Manifest, root: Path, tmp_path: Path, decoded: list[Path]
) -> None:
    images = ImageSet(manifest, root, SIZE, tmp_path / "cache")
    images.prepare()
    assert len(decoded) == COUNT
    images.prepare()
    assert int(images.select(ids_of(manifest))[0].sum()) > 0
    assert len(decoded) == COUNT


def test_features_of_another_version_are_computed_again(
    manifest: Manifest, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, extractor = ids_of(manifest), Extractor()
    for version in ("2.0", "2.1"):
        monkeypatch.setattr(images_module, "made_with", lambda *names, v=version: "+".join((*names, v)))
        images = ImageSet(manifest, root, SIZE, tmp_path / "cache")
        for _ in range(2):
            assert len(list(images.select(ids).features("e", extractor))) == COUNT
    assert len(extractor.batches) == 2 * -(-COUNT // BATCH)


def test_pictures_of_another_size_are_others(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    ids = ids_of(manifest)[:1]
    for size in (16, SIZE, 48):
        assert ImageSet(manifest, root, size, tmp_path / "cache").select(ids)[0].shape == (size, size, 3)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-1000], lambda data: b"", lambda data: data[:-200] + b"x" * 200]
)
def test_damaged_cache_is_made_again(
    manifest: Manifest, root: Path, tmp_path: Path, decoded: list[Path], spoil: Callable[[bytes], bytes]
) -> None:
    cache, ids, extractor = tmp_path / "cache", ids_of(manifest), Extractor()
    images = ImageSet(manifest, root, SIZE, cache)
    before = [images.select(ids)[index] for index in range(COUNT)]
    features = list(images.select(ids).features("e", extractor))
    for path in cache.rglob("*.npy"):
        path.write_bytes(spoil(path.read_bytes()))
    decoded.clear()
    again = ImageSet(manifest, root, SIZE, cache)
    np.testing.assert_array_equal([again.select(ids)[index] for index in range(COUNT)], before)
    np.testing.assert_array_equal(list(again.select(ids).features("e", extractor)), features)
    assert len(decoded) == COUNT


def test_features_do_not_depend_on_who_asks(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    """In another order, for some pictures only, in a cache of one's own: the same bits."""
    ids = ids_of(manifest)
    whole = dict(
        zip(
            ids,
            ImageSet(manifest, root, SIZE, tmp_path / "a").select(ids).features("e", Extractor()),
            strict=True,
        )
    )
    some = [ids[index] for index in np.random.default_rng(1).permutation(COUNT)[:10]]
    view = ImageSet(manifest, root, SIZE, tmp_path / "b").select(some)
    for _ in range(2):
        found = list(view.features("e", Extractor()))
        assert len(found) == len(some)
        for name, features in zip(some, found, strict=True):
            assert features.dtype == np.float32
            assert features.shape == (3, 4)
            assert features.tobytes() == whole[name].tobytes()


def test_features_are_computed_once(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    ids = ids_of(manifest)
    extractor = Extractor()
    for part in (ids[:3], ids[:12], ids[::-1], ids):
        list(ImageSet(manifest, root, SIZE, tmp_path / "cache").select(part).features("e", extractor))
    assert extractor.batches == [BATCH, BATCH, COUNT % BATCH]
    list(ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids).features("e/2", extractor))
    list(ImageSet(manifest, root, 16, tmp_path / "cache").select(ids).features("e", extractor))
    assert len(extractor.batches) == 9


def test_features_that_another_worker_computes_are_not_idly_waited_for(
    manifest: Manifest, root: Path, tmp_path: Path
) -> None:
    first, second = (
        ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids_of(manifest)) for _ in range(2)
    )
    begun, others_done = threading.Event(), threading.Event()
    slow, quick = Extractor(), Extractor()

    def compute_slowly(pictures: np.ndarray) -> np.ndarray:
        begun.set()
        assert others_done.wait(30)
        return slow(pictures)

    def compute_quickly(pictures: np.ndarray) -> np.ndarray:
        features = quick(pictures)
        if len(quick.batches) == 2:
            others_done.set()
        return features

    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(lambda: list(first.features("e", compute_slowly)))
        assert begun.wait(30)
        two = list(second.features("e", compute_quickly))
        np.testing.assert_array_equal(one.result(), two)
    assert (slow.batches, quick.batches) == ([BATCH], [BATCH, COUNT % BATCH])


def test_features_start_before_all_are_computed(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    extractor = Extractor()
    view = ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids_of(manifest))
    next(view.features("e", extractor))
    assert extractor.batches == [BATCH]


def test_features_of_the_wrong_type_are_a_bug(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    view = ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids_of(manifest))
    for wrong in (lambda batch: batch[:3].astype(np.float32), lambda batch: batch.astype(np.float64)):
        with pytest.raises(BugError, match="a float32 row for each"):
            list(view.features("e", wrong))


CHILD = """
import hashlib, sys, time
from pathlib import Path
import numpy as np
from defectbench.models.pictures import images
from defectbench.models.pictures.images import ImageSet
from defectbench.data.manifest import Manifest
decoded, batches = [], []
read = images.read_resized
def slow(source, size, name, *scale):
    decoded.append(name)
    time.sleep(0.01)
    return read(source, size, name, *scale)
images.read_resized = slow
def compute(pictures):
    batches.append(len(pictures))
    time.sleep(0.5)
    flat = pictures.reshape(len(pictures), -1).astype(np.float32)
    return flat / flat.mean() + np.float32(0.1)
root, cache, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
manifest = Manifest.from_json((root / "manifest.json").read_bytes())
ids = [image.id for image in manifest.images]
order = np.random.default_rng(seed).permutation(len(ids))
view = ImageSet(manifest, root, 32, cache).select([ids[i] for i in order])
print("ready", flush=True)
sys.stdin.readline()
found = np.stack(list(view.features("e", compute)))[np.argsort(order)]
shown = np.stack([view[i] for i in range(len(view))])[np.argsort(order)]
digest = hashlib.sha256(found.tobytes() + shown.tobytes()).hexdigest()
print(digest, len(decoded), len(batches))
"""


def test_processes_share_one_cache_bit_for_bit(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    (root / "manifest.json").write_bytes(manifest.to_json())
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    caches = ["shared", "shared", "shared", "own"]
    children = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(tmp_path / cache), str(seed)], **pipes)
        for seed, cache in enumerate(caches)
    ]
    said_first = [child.stdout.readline() for child in children if child.stdout is not None]
    assert said_first == ["ready\n"] * 4
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    said = [child.communicate()[0].split() for child in children]
    assert len({digest for digest, _, _ in said}) == 1
    assert sum(int(decoded) for _, decoded, _ in said[:3]) == COUNT
    assert sum(int(batches) for _, _, batches in said[:3]) == 3
    assert [int(number) for number in said[3][1:]] == [COUNT, 3]


def test_view_shows_pictures_and_features_only(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    view = ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids_of(manifest))
    assert [name for name in dir(view) if not name.startswith("_")] == ["features"]
    assert not hasattr(view, "__dict__")
    with pytest.raises(AttributeError):
        view.labels = [1]  # type: ignore[attr-defined]
    assert "hole" not in repr(view)


def test_select_of_an_unknown_image_is_a_bug(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    with pytest.raises(BugError, match="no-such"):
        ImageSet(manifest, root, SIZE, tmp_path / "cache").select(["no-such"])


def test_select_touches_no_file(manifest: Manifest, tmp_path: Path) -> None:
    view = ImageSet(manifest, tmp_path / "nowhere", SIZE, tmp_path / "cache").select(ids_of(manifest))
    assert len(view) == COUNT
    assert not (tmp_path / "cache").exists()
    with pytest.raises(TryAgainError, match=r"test/hole/000\.png"):
        view[0]
    assert list((tmp_path / "cache").rglob("*.npy")) == []


def test_mask(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    images = ImageSet(manifest, root, SIZE, tmp_path / "cache")
    for image in manifest.images:
        for _ in range(2):
            mask = images.mask(image.id)
            assert (mask is None) == (image.mask is None)
            if mask is not None:
                assert mask.dtype == np.bool_
                assert mask.shape == (SIZE, SIZE)
                assert 0.02 < mask.mean() < 0.08
    name = next(image.id for image in manifest.images if image.mask)
    mask = images.mask(name)
    assert mask is not None
    mask[:] = True
    again = images.mask(name)
    assert again is not None
    assert not again.all()


def test_full_cache_disk_costs_time_only(
    manifest: Manifest, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = ids_of(manifest)
    kept = ImageSet(manifest, root, 96, tmp_path / "cache").select(ids)
    with mounted(tmp_path / "small", "size=64k") as small:
        view = ImageSet(manifest, root, 96, small).select(ids)
        np.testing.assert_array_equal([view[i] for i in range(COUNT)], [kept[i] for i in range(COUNT)])
        extractor = Extractor()
        found = [list(pictures.features("e", extractor)) for pictures in (view, kept)]
        np.testing.assert_array_equal(found[0], found[1])
        whole = lambda batch: batch.astype(np.float32)  # noqa: E731
        one, other = (list(pictures.features("w", whole)) for pictures in (view, kept))
        np.testing.assert_array_equal(one, other)
    assert "takes nothing more" in caplog.text
    assert len(caplog.records) == 1


def test_small_limit_costs_time_only(
    manifest: Manifest, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ids_of(manifest)
    kept = ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids)
    monkeypatch.setenv("DEFECTBENCH_CACHE_BYTES", "1000")
    view = ImageSet(manifest, root, SIZE, tmp_path / "other").select(ids)
    np.testing.assert_array_equal([view[i] for i in range(COUNT)], [kept[i] for i in range(COUNT)])
    assert sum(path.stat().st_size for path in (tmp_path / "other").rglob("*.npy")) <= 1000


def test_array_pictures_give_what_a_set_gives(manifest: Manifest, root: Path, tmp_path: Path) -> None:
    view = ImageSet(manifest, root, SIZE, tmp_path / "cache").select(ids_of(manifest))
    array = np.stack([view[index] for index in range(COUNT)])
    pictures = ArrayPictures(array)
    assert len(pictures) == COUNT
    np.testing.assert_array_equal(pictures[3], view[3])
    extractor = Extractor()
    np.testing.assert_array_equal(
        list(pictures.features("e", extractor)), list(view.features("e", Extractor()))
    )
    assert extractor.batches == [BATCH, BATCH, COUNT % BATCH]
    with pytest.raises(BugError, match="uint8"):
        ArrayPictures(array.astype(np.float32))


@pytest.mark.parametrize("name", ["test/hole/003.png", "train/good/001.png"])
def test_file_that_is_not_what_it_was_is_no_fault_of_the_data(
    manifest: Manifest, root: Path, tmp_path: Path, name: str
) -> None:
    (root / ".index.json").write_text("{}")
    data = (root / name).read_bytes()
    images = ImageSet(manifest, root, SIZE, tmp_path / "cache")
    view = images.select([name.removesuffix(".png")])
    for damaged in (data[:-20], data[:-1] + b"x", b"", None):
        (root / name).unlink(missing_ok=True)
        if damaged is not None:
            (root / name).write_bytes(damaged)
        with pytest.raises(TryAgainError, match=name):
            view[0]
    assert not (root / ".index.json").exists()
    (root / name).write_bytes(data)
    assert view[0].shape == (SIZE, SIZE, 3)
