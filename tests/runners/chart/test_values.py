"""What a user says about the chart's values: files, single keys, an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.errors import ConfigurationError, MissingInputError, UsageError
from defectbench.runners.chart.values import OWN, read_values, split_image


def file(tmp_path: Path, text: str, name: str = "values.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def test_later_values_lie_over_earlier_ones(tmp_path: Path) -> None:
    first = file(tmp_path, "image: {tag: a, pullPolicy: Always}\ntolerations: [{key: a}]\n", "1.yaml")
    second = file(tmp_path, "image: {tag: b}\ntolerations: [{key: b}]\nuser: null\n", "2.yaml")
    found = read_values([first, second], ["image.tag=c", "queueName=gpus"])
    assert found == {
        "image": {"tag": "c", "pullPolicy": "Always"},
        "tolerations": [{"key": "b"}],
        "user": None,
        "queueName": "gpus",
    }
    assert read_values([first], ["image.tag=c"], "other:d")["image"] == {
        "repository": "other",
        "tag": "d",
        "digest": "",
        "pullPolicy": "Always",
    }


def test_single_values_are_yaml_under_a_path() -> None:
    words = [
        r"nodeSelector.cloud\.google\.com/gke-accelerator=nvidia-l4",
        "tolerations=[{key: gpu, operator: Exists}]",
        "tolerations.0.key=other",
        "backoffLimit=3",
        "podAnnotations.note=a=b",
        "cpuLimit=true",
    ]
    assert read_values([], words) == {
        "nodeSelector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": [{"key": "other", "operator": "Exists"}],
        "backoffLimit": 3,
        "podAnnotations": {"note": "a=b"},
        "cpuLimit": True,
    }


def test_values_are_read_as_helm_reads_them(tmp_path: Path) -> None:
    found = read_values([file(tmp_path, "podAnnotations: {day: 2024-01-02, time: 12:30:45Z}\n")])
    assert found == {"podAnnotations": {"day": "2024-01-02", "time": "12:30:45Z"}}
    assert read_values([file(tmp_path, "# nothing\n")]) == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\na: [", "values.yaml:2: not YAML"),
        ("a: 1\na: 2\n", "values.yaml:2: not YAML: 'a' stands twice"),
        ("- a\n", "values.yaml: expected a mapping of chart values, got ['a']"),
        ("text", "values.yaml: expected a mapping"),
        ("a: .nan\n", "values.yaml: a: nan is no chart value"),
        ("1: x\n", "values.yaml: the key 1 is no text; write it in quotes"),
        ("nodeSelector: {on: x}\n", "values.yaml: nodeSelector: the key True is no text"),
        ("a: !!binary aGk=\n", "values.yaml: a: b'hi' is no chart value"),
        ("a: &a [*a]\n", "values.yaml: holds itself by an alias"),
        ("a: !!python/object:os.system {}\n", "values.yaml:1: not YAML"),
        ("a: \x00\n", "values.yaml: not YAML"),
        ("store: s3://b\n", "store: expected a mapping, got 's3://b'"),
    ],
)
def test_files_that_are_no_values_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        read_values([file(tmp_path, text)])
    assert said in str(error.value)
    assert error.value.code == 78


def test_a_missing_file_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"cannot read the values file .*none\.yaml: No such file"):
        read_values([tmp_path / "none.yaml"])


@pytest.mark.parametrize("path", OWN, ids=".".join)
def test_what_the_command_writes_is_not_to_be_set(path: tuple[str, ...]) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"the values set {'.'.join(path)}, which the command writes"
    ):
        read_values([], [f"{'.'.join(path)}=x"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("tag", "--set-values tag: expected key.path=value"),
        ("=1", "--set-values =1: expected key.path=value"),
        ("image.tag=[", "--set-values image.tag=[: the value is not YAML"),
        ("tolerations.0=x", "--set-values tolerations.0=x: "),
    ],
)
def test_single_values_that_are_none_are_usage_errors(word: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_values([file(tmp_path, "tolerations: []\n")], [word])
    assert str(error.value).startswith(said)


DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("defectbench", ("defectbench", "", "")),
        ("defectbench:0.1.0", ("defectbench", "0.1.0", "")),
        ("localhost:5000/defectbench", ("localhost:5000/defectbench", "", "")),
        ("ghcr.io/a/b:v1", ("ghcr.io/a/b", "v1", "")),
        (f"ghcr.io/a/b@{DIGEST}", ("ghcr.io/a/b", "", DIGEST)),
        (f"r:1/a:t@{DIGEST}", ("r:1/a", "t", DIGEST)),
    ],
)
def test_image_is_split_into_the_charts_values(reference: str, parts: tuple[str, str, str]) -> None:
    repository, tag, digest = parts
    assert split_image(reference) == {"repository": repository, "tag": tag, "digest": digest}


@pytest.mark.parametrize(
    "reference", ["", "Upper/Case", "a b", "a:b:c", "a@sha256:12", "-f", "a:", "http://a/b"]
)
def test_image_that_is_none_is_a_usage_error(reference: str) -> None:
    with pytest.raises(UsageError, match="expected "):
        split_image(reference)


def test_a_single_value_changes_no_alias_of_its_place(tmp_path: Path) -> None:
    shared = file(tmp_path, "jobLabels: &labels {x: one}\npodLabels: *labels\n")
    assert read_values([shared], ["jobLabels.x=two"]) == {
        "jobLabels": {"x": "two"},
        "podLabels": {"x": "one"},
    }
