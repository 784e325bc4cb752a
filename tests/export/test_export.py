"""A finished cell in a folder, and pictures scored with that folder: the baselines, on real cells."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import tifffile
from PIL import Image as Pillow

from defectbench.__main__ import run
from defectbench.errors import ConfigurationError, DataError, MissingInputError, StoppedError, UsageError
from defectbench.execution.worker import Worker
from defectbench.export import card, folder, refit
from defectbench.export.bundle import CARD, DOCUMENT, Bundle, OperatingThreshold, read_bundle
from defectbench.export.scores import ExportedModel, PictureFile, find_pictures
from defectbench.export.winner import Winner
from defectbench.records.predictions import Predictions
from defectbench.records.result import Result, find_result, read_predictions
from defectbench.stores.directory import DirectoryStore
from defectbench.stores.layout import cell_key
from defectbench.sweeps import plan as plans
from defectbench.sweeps.config import parse_sweep
from defectbench.sweeps.locations import SourceLines
from defectbench.util.shutdown import Stop
from fakes import put_category

SIDE = 64
MODELS = ("filterbank-knn", "filterbank-logreg")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep: ``store`` and ``cache``."""
    place = tmp_path_factory.mktemp("export")
    store = DirectoryStore(place / "store")
    put_category(store, "parts", "bolt", 12, 6, 6, ("crack", "stain"), True)
    document = {
        "name": "small",
        "data": {"dataset": "parts"},
        "models": list(MODELS),
        "seeds": [0],
        "weights": "none",
        "image_size": SIDE,
        "threads": 1,
        "protocols": {"detection": {"folds": 3}},
    }
    plan = plans.make_plan(parse_sweep(document, SourceLines("small.yaml", {})), store)
    plans.write_plan(plan, store, list(plan.cells))
    worker = Worker(store, place / "cache", "cpu", None, Stop(), lambda event: None)
    assert worker.run(list(plan.cells)) == 0
    return place


def key_of(store: DirectoryStore, model: str) -> str:
    """The first finished cell of a model."""
    keys = sorted({key.split("/")[1] for key in store.keys("cells/")})
    found = [result for result in (find_result(store, key) for key in keys) if result]
    return next(result.cell for result in found if result.model == model)


def export(bench: Path, model: str, out: Path, rate: float = 0.05) -> Bundle:
    store = DirectoryStore(bench / "store")
    finished = refit.gather_cell(store, key_of(store, model), bench / "cache")
    return folder.write_export(finished, folder.ExportRequest(out, rate, onnx=True), lambda *step: None)


@pytest.fixture(scope="module", params=MODELS)
def exported(request: pytest.FixtureRequest, bench: Path) -> Path:
    """The folder of each model."""
    out = bench / f"out-{request.param}"
    if not out.exists():
        export(bench, request.param, out)
    return out


@pytest.fixture(scope="module")
def knn(bench: Path) -> Path:
    """The detector's folder."""
    out = bench / "out-filterbank-knn"
    if not out.exists():
        export(bench, "filterbank-knn", out)
    return out


def test_a_folder_alone_scores_the_cells_pictures_as_the_cell_did(bench: Path, exported: Path) -> None:
    bundle, store = read_bundle(exported), DirectoryStore(bench / "store")
    finished = refit.gather_cell(store, bundle.cell, bench / "cache")
    pictures = [PictureFile(path, path.name) for path in finished.paths()]
    wanted = finished.predictions.score
    model = ExportedModel.open(exported, "cpu")
    assert [verdict.score for verdict in model.score(pictures)] == wanted.tolist()
    # Whatever stands beside a picture, its score is the same.
    order = np.random.default_rng(0).permutation(len(pictures))[:5]
    shuffled = [verdict.score for verdict in model.score([pictures[i] for i in order])]
    assert shuffled == wanted[order].tolist()
    assert bundle.proof.equal == bundle.proof.images == len(pictures)
    assert model.drift() == 0


def test_the_threshold_is_the_cells_and_calls_what_lies_above(bench: Path, exported: Path) -> None:
    bundle, store = read_bundle(exported), DirectoryStore(bench / "store")
    result = find_result(store, bundle.cell)
    assert result is not None
    assert bundle.threshold.value == result.calibration_threshold
    goods = len(read_predictions(store, result).of_role("calibration"))
    assert bundle.threshold.goods == goods
    assert bundle.threshold.false_alarm_rate == pytest.approx(1 / (goods + 1))
    value = float(bundle.threshold.value or 0)
    calls = [bundle.threshold.call(score) for score in (value, np.nextafter(value, np.inf))]
    assert calls == ["good", "abnormal"]
    assert OperatingThreshold(None, 0.05, None, 0).call(1.0) is None


def test_another_rate_gives_its_own_threshold_and_replaces_an_earlier_export(
    bench: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    strict = export(bench, "filterbank-knn", out)
    (out / "left-over.txt").write_text("x")
    loose = export(bench, "filterbank-knn", out, rate=0.9)
    assert loose.threshold.asked == 0.9
    assert (loose.threshold.value or 0) < (strict.threshold.value or 0)
    assert sorted(path.name for path in out.iterdir()) == [CARD, DOCUMENT, "state.npz"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_card_states_counts_seed_threshold_and_licences(bench: Path, exported: Path) -> None:
    bundle, card = read_bundle(exported), (exported / CARD).read_text()
    finished = refit.gather_cell(DirectoryStore(bench / "store"), bundle.cell, bench / "cache")
    taught = [label for _, label in finished.cell.fit.train]
    held_out = finished.predictions.of_role("held_out").label
    for said in (
        bundle.cell,
        bundle.data_digest,
        f"{taught.count(0)} pictures labelled good, {taught.count(1)} abnormal",
        f"on {(held_out == 0).sum()} good and {(held_out == 1).sum()} abnormal pictures",
        f"{finished.result.metrics['image_auroc']:.4f} `image_auroc`",
        f"seed {bundle.seed}",
        repr(bundle.threshold.value),
        "Apache-2.0",
        "not for commercial use",
        "state.npz",
        "64 x 64 px",
        f"numpy {np.__version__}",
    ):
        assert said in card


def forged(bench: Path, tmp_path: Path, change: Callable[[Result], Result]) -> refit.FinishedCell:
    """The detector's cell in a copy of the store, one score moved by its last bit, its result changed."""
    shutil.copytree(bench / "store", tmp_path / "store")
    store = DirectoryStore(tmp_path / "store")
    result = find_result(store, key_of(store, "filterbank-knn"))
    assert result is not None
    rows = list(read_predictions(store, result).rows())
    rows[3] = replace(rows[3], score=float(np.nextafter(rows[3].score, np.inf)))
    data = Predictions.of(result.cell, rows).to_parquet()
    place = str(result.file("predictions.parquet"))
    store.put(cell_key(result.cell, place), data)
    files = {**result.files, place: hashlib.sha256(data).hexdigest()}
    store.put(cell_key(result.cell, "result.json"), change(replace(result, files=files)).to_json())
    return refit.gather_cell(store, result.cell, bench / "cache")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda result: result, "the processor rounds otherwise"),
        (
            lambda result: replace(result, versions={**result.versions, "numpy": "1.0"}),
            f"fitted with numpy 1.0 .here {np.__version__}.: export it where these are installed",
        ),
        (lambda result: replace(result, device="cuda"), "some kernels of cuda have no deterministic form"),
    ],
    ids=["same versions", "another numpy", "a GPU"],
)
def test_a_model_that_comes_out_otherwise_is_refused(
    change: Callable[[Result], Result], said: str, bench: Path, tmp_path: Path
) -> None:
    finished = forged(bench, tmp_path, change)
    with pytest.raises(ConfigurationError, match=f"1 of .* scores are not those of the cell.*{said}"):
        folder.write_export(
            finished, folder.ExportRequest(tmp_path / "out", 0.05, onnx=True), lambda *step: None
        )
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_an_export_that_is_stopped_leaves_nothing(bench: Path, tmp_path: Path) -> None:
    store = DirectoryStore(bench / "store")
    finished = refit.gather_cell(store, key_of(store, "filterbank-knn"), bench / "cache")

    def stop(what: str, done: int, total: int) -> None:
        if what == "checking" and done == 3:
            raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        folder.write_export(finished, folder.ExportRequest(tmp_path / "out", 0.05, onnx=True), stop)
    assert not list(tmp_path.iterdir())


def test_a_foreign_folder_is_refused_before_anything_is_fitted(bench: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds mine\.txt, which no export wrote"):
        folder.check_out(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        folder.check_out(tmp_path / "mine.txt")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_cells_are_found_by_how_their_keys_start(bench: Path) -> None:
    store = DirectoryStore(bench / "store")
    key = key_of(store, "filterbank-knn")
    assert refit.find_key(store, key[:12]) == key
    with pytest.raises(MissingInputError, match="no cell zzz"):
        refit.find_key(store, "zzz")
    with pytest.raises(UsageError, match="a key, or how it starts"):
        refit.find_key(store, "../x")
    for number in range(2):
        store.put(f"cells/{'9' * 18}0{number}/spec.json", b"{}")
    with pytest.raises(UsageError, match="2 cells start with '999'"):
        refit.find_key(store, "999")
    for number in range(2):
        store.delete(f"cells/{'9' * 18}0{number}/spec.json")


def test_what_is_not_finished_is_not_exported(bench: Path, tmp_path: Path) -> None:
    shutil.copytree(bench / "store", tmp_path / "store")
    store = DirectoryStore(tmp_path / "store")
    key = key_of(store, "filterbank-knn")
    store.delete(cell_key(key, "result.json"))
    with pytest.raises(MissingInputError, match="has not finished; only a finished cell can be exported"):
        refit.gather_cell(store, key, bench / "cache")


def test_the_card_of_a_contaminated_cell_says_what_set_its_threshold(bench: Path) -> None:
    store = DirectoryStore(bench / "store")
    whole = refit.gather_cell(store, key_of(store, "filterbank-knn"), bench / "cache")
    fit = whole.cell.fit
    defect = next(image.id for image in whole.manifest.images if image.label)
    mixed = replace(fit, calibration=(*fit.calibration[1:], defect))
    spoilt = replace(whole, cell=replace(whole.cell, fit=mixed))
    clean, mixture = ("\n".join(card._training(each)) for each in (whole, spoilt))
    assert f"{len(fit.calibration)} goods that it never saw" in clean
    assert "taken for such goods" not in clean
    assert f"- {len(fit.calibration) - 1} goods that it never saw" in mixture
    assert "**1 defects taken for such goods**" in mixture


def copied(model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


def test_a_damaged_folder_is_refused_and_all_problems_named(knn: Path, tmp_path: Path) -> None:
    there = copied(knn, tmp_path)
    (there / "state.npz").write_bytes(b"PK other")
    with pytest.raises(DataError, match=r"state\.npz: is not what model\.json says"):
        read_bundle(there)
    document = json.loads((there / DOCUMENT).read_text())
    document["files"] |= {"../evil": "0", "gone.bin": "0"}
    (there / DOCUMENT).write_text(json.dumps(document))
    with pytest.raises(DataError) as caught:
        read_bundle(there)
    assert len(caught.value.problems) == 3
    assert "outside its folder" in str(caught.value)
    (there / DOCUMENT).write_text('{"kind": "defectbench model", "schema": 7}')
    with pytest.raises(DataError, match="schema 7"):
        read_bundle(there)
    (there / DOCUMENT).write_text("[]")
    with pytest.raises(DataError, match=r"not the model\.json of an exported model"):
        read_bundle(there)
    with pytest.raises(MissingInputError, match=r"no model\.json there"):
        read_bundle(tmp_path)


def test_a_model_of_another_fit_version_is_refused(knn: Path, tmp_path: Path) -> None:
    there = copied(knn, tmp_path)
    document = json.loads((there / DOCUMENT).read_text())
    (there / DOCUMENT).write_text(json.dumps({**document, "fit_version": 99}))
    with pytest.raises(ConfigurationError, match="exported with version 99 of its fit"):
        ExportedModel.open(there, "cpu")


def test_a_machine_that_rounds_otherwise_is_noticed(knn: Path, tmp_path: Path) -> None:
    there = copied(knn, tmp_path)
    document = json.loads((there / DOCUMENT).read_text())
    document["proof"]["pattern_score"] += 0.5
    (there / DOCUMENT).write_text(json.dumps(document))
    assert ExportedModel.open(there, "cpu").drift() == pytest.approx(0.5)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where the process stands, with photographs in ``in``; there is no store."""
    monkeypatch.chdir(tmp_path)
    brick = Pillow.fromarray(skimage.data.brick()[:200, :150])
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "b.bmp", "c.TIF", "deep/d.jpg"):
        brick.save(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "._a.png").write_text("no picture")
    return tmp_path


def call(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> tuple[str, str]:
    ended = run([str(word) for word in words])
    out, err = capfd.readouterr()
    assert ended == code, err
    return out, err


def test_inspect_scores_new_photographs_and_writes_overlays(
    knn: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out, err = call(capfd, "inspect", knn, "in", "--format", "json", "--out", "overlays")
    rows = json.loads(out)
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.bmp", "c.TIF", "d.jpg"]
    assert rows[0]["score"] == rows[1]["score"] == rows[2]["score"]
    bundle = read_bundle(knn)
    assert {row["threshold"] for row in rows} == {bundle.threshold.value}
    assert [row["call"] for row in rows] == [bundle.threshold.call(row["score"]) for row in rows]
    names = sorted(path.relative_to("overlays").as_posix() for path in Path("overlays").rglob("*.webp"))
    assert names == ["in/a.png.webp", "in/b.bmp.webp", "in/c.TIF.webp", "in/deep/d.jpg.webp"]
    with Pillow.open("overlays/in/a.png.webp") as image:
        assert image.size == (2 * 336 + 8, 448)
        both = np.asarray(image.convert("RGB")).astype(int)
    assert np.ptp(both[:, :336], axis=2).max() < 20, "the photograph is grey"
    assert np.ptp(both[:, 344:], axis=2).max() > 60, "the heat map is not"
    assert "wrote 4 overlays" in err
    assert "note:" not in err
    listed = list(csv.DictReader(io.StringIO(call(capfd, "inspect", knn, "in", "--format", "csv")[0])))
    assert [float(row["score"]) for row in listed] == [row["score"] for row in rows]
    assert "in/deep/d.jpg" in call(capfd, "inspect", knn, "in/deep/d.jpg")[0]
    assert sorted(path.name for path in pictures.iterdir()) == ["in", "overlays"], "no store was made"


def test_inspect_writes_heat_maps_in_the_form_of_the_server_of_ad2(
    knn: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, err = call(capfd, "inspect", knn, "in/a.png", "in/deep", "--maps", "maps")
    assert "wrote 2 heat maps to maps" in err
    names = {path.relative_to("maps").as_posix() for path in Path("maps").rglob("*.*")}
    assert names == {
        "anomaly_images/bolt/a.tiff",
        "anomaly_images/bolt/deep/d.tiff",
        "anomaly_images_thresholded/bolt/a.png",
        "anomaly_images_thresholded/bolt/deep/d.png",
    }
    values = tifffile.imread("maps/anomaly_images/bolt/a.tiff")
    assert values.dtype == np.float16
    assert values.shape == (200, 150)
    with Pillow.open("maps/anomaly_images_thresholded/bolt/a.png") as image:
        marked = np.asarray(image)
        assert image.mode == "L"
    assert set(np.unique(marked)) <= {0, 255}
    heat = read_bundle(knn).heat
    assert heat.marked is not None
    limit = (heat.marked - heat.low) / (heat.high - heat.low)
    clear = np.abs(values.astype(float) - limit) > 0.01
    np.testing.assert_array_equal((marked == 255)[clear], (values > limit)[clear])
    (prediction,) = ExportedModel.open(knn, "cpu").score(find_pictures([Path("in/a.png")]))
    raw = prediction.prediction.heat_map
    assert values.max() * (heat.high - heat.low) + heat.low <= raw.max() * 1.001, "resizing heats nothing up"


def test_pixels_are_marked_in_no_more_good_parts_than_promised(bench: Path, knn: Path) -> None:
    store = DirectoryStore(bench / "store")
    finished = refit.gather_cell(store, key_of(store, "filterbank-knn"), bench / "cache")
    model = ExportedModel.open(knn, "cpu")
    held = np.flatnonzero(finished.predictions.role == "calibration")
    paths = [finished.paths()[place] for place in held]
    scored = model.score([PictureFile(path, path.name) for path in paths])
    hottest = np.array([one.prediction.heat_map.max() for one in scored])
    assert model.bundle.heat.marked is not None
    rate = model.bundle.threshold.false_alarm_rate
    assert rate is not None
    assert (hottest > model.bundle.heat.marked).sum() + 1 <= rate * (len(hottest) + 1) + 1e-9


def test_inspect_refuses_heat_maps_of_one_name_and_of_models_without_a_threshold(
    knn: Path, pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Pillow.open("in/a.png").save("in/a.bmp")
    assert "would be called alike, bolt/in/a" in call(capfd, "inspect", knn, "in", "--maps", "m", code=64)[1]
    shutil.copytree(knn, "old")
    document = json.loads(Path("old", DOCUMENT).read_text())
    del document["heat"]["marked"]
    Path("old", DOCUMENT).write_text(json.dumps(document))
    _, err = call(capfd, "inspect", "old", "in/b.bmp", "--maps", "m", code=78)
    assert "export it again" in err
    assert not Path("m").exists()
    call(capfd, "inspect", "old", "in/b.bmp", "--out", "overlays")


def test_inspect_turns_a_photograph_as_its_exif_says(
    knn: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Pillow.open("in/a.png") as upright:
        exif = Pillow.Exif()
        exif[0x0112] = 6  # shown turned a quarter clockwise
        upright.transpose(Pillow.Transpose.ROTATE_90).save("turned.png", exif=exif)
    rows = json.loads(call(capfd, "inspect", knn, "in/a.png", "turned.png", "--format", "json")[0])
    assert rows[0]["score"] == rows[1]["score"]


def test_inspect_names_all_bad_pictures_and_scores_none(
    knn: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("in/broken.png").write_bytes(Path("in/a.png").read_bytes()[:2000])
    Path("in/deep/empty.jpg").write_bytes(b"")
    out, err = call(capfd, "inspect", knn, "in", "--out", "overlays", code=65)
    assert not out
    assert "2 problems" in err
    assert "broken.png" in err
    assert "empty.jpg: cannot be read as a picture (the file is empty)" in err
    assert not Path("overlays").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none.png", "nowhere"), 66, "nowhere: no such file or folder"),
        (("bare",), 65, "bare: no picture in it; endings read are .bmp"),
        (("in/a.png", "twin/a.png"), 64, "would be called alike, a.png"),
        (("in/a.png", "--out", "in/a.png"), 64, "is a file"),
    ],
    ids=["missing", "empty folder", "same name", "out is a file"],
)
def test_inspect_refuses_what_it_cannot_do(
    words: tuple[str, ...],
    code: int,
    said: str,
    knn: Path,
    pictures: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    Path("bare").mkdir()
    Path("twin").mkdir()
    shutil.copy("in/a.png", "twin/a.png")
    _, err = call(capfd, "inspect", knn, *words, code=code)
    assert said in " ".join(err.split())


def test_inspect_refuses_a_folder_that_is_no_model(pictures: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert "name a folder that `defectbench export` wrote" in call(capfd, "inspect", "in", "in", code=66)[1]


def test_folders_of_one_parent_keep_their_names_apart(pictures: Path) -> None:
    shutil.copytree("in/deep", "good")
    shutil.copytree("in/deep", "bad")
    assert [one.name for one in find_pictures([Path("good"), Path("bad")])] == ["good/d.jpg", "bad/d.jpg"]


def test_export_by_command_says_what_it_checked(
    bench: Path, pictures: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    key = key_of(DirectoryStore(bench / "store"), "filterbank-knn")
    words = ("export", key[:10], "--store", bench / "store", "--cache", bench / "cache", "--out")
    _, err = call(capfd, *words, "model")
    assert "scores of the cell are equal to the last bit" in err
    assert "asked were 5.00%" in err
    call(capfd, *words, "in", code=64)
    call(capfd, "inspect", "model", "in")


def test_the_winner_is_exported_at_its_sweeps_rate_with_the_reports_figure(
    bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What the verdict names is found out elsewhere: here one fit of it is written."""
    store, out = bench / "store", tmp_path / "model"
    key = key_of(DirectoryStore(store), "filterbank-knn")
    found = Winner(key, "filterbank-knn", "small", 0.25, ("The report says 0.9.",))
    monkeypatch.setattr("defectbench.export.winner.find_winner", lambda *asked: found)
    words = ("export", "--winner", "bolt", "--store", store, "--cache", bench / "cache", "--out", out)
    said = call(capfd, *words)[1]
    assert f"small: filterbank-knn is the winner on bolt; its middle fit is cell {key}" in said
    assert read_bundle(out).threshold.asked == 0.25
    assert "\n- The report says 0.9.\n" in (out / "README.md").read_text()


def test_export_takes_a_cell_or_a_winner(
    bench: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    end = ("--store", bench / "store", "--out", tmp_path / "model")
    assert "give either CELL or --winner" in call(capfd, "export", *end, code=64)[1]
    assert "give either CELL or --winner" in call(capfd, "export", "ab", "--winner", "bolt", *end, code=64)[1]
    assert "--sweep belongs to --winner" in call(capfd, "export", "ab", "--sweep", "small", *end, code=64)[1]
    # With one seed there is no verdict, so nobody has won.
    said = call(capfd, "export", "--winner", "bolt", *end, code=65)[1]
    assert "no winner to export; name a cell instead: filterbank-logreg" in said
    assert not (tmp_path / "model").exists()
