"""What works from here, and what the command ends with."""

from __future__ import annotations

import importlib.util
import json
import socket
from pathlib import Path

import pytest

from defectbench import doctor
from defectbench.__main__ import run
from defectbench.doctor import Finding, Target, diagnose, exit_code
from defectbench.errors import ExitCode
from defectbench.stores.directory import DirectoryStore
from defectbench.weights import store
from fakes import put_category

SWEEP = """\
name: examined
data: {dataset: parts}
models: [filterbank-knn, padim]
weights: pretrained
protocols: {detection: {folds: 3}}
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster, no tracker and no packaged weights of this machine's, and no torch, slow to import."""
    monkeypatch.setattr(doctor, "packaged_file", lambda _: None)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "torch" else find(name))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    put_category(DirectoryStore(tmp_path / "store"), "parts", "bolt", 6, 3, 4, ("crack", "stain"), True)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


def found(target: Target) -> dict[str, Finding]:
    return {finding.what: finding for finding in diagnose(target)}


def test_doctor_says_what_is_optional_and_ends_well(tmp_path: Path) -> None:
    findings = found(Target(str(tmp_path / "store")))
    states = {what: finding.state for what, finding in findings.items()}
    assert states.pop("helm") in ("works", "not there")
    assert states.pop("tracker") in ("works", "not there")
    assert states == {
        "package": "works",
        "store": "works",
        "cluster": "not there",
        "device": "not there",
        "weights": "not there",
    }
    assert "only submit needs one" in findings["cluster"].says
    assert "torch is not installed" in findings["device"].says
    assert "weights push --sweep" in findings["weights"].says
    assert exit_code(findings.values()) == ExitCode.DONE
    assert not list(DirectoryStore(tmp_path / "store").keys("doctor")), "the probe was left there"


def test_doctor_names_the_data_and_the_weights_that_a_sweep_lacks(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["doctor", str(sweep), "--store", str(tmp_path / "store"), "--format", "json"]
    assert run(words) == ExitCode.MISSING_WEIGHTS
    told = {row["what"]: row for row in json.loads(capsys.readouterr().out)}
    assert told["data"]["state"] == "works"
    assert told["weights of filterbank-knn"]["says"] == "none needed"
    assert told["weights of padim"]["code"] == 69
    assert "weights push resnet18.tv_in1k" in told["weights of padim"]["says"]
    (tmp_path / "net").write_bytes(b"net")
    store.push_weights(DirectoryStore(tmp_path / "store"), "resnet18.tv_in1k", tmp_path / "net")
    assert run(words) == ExitCode.DONE
    assert run([*words, "--set", "weights=none", "--set", "data.dataset=gone"]) == ExitCode.MISSING_INPUT


def test_doctor_of_a_store_that_fails_goes_on_and_ends_with_its_code(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    findings = found(Target(str(tmp_path / "store")))
    assert findings["store"].state == "fails"
    assert findings["cluster"].state == "not there"
    assert "weights" not in findings
    assert exit_code(findings.values()) == findings["store"].code != ExitCode.DONE


def test_doctor_of_a_cluster_that_was_named_ends_with_its_code(tmp_path: Path) -> None:
    finding = found(Target(str(tmp_path / "store"), context="nowhere"))["cluster"]
    assert finding.state == "fails"
    assert finding.code in (ExitCode.CONFIGURATION, ExitCode.TRY_AGAIN)


@pytest.mark.mlflow
def test_doctor_of_a_tracker_out_of_reach_says_so_without_its_password(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{free.getsockname()[1]}"
    finding = found(Target(str(tmp_path / "store"), tracking=f"http://me:secret@{place}"))["tracker"]
    assert (finding.state, finding.code) == ("fails", ExitCode.TRY_AGAIN)
    assert "secret" not in finding.says


def test_doctor_s_device_is_described() -> None:
    torch = pytest.importorskip("torch")
    from defectbench.models.features.device import describe

    assert describe().startswith("CUDA: " if torch.cuda.is_available() else "CPU, ")
