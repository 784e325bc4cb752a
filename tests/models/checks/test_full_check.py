"""The check that `models check` puts models through, one process each."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defectbench import catalog
from defectbench.__main__ import run
from defectbench.errors import BugError, ExitCode
from defectbench.models.base import FitCallback, Pictures, Prediction, TrainingData
from defectbench.models.checks import full_check
from defectbench.models.checks.full_check import check_here, side_for
from size_check_cases import Easy, entry


class Forgetful(Easy):
    """Loads something else than it saved."""

    def load(self, path: Path) -> None:
        self.forgot = True

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        for found in super().predict(pictures):
            yield replace(found, score=found.score + hasattr(self, "forgot"))


class Flat(Easy):
    """Gives one row for a map."""

    def predict(self, pictures: Pictures) -> Iterator[Prediction]:
        for found in super().predict(pictures):
            yield replace(found, heat_map=found.heat_map[:1])


class Online(Easy):
    """Asks a hub."""

    def fit(self, training_data: TrainingData, report: FitCallback) -> None:
        socket.create_connection(("hub.example", 443))


class Hungry(Easy):
    """Finds no room."""

    def fit(self, training_data: TrainingData, report: FitCallback) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")


def test_exam_is_passed_in_a_process_of_its_own() -> None:
    [found] = full_check.full_check(["filterbank-knn"], 64)
    assert (found.code, found.side, found.heat_map) == (0, 64, (8, 8))
    assert found.peak_memory_bytes > 2**20
    assert found.parameters > 0


def test_exam_that_is_killed_is_tried_again() -> None:
    [found] = full_check.full_check(["filterbank-knn"], 64, seconds=0.01)
    assert found.code == ExitCode.TRY_AGAIN
    assert "had not ended after 0.01 s" in found.says


def test_exam_is_bounded_in_memory() -> None:
    [found] = full_check.full_check(["filterbank-knn"], 64, memory=40 * 2**20)
    assert found.code != 0, "40 MiB were enough"


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        (Forgetful, ExitCode.BUG, "does not score as the one that was saved"),
        (Flat, ExitCode.BUG, "a heat map of 1 x 96"),
        (Online, ExitCode.BUG, "asked the network"),
        (Hungry, ExitCode.TRY_AGAIN, "allocate memory"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_exam_is_failed_with_the_reason(
    case: type[Easy], code: ExitCode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_check, "build_model", lambda entry, model_settings: case(model_settings))
    found = full_check._result(entry("Easy"), 96)
    assert found.code == code
    assert words in found.says


def test_exam_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before = socket.socket.connect, socket.getaddrinfo
    monkeypatch.setattr(full_check, "build_model", lambda entry, model_settings: Easy(model_settings))
    assert check_here(entry("Easy"), 64).heat_map == (64, 64)
    monkeypatch.setattr(full_check, "build_model", lambda entry, model_settings: Online(model_settings))
    with pytest.raises(BugError):
        check_here(entry("Easy"), 64)
    assert (socket.socket.connect, socket.getaddrinfo) == before


def test_exam_is_at_the_next_side_that_the_model_takes() -> None:
    patches = entry("Easy", smallest=28, multiple_of=14)
    assert [side_for(patches, size) for size in (64, 512, 518)] == [70, 518, 518]
    assert side_for(entry("Easy", smallest=64, largest=64), 512) == 64


def test_exam_s_lesson_has_both_classes_but_for_detectors() -> None:
    assert not full_check.training_data_for(catalog.find("padim"), 64).labels.any()
    taught = full_check.training_data_for(catalog.find("resnet50"), 64)
    assert np.array_equal(taught.labels, [0, 1, 0, 1])
    assert taught.tuning is not None


def test_models_check_prints_and_ends_with_the_code_of_what_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [
        full_check.FullCheckResult(
            "filterbank-knn", 512, 0, "fits", (64, 64), 1_500_000, 2_000_000_000, 3.0, 2**30
        ),
        full_check.FullCheckResult("padim", 512, 70, "ValueError: broken"),
    ]
    monkeypatch.setattr(full_check, "full_check", lambda *given: iter(results))
    assert run(["models", "check", "filterbank-knn", "padim"]) == ExitCode.BUG
    out = capsys.readouterr().out
    assert "64 x 64" in out
    assert "FAILS (70): ValueError: broken" in out
    assert run(["models", "check", "filterbank-knn", "--format", "json"]) == ExitCode.BUG
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["filterbank-knn", "padim"]
    assert run(["models", "check"]) == ExitCode.USAGE
    assert run(["models", "check", "padin"]) == ExitCode.USAGE


def test_models_say_licences_and_flag_what_is_not_for_commerce(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "list"]) == 0
    assert "CC-BY-NC-4.0 (NON-COMMERCIAL)" in capsys.readouterr().out
    assert run(["models", "show", "fixefficientnet-b7"]) == 0
    told = capsys.readouterr()
    assert "the pretrained weights of fixefficientnet-b7 are not for commercial use" in told.err
    assert run(["models", "show", "noisystudent-b7"]) == 0
    told = capsys.readouterr()
    assert told.err == (
        "note: MVTec AD itself is CC BY-NC-SA 4.0, so what learns from it is not for commercial use\n"
    )
    assert "a stopped fit goes on from its last checkpoint" in told.out
    assert run(["models", "show", "patchcore"]) == 0
    assert "no: a stopped fit starts anew" in capsys.readouterr().out
    assert run(["models", "show", "dinov2-vits14", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["commercial"]
    assert "504 and 518" in shown["sizes"]


@pytest.mark.torch
@pytest.mark.parametrize("name", ["mobilenetv3-small", "resnet50"])
def test_measured_figures_are_what_the_model_counts(name: str) -> None:
    import torch

    from defectbench.models.features import backbone

    found = catalog.find(name)
    assert found.measured is not None
    network = backbone.create(
        str(found.settings["architecture"]), full_check.settings_for(found, found.measured.side), outputs=1
    )
    inputs = torch.zeros(1, 3, found.measured.side, found.measured.side)
    assert backbone.count(network) == found.measured.parameters
    assert backbone.count_flops(network, inputs) == found.measured.flops
