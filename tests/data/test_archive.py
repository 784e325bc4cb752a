import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from defectbench.data.archive import import_dataset, list_categories, list_datasets, load_manifest, unpack
from defectbench.data.manifest import Manifest
from defectbench.data.synthetic.synth import synth
from defectbench.errors import DataError, MissingInputError, TryAgainError, UsageError
from defectbench.stores.directory import DirectoryStore
from defectbench.util.image_io import read_mask

SMALL = {"categories": ["brick", "coin"], "size": 64, "train_good": 3, "test_good": 3, "defects_per_type": 1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "parts"
    synth(root, **SMALL)
    return root


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "store")


def tar_key(manifest):
    return f"datasets/{manifest.dataset}/{manifest.category}/{manifest.digest}.tar"


def test_import_stores_manifests_and_tars(dataset, store):
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


def test_import_again_changes_nothing_and_archives_are_bit_equal(dataset, store, tmp_path):
    first = import_dataset(dataset, store)
    before = {key: store.get(key) for key in store.keys("")}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "store/datasets").rglob("*.*")}
    assert import_dataset(dataset, store) == first
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    other = DirectoryStore(tmp_path / "other")
    import_dataset(dataset, other)
    assert {key: other.get(key) for key in other.keys("")} == before


def test_import_refuses_a_broken_data_set_whole(dataset, store, tmp_path):
    import shutil

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


def test_import_normalises_masks_and_keeps_pictures(dataset, store, tmp_path):
    import shutil

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
def test_import_refuses_bad_names(dataset, store, name):
    with pytest.raises(UsageError, match="only letters, digits"):
        import_dataset(dataset, store, name=name)
    assert list(store.keys()) == []


def test_import_into_a_full_store_says_try_again_and_later_goes_on(dataset, tmp_path):
    class Full(DirectoryStore):
        room = 1

        def upload(self, key, path):
            if self.room == 0:
                raise TryAgainError("the disk is full")
            self.room -= 1
            super().upload(key, path)

    store = Full(tmp_path / "store")
    with pytest.raises(TryAgainError):
        import_dataset(dataset, store)
    assert list_categories(store, "parts") == ["brick"]
    store.room = 5
    import_dataset(dataset, store)
    assert list_categories(store, "parts") == ["brick", "coin"]
    assert store.room == 4


def test_load_manifest_names_what_is_there(dataset, store):
    with pytest.raises(MissingInputError, match="holds no data set"):
        load_manifest(store, "parts", "brick")
    import_dataset(dataset, store)
    with pytest.raises(MissingInputError, match="did you mean 'parts'"):
        load_manifest(store, "part", "brick")
    with pytest.raises(MissingInputError, match="did you mean 'brick'"):
        load_manifest(store, "parts", "brik")
    with pytest.raises(MissingInputError):
        list_categories(store, "../parts")


def test_unpack_gives_every_file_and_fetches_once(dataset, store, tmp_path, monkeypatch):
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    assert Manifest.from_json((folder / "manifest.json").read_bytes()) == manifest
    for image in manifest.images:
        assert (folder / image.path).read_bytes() == (dataset / "brick" / image.path).read_bytes()
        assert image.mask is None or read_mask(folder / image.mask).any()
    monkeypatch.setattr(store, "download", None)
    assert unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache") == folder


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"x"])
def test_unpack_finds_damage_in_the_cache(dataset, store, tmp_path, damage):
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    path = folder / "train/good/001.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"train/good/001\.png: damaged in the cache; remove"):
        unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")


def test_unpack_takes_a_copied_cache(dataset, store, tmp_path):
    manifest = import_dataset(dataset, store)[0]
    folder = unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    path = folder / "train/good/001.png"
    path.write_bytes(path.read_bytes())
    assert unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache") == folder


def rewritten(store, key, change):
    """Put the tar under ``key`` again with its list of (name, data) changed."""
    with tarfile.open(fileobj=io.BytesIO(store.get(key).data)) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
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
def test_unpack_refuses_a_damaged_archive(dataset, store, tmp_path, change, why):
    manifest = import_dataset(dataset, store)[0]
    rewritten(store, tar_key(manifest), change)
    with pytest.raises(DataError, match=why):
        unpack(store, "parts", "brick", manifest.digest, tmp_path / "cache")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock" and path.is_file()]
    assert left == []
    assert not (tmp_path / "escaped").exists()


def test_unpack_refuses_what_is_no_tar_or_another_category(dataset, store, tmp_path):
    one, other = import_dataset(dataset, store)
    store.put(tar_key(one), store.get(tar_key(other)).data)
    with pytest.raises(DataError, match="holds the data"):
        unpack(store, "parts", "brick", one.digest, tmp_path / "cache")
    store.put(tar_key(one), b"nothing")
    with pytest.raises(DataError, match="not a tar"):
        unpack(store, "parts", "brick", one.digest, tmp_path / "cache")
    with pytest.raises(MissingInputError):
        unpack(store, "parts", "brick", "0" * 64, tmp_path / "cache")


def test_unpack_refuses_a_manifest_that_leads_outside(dataset, store, tmp_path):
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
