"""Whether a file holds a network's weights: the network is built and every key compared, in its own process.

``python -m defectbench.models.checks.weights_check NAME FILE`` does it and prints a line of JSON;
:func:`check` starts that and reads it. So the caller loads no torch, and a file that leads torch astray ends
that process alone. Pickles are never run.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from defectbench.catalog import ENTRIES, Entry
from defectbench.errors import DataError, DefectbenchError, TryAgainError, UsageError
from defectbench.models.base import ModelSettings
from defectbench.models.checks.subprocess_run import describe_error, run_module
from defectbench.util.memory import ran_out
from defectbench.weights.weight_files import check_file

if TYPE_CHECKING:
    from torch import Tensor, nn

SECONDS = 600.0
"""After which the process is awaited no longer."""

_MODULE = "defectbench.models.checks.weights_check"
_LIBRARIES = ("torch", "timm")
_TEACHER = "efficientad-teacher-"
_SIDE = 224
_ALIKE = 0.9
"""Share of equal keys and shapes from which on a file is said to be another network's."""


def check(name: str, path: Path) -> tuple[str, ...]:
    """Refuse a file that is not the weights ``name``; return what a user should know, one line each.

    Raises:
        DataError: it is none, or another network's: names the file and the keys that differ.
        UsageError: timm knows no network of that name.
        TryAgainError: memory or time did not suffice.
    """
    check_file(path)
    missing = [library for library in _LIBRARIES if find_spec(library) is None]
    if missing:
        return (f"its keys were not checked: not installed here: {', '.join(missing)}",)
    output, end = run_module(_MODULE, [name, str(path)], SECONDS)
    if not output:
        raise TryAgainError(f"weights file {path}: its keys could not be checked, because {end}")
    answer = json.loads(output.splitlines()[-1])
    if answer["code"]:
        raise _ERRORS[answer["code"]](answer["says"])
    return tuple(answer["says"])


_ERRORS: Mapping[int, Any] = {error.code: error for error in (DataError, UsageError, TryAgainError)}


def main(arguments: Sequence[str]) -> None:
    """Check a file and print a line of JSON; libraries' own words go to standard error."""
    name, file = arguments
    with contextlib.redirect_stdout(sys.stderr):
        answer = _answer(name, Path(file))
    print(json.dumps(answer), flush=True)  # noqa: T201


def _answer(name: str, path: Path) -> dict[str, Any]:
    """Return how the file differs from the network, or why it is refused."""
    try:
        return {"code": 0, "says": _differences(name, path)}
    except DataError as error:
        return {"code": int(DataError.code), "says": list(error.problems)}
    except DefectbenchError as error:
        return {"code": int(error.code), "says": str(error)}
    except Exception as error:  # a network raises whatever a foreign file leads it to
        if ran_out(error):
            return {
                "code": int(TryAgainError.code),
                "says": f"weights file {path}: {describe_error(error)}",
            }
        says = f"weights file {path.name} does not fit {name}: {describe_error(error)}"
        return {"code": int(DataError.code), "says": [says]}


def _differences(name: str, path: Path) -> list[str]:
    """Compare the file with the network; return notes, raise DataError as :func:`check` does."""
    from defectbench.models.features import weight_formats

    state = weight_formats.read_weights(path)
    try:
        if name.startswith(_TEACHER):
            _fill_teacher(name, path)
            return []
        return _fill_timm(name, path)
    except DataError as error:
        closest = _closest(state, name)
        hint = [f"weights file {path.name}: its keys are those of {closest}"] if closest else []
        raise DataError([*error.problems, *hint]) from error


def _fill_teacher(name: str, path: Path) -> None:
    """Load the file as EfficientAD loads its teacher."""
    from defectbench.models.detectors.anomalib_models import efficientad
    from defectbench.models.features import backbone

    size = efficientad.EfficientAdModelSize(name.removeprefix(_TEACHER))
    model: Any = efficientad.EfficientAdModel(teacher_out_channels=384, model_size=size)
    backbone.fill(model.teacher, path, name)


def _fill_timm(name: str, path: Path) -> list[str]:
    """Load the file as models do: a classifier puts a new head in the file's place, a detector does not."""
    from defectbench.models.features import backbone

    users = [entry for entry in ENTRIES if any(weights.name == name for weights in entry.weights)]
    settings = _settings(name, path, users)
    try:
        backbone.create(name, settings)
    except DataError:
        others = [entry.name for entry in users if entry.family != "classifier"]
        backbone.create(name, settings, outputs=1)
        if len(others) == len(users) and users:
            raise
        return [_other_head(others)]
    return []


def _other_head(others: Sequence[str]) -> str:
    """Say that the head is another one, and what would refuse the file for it."""
    refused = f"; {', '.join(others)} would refuse it" if others else "; detectors would refuse it"
    return f"its head is not the published one: classifiers put their own in its place{refused}"


def _settings(name: str, path: Path, users: Sequence[Entry]) -> ModelSettings:
    """Return settings that build the network with the file, at the side of a model that uses it."""
    side = users[0].image_size if users else _SIDE
    return ModelSettings({}, side, epochs=0, patience=0, seed=0, weights={name: path}, device="cpu")


def _closest(state: Mapping[str, Tensor], name: str) -> str | None:
    """Return the catalog's network whose keys and shapes are the file's but for a tenth; None for none."""
    got = {(key, tuple(value.shape)) for key, value in state.items()}
    shares = {other: _share(got, other) for other in _networks() if other != name}
    best = max(shares, key=lambda other: shares[other], default=None)
    return best if best is not None and shares[best] >= _ALIKE else None


def _networks() -> list[str]:
    """Return timm's names of the catalog's networks."""
    import timm

    from defectbench.models.features.backbone import timm_name

    names = dict.fromkeys(weights.name for entry in ENTRIES for weights in entry.weights)
    return [name for name in names if timm.is_model(timm_name(name).partition(".")[0])]


def _share(got: set[tuple[str, tuple[int, ...]]], name: str) -> float:
    """Return how many keys and shapes two networks have in common, over all of both."""
    import timm
    import torch

    from defectbench.models.features.backbone import timm_name

    with torch.device("meta"):
        model: nn.Module = timm.create_model(timm_name(name), pretrained=False)
    wanted = {(key, tuple(value.shape)) for key, value in model.state_dict().items()}
    return len(got & wanted) / len(got | wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
