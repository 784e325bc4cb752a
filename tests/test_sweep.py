"""Sweep files: what is read, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.errors import MissingInputError, SweepError
from defectbench.protocols.detection import Detection
from defectbench.sweep import Sweep, contenders, read, resolve

GOOD = """\
name: study
data: {dataset: parts, categories: [bolt, nut]}
models:
  - filterbank-logreg
  - {name: patchcore, coreset: 0.05, image_size: 128}
weights: none
seeds: [0, 1]
protocols:
  detection: {scheme: crossfit, folds: 4}
"""


def load(tmp_path: Path, text: str = GOOD, *overrides: str) -> Sweep:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return read(file, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SweepError) as caught:
        load(tmp_path, text, *overrides)
    assert caught.value.code == 64
    return str(caught.value).replace(str(tmp_path / "sweep.yaml"), "FILE")


def test_read_takes_defaults_and_overrides(tmp_path: Path) -> None:
    sweep = load(tmp_path, GOOD, "seeds=[3]", "resources.gpu=1", "false_alarm_rate=0.1")
    assert (sweep.seeds, sweep.threads, sweep.margin, sweep.false_alarm_rate) == ((3,), 2, 0.01, 0.1)
    assert (sweep.resources.gpu, sweep.resources.memory) == (1, "8Gi")
    assert sweep.experiments() == (Detection(scheme="crossfit", folds=4),)


def test_resolve_lays_the_models_own_keys_over_the_sweeps_over_the_catalogs(tmp_path: Path) -> None:
    logreg, patchcore = resolve(load(tmp_path, GOOD, "image_size=96", "epochs=2"))
    assert (logreg.image_size, logreg.epochs, logreg.balance) == (96, 0, "weights")
    assert (patchcore.image_size, patchcore.settings["coreset"], patchcore.balance) == (128, 0.05, "none")
    assert patchcore.settings["neighbours"] == patchcore.entry.settings["neighbours"]


def test_contenders_are_the_first_of_each_family_by_default(tmp_path: Path) -> None:
    assert contenders(load(tmp_path)) == ("filterbank-logreg", "patchcore")
    assert contenders(load(tmp_path, GOOD, "models=[padim]")) is None
    assert contenders(load(tmp_path, GOOD, "contenders=[patchcore, filterbank-logreg]"))[0] == "patchcore"  # type: ignore[index]


def test_an_empty_protocol_means_its_defaults(tmp_path: Path) -> None:
    text = GOOD.replace("detection: {scheme: crossfit, folds: 4}", "detection:")
    assert load(tmp_path, text).experiments() == (Detection(),)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds:", "seedz:", "FILE:7: seedz: unknown key 'seedz'; did you mean 'seeds'? allowed: balance,"),
        (
            "patchcore,",
            "patchcor,",
            "FILE:5: models.1.name: unknown model 'patchcor'; did you mean 'patchcore'?",
        ),
        ("coreset:", "corset:", "FILE:5: models.1.corset: unknown key 'corset'; did you mean 'coreset'?"),
        (
            "coreset: 0.05",
            "coreset: much",
            "FILE:5: models.1.coreset: expected a float as in the catalog (0.1)",
        ),
        (
            "detection:",
            "detectoin:",
            "FILE:9: protocols.detectoin: unknown key 'detectoin'; did you mean 'det",
        ),
        ("scheme: crossfit", "scheme: kfold", "input should be 'crossfit' or 'holdout', got 'kfold'"),
        (
            "folds: 4",
            "folds: 2",
            "FILE:9: protocols.detection.folds: input should be greater than or equal to 3, g",
        ),
        ("[0, 1]", "[]", "FILE:7: seeds: tuple should have at least 1 item"),
        ("[0, 1]", "[0, 0]", "FILE:7: seeds.1: seed 0 stands twice"),
        ("[0, 1]", "[0, -1]", "FILE:7: seeds.1: input should be greater than or equal to 0, got -1"),
        ("[bolt, nut]", "[]", "FILE:2: data.categories: tuple should have at least 1 item"),
        ("[bolt, nut]", "[bolt, bolt]", "FILE:2: data.categories.1: category 'bolt' stands twice"),
        ("name: study", "name: ../up", "FILE:1: name: string should match pattern"),
        ("weights: none\n", "", "FILE:1: weights: is required"),
        (
            "  - filterbank-logreg\n",
            "  - patchcore\n",
            "'patchcore' stands twice; give one of them a `label`",
        ),
        ("seeds:", "name: twice\nseeds:", "FILE:7: 'name' stands twice"),
        ("seeds:", "\tseeds:", "FILE:7: not YAML"),
        (
            "seeds:",
            "endpoint: auroc\nseeds:",
            "FILE:7: endpoint: unknown endpoint 'auroc'; did you mean 'image_auroc'",
        ),
        ("image_size: 128", "image_size: 17", "patchcore does not take 17 px"),
    ],
)
def test_a_wrong_sweep_is_refused_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    assert words in refusal(tmp_path, GOOD.replace(old, new, 1))


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD.replace("seeds: [0, 1]", "seeds: 5\nthreads: 0\nmargin: 2"))
    assert [line.split(": ")[1] for line in said.splitlines()] == ["seeds", "threads", "margin"]


def test_a_wrong_override_is_named_as_such(tmp_path: Path) -> None:
    assert "--set threads: threads: input should be greater" in refusal(tmp_path, GOOD, "threads=0")
    assert "--set colour: colour: unknown key" in refusal(tmp_path, GOOD, "colour=red")
    assert "expected key.path=value" in refusal(tmp_path, GOOD, "threads")
    assert "name is no mapping" in refusal(tmp_path, GOOD, "name.first=x")


def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    assert "a sweep is a mapping" in refusal(tmp_path, "- just\n- a list\n")
    with pytest.raises(MissingInputError, match="cannot read the sweep"):
        read(tmp_path / "nowhere.yaml")


def test_hostile_braces_in_a_name_stay_text(tmp_path: Path) -> None:
    assert "unknown model '{message}'" in refusal(tmp_path, GOOD.replace("patchcore,", "'{message}',"))
