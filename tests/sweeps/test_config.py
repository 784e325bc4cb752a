"""Sweep files: what is read, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench import catalog
from defectbench.errors import MissingInputError, SweepError
from defectbench.protocols.detection import Detection
from defectbench.sweeps.config import Sweep, contenders, read_sweep, resolve_models

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
    return read_sweep(file, overrides)


def refusal(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(SweepError) as caught:
        load(tmp_path, text, *overrides)
    assert caught.value.code == 64
    return str(caught.value).replace(str(tmp_path / "sweep.yaml"), "FILE") + "\n"


def test_read_takes_defaults_and_overrides(tmp_path: Path) -> None:
    sweep = load(tmp_path, GOOD, "seeds=[3]", "resources.gpu=1", "false_alarm_rate=0.1")
    assert (sweep.seeds, sweep.threads, sweep.margin, sweep.false_alarm_rate) == ((3,), 2, 0.01, 0.1)
    assert (sweep.resources.gpu, sweep.resources.memory) == (1, "8Gi")
    assert sweep.experiments() == (Detection(scheme="crossfit", folds=4),)


def test_resolve_lays_the_models_own_keys_over_the_sweeps_over_the_catalogs(tmp_path: Path) -> None:
    logreg, patchcore = resolve_models(load(tmp_path, GOOD, "image_size=96", "epochs=2"))
    assert (logreg.image_size, logreg.epochs, logreg.balance) == (96, 0, "weights")
    assert (patchcore.image_size, patchcore.settings["coreset"], patchcore.balance) == (128, 0.05, "none")
    assert patchcore.settings["neighbours"] == patchcore.entry.settings["neighbours"]


def test_contenders_are_the_first_of_each_family_by_default(tmp_path: Path) -> None:
    assert contenders(load(tmp_path)) == ("filterbank-logreg", "patchcore")
    assert contenders(load(tmp_path, GOOD, "models=[padim]")) is None
    named = load(tmp_path, GOOD, "contenders=[patchcore, filterbank-logreg]")
    assert contenders(named) == ("filterbank-logreg", "patchcore")
    two = "contenders=[patchcore, padim]"
    assert "got a detector and a detector" in refusal(tmp_path, GOOD, "models=[padim, patchcore]", two)


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
            "FILE:5: models.1.coreset: expected a number above 0 and up to 1 (the catalog's is 0.1), got 'mu",
        ),
        (
            "detection:",
            "detectoin:",
            "FILE:9: protocols.detectoin: unknown key 'detectoin'; did you mean 'det",
        ),
        ("scheme: crossfit", "scheme: kfold", "expected 'crossfit', 'holdout' or 'both', got 'kfold'"),
        (
            "folds: 4",
            "folds: 2",
            "FILE:9: protocols.detection.folds: expected 3 or more, g",
        ),
        ("[0, 1]", "[]", "FILE:7: seeds: expected a list of at least 1, got []"),
        ("[0, 1]", "[0, 0]", "FILE:7: seeds.1: seed 0 stands twice"),
        ("[0, 1]", "[0, -1]", "FILE:7: seeds.1: expected 0 or more, got -1"),
        ("[bolt, nut]", "[]", "FILE:2: data.categories: expected a list of at least 1, got []"),
        ("[bolt, nut]", "[bolt, bolt]", "FILE:2: data.categories.1: category 'bolt' stands twice"),
        ("name: study", "name: ../up", "FILE:1: name: expected 1 to 63 letters, digits"),
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
        ("image_size: 128", "image_size: 17", "patchcore does not take 17 px: it takes 32 px or more\n"),
    ],
)
def test_a_wrong_sweep_is_refused_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in GOOD
    assert words in refusal(tmp_path, GOOD.replace(old, new, 1))


def test_a_wrong_item_is_one_problem(tmp_path: Path) -> None:
    found = refusal(tmp_path, GOOD.replace("[0, 1]", "[-1]", 1))
    assert found.strip() == "FILE:7: seeds.0: expected 0 or more, got -1"
    both = refusal(tmp_path, GOOD.replace("[0, 1]", "[]", 1).replace("folds: 4", "folds: 2"))
    assert len(both.strip().splitlines()) == 2


WRONG_SETTINGS = [
    ("coreset", "5", "a number above 0 and up to 1 (the catalog's is 0.1), got 5"),
    ("coreset", "0", "a number above 0 and up to 1"),
    ("coreset", ".nan", "a number above 0 and up to 1"),
    ("coreset", "true", "a number above 0 and up to 1"),
    ("neighbours", "0", "a whole number from 1 to 1000 (the catalog's is 9), got 0"),
    ("neighbours", f"1{'0' * 400}", "a whole number from 1 to 1000"),
    ("neighbours", "1.5", "a whole number from 1 to 1000"),
    ("layers", "[]", "a list of the backbone's layers, at least one and none twice"),
    ("layers", "[layer2, layer2]", "a list of the backbone's layers, at least one and none twice"),
    ("layers", "layer2", "(the catalog's is ['layer2', 'layer3']), got 'layer2'"),
    ("layers", "[2]", "a list of the backbone's layers"),
    ("backbone", '""', "the name of a timm network"),
    ("backbone", "../up", "the name of a timm network"),
    ("name: filterbank-logreg, penalty", "0", "a number from 1e-06 to 1e+06 (the catalog's is 1.0), got 0"),
    ("name: filterbank-knn, bank", "0", "a whole number, 1 or more"),
    ("name: padim, features", "0", "a whole number, 1 or more"),
    ("name: glass, batch_size", "0", "a whole number from 2 to 4096"),
    ("name: glass, learning_rate", ".nan", "a number above 0 and up to 1 (the catalog's is 0.0001), got nan"),
    ("name: glass, learning_rate", "-.inf", "a number above 0 and up to 1"),
    ("name: resnet50, weight_decay", "-1", "a number from 0 to 1"),
    ("name: resnet50, warmup_epochs", "-1", "a whole number, 0 or more"),
    ("name: resnet50, freeze", "1", "true or false (the catalog's is False), got 1"),
    ("name: resnet50, architecture", "[a]", "the name of a timm network"),
    ("name: patchcore-large, second_backbone", "3", "the name of a timm network"),
    ("name: patchcore-large, third_backbone", "3", "the name of a timm network"),
    ("name: patchcore-large, second_layers", "[]", "a list of the second backbone's layers"),
    ("name: patchcore-large, third_layers", "[]", "a list of the third backbone's layers"),
    ("name: anomalydino, layer", "11", "the name of a layer of the backbone"),
    ("name: patchcore-16shot, shots", "0", "a whole number, 1 or more"),
    ("name: dinomaly, steps", "0", "a whole number, 1 or more"),
    ("name: dinomaly, decoder_depth", "7", "a whole number from 8 to 64"),
    ("name: fastflow, flow_steps", "0", "a whole number from 1 to 64"),
    ("name: draem, channels", "1", "a whole number from 2 to 4096"),
    ("name: efficientad-s, width", "0", "a number above 0 and up to 1"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG_SETTINGS)
def test_a_models_setting_out_of_its_range_is_refused_with_its_line(
    tmp_path: Path, key: str, value: str, words: str
) -> None:
    entry = f"{key}: {value}" if key.startswith("name:") else f"name: patchcore, {key}: {value}"
    said = refusal(tmp_path, GOOD.replace("name: patchcore, coreset: 0.05, image_size: 128", entry))
    setting = key.split(" ")[-1]
    assert said.startswith(f"FILE:5: models.1.{setting}: expected ")
    assert words in said


def test_every_kind_of_setting_is_refused_somewhere() -> None:
    assert {key.split(" ")[-1] for key, _, _ in WRONG_SETTINGS} == set(catalog.SETTINGS)


def test_a_models_settings_at_the_ends_of_their_ranges_are_taken(tmp_path: Path) -> None:
    sweep = load(tmp_path, GOOD, "models.1.coreset=1", "models.1.neighbours=1", "models.1.layers=[layer1]")
    settings = resolve_models(sweep)[1].settings
    assert (settings["coreset"], settings["neighbours"], settings["layers"]) == (1.0, 1, ("layer1",))
    assert isinstance(settings["coreset"], float)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("margin: .nan", "margin: expected a finite number, got nan"),
        ("false_alarm_rate: .inf", "false_alarm_rate: expected a finite number, got inf"),
        ("resources: {cpu: .inf}", "resources.cpu: expected a finite number, got inf"),
        ("resources: {gpu: true}", "resources.gpu: expected a whole number, got True"),
        ("resources: {memory: 0Gi}", "resources.memory: expected an amount above 0, such as 512Mi or 8Gi"),
        ("resources: {shm: 8 GB}", "resources.shm: expected an amount above 0"),
        ("resources: {deadline: 0s}", "resources.deadline: expected a time above 0, such as 90s"),
        ("resources: 5", "resources: expected a mapping, got 5"),
        ("defect_rate: 0.1\nprices: {false_alarm: .inf, missed_defect: 1}", "expected a finite number"),
        ("prices: {false_alarm: 1, missed_defect: 1}", "FILE:7: prices: prices count at your line's share"),
        ("threads: true", "threads: expected a whole number, got True"),
        ("threads: 2.5", "threads: expected a whole number, got 2.5"),
        ("threads: two", "threads: expected a whole number, got 'two'"),
        ("margin: true", "margin: expected a number, got True"),
        ("split_seed: [1]", "split_seed: expected a whole number, got [1]"),
        ("contenders: [patchcore]", "contenders: expected a list of at least 2, got ['patchcore']"),
        ("endpoint: 3", "endpoint: expected a text, got 3"),
    ],
)
def test_a_wrong_value_is_refused_in_plain_words(tmp_path: Path, line: str, words: str) -> None:
    said = refusal(tmp_path, GOOD.replace("seeds:", f"{line}\nseeds:"))
    assert said.startswith("FILE:")
    assert words in said
    assert not any(word in said for word in ("tuple", "dictionary", "instance", "valid"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[0, 1]", "5", "FILE:7: seeds: expected a list, got 5"),
        ("[0, 1]", "[true]", "FILE:7: seeds.0: expected a whole number, got True"),
        (
            "  - filterbank-logreg\n",
            "  - 5\n",
            "FILE:4: models.0: expected a model's name, or a mapping with `name` or `timm`",
        ),
        (
            "{dataset: parts, categories: [bolt, nut]}",
            "parts",
            "FILE:2: data: expected a mapping, got 'parts'",
        ),
        ("{scheme: crossfit, folds: 4}", "4", "FILE:9: protocols.detection: expected a mapping, got 4"),
        ("scheme: crossfit", "scheme: holdout", "FILE:9: protocols.detection.folds: holdout is one split"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_in_plain_words(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert words in refusal(tmp_path, GOOD.replace(old, new, 1))


@pytest.mark.parametrize("word", ["pretraind", "Pretrained", "non", "nONE"])
def test_a_misspelt_word_for_weights_is_no_file(tmp_path: Path, word: str) -> None:
    said = refusal(tmp_path, GOOD.replace("weights: none", f"weights: {word}"))
    assert f"FILE:6: weights: {word!r} is neither a keyword nor a file here; did you mean" in said
    said = refusal(tmp_path, GOOD.replace("image_size: 128", f"weights: {word}"))
    assert said.startswith("FILE:5: models.1.weights: ")


def test_a_file_of_weights_is_taken_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretraind").touch()
    for name in ("pretraind", "pretraind.safetensors", "./pretrain", "resnet18"):
        assert load(tmp_path, GOOD.replace("weights: none", f"weights: {name}")).weights == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + 'x: "\x07"\n', "FILE:10: not YAML: the character '\\x07' may not stand in it"),
        (GOOD.replace("[0, 1]", "&a [*a]"), "FILE:7: holds itself, by an alias"),
        (GOOD + f"x: {'[' * 2000}{']' * 2000}\n", "nested too deeply"),
        (GOOD + "x: 2020-13-45\n", "not YAML: month must be in 1..12"),
        (GOOD + "x: *nowhere\n", "FILE:10: not YAML: found undefined alias"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str, words: str) -> None:
    assert words in refusal(tmp_path, text)


def test_an_override_reaches_into_lists(tmp_path: Path) -> None:
    sweep = load(tmp_path, GOOD, "models.1.coreset=0.5", "models.0.label=mine", "data.categories.1=nail")
    assert [model.label for model in resolve_models(sweep)] == ["mine", "patchcore"]
    assert resolve_models(sweep)[1].settings["coreset"] == 0.5
    assert sweep.data.categories == ("bolt", "nail")
    text = GOOD.replace("detection: {scheme: crossfit, folds: 4}", "detection:")
    assert load(tmp_path, text, "protocols.detection.folds=5").experiments() == (Detection(folds=5),)


def test_an_override_that_reaches_nothing_says_so(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD, "models.2.epochs=3")
    assert "--set models.2.epochs=3: models is a list of 2; allowed positions: 0 to 1" in said
    assert "models is a list of 2" in refusal(tmp_path, GOOD, "models.patchcore.epochs=3")
    assert "models is a list of 2" in refusal(tmp_path, GOOD, "models.-1=padim")
    assert "empty" in refusal(tmp_path, GOOD, "seeds=[]", "seeds.0=1")
    assert "the value is not YAML" in refusal(tmp_path, GOOD, "seeds=2020-13-45")


def test_what_lies_under_an_override_is_named_by_it(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD, "models=[filterbank-logreg, {name: patchcore, coreset: 5}]")
    assert said.startswith("--set models: models.1.coreset: expected a number above 0")
    assert refusal(tmp_path, GOOD, "models.1.coreset=5").startswith(
        "--set models.1.coreset: models.1.coreset: "
    )


def test_patience_ends_a_fit_only_where_it_is_meant_to(tmp_path: Path) -> None:
    models = (
        "models=[resnet50, glass, {name: glass, label: patient, patience: 7}, {name: padim, patience: 3}]"
    )
    sweep = load(tmp_path, GOOD, models, "patience=5")
    assert [model.patience for model in resolve_models(sweep)] == [5, 0, 7, 0]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    said = refusal(tmp_path, GOOD.replace("seeds: [0, 1]", "seeds: 5\nthreads: 0\nmargin: 2"))
    assert [line.split(": ")[1] for line in said.splitlines()] == ["seeds", "threads", "margin"]


def test_a_wrong_override_is_named_as_such(tmp_path: Path) -> None:
    assert "--set threads: threads: expected 1 or more" in refusal(tmp_path, GOOD, "threads=0")
    assert "--set colour: colour: unknown key" in refusal(tmp_path, GOOD, "colour=red")
    assert "expected key.path=value" in refusal(tmp_path, GOOD, "threads")
    assert "name is no mapping" in refusal(tmp_path, GOOD, "name.first=x")


def test_a_file_that_is_no_sweep_is_refused(tmp_path: Path) -> None:
    assert "a sweep is a mapping" in refusal(tmp_path, "- just\n- a list\n")
    with pytest.raises(MissingInputError, match="cannot read the sweep"):
        read_sweep(tmp_path / "nowhere.yaml")


def test_hostile_braces_in_a_name_stay_text(tmp_path: Path) -> None:
    assert "unknown model '{message}'" in refusal(tmp_path, GOOD.replace("patchcore,", "'{message}',"))
