"""``render`` and ``plan --format values``: pure, and said clearly."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from defectbench.__main__ import run
from defectbench.runners.chart import chart
from defectbench.stores.directory import DirectoryStore
from fakes import finish, put_category
from parts import ROOT, find_helm

SWEEP = """\
name: small
data: {dataset: parts}
models: [filterbank-knn, {name: padim, resources: {gpu: 1}}]
weights: none
seeds: [0]
image_size: 64
threads: 1
protocols:
  detection: {folds: 3}
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a store of made-up parts and a sweep; the process stands in it, and helm is there."""
    monkeypatch.setenv("DEFECTBENCH_HELM", find_helm())
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL_S3", "DEFECTBENCH_STORE"):
        monkeypatch.delenv(name, raising=False)
    put_category(DirectoryStore(tmp_path / "bench"), "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    put_category(DirectoryStore(tmp_path / "bench"), "parts", "nut", 12, 6, 6, ("crack", "stain"), True)
    (tmp_path / "small.yaml").write_text(SWEEP)
    return tmp_path


def call(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run a command and return what it printed on both streams."""
    ended = run([str(word) for word in words])
    out, err = capfd.readouterr()
    assert ended == code, err
    return out, err


def rendered(capfd: pytest.CaptureFixture[str], *words: object) -> list[chart.Manifest]:
    return list(yaml.safe_load_all(call(capfd, "render", "small.yaml", *words)[0]))


def test_render_prints_jobs_that_state_their_digest(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = rendered(capfd, "--namespace", "factory", "--image", "registry:5000/defectbench:2")
    assert len(found) == 4
    for manifest in found:
        assert manifest["metadata"]["namespace"] == "factory"
        assert chart.digest_of(manifest) == chart.digest(manifest)
        assert chart.image_of(manifest) == "registry:5000/defectbench:2"


def test_render_needs_neither_an_image_nor_a_cluster(
    bench: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    version = yaml.safe_load((ROOT / "charts" / "defectbench" / "Chart.yaml").read_text())["appVersion"]
    found = rendered(capfd)
    assert {chart.image_of(manifest) for manifest in found} == {f"defectbench:{version}"}
    assert {name for manifest in found for name in chart.secrets_of(manifest)} == set()


def test_render_names_an_s3_stores_secret(
    bench: Path, s3_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    call(
        capfd, "data", "synth", "new", "--category", "brick", "--size", 64, "--train-good", 12, "--defects", 3
    )
    call(capfd, "data", "import", "new", "--name", "parts", "--store", s3_url)
    out, err = call(capfd, "render", "small.yaml", "--store", s3_url)
    for manifest in yaml.safe_load_all(out):
        assert chart.secrets_of(manifest) == ("defectbench-s3",)
    assert "store.endpoint" in err
    assert "a-secret-of-tests" not in out + err


def test_render_is_the_same_whatever_is_finished(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from defectbench.sweeps import plan as plans
    from defectbench.sweeps.config import read_sweep

    before = rendered(capfd)
    store = DirectoryStore(bench / "bench")
    planned = plans.make_plan(read_sweep(bench / "small.yaml"), store)
    plans.write_plan(planned, store, list(planned.cells))
    for cell in list(planned.cells.values())[:2]:
        finish(store, planned, cell, {})
    assert rendered(capfd) == before


def test_render_warns_of_a_directory_store(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, err = call(capfd, "render", "small.yaml")
    assert "bench is a directory, which pods do not see" in err
    volume = ("--set-values", "store.volume.persistentVolumeClaim.claimName=bench")
    out, err = call(capfd, "render", "small.yaml", *volume)
    assert "is a directory" not in err
    assert "claimName: bench" in out


def test_render_takes_one_job_and_other_resources(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    narrow = ("--model", "padim", "--category", "nut", "--set", "models.1.resources.gpu=0")
    (manifest,) = rendered(capfd, *narrow)
    assert "gpu" not in json.dumps(manifest)
    (cell,) = chart.cells_of(manifest)
    assert rendered(capfd, "--cell", cell, *narrow[-2:]) == [manifest]


def test_values_are_a_file_that_plain_helm_takes(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--set-values", "queueName=gpus", "--image", "registry/defectbench:2")
    out, _ = call(capfd, "plan", "small.yaml", "--format", "values", *words)
    (bench / "values.yaml").write_text(out)
    chart_files = str(ROOT / "charts" / "defectbench")
    command = [find_helm(), "template", "any", chart_files, "-f", "values.yaml", "--namespace", "factory"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
    mine = rendered(capfd, *words, "--namespace", "factory")
    for manifest in mine:
        del manifest["metadata"]["annotations"]
    assert found == mine


def test_specs_are_written_only_where_that_is_wanted(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = DirectoryStore(bench / "bench")
    call(capfd, "plan", "small.yaml", "--format", "values")
    found = rendered(capfd)
    assert not list(store.keys("cells/"))
    call(capfd, "render", "small.yaml", "--write-specs")
    assert {f"cells/{key}/spec.json" for one in found for key in chart.cells_of(one)} == set(
        store.keys("cells/")
    )


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("render", "none.yaml"), "cannot read the sweep none.yaml", 66),
        (("render", "small.yaml", "-f", "none.yaml"), "cannot read the values file none.yaml", 66),
        (("render", "small.yaml", "--image", "A:B:C"), "image 'A:B:C': expected", 64),
        (("render", "small.yaml", "--set-values", "x"), "--set-values x: expected key.path=value", 64),
        (("render", "small.yaml", "--model", "padin"), "unknown model 'padin'; did you mean 'padim'?", 64),
        (
            ("render", "small.yaml", "--set-values", "imgae.tag=x"),
            "unknown key 'imgae'; did you mean 'image'",
            78,
        ),
        (("render", "small.yaml", "-f", "small.yaml"), "values: unknown key 'data' (and 'image_size'", 78),
        (
            ("render", "small.yaml", "--set-values", "sweep=x"),
            "the values set sweep, which the command writes",
            78,
        ),
        (("plan", "small.yaml", "--image", "a:b"), "belong to --format values", 64),
        (("render", "small.yaml", "--set", "resources.shm=9Gi"), "shm 9Gi counts into the memory, 8Gi", 64),
        (("render", "small.yaml", "--write-specs", "--set", "weights=pretrained"), "needs the weights", 69),
    ],
)
def test_refusals_are_one_clear_sentence(
    bench: Path, words: tuple[str, ...], said: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err = call(capfd, *words, code=code)
    assert said in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
