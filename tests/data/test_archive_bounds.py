"""Archives that unpack to more than they are."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from defectbench.data.unpacked import unpack
from defectbench.errors import DataError
from defectbench.stores.directory import DirectoryStore
from defectbench.util.overlays import HeatMaps

DIGEST = "0" * 64


def _sparse() -> bytes:
    """A tar whose first member states 40 GB, and holds nothing."""
    info = tarfile.TarInfo("manifest.json")
    info.size = 40 << 30
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def _gnu_sparse() -> bytes:
    head = bytearray(512)
    head[:13] = b"manifest.json"
    head[100:108], head[124:136] = b"0000644\0", b"00000000000\0"
    head[156:157], head[257:265] = b"S", b"ustar  \0"
    head[483:495] = b"\x80" + struct.pack(">xxxQ", 40 << 30)
    head[148:156] = b" " * 8
    head[148:156] = f"{sum(head):06o}\0 ".encode()
    return bytes(head) + bytes(1024)


def _packed() -> bytes:
    return gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize("made", [_sparse, _gnu_sparse, _packed, lambda: b"", lambda: b"\xff" * 2048])
def test_an_archive_that_states_more_than_it_holds_is_refused_at_once(made: object, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.put(f"datasets/d/c/{DIGEST}.tar", made())  # type: ignore[operator]
    began = time.monotonic()
    with pytest.raises(DataError, match="import the data set again"):
        unpack(store, "d", "c", DIGEST, tmp_path / "cache")
    assert time.monotonic() - began < 1


def test_heat_maps_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("ids.npy", b"")
        with members.open("maps.npy", "w", force_zip64=True) as maps:
            for _ in range(33):
                maps.write(bytes(32 << 20))
    with pytest.raises(DataError, match="unpacks to"):
        HeatMaps.read(file.getvalue())


@pytest.mark.parametrize("kind", [object, np.int64])
def test_heat_maps_of_another_type_are_refused(kind: type) -> None:
    file = io.BytesIO()
    np.savez(file, ids=np.array(["a"]), maps=np.zeros((1, 2, 2), kind))
    with pytest.raises(DataError, match=r"heatmaps\.npz"):
        HeatMaps.read(file.getvalue())


def test_a_device_in_a_store_is_no_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.put("cells/k/spec.json", b"{}")
    (tmp_path / "store" / "cells" / "k" / "result.json").symlink_to("/dev/zero")
    assert store.find("cells/k/result.json") is None
