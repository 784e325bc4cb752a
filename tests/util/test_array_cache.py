from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from defectbench.errors import ConfigurationError
from defectbench.util.array_cache import Cache, default_cache, limit_from_environment
from defectbench.util.files import STALE
from parts import make_read_only, make_writable

ARRAY = np.arange(240, dtype=np.float32).reshape(4, 60)


def keep(cache: Cache, entry: str, array: np.ndarray = ARRAY, name: str = "x") -> np.ndarray | None:
    return cache.keep(entry, name, array.shape, array.dtype, array)


def test_keep_and_find(tmp_path: Path) -> None:
    cache = Cache(tmp_path, ("kind",))
    assert cache.find("kind/a", "x") is None
    for array in (keep(cache, "kind/a"), cache.find("kind/a", "x"), Cache(tmp_path, ()).find("kind/a", "x")):
        assert array is not None
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, ARRAY)
        assert not array.flags.writeable


def test_file_is_an_ordinary_npy(tmp_path: Path) -> None:
    keep(Cache(tmp_path, ("kind",)), "kind/a")
    np.testing.assert_array_equal(np.load(tmp_path / "kind/a/x.npy"), ARRAY)


@pytest.mark.parametrize("spoil", ["truncate", "flip", "empty", "other", "head"])
def test_damaged_file_is_not_found(tmp_path: Path, spoil: str, caplog: pytest.LogCaptureFixture) -> None:
    keep(Cache(tmp_path, ("kind",)), "kind/a")
    path = tmp_path / "kind/a/x.npy"
    data = bytearray(path.read_bytes())
    if spoil == "flip":
        data[-100] ^= 1
    if spoil == "head":
        data[20] ^= 1
    spoilt = {"truncate": bytes(data[:-50]), "empty": b"", "other": b"no array"}.get(spoil, bytes(data))
    path.write_bytes(spoilt)
    cache = Cache(tmp_path, ("kind",))
    assert cache.find("kind/a", "x") is None
    assert "is damaged" in caplog.text
    np.testing.assert_array_equal(keep(cache, "kind/a"), ARRAY)


def test_keep_of_too_few_rows_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="do not make an array"):
        Cache(tmp_path, ("kind",)).keep("kind/a", "x", (5, 60), np.float32, ARRAY)
    assert list((tmp_path / "kind/a").iterdir()) == []


def test_limit_throws_out_the_longest_unused(tmp_path: Path) -> None:
    for age, name in ((30, "old"), (10, "young"), (20, "middle")):
        keep(Cache(tmp_path, ("kind",), 10_000), f"kind/{name}")
        past = time.time() - age
        os.utime(tmp_path / "kind" / name, (past, past))
    Cache(tmp_path, ("kind",)).find("kind/old", "x")
    keep(Cache(tmp_path, ("kind",), 4000), "kind/new")
    assert sorted(path.name for path in (tmp_path / "kind").iterdir()) == ["new", "old", "young"]


def test_limit_spares_what_this_process_uses(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = Cache(tmp_path, ("kind",), 2000)
    keep(first, "kind/a")
    second = Cache(tmp_path, ("kind",), 2000)
    assert keep(second, "kind/b") is None
    assert "limit of 2000" in caplog.text
    assert first.find("kind/a", "x") is not None
    del first
    assert keep(second, "kind/b") is not None
    assert not (tmp_path / "kind/a").exists()


def test_limit_smaller_than_the_array(tmp_path: Path) -> None:
    keep(Cache(tmp_path, ("kind",)), "kind/a")
    assert keep(Cache(tmp_path, ("kind",), 100), "kind/b") is None


def test_full_disk_keeps_nothing_and_warns_once(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = Cache(small_disk, ("kind",))
    large = np.zeros((20, 100_000), np.uint8)
    assert keep(cache, "kind/a", large) is None
    assert keep(cache, "kind/b", large) is None
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    assert keep(cache, "kind/c", large[:2]) is not None


def test_read_only_disk_is_read(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep(Cache(small_disk, ("kind",)), "kind/a")
    make_read_only(small_disk)
    cache = Cache(small_disk, ("kind",))
    np.testing.assert_array_equal(cache.find("kind/a", "x"), ARRAY)
    with cache.lock("kind/b", "x"):
        assert keep(cache, "kind/b") is None
    assert len(caplog.records) == 1
    make_writable(small_disk)


def test_lock_lets_one_process_make_it(tmp_path: Path) -> None:
    script = (
        "import sys, time, pathlib\n"
        "from defectbench.util.array_cache import Cache\n"
        "cache = Cache(pathlib.Path(sys.argv[1]), ('kind',))\n"
        "with cache.lock('kind/a', 'x'):\n"
        "    path = pathlib.Path(sys.argv[1]) / 'inside'\n"
        "    path.touch(exist_ok=False)\n"
        "    time.sleep(0.1)\n"
        "    path.unlink()\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(4)]
    assert [child.wait() for child in children] == [0, 0, 0, 0]


def test_drafts_of_killed_writers_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path, ("kind",))
    keep(cache, "kind/a")
    draft = tmp_path / "kind/a/.abc.part"
    draft.write_text("")
    past = time.time() - STALE - 1
    os.utime(draft, (past, past))
    keep(cache, "kind/a", name="y")
    assert not draft.exists()


def test_default_cache_and_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DEFECTBENCH_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "defectbench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in default_cache().parents
    monkeypatch.setenv("DEFECTBENCH_CACHE", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"
    monkeypatch.setenv("DEFECTBENCH_CACHE_BYTES", "123")
    assert limit_from_environment() == 123
    monkeypatch.setenv("DEFECTBENCH_CACHE_BYTES", "20GB")
    with pytest.raises(ConfigurationError, match="20GB"):
        limit_from_environment()
