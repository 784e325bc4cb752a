from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from defectbench.errors import UsageError
from defectbench.stores.choose import open_store
from defectbench.stores.directory import DirectoryStore
from defectbench.trackers.choose import open_tracker, tracking_uri


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_tracking_uri_of_a_directory_is_its_own_database(tmp_path: Path) -> None:
    assert tracking_uri(DirectoryStore(tmp_path), None) == f"sqlite:///{tmp_path}/mlflow.db"


def test_tracking_uri_prefers_the_option_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(DirectoryStore(tmp_path), "http://option") == "http://option"
    assert tracking_uri(DirectoryStore(tmp_path), None) == "http://environment"


def test_tracking_uri_of_an_s3_store_is_none() -> None:
    pytest.importorskip("boto3")
    assert tracking_uri(open_store("s3://bucket/bench"), None) is None


@pytest.mark.parametrize("uri", ["ftp://host", "htp://host", "./mlruns", "file:///tmp/mlruns", "sqlite://"])
def test_open_tracker_refuses_what_mlflow_is_not(uri: str) -> None:
    with pytest.raises(UsageError, match=r"sqlite|allowed"):
        open_tracker(uri)


def test_open_tracker_without_the_extra_names_it(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['mlflow'] = None\n"
        "from defectbench.errors import ConfigurationError\n"
        "from defectbench.trackers.choose import open_tracker\n"
        "try: open_tracker('x.db')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert "defectbench[mlflow]" in done.stdout, done.stderr
