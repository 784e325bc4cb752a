"""The door: what people type, what they read, and what the process ends with."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from PIL import Image as Pillow

from defectbench.__main__ import run
from defectbench.cli import main
from defectbench.models.checks import weights_check
from defectbench.stores.directory import DirectoryStore
from fakes import made_up_sweep, put_category
from parts import make_read_only, make_writable, mounted

ROOT = Path(__file__).resolve().parents[2]

SWEEP = """\
name: small
data: {dataset: parts}
models: [filterbank-knn, padim]
weights: none
seeds: [0]
image_size: 64
threads: 1
protocols:
  detection: {folds: 3}
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a store of made-up parts and a sweep; the process stands in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DEFECTBENCH_CACHE", str(tmp_path / "cache"))
    put_category(DirectoryStore(tmp_path / "bench"), "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    (tmp_path / "small.yaml").write_text(SWEEP)
    return tmp_path


def call(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    """Run a command and return what it printed on both streams."""
    ended = run([str(word) for word in words])
    out, err = capfd.readouterr()
    assert ended == code, err
    return out, err


def commands(command: click.Command = main, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from commands(child, (*words, name))


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    out, _ = call(capfd, *words, "--help")
    assert "Usage: defectbench" in out


def test_the_command_pages_are_as_the_commands_say() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "commands.py"))
    assert pages["PAGE"].read_text() == pages["render"](), "run `make docs`"


def test_every_relative_link_of_the_docs_exists() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "No such command 'nothing'"),
        (("plan",), "Missing argument 'SWEEP'"),
        (("run", "small.yaml", "--workers", "0"), "0 is not in the range"),
        (("models", "show", "patchcor"), "unknown model 'patchcor'; did you mean 'patchcore'?"),
        (("plan", "small.yaml", "--model", "padin"), "unknown model 'padin'; did you mean 'padim'?"),
        (("plan", "small.yaml", "--category", "bold"), "unknown category 'bold'; did you mean 'bolt'?"),
        (("plan", "small.yaml", "--set", "thread=1"), "unknown key 'thread'; did you mean 'threads'?"),
        (
            ("plan", "small.yaml", "--set", "protocols.unsee={}"),
            "unknown key 'unsee'; did you mean 'unseen'?",
        ),
        (("plan", "small.yaml", "--set", "data.categories=[nut]"), "parts has no category 'nut'"),
        (("plan", "small.yaml", "--store", "ftp://x/y"), "no store of kind ftp://"),
        (("data", "synth", "new", "--category", "gras"), "unknown category 'gras'; did you mean 'grass'?"),
        (("data", "synth", "bench"), "is there and not empty; name a new directory"),
        (("data", "synth", "new", "--size", "5000"), "size"),
        (("weights", "push", "resnet", "small.yaml"), "no model needs weights 'resnet'"),
    ],
)
def test_usage_errors_end_with_64(
    bench: Path, words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _, err = call(capfd, *words, code=64)
    assert said in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("plan", "none.yaml"), "cannot read the sweep none.yaml"),
        (("plan", "small.yaml", "--set", "data.dataset=part"), "part"),
        (("plan", "small.yaml", "--store", "empty"), "parts"),
        (("report", "smal", "--out", "x"), "no sweep 'smal'"),
        (("track", "smal"), "no sweep 'smal'"),
        (("data", "show", "part"), "part"),
        (("data", "list", "--store", "nowhere"), "make one: defectbench data import SRC --store nowhere"),
        (("data", "import", "nowhere"), "nowhere"),
        (("weights", "push", "resnet18.tv_in1k", "nowhere.pt"), "no such weights file: nowhere.pt"),
        (("job", "--cell", "abc"), "no cell abc"),
    ],
)
def test_missing_inputs_end_with_66(
    bench: Path, words: tuple[str, ...], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _, err = call(capfd, *words, code=66)
    assert said in " ".join(err.split())
    assert "Traceback" not in err


def test_missing_weights_end_with_69_before_anything_starts(
    bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = "padim needs the weights resnet18.tv_in1k"
    _, err = call(capfd, "run", "small.yaml", "--set", "weights=pretrained", code=69)
    assert said in err
    assert not list(DirectoryStore(bench / "bench").keys("cells/"))
    _, err = call(capfd, "plan", "small.yaml", "--set", "weights=pretrained")
    assert f"missing: {said}" in err


def test_plan_counts_fits_and_what_sharing_saves(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _, err = call(capfd, "plan", "small.yaml")
    assert "small: 2 fits for 6 table entries (sharing saves 4); 0 finished, 2 to run" in err
    assert "mlflow.db" in err
    found = json.loads(call(capfd, "plan", "small.yaml", "--format", "json")[0])
    assert (found["fits"], found["entries"], len(found["cells"])) == (2, 6, 2)
    assert {cell["model"] for cell in found["cells"]} == {"filterbank-knn", "padim"}


def test_a_cell_runs_and_is_reported_as_json_lines(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    call(capfd, "run", "small.yaml", "--model", "filterbank-knn", "--no-track")
    found = json.loads(call(capfd, "plan", "small.yaml", "--format", "json")[0])
    assert found["finished"] == 1
    key = next(cell["cell"] for cell in found["cells"] if cell["finished"])
    script = [sys.executable, "-m", "defectbench", "job", "--cell", key, "--events"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["state"] == "finished"


def test_reading_commands_give_json(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert json.loads(call(capfd, "data", "list", "--format", "json")[0]) == [
        {"dataset": "parts", "categories": ["bolt"]}
    ]
    shown = json.loads(call(capfd, "data", "show", "parts", "--format", "json")[0])
    assert shown["categories"][0]["test_defective"] == 6
    names = [row["name"] for row in json.loads(call(capfd, "models", "list", "--format", "json")[0])]
    assert "patchcore" in names
    assert json.loads(call(capfd, "models", "show", "glass", "--format", "json")[0])["family"] == "detector"
    rows = json.loads(call(capfd, "weights", "list", "--format", "json")[0])
    assert all(row["sha256"] == [] for row in rows)
    for words in (
        ("data", "list"),
        ("data", "show", "parts"),
        ("models", "list"),
        ("models", "show", "padim"),
    ):
        assert call(capfd, *words)[0].strip()


def test_an_empty_store_says_how_to_fill_it(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir(exist_ok=True)
    out, err = call(capfd, "data", "list", "--store", "empty")
    assert not out
    assert "empty: no data set in it; import one: defectbench data import SRC --store empty" in err
    assert json.loads(call(capfd, "data", "list", "--store", "empty", "--format", "json")[0]) == []


def test_weights_of_another_network_are_taken_under_its_full_name(
    bench: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights_check, "find_spec", lambda name: None)  # as where torch is not installed
    (bench / "net.pt").write_bytes((2).to_bytes(8, "little") + b"{}")
    _, err = call(capfd, "weights", "push", "resnet34.tv_in1k", "net.pt")
    assert "no model needs weights 'resnet34.tv_in1k' unless a sweep names that network" in err
    assert "did you mean 'resnet18.tv_in1k'?" in err
    assert len(list(DirectoryStore(bench / "bench").keys("weights/resnet34.tv_in1k/"))) == 1


def test_a_broken_data_set_is_refused_whole(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = bench / "pictures" / "nut"
    for number, folder in enumerate(("train/good", "train/good", "test/good", "test/crack", "test/crack")):
        (source / folder).mkdir(parents=True, exist_ok=True)
        Pillow.effect_noise((32, 32), 20 + number).save(source / folder / f"{number}.png")
    mask = source / "ground_truth" / "crack"
    mask.mkdir(parents=True)
    Pillow.new("L", (16, 16), 255).save(mask / "3_mask.png")
    (source / "train" / "good" / "broken.png").write_bytes(b"\x89PNG half a file")
    _, err = call(capfd, "data", "import", "pictures", "--name", "nuts", code=65)
    for name in ("broken.png", "3_mask.png", "4.png"):
        assert name in err
    assert "nuts" not in json.loads(call(capfd, "data", "list", "--format", "json")[0])[0]["dataset"]
    assert not list(DirectoryStore(bench / "bench").keys("datasets/nuts"))
    found = json.loads(call(capfd, "data", "check", "pictures", "--format", "json", code=65)[0])
    assert len(found["problems"]) >= 3


def test_a_folder_of_no_known_layout_is_one_problem(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (bench / "bare").mkdir()
    _, err = call(capfd, "data", "import", "bare", code=65)
    assert err.startswith("Error: ")
    assert "bare: no known layout; looked for\n  visa: split_csv" in err
    assert "problems" not in err


def test_a_read_only_store_ends_with_75_and_the_same_command_later_goes_on(
    bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with mounted(bench / "disk", "size=8m") as disk:
        put_category(DirectoryStore(disk / "store"), "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
        words = ("run", "small.yaml", "--model", "filterbank-knn", "--store", disk / "store", "--no-track")
        make_read_only(disk)
        _, err = call(capfd, *words, code=75)
        assert "read-only" in err
        assert "Traceback" not in err
        make_writable(disk)
        assert "1 of 1 finished" in call(capfd, *words)[1]


def test_a_full_store_ends_with_75_and_the_same_command_later_goes_on(
    bench: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with mounted(bench / "disk", "size=1m") as disk:
        store = DirectoryStore(disk / "store")
        put_category(store, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
        words = ("run", "small.yaml", "--model", "filterbank-knn", "--store", disk / "store", "--no-track")
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        _, err = call(capfd, *words, code=75)
        assert "disk is full" in err
        assert "Traceback" not in err
        assert not list(store.keys("cells/")) or not any("result" in key for key in store.keys("cells/"))
        filler.unlink()
        assert "1 of 1 finished" in call(capfd, *words)[1]


def test_report_and_track_take_a_name_or_a_file(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made_up_sweep(
        DirectoryStore(bench / "bench"), name="small", models=["filterbank-logreg", "filterbank-knn"]
    )
    for name in ("small", "small.yaml"):
        call(capfd, "report", name, "--out", bench / f"out-{name}")
        assert (bench / f"out-{name}" / "index.html").stat().st_size > 10_000


def test_a_hostile_store_url_shows_no_secret(capfd: pytest.CaptureFixture[str]) -> None:
    _, err = call(capfd, "data", "list", "--store", "s3://user:hunter2@bucket/x", code=64)
    assert "hunter2" not in err


def test_plan_says_what_a_protocol_cannot_do(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("plan", "small.yaml", "--set", "protocols.scarcity={defects: [1, 100]}")
    said = "bolt: scarcity: n=100 dropped: the smallest fold's pool has"
    _, err = call(capfd, *words)
    assert f"note: {said}" in " ".join(err.split())
    out, _ = call(capfd, *words, "--format", "json")
    (note,) = json.loads(out)["notes"]
    assert note.startswith(said)
