"""Whether a model takes pictures of a size: asked of the model itself, in a process of its own.

A model is built with random weights, is given no epoch, and inspects one picture: a real forward pass and a
heat map, without training. ``python -m defectbench.models.checks.size_check SIDE NAME...`` does it, on one
thread,
and prints a line of JSON for each model; :func:`size_check` starts that and reads it. So the caller loads no
model's library, and a model that takes too much memory or time ends nothing but its own probe.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from defectbench import catalog
from defectbench.catalog import Entry
from defectbench.errors import BugError, ConfigurationError, DefectbenchError, ExitCode, TryAgainError
from defectbench.models.base import ModelSettings, TrainingData
from defectbench.models.checks import subprocess_run
from defectbench.models.choose import build_model
from defectbench.models.pictures.images import ArrayPictures
from defectbench.util.memory import ran_out

SECONDS = 600.0
"""How long one model may take, its library's import included."""

_MODULE = "defectbench.models.checks.size_check"

TRAINING_PICTURES = 2
"""Pictures that a model is given to learn from: two classes, or what a covariance needs."""

_ERRORS: Mapping[int, type[DefectbenchError]] = {
    error.code: error for error in (ConfigurationError, TryAgainError, BugError)
}


@dataclass(frozen=True, slots=True)
class SizeCheckResult:
    """What was found out of one model.

    Attributes:
        takes: whether it takes the size.
        says: in words, what it gave or why it does not.
        parameters: of the model that was built, 0 where none was. The memory bank of some detectors
            counts, as :data:`TRAINING_PICTURES` pictures fill it.
        error: why nothing was found out, or None.
    """

    takes: bool
    says: str
    parameters: int = 0
    error: DefectbenchError | None = None


def size_check(names: Sequence[str], side: int, seconds: float = SECONDS) -> dict[str, SizeCheckResult]:
    """Return catalog name -> what its model makes of ``side`` x ``side`` pixels.

    A size that the catalog's entry rules out is not tried.

    Args:
        seconds: for each model, after which nothing more is awaited.
    """
    ruled_out = {
        name: SizeCheckResult(False, f"takes {catalog.find(name).sizes}")
        for name in names
        if not catalog.find(name).takes(side)
    }
    asked = [name for name in names if name not in ruled_out]
    return ruled_out | (_ask(asked, side, seconds) if asked else {})


def _ask(names: Sequence[str], side: int, seconds: float) -> dict[str, SizeCheckResult]:
    """Return what models say, in one process; where one ends it, the next go on in another."""
    found: dict[str, SizeCheckResult] = {}
    while left := [name for name in names if name not in found]:
        output, end = subprocess_run.run_module(_MODULE, [str(side), *left], seconds * len(left))
        answers = [json.loads(line) for line in output.splitlines()]
        found |= {answer["name"]: _result_of(answer) for answer in answers}
        silent = [name for name in left if name not in found][:1]
        found |= {name: _unknown(name, end) for name in silent}
    return found


def _unknown(name: str, end: str) -> SizeCheckResult:
    return SizeCheckResult(
        False, end, error=TryAgainError(f"{name}: no picture went through it, because {end}")
    )


def _result_of(answer: Mapping[str, Any]) -> SizeCheckResult:
    code, says = answer["code"], answer["says"]
    error = _ERRORS[code](f"{answer['name']}: {says}") if code else None
    return SizeCheckResult(answer["takes"], says, answer["parameters"], error)


def main(arguments: Sequence[str]) -> None:
    """Probe models and print a line of JSON for each; libraries' own words go to standard error."""
    side, *names = arguments
    for name in names:
        with contextlib.redirect_stdout(sys.stderr):
            answer = {"name": name, **_answer(catalog.find(name), int(side))}
        print(json.dumps(answer), flush=True)  # noqa: T201


def _answer(entry: Entry, side: int) -> dict[str, Any]:
    """Return what :func:`_result_of` reads."""
    nothing = {"takes": False, "parameters": 0, "code": 0}
    try:
        return {**nothing, "takes": True, **forward(entry, side)}
    except DefectbenchError as error:
        code = error.code if error.code in _ERRORS else ExitCode.BUG
        return {**nothing, "says": str(error), "code": code}
    except Exception as error:  # a network raises whatever its first wrong shape leads to
        code = ExitCode.TRY_AGAIN if ran_out(error) else _control(entry, side)
        return {**nothing, "says": subprocess_run.describe_error(error), "code": code}


def _control(entry: Entry, side: int) -> ExitCode:
    """Return BUG unless the model takes its own size: then it is ``side`` that it does not take."""
    if side == entry.image_size:
        return ExitCode.BUG
    try:
        forward(entry, entry.image_size)
    except Exception:
        return ExitCode.BUG
    return ExitCode.DONE


def forward(entry: Entry, side: int) -> dict[str, Any]:
    """Inspect one picture with random weights; return ``says`` and ``parameters``, or raise as it does."""
    from threadpoolctl import threadpool_limits

    settings = ModelSettings(entry.settings, side, epochs=0, patience=0, seed=0, device="cpu")
    model = build_model(entry, settings)
    rng = np.random.default_rng(0)
    pictures = ArrayPictures(rng.integers(0, 256, (TRAINING_PICTURES, side, side, 3), np.uint8))
    labels = (
        np.zeros(TRAINING_PICTURES, np.int64)
        if entry.family == "detector"
        else np.arange(TRAINING_PICTURES) % 2
    )
    masks = {place: np.ones((side, side), np.bool_) for place in np.flatnonzero(labels).tolist()}
    # After the library is loaded: the limit reaches only the pools that are there.
    with threadpool_limits(1):
        model.fit(TrainingData(pictures, labels, masks=masks), lambda progress: None)
        (prediction,) = model.predict(ArrayPictures(np.stack([pictures[0]])))
        size = model.size()
    if not np.isfinite(prediction.score) or not np.isfinite(prediction.heat_map).all():
        raise BugError(f"a picture of {side} x {side} gave a score or a heat map that is not finite")
    high, wide = prediction.heat_map.shape
    return {"says": f"a score and a heat map of {high} x {wide}", "parameters": size.parameters}


if __name__ == "__main__":
    main(sys.argv[1:])
