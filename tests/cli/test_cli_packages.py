"""What `submit` looks for beside data and weights: the image's packages, and timm's networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.stores.directory import DirectoryStore
from fake_kubernetes import FakeApi, fake_api
from fakes import put_category
from packages import entry_source, install, run
from parts import find_helm

pytest.importorskip("kubernetes", reason="no kubernetes client here; run: uv sync --extra kubernetes")

SWEEP = """\
name: small
data: {dataset: parts}
models:
  - filterbank-knn
  - {name: my-model, label: mine}
weights: none
seeds: [0]
protocols: {detection: {folds: 3}}
"""
VOLUME = ("--set-values", "store.volume.persistentVolumeClaim.claimName=bench")
WORDS = ("small.yaml", *VOLUME, "--image", "registry.test/defectbench:1")
HELD = ("--set-values", "image.packages=[mine==1.0]")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one package; the process stands where the sweep and its store are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEFECTBENCH_HELM", find_helm())
    monkeypatch.delenv("DEFECTBENCH_STORE", raising=False)
    put_category(DirectoryStore(tmp_path / "bench"), "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    (tmp_path / "small.yaml").write_text(SWEEP)
    return install(tmp_path / "lib", "mine", {"models/x": "mine:ENTRY"}, entry_source("my-model"))


def test_submit_names_a_package_that_the_image_is_not_said_to_hold(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
        for stated in ((), ("--set-values", "image.packages=[mine==0.9, other==2]")):
            refused = run(packages, "submit", *WORDS, *stated)
            assert refused.returncode == 69, refused.stderr
            assert "the package mine==1.0, of the model my-model" in refused.stderr
            assert "mine==1.0" in refused.stderr.partition("--set-values 'image.packages=[")[2]
        assert "they state mine==0.9, other==2" in refused.stderr
        assert not api.of("jobs")
        assert not list((tmp_path / "bench").glob("cells"))
        assert jobs(api, packages, "--model", "filterbank-knn") == 1
        assert jobs(api, packages, *HELD) == 2


def jobs(api: FakeApi, packages: Path, *words: str) -> int:
    """How many Jobs there are after `submit`."""
    done = run(packages, "submit", *WORDS, *words)
    assert done.returncode == 0, done.stderr
    return len(api.of("jobs"))


def test_values_for_helm_note_the_package(packages: Path) -> None:
    words = ("plan", "small.yaml", "--format", "values", *VOLUME)
    assert "note: the values do not state that the pods' image holds the package mine==1.0" in (
        run(packages, *words).stderr
    )
    stated = run(packages, *words, *HELD)
    assert "packages:\n  - mine==1.0" in stated.stdout
    assert "the package mine" not in stated.stderr


@pytest.mark.parametrize("value", ["mine", "mine>=1", "==1.0", "mine==1.0 ", "mine==", "-x==1"])
def test_a_package_without_its_version_breaks_the_schema(packages: Path, tmp_path: Path, value: str) -> None:
    (tmp_path / "values.yaml").write_text(f"image:\n  packages: ['{value}']\n")
    done = run(packages, "render", "small.yaml", *VOLUME, "-f", "values.yaml")
    assert done.returncode == 78, done.stdout
    assert "packages" in done.stderr


@pytest.mark.torch
@pytest.mark.parametrize("command", ["run", "submit"])
def test_an_unknown_network_is_named_before_anything_starts(
    packages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    pytest.importorskip("timm")
    (tmp_path / "small.yaml").write_text(SWEEP.replace("name: my-model", "timm: resnt18.a1_in1k"))
    words = WORDS if command == "submit" else ("small.yaml", "--no-track")
    with fake_api() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "config")))
        refused = run(packages, command, *words)
        assert not api.of("jobs")
    assert refused.returncode == 64
    assert refused.stderr.splitlines()[-1] == (
        "Error: small.yaml:5: mine: timm: unknown timm network 'resnt18.a1_in1k'; did you mean 'resnet18'?"
    )
    assert not (tmp_path / "bench" / "cells").exists()
