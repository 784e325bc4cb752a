from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from defectbench.errors import TryAgainError
from defectbench.stores.base import ABSENT
from defectbench.stores.directory import HOUSE, DirectoryStore
from defectbench.util.files import STALE
from parts import make_read_only, make_writable

HALF = 600_000
"""Bytes: one such object fits on the small disk, two do not."""


def files_below(path: Path) -> list[str]:
    """Return the files of a store, drafts included, lock files left out."""
    files = [entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()]
    return sorted(name for name in files if not name.startswith(f"{HOUSE}/locks/"))


def test_full_disk_says_what_to_do_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    store = DirectoryStore(small_disk / "store")
    store.put("first", b"1" * HALF, expected=ABSENT)
    source = tmp_path / "source"
    source.write_bytes(b"2" * HALF)
    for attempt in (
        lambda: store.put("second", b"2" * HALF),
        lambda: store.put("first", b"2" * HALF),
        lambda: store.upload("below/second", source),
        lambda: store.download("first", small_disk / "copy"),
    ):
        with pytest.raises(TryAgainError, match="the disk is full; free some room") as caught:
            attempt()
        assert str(small_disk) in str(caught.value)
    assert list(store.keys()) == ["first"]
    assert store.get("first").data == b"1" * HALF
    assert files_below(small_disk / "store") == ["first"]
    assert [entry.name for entry in small_disk.iterdir()] == ["store"]
    store.delete("first")
    store.upload("below/second", source)
    assert store.get("below/second").data == b"2" * HALF


def test_full_disk_without_a_byte_left(small_disk: Path) -> None:
    """Not even the lock file or a directory can be made."""
    store = DirectoryStore(small_disk / "store")
    with (small_disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"0" * 4096):
            pass
    with pytest.raises(TryAgainError, match="full"):
        store.put("k", b"1" * 5000)
    assert list(store.keys()) == []
    (small_disk / "filler").unlink()
    store.put("k", b"1")


def test_read_only_disk_reads_and_refuses_to_write(small_disk: Path) -> None:
    store = DirectoryStore(small_disk / "store")
    version = store.put("k", b"1")
    make_read_only(small_disk)
    fresh = DirectoryStore(small_disk / "store")
    assert fresh.get("k").data == b"1"
    assert list(fresh.keys()) == ["k"]
    for attempt in (
        lambda: fresh.put("k", b"2", expected=version),
        lambda: fresh.put("new/k", b"2"),
        lambda: fresh.upload("new", Path(__file__)),
        lambda: fresh.delete("k"),
    ):
        with pytest.raises(TryAgainError, match="read-only"):
            attempt()
    fresh.delete("not there")
    make_writable(small_disk)
    fresh.put("k", b"2", expected=version)


def test_forbidden_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    script = (
        "import os, sys\n"
        "from defectbench.errors import TryAgainError\n"
        "from defectbench.stores.directory import DirectoryStore\n"
        "store = DirectoryStore(sys.argv[1])\n"
        "if os.geteuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "try:\n    store.put('k', b'1')\nexcept TryAgainError as error:\n    print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "store")], capture_output=True, text=True, check=True
    )
    assert "change the rights" in said.stdout


def test_path_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = DirectoryStore(tmp_path / "file")
    assert store.find("k") is None
    with pytest.raises(Exception, match="file"):
        store.put("k", b"1")


def test_drafts_of_killed_writers_go_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    DirectoryStore(tmp_path).put("k", b"1")
    drafts = tmp_path / HOUSE / "drafts"
    old, new = drafts / ".old.part", drafts / ".new.part"
    old.write_text("")
    new.write_text("")
    past = time.time() - STALE - 1
    os.utime(old, (past, past))
    store = DirectoryStore(tmp_path)
    store.put("k", b"2")
    assert (old.exists(), new.exists()) == (False, True)
    assert list(store.keys()) == ["k"]


def test_lock_files_stay_few(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    for index in range(600):
        store.put(f"k{index}", b"")
    assert len(list((tmp_path / HOUSE / "locks").iterdir())) <= 256


def test_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from defectbench.util.files import locked\n"
        "with locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    store = DirectoryStore(tmp_path)
    store.put("k", b"1")
    (lock,) = (tmp_path / HOUSE / "locks").iterdir()
    holder = subprocess.Popen([sys.executable, "-c", script, str(lock)], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
    store.put("k", b"2")
    assert store.get("k").data == b"2"
