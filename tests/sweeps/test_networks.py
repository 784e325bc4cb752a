"""Any timm network as a sweep's model, and networks that timm does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from defectbench.errors import SweepError
from defectbench.models.checks.network_check import unknown_networks
from defectbench.stores.directory import DirectoryStore
from defectbench.sweeps.config import Sweep, read_sweep, resolve_models
from defectbench.sweeps.networks import check_networks, named_networks
from defectbench.sweeps.plan import make_plan
from fakes import put_category

SWEEP = """\
name: any
data: {dataset: parts}
weights: none
protocols: {detection: {folds: 3}}
models:
"""


def sweep_of(tmp_path: Path, *models: str) -> Sweep:
    """The first model stands in line 6."""
    file = tmp_path / "any.yaml"
    file.write_text(SWEEP + "".join(f"  - {model}\n" for model in models))
    return read_sweep(file)


def refusal(tmp_path: Path, *models: str) -> str:
    with pytest.raises(SweepError) as caught:
        sweep_of(tmp_path, *models)
    return str(caught.value).replace(str(tmp_path / "any.yaml"), "FILE")


def test_timm_network_is_a_classifier_with_its_settings(tmp_path: Path) -> None:
    given = "{timm: resnet34.a1_in1k, label: r34, freeze: true, batch_size: 4, image_size: 96, epochs: 2}"
    [model] = resolve_models(sweep_of(tmp_path, given))
    assert (model.label, model.entry.family, model.image_size, model.epochs) == ("r34", "classifier", 96, 2)
    assert model.settings["architecture"] == "resnet34.a1_in1k"
    assert (model.settings["freeze"], model.settings["batch_size"]) == (True, 4)
    assert model.settings["learning_rate"] == 3e-4


def test_timm_networks_have_their_names_as_labels(tmp_path: Path) -> None:
    found = resolve_models(sweep_of(tmp_path, "{timm: resnet34.a1_in1k}", "{timm: resnet18}", "timm:vgg11"))
    assert [model.label for model in found] == ["resnet34.a1_in1k", "resnet18", "vgg11"]


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (["{timm: resnet18, name: padim}"], "FILE:6: models.0.timm: give `timm: NETWORK` or `name: MODEL`"),
        (
            ["{timm: 18}"],
            "FILE:6: models.0.timm: expected timm's name of a network, such as resnet34.a1_in1k",
        ),
        (["{timm: null}"], "models.0.timm: expected timm's name of a network"),
        (["{timm: [resnet18]}"], "models.0.timm: expected timm's name of a network"),
        (["{timm: 'hf_hub:a/b'}"], "models.0.timm: timm network 'hf_hub:a/b': expected timm's name of it"),
        (["{timm: resnet18, architecture: vgg11}"], "the network is resnet18: leave `architecture` out"),
        (["{timm: resnet18, backbone: vgg11}"], "unknown key 'backbone'"),
        (["{timm: resnet18, batch_size: 1}"], "expected a whole number from 2 to 4096"),
        (["{timm: resnet18}", "{timm: resnet18}"], "'resnet18' stands twice; give one of them a `label`"),
        (["{timm: resnet18, image_size: 32}"], "timm:resnet18 does not take 32 px"),
    ],
)
def test_timm_network_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, models: list[str], told: str
) -> None:
    assert told in refusal(tmp_path, *models)


def keys(tmp_path: Path, model: str) -> list[str]:
    store = DirectoryStore(tmp_path / "store")
    put_category(store, "parts", "nut", 12, 6, 9, ("crack", "stain"), True)
    return list(make_plan(sweep_of(tmp_path, model), store).cells)


def test_networks_and_their_settings_decide_the_cells(tmp_path: Path) -> None:
    plain = keys(tmp_path, "{timm: resnet18}")
    assert plain == keys(tmp_path, "{timm: resnet18, label: mine}") == keys(tmp_path, "timm:resnet18")
    assert not set(plain) & set(keys(tmp_path, "{timm: resnet34}"))
    assert not set(plain) & set(keys(tmp_path, "{timm: resnet18, weight_decay: 0.1}"))


def test_missing_weights_of_a_network_are_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    put_category(store, "parts", "nut", 12, 6, 9, ("crack", "stain"), True)
    given = "{timm: resnet34.a1_in1k, weights: pretrained}"
    missing = make_plan(sweep_of(tmp_path, given), store).missing
    assert "timm:resnet34.a1_in1k needs the weights resnet34.a1_in1k" in missing["resnet34.a1_in1k"]


NAMED = [
    "padim",
    "{timm: resnt18.a1_in1k, label: one}",
    "{name: resnet50, architecture: resnet5O}",
    "{name: patchcore, label: two, backbone: wide_resnet50}",
    "{name: patchcore-large, third_backbone: densenet_201}",
    "{name: padim, backbone: resnet18.tv_in1k, label: known}",
]


def test_named_networks_are_those_beside_the_catalogs_own(tmp_path: Path) -> None:
    found = named_networks(sweep_of(tmp_path, *NAMED))
    assert [(each.label, each.key, each.name, each.place.rpartition(":")[2]) for each in found] == [
        ("one", "timm", "resnt18.a1_in1k", "7"),
        ("resnet50", "architecture", "resnet5O", "8"),
        ("two", "backbone", "wide_resnet50", "9"),
        ("patchcore-large", "third_backbone", "densenet_201", "10"),
    ]
    assert [each.name for each in named_networks(sweep_of(tmp_path, *NAMED), {"two"})] == ["wide_resnet50"]


@pytest.mark.torch
def test_unknown_networks_are_named_with_their_lines_and_the_nearest(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    with pytest.raises(SweepError) as caught:
        check_networks(sweep_of(tmp_path, *NAMED))
    lines = str(caught.value).replace(str(tmp_path / "any.yaml"), "FILE").splitlines()
    assert lines[0] == ("FILE:7: one: timm: unknown timm network 'resnt18.a1_in1k'; did you mean 'resnet18'?")
    assert [line.partition(" ")[0] for line in lines] == ["FILE:7:", "FILE:8:", "FILE:9:", "FILE:10:"]
    check_networks(sweep_of(tmp_path, *NAMED), {"known", "padim"})


def test_nothing_is_asked_where_no_network_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any) -> Any:
        raise AssertionError("timm was asked")

    monkeypatch.setattr("defectbench.models.checks.subprocess_run.run_module", never)
    assert unknown_networks([]) == {}


def test_without_timm_the_cells_find_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert unknown_networks(["resnt18"]) == {}
