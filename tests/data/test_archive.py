from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from defectbench.data.archive import import_dataset, list_categories, list_datasets, load_manifest, unpack
from defectbench.data.manifest import Manifest
from defectbench.data.synthetic.synth import synth
from defectbench.data.unpacked import forget
from defectbench.errors import DataError, MissingInputError, TryAgainError, UsageError
from defectbench.stores.directory import DirectoryStore
from defectbench.util.image_io import read_mask

SMALL: dict[str, Any] = {
    "categories": ["brick", "coin"],
    "size": 64,
    "train_good": 3,
    "test_good": 3,
    "defects_per_type": 1,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "parts"
    synth(root, **SMALL)
    return root


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "store")


def tar_key(manifest: Manifest) -> str:
    return f"datasets/{manifest.dataset}/{manifest.category}/{manifest.digest}.tar"


def test_import_stores_manifests_and_tars(dataset: Path, store: DirectoryStore) -> None:
    manifests = import_dataset(dataset, store)
    assert [manifest.category for manifest in manifests] == ["brick", "coin"]
    for manifest in manifests:
        folder = f"datasets/parts/{manifest.category}/"
        assert sorted(store.keys(folder)) == sorted([tar_key(manifest), folder + "manifest.json"])
        assert load_manifest(store, "parts", manifest.category) == manifest
        image = manifest.by_id["test/hole/000"]
        assert (image.label, image.width, image.mask) == (1, 64, "ground_truth/hole/000_mask.png")
        stored = (dataset / manifest.category / image.path).read_bytes()
        assert hashlib.sha256(stored).hexdigest() == image.sha256
    assert list_datasets(store) == ["parts"]
    assert list_categories(store, "parts") == ["brick", "coin"]


def test_import_again_changes_nothing_and_archives_are_bit_equal(
    dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    first = import_dataset(dataset, store)
    before = {key: store.get(key) for key in store.keys("")}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/datasets").rglob("*.*")}
    assert import_dataset(dataset, store) == first
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    other = DirectoryStore(tmp_path / "other")
    import_dataset(dataset, other)
    assert {key: other.get(key) for key in other.keys("")} == before


def test_import_refuses_a_broken_data_set_whole(dataset: Path, store: DirectoryStore, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(dataset, broken)
    (broken / "brick/ground_truth/hole/000_mask.png").unlink()
    (broken / "coin/test/good/000.png").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        import_dataset(broken, store)
    text = "\n".join(caught.value.problems)
    assert "brick/test/hole/000.png" in text
    assert "coin/test/good/000.png" in text
    assert list(store.keys()) == []


def test_import_normalises_masks_and_keeps_pictures(
    dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(dataset / "brick", odd / "brick")
    path = odd / "brick/ground_truth/hole/000_mask.png"
    mask = read_mask(path)
    Image.fromarray(mask.astype(np.uint8) * 3).save(path)
    (manifest,) = import_dataset(odd, store)
    folder = unpack(store, "odd", "brick", manifest.digest, tmp_path / "cache")
    with Image.open(folder / "ground_truth/hole/000_mask.png") as image:
        assert set(np.unique(np.asarray(image.convert("L")))) == {0, 255}
    assert np.array_equal(read_mask(folder / "ground_truth/hole/000_mask.png"), mask)


@pytest.mark.parametrize("name", ["two words", "../up", ".hidden", "-x", "ü"])
def test_import_refuses_bad_names(dataset: Path, store: DirectoryStore, name: str) -> None:
    with pytest.raises(UsageError, match="only letters, digits"):
        import_dataset(dataset, store, name=name)
    assert list(store.keys()) == []


def test_import_into_a_full_store_says_try_again_and_later_goes_on(dataset: Path, tmp_path: Path) -> None:
    class Full(DirectoryStore):
        room = 1

        def upload(self, key: str, path: Path) -> None:
            if self.room == 0:
                raise TryAgainError("the disk is full")
            self.room -= 1
            super().upload(key, path)

    store = Full(tmp_path / "store")
    with pytest.raises(TryAgainError):
        import_dataset(dataset, store)
    assert list_datasets(store) == []
    store.room = 5
    import_dataset(dataset, store)
    assert list_categories(store, "parts") == ["brick", "coin"]
    assert store.room == 4


def test_load_manifest_names_what_is_there(dataset: Path, store: DirectoryStore) -> None:
    with pytest.raises(MissingInputError, match="holds no data set"):
        load_manifest(store, "parts", "brick")
    import_dataset(dataset, store)
    with pytest.raises(MissingInputError, match="did you mean 'parts'"):
        load_manifest(store, "part", "brick")
    with pytest.raises(MissingInputError, match="did you mean 'brick'"):
        load_manifest(store, "parts", "brik")
    with pytest.raises(MissingInputError):
        list_categories(store, "../parts")


def test_unpack_gives_every_file_and_fetches_once(
    dataset: Path, store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    assert Manifest.from_json((folder / "manifest.json").read_bytes()) == manifest
    for image in manifest.images:
        assert (folder / image.path).read_bytes() == (dataset / "brick" / image.path).read_bytes()
        assert image.mask is None or read_mask(folder / image.mask).any()
    monkeypatch.setattr(store, "download", None)
    assert unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache") == folder


def as_unpacked(folder: Path) -> Any:
    """Every file but the index, whose times change."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".index.json")
    return {path.relative_to(folder): path.read_bytes() for path in files}


def to_folder(path: Path) -> None:
    path.unlink()
    (path / "below").mkdir(parents=True)


@pytest.mark.parametrize("name", ["train/good/001.png", "ground_truth/hole/000_mask.png", "manifest.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"),
        lambda path: path.unlink(),
        to_folder,
    ],
)
def test_unpack_mends_damage_in_the_cache(
    dataset: Path, store: DirectoryStore, tmp_path: Path, name: str, damage: Any
) -> None:
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    whole = as_unpacked(folder)
    damage(folder / name)
    assert unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache") == folder
    assert as_unpacked(folder) == whole


@pytest.mark.parametrize(
    "text", ["[]", "{", "", "{}", "null", '"x"', '{"manifest.json": 1}', '{"manifest.json": [1]}', "[" * 9999]
)
def test_unpack_makes_a_damaged_index_anew(
    dataset: Path, store: DirectoryStore, tmp_path: Path, text: str
) -> None:
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    (folder / ".index.json").write_text(text)
    assert unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache") == folder
    entries = json.loads((folder / ".index.json").read_text())
    assert {Path(name) for name in entries} == set(as_unpacked(folder))


def test_unpack_replaces_what_stands_in_the_folders_place(
    dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    manifest = import_dataset(dataset, store)[0]
    target = tmp_path / "cache/datasets" / manifest.digest
    target.parent.mkdir(parents=True)
    target.write_text("no directory")
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    assert Manifest.from_json((folder / "manifest.json").read_bytes()) == manifest


def test_forget_has_the_next_unpack_fetch_again(dataset: Path, store: DirectoryStore, tmp_path: Path) -> None:
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    path = folder / "train/good/001.png"
    whole, times = path.read_bytes(), path.stat()
    path.write_bytes(whole[:-1] + b"x")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    forget(folder)
    forget(folder)
    unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9000], lambda data: b"", lambda data: data[:-1] + b"x"]
)
def test_import_again_mends_a_rotten_archive(
    dataset: Path, store: DirectoryStore, tmp_path: Path, damage: Any
) -> None:
    manifests = import_dataset(dataset, store)
    before = {key: store.get(key).data for key in store.keys("")}
    for manifest in manifests:
        store.put(tar_key(manifest), damage(before[tar_key(manifest)]))
    import_dataset(dataset, store)
    assert {key: store.get(key).data for key in store.keys("")} == before


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"{}"])
def test_import_again_mends_a_rotten_manifest(dataset: Path, store: DirectoryStore, text: bytes) -> None:
    first = import_dataset(dataset, store)
    store.put("datasets/parts/brick/manifest.json", text)
    assert import_dataset(dataset, store) == first
    assert load_manifest(store, "parts", "brick") == first[0]


class Failing(DirectoryStore):
    """A store whose puts fail, or whose process dies, after ``left`` of them."""

    def __init__(self, path: Path, left: int, error: Any) -> None:
        super().__init__(path)
        self.left, self.error = left, error

    def put(self, key: str, data: bytes, *, expected: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().put(key, data, expected=expected)


@pytest.mark.parametrize("left", range(3))
@pytest.mark.parametrize("error", [TryAgainError("full"), KeyboardInterrupt()], ids=["full", "killed"])
def test_import_of_two_categories_is_whole_or_absent(
    dataset: Path, tmp_path: Path, left: int, error: Any
) -> None:
    store = Failing(tmp_path / "store", left, error)
    with pytest.raises(type(error)):
        import_dataset(dataset, store)
    assert list_datasets(store) == []
    with pytest.raises(MissingInputError):
        load_manifest(store, "parts", "brick")
    store.left = 99
    manifests = import_dataset(dataset, store)
    assert list_categories(store, "parts") == ["brick", "coin"]
    wanted = {tar_key(one) for one in manifests}
    wanted |= {f"datasets/parts/{one.category}/manifest.json" for one in manifests}
    assert set(store.keys()) == wanted


def test_import_that_fails_leaves_the_older_data(dataset: Path, tmp_path: Path) -> None:
    store = Failing(tmp_path / "store", 99, TryAgainError("full"))
    first = import_dataset(dataset, store)
    newer = tmp_path / "newer" / "parts"
    shutil.copytree(dataset, newer)
    for category in ("brick", "coin"):
        (newer / category / "train/good/000.png").unlink()
    store.left = 2  # what says that an import is going on, and one manifest
    with pytest.raises(TryAgainError):
        import_dataset(newer, store)
    store.left = 99
    later = import_dataset(newer, store)
    assert [load_manifest(store, "parts", one.category) for one in later] == later != first


def test_import_that_finds_the_store_full_once_changes_nothing(dataset: Path, tmp_path: Path) -> None:
    class Once(Failing):
        def put(self, key: str, data: bytes, *, expected: Any = None) -> Any:
            if self.left == 0:
                self.left = 99
                raise self.error
            return super().put(key, data, expected=expected)

    store = Once(tmp_path / "store", 99, TryAgainError("full"))
    first = import_dataset(dataset, store)
    newer = tmp_path / "newer" / "parts"
    shutil.copytree(dataset, newer)
    for category in ("brick", "coin"):
        (newer / category / "train/good/000.png").unlink()
    store.left = 2  # what says that an import is going on, and one manifest
    with pytest.raises(TryAgainError):
        import_dataset(newer, store)
    assert [load_manifest(store, "parts", one.category) for one in first] == first


def test_import_under_way_hides_its_categories_alone(dataset: Path, tmp_path: Path) -> None:
    store = Failing(tmp_path / "store", 99, KeyboardInterrupt())
    other = tmp_path / "other" / "parts"
    shutil.copytree(dataset / "brick", other / "stone")
    import_dataset(other, store)
    store.left = 2
    with pytest.raises(KeyboardInterrupt):
        import_dataset(dataset, store)
    assert list_categories(store, "parts") == ["stone"]
    with pytest.raises(MissingInputError, match=r"an import of brick, coin has not ended: run the same"):
        load_manifest(store, "parts", "coin")
    with pytest.raises(MissingInputError, match="allowed: stone"):
        load_manifest(store, "parts", "iron")


def test_unpack_takes_a_copied_cache(dataset: Path, store: DirectoryStore, tmp_path: Path) -> None:
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    path = folder / "train/good/001.png"
    path.write_bytes(path.read_bytes())
    assert unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache") == folder


def rewritten(store: DirectoryStore, key: str, change: Any) -> Any:
    """Put the tar under ``key`` again with its list of (name, data) changed."""
    with tarfile.open(fileobj=io.BytesIO(store.get(key).data)) as tar:
        members = [(member.name, file.read()) for member in tar if (file := tar.extractfile(member))]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in change(members):
            info = tarfile.TarInfo(name)
            if data is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            info.size = len(data or b"")
            tar.addfile(info, io.BytesIO(data or b""))
    store.put(key, buffer.getvalue())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda members: members[:-1], "lacks"),
        (lambda members: members[1:], "does not start with"),
        (lambda members: [*members, ("../escaped", b"x")], "does not name"),
        (lambda members: [*members, ("link", None)], "no plain file"),
        (lambda members: [*members[:-1], (members[-1][0], b"x")], "is damaged"),
        (lambda members: [*members, members[-1]], "does not name"),
    ],
)
def test_unpack_refuses_a_damaged_archive(
    dataset: Path, store: DirectoryStore, tmp_path: Path, change: Any, why: str
) -> None:
    manifest = import_dataset(dataset, store)[0]
    rewritten(store, tar_key(manifest), change)
    with pytest.raises(DataError, match=why):
        unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()]
    assert left == []
    assert not (tmp_path / "escaped").exists()


def test_unpack_refuses_what_is_no_tar_or_another_category(
    dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    one, other = import_dataset(dataset, store)
    store.put(tar_key(one), store.get(tar_key(other)).data)
    with pytest.raises(DataError, match="holds the data"):
        unpack(store, "parts", "brick", one.digest, tmp_path / "cache")
    store.put(tar_key(one), b"nothing")
    with pytest.raises(DataError, match="not a tar"):
        unpack(store, "parts", "brick", one.digest, tmp_path / "cache")
    with pytest.raises(MissingInputError):
        unpack(store, "parts", "brick", "0" * 64, tmp_path / "cache")


def test_unpack_refuses_a_manifest_that_leads_outside(
    dataset: Path, store: DirectoryStore, tmp_path: Path
) -> None:
    manifest = import_dataset(dataset, store)[0]
    record = json.loads(manifest.to_json())["images"]
    record[0] = record[0] | {"path": "../../evil.png"}
    from defectbench.data.manifest import Image as Record
    from defectbench.data.manifest import make_manifest

    evil = make_manifest("parts", "brick", [Record(**entry) for entry in record])
    source = tar_key(manifest)
    target = tar_key(evil)
    store.put(target, store.get(source).data)
    rewritten(store, target, lambda members: [("manifest.json", evil.to_json()), *members[1:]])
    with pytest.raises(DataError, match="outside"):
        unpack(store, "parts", "brick", evil.digest, tmp_path / "cache")
