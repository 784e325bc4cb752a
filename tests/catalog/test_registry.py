"""Models of other packages: found, marked, refused by name, and never in each other's way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from defectbench import catalog
from defectbench.errors import MissingWeightsError, UsageError
from packages import entry_source, install, run


def names(folder: Path) -> dict[str, str | None]:
    """Model -> its package, as `models list` tells them."""
    done = run(folder, "models", "list", "--format", "json")
    assert done.returncode == 0, done.stderr
    return {each["name"]: each["package"] for each in json.loads(done.stdout)}


def test_a_list_of_entries_is_registered_by_one_entry_point(tmp_path: Path) -> None:
    source = (
        entry_source("one") + "from dataclasses import replace\nBOTH = [ENTRY, replace(ENTRY, name='two')]\n"
    )
    install(tmp_path, "some-models", {"models/all": "some_models:BOTH"}, source, "2.1")
    found = names(tmp_path)
    assert (found["one"], found["two"], found["padim"]) == ("some-models", "some-models", None)
    table = run(tmp_path, "models", "list").stdout
    assert [
        line for line in table.splitlines() if line.strip().startswith("two") and "some-models 2.1" in line
    ]


BROKEN = {
    "raises": ("broken:ENTRY", "raise RuntimeError('no licence key')", "RuntimeError: no licence key"),
    "not there": ("broken:ENTRY", "import no_such_library", "No module named 'no_such_library'"),
    "no such name": ("broken:MISSING", entry_source("x"), "has no attribute 'MISSING'"),
    "no entry": ("broken:ENTRY", "ENTRY = 'padim'", "expected a defectbench.catalog.Entry or a list of them"),
    "name": ("broken:ENTRY", entry_source("a b"), "its name must be 1 to 63 letters"),
    "family": (
        "broken:ENTRY",
        entry_source("x").replace('"detector"', '"detectr"'),
        "family 'detectr': allowed: classifier, detector, supervised",
    ),
    "builder": ("broken:ENTRY", entry_source("x").replace("nowhere:", "nowhere."), "expected module:class"),
    "size": (
        "broken:ENTRY",
        entry_source("x", ", smallest=128"),
        "its own image_size 64 is none that it takes",
    ),
    "rule": ("broken:ENTRY", entry_source("x", ", settings={'deep': 3}"), "setting 'deep' has no rule"),
    "reserved": (
        "broken:ENTRY",
        entry_source("x", ", settings={'label': 3}, rules={'label': Bounds(1)}"),
        "setting 'label': a sweep has a key of this name",
    ),
    "default": (
        "broken:ENTRY",
        entry_source("x", ", settings={'deep': 0}, rules={'deep': Bounds(1, whole=True)}"),
        "setting deep: its default 0 is not a whole number, 1 or more",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_named_and_takes_no_other_down(tmp_path: Path, case: str) -> None:
    value, source, told = BROKEN[case]
    install(tmp_path, "broken", {"models/x": value}, source)
    install(tmp_path, "sound", {"models/y": "sound:ENTRY"}, entry_source("sound-model"))
    done = run(tmp_path, "models", "list", "--format", "json")
    assert done.returncode == 0
    assert "sound-model" in done.stdout
    assert "note: the package broken 1.0 is left out: its entry point 'x'" in done.stderr
    assert told in done.stderr
    unknown = run(tmp_path, "models", "show", "x")
    assert unknown.returncode == 64
    assert "unknown model 'x'" in unknown.stderr
    assert "the package broken 1.0 is left out" in unknown.stderr


@pytest.mark.parametrize(
    ("name", "owners"), [("same", "one 1.0 and by two 1.0"), ("padim", "defectbench itself and by one 1.0")]
)
def test_a_name_that_two_packages_register_is_refused_naming_both(
    tmp_path: Path, name: str, owners: str
) -> None:
    for package in ("one", "two") if name == "same" else ("one",):
        install(tmp_path, package, {"models/x": f"{package}:ENTRY"}, entry_source(name))
    refused = run(tmp_path, "models", "show", name)
    assert refused.returncode == 78
    assert f"model {name!r} is registered by {owners}" in refused.stderr
    assert name not in names(tmp_path)
    assert run(tmp_path, "models", "show", "patchcore").returncode == 0


def test_a_model_that_cannot_be_loaded_names_its_package(tmp_path: Path) -> None:
    install(tmp_path, "mine", {"models/x": "mine:ENTRY"}, entry_source("my-model"))
    done = run(tmp_path, "models", "check", "my-model", "--size", "64")
    assert done.returncode == 78
    assert (
        "my-model: the package mine 1.0 names nowhere:Nothing, which cannot be loaded"
        in done.stdout.replace("\n", " ") + done.stderr
    )


def test_listing_loads_no_models_library(tmp_path: Path) -> None:
    install(tmp_path, "mine", {"models/x": "mine:ENTRY"}, entry_source("my-model"))
    code = "from defectbench import catalog; import sys; assert catalog.find('my-model').version == '1.0'\n"
    slow = "{'torch', 'timm', 'anomalib', 'sklearn', 'pandas'}"
    done = run(tmp_path, python=f"{code}print(sorted({slow} & set(sys.modules)))")
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


@pytest.mark.parametrize("package", ["mine==2.0", "another==1.0"], ids=["another version", "another package"])
def test_a_cell_of_another_package_or_version_is_refused(tmp_path: Path, package: str) -> None:
    install(tmp_path, "mine", {"models/x": "mine:ENTRY"}, entry_source("my-model"))
    code = (
        "from defectbench import catalog\nfrom defectbench.errors import MissingWeightsError\n"
        "print(catalog.find_of('my-model', 'mine==1.0').name)\n"
        f"try: catalog.find_of('my-model', {package!r})\nexcept MissingWeightsError as error: print(error)"
    )
    said = run(tmp_path, python=code).stdout
    assert said.startswith("my-model\n")
    assert f"needs the package {package}, and here is mine==1.0" in said
    assert f"pip install {package}" in said


def test_check_package_without_any_names_what_to_install() -> None:
    with pytest.raises(
        MissingWeightsError, match=r"needs the package mine==1.0, which does not register it here"
    ):
        catalog.check_package("my-model", "mine==1.0")
    assert catalog.known("my-model", "mine==1.0") is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("timm:resnet34.a1_in1k", "resnet34.a1_in1k"),
        ("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k", "vit_tiny_patch16_224.augreg_in21k_ft_in1k"),
        ("timm:_odd" + "x" * 80, "odd" + "x" * 60),
    ],
)
def test_any_timm_network_has_an_entry(name: str, label: str) -> None:
    entry = catalog.find(name)
    network = name.removeprefix("timm:")
    assert (entry.name, entry.label, entry.family) == (name, label, "classifier")
    assert entry.settings == {**catalog.find("resnet50").settings, "architecture": network}
    assert [weights.name for weights in entry.weights] == [network]
    assert entry.commercial is None
    assert not entry.package


@pytest.mark.parametrize("name", ["timm:", "timm:hf_hub:x", "timm:a b", "timm:../x"])
def test_what_cannot_be_a_timm_network_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected timm's name of it"):
        catalog.find(name)
