"""No secret reaches anything that a sweep leaves or shows: planted ones are looked for everywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from defectbench.stores.choose import open_store
from fakes import put_category
from parts import BUCKET, S3Server, find_gateway, find_helm, free_port

pytestmark = pytest.mark.s3

S3, TRACKER, TOKEN, REGISTRY = (f"canary-{name}-7f3a9c" for name in ("s3", "tracker", "token", "proxy"))

SWEEP = """\
name: tiny
data: {dataset: parts}
models: [filterbank-knn, filterbank-logreg]
weights: none
threads: 1
seeds: [0]
image_size: 64
protocols: {detection: {folds: 3}}
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Variables that hold secrets, as a user's shell and a pod do; a store that takes them."""
    server = S3Server(find_gateway(), tmp_path / "s3", secret_key=S3)
    server.directory.mkdir()
    server.start()
    uri = f"http://me:{TRACKER}@127.0.0.1:{free_port()}"
    yield {
        **os.environ,
        **server.environment,
        "DEFECTBENCH_STORE": f"s3://{BUCKET}/x",
        "DEFECTBENCH_CACHE": str(tmp_path / "cache"),
        "DEFECTBENCH_HELM": find_helm(),
        "MLFLOW_TRACKING_URI": uri,
        "MLFLOW_TRACKING_PASSWORD": TRACKER,
        "MLFLOW_TRACKING_TOKEN": TOKEN,
        "HTTPS_PROXY": f"http://me:{REGISTRY}@127.0.0.1:1",
        "NO_PROXY": "127.0.0.1,localhost",
        "OMP_NUM_THREADS": "1",
    }
    server.kill()


@contextmanager
def watching_arguments(seen: set[str]) -> Iterator[None]:
    """Note the arguments of every process of this machine, again and again."""
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for file in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def leaks(text: bytes) -> list[str]:
    return [name for name in (S3, TRACKER, TOKEN, REGISTRY) if name.encode() in text]


def test_no_secret_is_shown_or_kept(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(environment["DEFECTBENCH_STORE"])
    put_category(store, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    (tmp_path / "tiny.yaml").write_text(SWEEP)
    seen: set[str] = set()
    commands: tuple[tuple[str, tuple[int, ...]], ...] = (
        ("plan tiny.yaml", (0,)),
        ("plan tiny.yaml --format values", (0,)),
        ("render tiny.yaml", (0,)),
        ("run tiny.yaml", (0,)),
        ("status tiny", (0,)),
        ("track tiny", (75,)),
        ("report tiny --out page", (0,)),
        ("verdict tiny", (0,)),
        ("store verify", (0,)),
        ("doctor", (0, 75)),
        # Where a person puts them into the wrong place: refused, and not repeated.
        (f"plan tiny.yaml --tracking-uri http://u:{TRACKER}@h:5000", (0, 64)),
        (f"track tiny --tracking-uri u:{TRACKER}@h/x", (64,)),
        (f"status tiny --store s3://key:{S3}@bucket", (64,)),
        (f"render tiny.yaml --set-values tracker.uri=http://u:{TRACKER}@h:5000", (78, 64)),
        (f"render tiny.yaml --set-values extraEnv[0].name=TOKEN,extraEnv[0].value={TOKEN}", (78, 64, 0)),
    )
    with watching_arguments(seen):
        for command, codes in commands:
            done = subprocess.run(
                [sys.executable, "-m", "defectbench", *command.split()],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
            )
            said = done.stdout + done.stderr
            assert done.returncode in codes, (command, said.decode())
            assert b"Traceback" not in said, command
            assert not leaks(said), (command, said.decode())
    ours = [words for words in seen if "defectbench" in words]
    assert any(" job " in words for words in ours), "the workers were seen"
    typed = [command for command, _ in commands]
    assert not [w for w in ours if leaks(w.encode()) and not any(w.strip().endswith(each) for each in typed)]
    for key in list(store.keys()):
        assert not leaks(store.get(key).data), key
    for folder in ("page", "cache"):
        for path in (tmp_path / folder).rglob("*"):
            assert not path.is_file() or not leaks(path.read_bytes()), path
