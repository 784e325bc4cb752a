"""The Python API: the same steps and figures as the command line, and the library's own errors."""

from __future__ import annotations

import csv
import importlib
import io
import json
import logging
import math
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import defectbench as db
from defectbench.errors import MissingInputError, SweepError, UsageError
from defectbench.execution.events import Event
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.tables.tables import FILES
from fakes import made_up_sweep, put_category

SWEEP: dict[str, Any] = {
    "name": "first",
    "data": {"dataset": "parts"},
    "models": ["filterbank-logreg", {"name": "filterbank-knn"}],
    "seeds": [0],
    "weights": "none",
    "image_size": 64,
    "threads": 1,
    "protocols": {"detection": {"folds": 3}},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with real photographs, in which SWEEP has run."""
    folder = tmp_path_factory.mktemp("api")
    opened = db.open_store(folder / "bench")
    images = db.synth(
        folder / "parts", categories=["grass"], size=64, train_good=12, test_good=6, defects=2, seed=1
    )
    imported = db.import_dataset(images, opened, accept_duplicates=True)  # two crops of one spot, at 64 px
    assert [manifest.category for manifest in imported] == ["grass"]
    ended = db.run(SWEEP, opened, cache=folder / "cache")
    assert len(ended) == 4
    assert {event.state.value for event in ended.values()} == {"finished"}
    return opened


@pytest.fixture
def parts(tmp_path: Path) -> Store:
    """A store with a made-up data set, in which nothing has run."""
    opened = DirectoryStore(tmp_path / "bench")
    put_category(opened, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    return opened


@pytest.mark.parametrize("name", db.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    found = getattr(db, name)
    assert name in dir(db)
    assert found == version("defectbench") if name == "__version__" else found.__doc__


def test_no_public_name_is_a_module() -> None:
    """Importing a module sets its name on the package: it would hide a function of that name."""
    modules = {module.name for module in pkgutil.iter_modules(db.__path__)}
    assert not modules & set(db.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reports'"):
        importlib.import_module("defectbench").reports  # noqa: B018


def test_names_can_be_imported_one_by_one_and_all_at_once() -> None:
    code = "from defectbench import *; from defectbench import plan as one; assert plan is one; run; results"
    subprocess.run([sys.executable, "-c", code], check=True)


def as_mapping(folder: Path) -> dict[str, Any]:
    return SWEEP


def as_text(folder: Path) -> str:
    return yaml.safe_dump(SWEEP)


def as_one_line(folder: Path) -> str:
    return json.dumps(SWEEP)


def as_path(folder: Path) -> Path:
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(SWEEP))
    return file


def as_path_text(folder: Path) -> str:
    return str(as_path(folder))


@pytest.mark.parametrize("form", [as_mapping, as_text, as_one_line, as_path, as_path_text])
def test_plan_is_the_command_lines_in_every_form_of_a_sweep(
    form: Callable[[Path], Any], parts: Store, tmp_path: Path
) -> None:
    words = ["plan", str(as_path(tmp_path)), "--store", parts.url, "--format", "json"]
    said = subprocess.run([sys.executable, "-m", "defectbench", *words], capture_output=True, check=True)
    expected = [cell["cell"] for cell in json.loads(said.stdout)["cells"]]
    assert list(db.plan(form(tmp_path), parts).cells) == expected


def test_overrides_lie_over_a_sweep_that_stays_as_it_was(parts: Store) -> None:
    before = json.dumps(SWEEP)
    changed = {"data.categories": ["bolt"], "models.1.label": "near", "image_size": 32}
    plan = db.plan(SWEEP, parts, **changed)
    assert {cell.fit.image_size for cell in plan.cells.values()} == {32}
    assert set(plan.labels.values()) == {"filterbank-logreg", "near"}
    assert json.dumps(SWEEP) == before


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"imagesize": 64}, "unknown key 'imagesize'; did you mean 'image_size'"),
        ({"image_size": "64"}, "override image_size: image_size: expected a whole number, got '64'"),
        ({"models.7.epochs": 1}, "override models.7.epochs: models is a list of 2"),
        ({"data": {"dataset": "parts", "categories": ["bold"]}}, "no category 'bold'; did you mean 'bolt'"),
        ({"weights": None}, "override weights: weights: expected a text, got None"),
    ],
)
def test_overrides_that_are_wrong_are_named(overrides: dict[str, Any], said: str, parts: Store) -> None:
    with pytest.raises(SweepError) as error:
        db.plan(SWEEP, parts, **overrides)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({**SWEEP, "models": ["padin"]}, "the sweep: models.0.name: unknown model 'padin'"),
        ({}, "the sweep: name: is required"),
        ("name: [\n", "the YAML text:"),
        ("name: first\nmodel: [padim]\n", "the YAML text:2: model: unknown key 'model'"),
        ("- a\n- b\n", "the YAML text:1: a sweep is a mapping"),
    ],
)
def test_sweeps_that_are_wrong_are_refused_with_their_place(sweep: Any, said: str, parts: Store) -> None:
    with pytest.raises(SweepError) as error:
        db.plan(sweep, parts)
    assert said in str(error.value)


@pytest.mark.parametrize("sweep", [None, 3, ["name"], b"name: first\n"])
def test_what_is_no_sweep_is_refused_by_its_type(sweep: Any, parts: Store) -> None:
    with pytest.raises(UsageError, match=f"a path, a YAML text or a mapping, got {type(sweep).__name__}"):
        db.plan(sweep, parts)


@pytest.mark.parametrize("call", [db.plan, db.run])
def test_missing_file_is_a_missing_input(call: Callable[..., Any], parts: Store) -> None:
    with pytest.raises(MissingInputError, match=r"cannot read the sweep nowhere\.yaml"):
        call("nowhere.yaml", parts)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workers": 0}, "workers: expected a whole number from 1 to 256, got 0"),
        ({"workers": True}, "got True"),
        ({"workers": 1.5}, "got 1.5"),
        ({"device": "gpu"}, "device: expected one of auto, cpu, cuda, mps, got 'gpu'"),
        ({"models": "filterbank-knn"}, r"models: expected a list of names, got 'filterbank-knn'"),
        ({"categories": "bolt"}, "categories: expected a list of names"),
        ({"models": ["padim"]}, "unknown model 'padim'"),
        ({"categories": ["bold"]}, "unknown category 'bold'; did you mean 'bolt'"),
    ],
)
def test_run_refuses_wrong_arguments_before_it_writes(
    arguments: dict[str, Any], said: str, parts: Store
) -> None:
    before = list(parts.keys())
    with pytest.raises(UsageError, match=said):
        db.run(SWEEP, parts, **arguments)
    assert list(parts.keys()) == before


def test_import_takes_lists_of_names_and_says_what_it_declares(tmp_path: Path) -> None:
    images = db.synth(tmp_path / "some", categories=["grass"], size=32, train_good=5, test_good=3, defects=1)
    with pytest.raises(UsageError, match=r"any_orientation: expected a list of names, got 'grass'"):
        db.import_dataset(images, str(tmp_path / "bench"), any_orientation="grass")
    (manifest,) = db.import_dataset(images, str(tmp_path / "bench"), name="x", any_orientation=["grass"])
    assert (manifest.dataset, manifest.any_orientation) == ("x", True)


def test_run_skips_what_is_finished(store: Store, tmp_path: Path) -> None:
    assert db.run(db.plan(SWEEP, store), store.url, workers=2, cache=tmp_path) == {}


def test_run_narrowed_runs_only_what_is_named(store: Store, tmp_path: Path) -> None:
    events: list[Event] = []
    seen = db.run(
        db.plan(SWEEP, store, name="narrowed", seeds=[5]),
        store,
        models=["filterbank-knn"],
        categories=["grass"],
        cache=tmp_path / "cache",
        watch=events.append,
    )
    assert len(seen) == 1
    assert {event.cell for event in events} == set(seen)


def test_failed_cell_is_returned_and_warned_of(
    parts: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "defectbench.api"):
        ended = db.run(
            db.plan({**SWEEP, "models": ["filterbank-knn"]}, parts, **{"resources.deadline": "1s"}),
            _damaged(parts),
            cache=tmp_path / "cache",
        )
    assert {event.state.value for event in ended.values()} == {"failed"}
    for key, event in ended.items():
        assert event.message
        assert f"filterbank-knn bolt {key}: failed ({event.code}): {event.message}" in caplog.text


def _damaged(store: Store) -> Store:
    """Put another archive where the images were: no cell can read it."""
    for key in list(store.keys("datasets/")):
        if key.endswith(".tar"):
            store.put(key, b"no archive")
    return store


def test_predictions_have_a_row_for_each_tested_image(store: Store) -> None:
    table = db.results("first", store).predictions()
    rows = table.to_pylist()
    assert len(rows) == 2 * (6 + 5 * 2)
    for model in ("filterbank-logreg", "filterbank-knn"):
        own = [row for row in rows if row["model"] == model]
        assert len({row["image_id"] for row in own}) == len(own)
        assert {row["fold"] for row in own} == {0, 1, 2}
        assert all(math.isfinite(row["score"]) and math.isfinite(row["threshold"]) for row in own)
    for row in rows:
        assert (row["label"] == 1) == (row["defect_type"] != "good") == (row["pixel_auroc"] is not None)


def test_figures_and_tables_are_those_of_the_report(store: Store, tmp_path: Path) -> None:
    results = db.results(SWEEP, store)
    assert results.complete
    page = db.write_report("first", store, tmp_path / "report", cache=tmp_path / "cache")
    db.write_report(db.plan(SWEEP, store), store.url, str(tmp_path / "report"), cache=tmp_path / "cache")
    assert page.is_file()
    for name in results.table_names:
        lines = list(csv.DictReader(io.StringIO((page.parent / "tables" / f"{name}.csv").read_text())))
        table = results.table(name)
        assert table.num_rows == len(lines)
        assert not lines or table.column_names == list(lines[0])
    told = {row["label"]: row["value"] for row in results.table("scores").to_pylist()}
    assert told == {row["model"]: row["image_auroc"] for row in results.figures().to_pylist()}


def test_tables_come_to_pandas(store: Store) -> None:
    pytest.importorskip("pandas")
    frame = db.results("first", store).figures().to_pandas()
    assert list(frame["folds"]) == [3, 3]


def test_unknown_table_names_the_nearest(store: Store) -> None:
    with pytest.raises(UsageError, match="no table 'score'; did you mean 'scores'"):
        db.results("first", store).table("score")
    assert db.results("first", store).table_names == FILES


def test_results_of_an_unfinished_sweep_are_those_there_are(tmp_path: Path) -> None:
    place = DirectoryStore(tmp_path / "bench")
    made_up_sweep(place, unfinished=2, failed=1)
    results = db.results("madeup", place)
    assert not results.complete
    assert len(results.collected.missing) == 3
    assert any(row["folds"] < row["expected"] for row in results.figures().to_pylist())


def test_results_of_nothing_are_empty_tables_with_their_columns(parts: Store) -> None:
    from defectbench.sweeps.plan import write_plan

    write_plan(db.plan(SWEEP, parts), parts, [])
    results = db.results("first", parts)
    for table in (results.predictions(), results.figures(), results.table("scores")):
        assert table.num_rows == 0
        assert table.num_columns > 3


def test_results_of_an_unknown_sweep_name_the_nearest(store: Store) -> None:
    with pytest.raises(MissingInputError, match=r"no sweep 'frist'.*did you mean 'first'"):
        db.results("frist", store)


@pytest.mark.parametrize("url", ["ftp://host/x", "", "s3:bucket", "s3://key:secret@bucket"])
def test_store_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        db.open_store(url)
