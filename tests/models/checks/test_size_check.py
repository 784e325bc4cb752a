"""Whether a model takes a size: asked in a process of its own, without training."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import pytest

import small_models
from defectbench import catalog
from defectbench.errors import BugError, ConfigurationError, ExitCode, TryAgainError
from defectbench.models.checks import size_check as probes
from defectbench.models.checks.size_check import forward, size_check
from size_check_cases import entry


def test_probe_asks_a_process_and_reads_all_its_answers() -> None:
    found = size_check(["filterbank-logreg", "filterbank-knn"], 64)
    assert list(found) == ["filterbank-logreg", "filterbank-knn"]
    for answer in found.values():
        assert answer.takes
        assert answer.error is None
        assert answer.says.startswith("a score and a heat map of ")
        assert answer.parameters > 0


def test_probe_does_not_try_what_the_catalog_rules_out() -> None:
    assert size_check(["filterbank-knn"], 31)["filterbank-knn"] == probes.SizeCheckResult(
        False, "takes 32 px or more"
    )


def test_probe_that_takes_too_long_is_no_answer() -> None:
    answer = size_check(["filterbank-knn"], 64, seconds=0.01)["filterbank-knn"]
    assert isinstance(answer.error, TryAgainError)
    assert not answer.takes
    assert "its process had not ended after 0.01 s" in answer.says


def test_probe_whose_process_dies_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    answer = size_check(["filterbank-knn"], 64)["filterbank-knn"]
    assert isinstance(answer.error, TryAgainError)
    assert answer.says == "its process ended with 1: it said nothing"


KILLED = """\
#!/bin/sh
shift 3
for name; do
  test $name = padim && kill -9 $$
  echo '{"name": "'$name'", "takes": true, "parameters": 7, "code": 0, "says": "fine"}'
done
printf half
"""


def test_probe_goes_on_after_a_model_that_ends_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(KILLED)
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    found = size_check(["glass", "padim", "patchcore"], 512)
    assert found["glass"] == found["patchcore"] == probes.SizeCheckResult(True, "fine", 7)
    assert isinstance(found["padim"].error, TryAgainError)
    assert found["padim"].says == "its process ended with -9: it said nothing"


def answer_of(
    builder: str, side: int, monkeypatch: pytest.MonkeyPatch, **changes: object
) -> probes.SizeCheckResult:
    """What the process would find out of a made-up entry, by way of the line that it prints."""
    made_up = entry(builder, **changes)
    monkeypatch.setattr(catalog, "find", lambda name: made_up)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        probes.main([str(side), "case"])
    return probes._result_of(json.loads(printed.getvalue()))


def test_probe_of_a_model_that_takes_the_size(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of("Easy", 96, monkeypatch)
    assert found == probes.SizeCheckResult(
        True, "a score and a heat map of 96 x 96", probes.TRAINING_PICTURES
    )


def test_probe_of_a_model_that_takes_its_own_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of("Fixed", 96, monkeypatch)
    assert found == probes.SizeCheckResult(
        False, "AssertionError: Input height (96) doesn't match model (64)."
    )


@pytest.mark.parametrize("side", [64, 96])
def test_probe_of_a_model_that_takes_nothing_is_our_bug(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of("Broken", side, monkeypatch)
    assert isinstance(found.error, BugError)
    assert found.says == "ValueError: at any size"


@pytest.mark.parametrize("builder", ["Large", "Larger"])
def test_probe_without_room_is_no_answer(builder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of(builder, 96, monkeypatch)
    assert isinstance(found.error, TryAgainError)
    assert "llocate" in found.says


def test_probe_wants_finite_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of("Endless", 96, monkeypatch)
    assert isinstance(found.error, BugError)
    assert "not finite" in found.says


def test_probe_without_the_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    found = answer_of("no_such_library:Model", 96, monkeypatch)
    assert isinstance(found.error, ConfigurationError)
    assert found.error.code == ExitCode.CONFIGURATION
    assert "uv sync --extra train" in str(found.error)


@pytest.mark.torch
@pytest.mark.parametrize("name", [one.name for one in catalog.ENTRIES])
def test_every_model_inspects_a_picture_without_an_epoch(name: str) -> None:
    found = catalog.find(name)
    given = forward(found, small_models.side(found))
    assert given["parameters"] > 0
    assert "a heat map of" in given["says"]
    # Patches' positions grow with the picture, and so does a memory bank; other networks are the same at 512.
    if found.measured is not None and "architecture" in found.settings and found.multiple_of == 1:
        # A small picture's windows are narrower, with fewer biases of distances; nothing else differs.
        biases = 83_952 if name == "tinyvit-21m-512" else 0
        assert given["parameters"] == found.measured.parameters - biases
