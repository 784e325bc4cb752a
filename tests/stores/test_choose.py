from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from defectbench.errors import UsageError
from defectbench.stores.choose import open_store
from defectbench.stores.directory import DirectoryStore


def test_open_store_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for url, path in (
        ("./bench", tmp_path / "bench"),
        ("bench", tmp_path / "bench"),
        (str(tmp_path / "a b"), tmp_path / "a b"),
        ("~/bench", tmp_path / "home" / "bench"),
        (f"file://{tmp_path}/a%20b", tmp_path / "a b"),
        (f"file://localhost{tmp_path}/x", tmp_path / "x"),
    ):
        store = open_store(url)
        assert isinstance(store, DirectoryStore)
        assert store.path == path
    assert list(tmp_path.iterdir()) == []


def test_open_store_s3_url(s3_url: str) -> None:
    store = open_store(f"{s3_url}/below/")
    assert store.url == f"{s3_url}/below"
    store.put("k", b"1")
    assert list(open_store(s3_url).keys()) == ["below/k"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "empty"),
        ("gs://bucket/x", "no store of kind gs://"),
        ("s4://bucket/x", "did you mean 's3'"),
        ("https://host/x", "no store of kind https://"),
        ("s3:bucket", "s3://bucket or s3://bucket/prefix"),
        ("s3:///prefix", "s3://bucket or s3://bucket/prefix"),
        ("s3://bucket?x=1/p", "s3://bucket or s3://bucket/prefix"),
        ("s3://bucket/../other", "start with a dot"),
        ("file://server/share", "file:///absolute/path"),
        ("file:relative", "file:///absolute/path"),
    ],
)
def test_open_store_refuses(url: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert said in str(caught.value)


def test_open_store_refuses_credentials_and_does_not_repeat_them() -> None:
    with pytest.raises(UsageError, match="no credentials") as caught:
        open_store("s3://me:hush@bucket/x")
    assert "hush" not in str(caught.value)


def test_open_store_imports_boto3_for_s3_only() -> None:
    script = (
        "import sys; from defectbench.stores.choose import open_store\n"
        "open_store('x'); print('boto3' in sys.modules)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


def test_open_store_without_boto3_names_the_extra() -> None:
    script = (
        "import sys\n"
        "sys.modules['boto3'] = None\n"
        "from defectbench.errors import ConfigurationError\n"
        "from defectbench.stores.choose import open_store\n"
        "try:\n    open_store('s3://bucket')\nexcept ConfigurationError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "boto3" in said.stdout
    assert "defectbench[s3]" in said.stdout
