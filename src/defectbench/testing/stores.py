"""What every store promises, held against one kind of store."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from defectbench.errors import ConflictError, MissingInputError, UsageError
from defectbench.stores.base import ABSENT, LONGEST_PART, Store
from defectbench.stores.choose import open_store

HOSTILE = [
    "",
    ".",
    "..",
    "../outside",
    "a/../../outside",
    "/absolute",
    "a//b",
    "a/",
    "/",
    "a/./b",
    "a/.hidden",
    ".defectbench/locks/000",
    "back\\slash",
    "nul\0",
    "new\nline",
    "half\ud800surrogate",
    "x" * (LONGEST_PART + 1),
    "/".join(["long"] * 300),
]
ODD = [
    "with space/ü.json",
    "日本/キズ",
    "a+b=c&d%20e",
    "~home",
    "-flag",
    "semi;colon'quote\"",
    "a" * LONGEST_PART,
]


def race(store: Store, expected: str, writers: int) -> list[bool]:
    """Let threads put at once; return who won."""
    gate = threading.Barrier(writers)

    def write(index: int) -> bool:
        gate.wait()
        try:
            store.put("lease", f"writer {index}".encode(), expected=expected)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(writers) as pool:
        return list(pool.map(write, range(writers)))


COUNTER = """
import sys
from defectbench.errors import ConflictError
from defectbench.stores.base import ABSENT
from defectbench.stores.choose import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
won = []
while len(won) < int(sys.argv[2]):
    found = store.find("counter")
    number = int(found.data) + 1 if found else 0
    try:
        store.put("counter", str(number).encode(), expected=found.version if found else ABSENT)
    except ConflictError:
        continue
    won.append(number)
print(*won)
"""


class StoreContract:
    """Subclass it as ``TestMine`` and give ``store_url``: of a store that is new and empty for each test.

    Child processes open the same URL: what it needs of the environment must be set there.
    """

    @pytest.fixture
    def store_url(self) -> str:
        """The URL of a fresh, empty store."""
        raise NotImplementedError("give the fixture store_url: the URL of a fresh, empty store")

    @pytest.fixture
    def store(self, store_url: str) -> Store:
        """That store."""
        return open_store(store_url)

    def test_put_and_get(self, store: Store) -> None:
        version = store.put("cells/k/spec.json", b"one")
        blob = store.get("cells/k/spec.json")
        assert (blob.data, blob.version) == (b"one", version)

    def test_put_overwrites(self, store: Store) -> None:
        first = store.put("k", b"one")
        second = store.put("k", b"two")
        assert first != second
        assert store.get("k").data == b"two"

    def test_put_empty_object(self, store: Store) -> None:
        store.put("k", b"", expected=ABSENT)
        assert store.get("k").data == b""

    def test_get_missing_names_key_and_store(self, store: Store) -> None:
        with pytest.raises(MissingInputError, match="no cells/x in") as caught:
            store.get("cells/x")
        assert store.url in str(caught.value)
        assert store.find("cells/x") is None

    def test_get_directory_of_keys_is_missing(self, store: Store) -> None:
        store.put("a/b/c", b"1")
        assert store.find("a/b") is None
        assert store.find("a/b/c/d") is None

    def test_put_expected_absent(self, store: Store) -> None:
        version = store.put("k", b"one", expected=ABSENT)
        with pytest.raises(ConflictError, match=r"k in .* is already there"):
            store.put("k", b"two", expected=ABSENT)
        assert store.get("k").data == b"one"
        assert store.get("k").version == version

    def test_put_expected_version(self, store: Store) -> None:
        first = store.put("k", b"one")
        second = store.put("k", b"two", expected=first)
        with pytest.raises(ConflictError, match="changed or removed"):
            store.put("k", b"three", expected=first)
        assert store.get("k").version == second

    def test_put_expected_version_of_missing(self, store: Store) -> None:
        version = store.put("k", b"one")
        store.delete("k")
        with pytest.raises(ConflictError):
            store.put("k", b"two", expected=version)
        assert store.find("k") is None

    def test_delete_is_repeatable(self, store: Store) -> None:
        store.put("a/b", b"1")
        store.delete("a/b")
        store.delete("a/b")
        store.delete("never/there")
        assert list(store.keys()) == []

    def test_delete_frees_the_names_above(self, store: Store) -> None:
        store.put("a/b/c", b"1")
        store.delete("a/b/c")
        store.put("a", b"2")
        assert store.get("a").data == b"2"

    def test_keys_of_nothing(self, store: Store) -> None:
        assert list(store.keys()) == []
        assert list(store.keys("cells/")) == []

    def test_keys_sorted_and_by_prefix(self, store: Store) -> None:
        names = ["b/1", "a-b", "a/2", "a/10", "a/1", "ab", "a/1x/y"]
        for name in names:
            store.put(name, b"")
        assert list(store.keys()) == sorted(names)
        assert list(store.keys("a/1")) == ["a/1", "a/10", "a/1x/y"]
        assert list(store.keys("a/")) == ["a/1", "a/10", "a/1x/y", "a/2"]
        assert list(store.keys("b")) == ["b/1"]
        assert list(store.keys("a/1/none")) == []

    def test_keys_beyond_one_page(self, store: Store) -> None:
        names = [f"sweeps/{index:04d}" for index in range(1100)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: store.put(name, b""), names))
        assert list(store.keys("sweeps/")) == names

    @pytest.mark.parametrize("key", HOSTILE)
    def test_key_hostile_is_refused(self, store: Store, key: str, tmp_path: Path) -> None:
        before = sorted(tmp_path.rglob("*"))
        for attempt in (
            lambda: store.put(key, b"x"),
            lambda: store.put(key, b"x", expected=ABSENT),
            lambda: store.get(key),
            lambda: store.delete(key),
            lambda: store.upload(key, Path(__file__)),
            lambda: store.download(key, tmp_path / "copy"),
        ):
            with pytest.raises(UsageError):
                attempt()
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("prefix", ["..", "../", "a/../b", "/", "a//", ".defectbench/", "b\\"])
    def test_keys_hostile_prefix_is_refused(self, store: Store, prefix: str) -> None:
        with pytest.raises(UsageError):
            list(store.keys(prefix))

    def test_key_odd_is_taken(self, store: Store) -> None:
        for key in ODD:
            store.put(key, key.encode(), expected=ABSENT)
        assert list(store.keys()) == sorted(ODD)
        assert all(store.get(key).data == key.encode() for key in ODD)

    def test_key_below_or_above_another_is_refused(self, store: Store) -> None:
        store.put("a/x", b"1")
        for key in ("a/x/y", "a"):
            with pytest.raises(UsageError, match="below this one, or above it"):
                store.put(key, b"2")
        assert list(store.keys()) == ["a/x"]
        assert store.get("a/x").data == b"1"

    def test_upload_and_download_in_bounded_memory(self, store_url: str, tmp_path: Path) -> None:
        source = tmp_path / "large"
        chunk = os.urandom(1 << 20)
        digest = hashlib.sha256()
        with source.open("wb") as file:
            for index in range(200):
                piece = index.to_bytes(4) + chunk[4:]
                file.write(piece)
                digest.update(piece)
        script = (
            "import sys, resource, pathlib\n"
            "from defectbench.stores.choose import open_store\n"
            "store = open_store(sys.argv[1])\n"
            "store.put('warm', b''); store.get('warm')\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "store.upload('big/file', pathlib.Path(sys.argv[2]))\n"
            "store.download('big/file', pathlib.Path(sys.argv[3]))\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
        )
        copy = tmp_path / "new" / "copy"
        grown = subprocess.run(
            [sys.executable, "-c", script, store_url, str(source), str(copy)],
            check=True,
            capture_output=True,
            text=True,
        )
        unit = 1 if sys.platform == "darwin" else 1024
        assert int(grown.stdout) * unit < 120 << 20
        with copy.open("rb") as file:
            assert hashlib.file_digest(file, "sha256").digest() == digest.digest()
        assert list(copy.parent.iterdir()) == [copy]

    def test_upload_of_missing_file(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="no-such"):
            store.upload("k", tmp_path / "no-such")
        assert list(store.keys()) == []

    def test_upload_overwrites(self, store: Store, tmp_path: Path) -> None:
        for text in ("one", "two, longer"):
            (tmp_path / "file").write_text(text)
            store.upload("k", tmp_path / "file")
        assert store.get("k").data == b"two, longer"

    def test_download_of_missing_object_leaves_nothing(self, store: Store, tmp_path: Path) -> None:
        target = tmp_path / "there" / "copy"
        target.parent.mkdir()
        target.write_text("old")
        with pytest.raises(MissingInputError, match="no big in"):
            store.download("big", target)
        assert [path.read_text() for path in target.parent.iterdir()] == ["old"]

    def test_put_race_of_threads_for_absent(self, store: Store) -> None:
        for _ in range(10):
            won = race(store, ABSENT, 16)
            assert sum(won) == 1
            assert store.get("lease").data == f"writer {won.index(True)}".encode()
            store.delete("lease")

    def test_put_race_of_threads_for_version(self, store: Store) -> None:
        version = store.put("lease", b"first")
        for _ in range(10):
            won = race(store, version, 16)
            assert sum(won) == 1
            blob = store.get("lease")
            assert blob.data == f"writer {won.index(True)}".encode()
            version = store.put("lease", os.urandom(8), expected=blob.version)

    def test_put_race_of_processes_loses_no_increment(self, store_url: str) -> None:
        """Four processes count up one object together: every number is won by exactly one of them."""
        rounds = 25
        command = [sys.executable, "-c", COUNTER, store_url, str(rounds)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        workers = [subprocess.Popen(command, **pipes) for _ in range(4)]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        numbers = [int(number) for worker in workers for number in worker.communicate()[0].split()]
        assert sorted(numbers) == list(range(4 * rounds))
        assert open_store(store_url).get("counter").data == str(4 * rounds - 1).encode()

    def test_get_sees_whole_objects_while_others_write(self, store: Store) -> None:
        sizes = (10, 3_000_000)
        store.put("k", b"0" * sizes[0])
        done = threading.Event()

        def write() -> None:
            for index in range(12):
                store.put("k", str(index % 2).encode() * sizes[index % 2])
            done.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = set()
        while not done.is_set():
            data = store.get("k").data
            seen.add((len(data), data[:1], len(set(data))))
        writer.join()
        assert seen <= {(sizes[0], b"0", 1), (sizes[1], b"1", 1)}

    def test_upload_killed_midway_shows_nothing(self, store_url: str, tmp_path: Path) -> None:
        source = tmp_path / "large"
        with source.open("wb") as file:
            file.truncate(400 << 20)
        script = (
            "import sys, pathlib\n"
            "from defectbench.stores.choose import open_store\n"
            "store = open_store(sys.argv[1])\n"
            "store.put('started', b'')\n"
            "store.upload('big', pathlib.Path(sys.argv[2]))\n"
        )
        child = subprocess.Popen([sys.executable, "-c", script, store_url, str(source)])
        store = open_store(store_url)
        while store.find("started") is None:
            assert child.poll() is None
        child.kill()
        child.wait()
        assert store.find("big") is None
        assert list(store.keys()) == ["started"]
        store.put("big", b"the next try")
        assert store.get("big").data == b"the next try"
