"""A sweep file: read, checked with lines, and every model's settings resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import Field, PrivateAttr, ValidationError, create_model, field_validator, model_validator

from defectbench import catalog
from defectbench.catalog import Entry, Setting
from defectbench.errors import MissingInputError, SweepError, UsageError, nearest
from defectbench.protocols.base import Protocol
from defectbench.protocols.choose import PROTOCOLS
from defectbench.schema import Strict, refuse
from defectbench.stats import ENDPOINTS

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Path_ = tuple[str | int, ...]
"""Where a value stands in the file: keys and list positions from the top."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Where:
    """Lines of a YAML file's values."""

    file: str
    lines: Mapping[Path_, int]
    overridden: frozenset[Path_] = frozenset()

    def of(self, path: Sequence[str | int]) -> str:
        """Return ``file:line`` of the value at ``path``, or of the nearest one around it."""
        place = tuple(path)
        while place and place not in self.lines and place not in self.overridden:
            place = place[:-1]
        if place in self.overridden:
            return f"--set {'.'.join(map(str, place))}"
        return f"{self.file}:{self.lines.get(place, 1)}"


class Data(Strict):
    """Which images. ``categories`` None means all of the data set."""

    dataset: Name
    categories: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None

    @field_validator("categories")
    @classmethod
    def _once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return _distinct(value, "category") if value else value


class Resources(Strict):
    """What a cell may use; quantities as Kubernetes writes them."""

    gpu: int = Field(default=0, ge=0, le=16)
    cpu: float = Field(default=2, gt=0)
    memory: str = Field(default="8Gi", pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    shm: str | None = Field(default=None, pattern=r"^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")
    deadline: str | None = Field(default=None, pattern=r"^[0-9]+(s|m|h|d)$")

    @property
    def deadline_seconds(self) -> float | None:
        """The deadline in seconds, or None for no limit."""
        return None if self.deadline is None else float(self.deadline[:-1]) * _SECONDS[self.deadline[-1]]


class Prices(Strict):
    """What one mistake costs, in any one currency."""

    false_alarm: float = Field(ge=0)
    missed_defect: float = Field(ge=0)


class Choice(Strict):
    """One model of the sweep. Keys that are no field are overrides of the model's own settings."""

    name: str
    label: Name | None = None
    image_size: int | None = Field(default=None, ge=16, le=4096)
    weights: str | None = None
    epochs: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    balance: Literal["weights", "oversample", "none"] | None = None
    resources: dict[str, Any] | None = None
    overrides: dict[str, Setting] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, value: Any) -> Any:
        """Accept a bare name; move the model's own settings into ``overrides``."""
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        try:
            entry = catalog.find(str(value.get("name")))
        except UsageError as error:
            refuse(str(error), "name")
        own = {key: setting for key, setting in value.items() if key in entry.settings}
        plain = {key: setting for key, setting in value.items() if key not in entry.settings}
        fields = [name for name in cls.model_fields if name != "overrides"]
        for key in plain:
            if key not in fields:
                refuse(f"unknown key {key!r}; {nearest(str(key), [*fields, *entry.settings])}", str(key))
        for key, setting in own.items():
            own[key] = _like(setting, entry.settings[key], str(key))
        return {**plain, "overrides": own}


_VERDICT = ("classifier", "detector")
_OPTIONAL: Mapping[str, Any] = {name: (kind | None, None) for name, kind in PROTOCOLS.items()}
Protocols = cast(type[Strict], create_model("Protocols", __base__=Strict, **_OPTIONAL))


class Sweep(Strict):
    """A sweep as its file says it; see docs/sweeps.md for the keys."""

    name: Name
    data: Data
    models: tuple[Choice, ...] = Field(min_length=1)
    weights: str
    protocols: Protocols  # type: ignore[valid-type]
    image_size: int | None = Field(default=None, ge=16, le=4096)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(0,), min_length=1)
    threads: int = Field(default=2, ge=1, le=256)
    epochs: int | None = Field(default=None, ge=1)
    patience: int | None = Field(default=None, ge=1)
    balance: Literal["weights", "oversample", "none"] = "weights"
    split_seed: int = Field(default=0, ge=0)
    contenders: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)] | None = None
    endpoint: str = "image_auroc"
    margin: float = Field(default=0.01, gt=0, lt=1)
    false_alarm_rate: float = Field(default=0.05, gt=0, lt=1)
    defect_rate: float | None = Field(default=None, gt=0, lt=1)
    prices: Prices | None = None
    cellsPerJob: int | None = Field(default=None, ge=1)  # noqa: N815 - the design's spelling, a chart's word
    resources: Resources = Resources()

    _where: Where = PrivateAttr()

    @field_validator("protocols", mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """Read ``detection:`` with nothing behind it as its defaults; refuse an empty list of protocols."""
        if isinstance(value, Mapping):
            if not value:
                refuse(f"no protocol given; allowed: {', '.join(sorted(PROTOCOLS))}")
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct(value, "seed")

    @field_validator("endpoint")
    @classmethod
    def _known_endpoint(cls, value: str) -> str:
        if value not in ENDPOINTS:
            refuse(f"unknown endpoint {value!r}; {nearest(value, ENDPOINTS)}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Sweep:
        """Check what takes more than one key."""
        labels = [choice.label or choice.name for choice in self.models]
        for position, label in enumerate(labels):
            if label in labels[:position]:
                refuse(f"{label!r} stands twice; give one of them a `label` of its own", "models", position)
        for position, choice in enumerate(self.models):
            size, entry = self._image_size(choice), catalog.find(choice.name)
            if not entry.takes(size):
                refuse(
                    f"{entry.name} does not take {size} px: it takes {entry.smallest} px or more, "
                    f"in multiples of {entry.multiple_of}",
                    *("models", position),
                )
        for name in self.contenders or ():
            if name not in labels:
                refuse(f"contender {name!r} is no model of this sweep; {nearest(name, labels)}", "contenders")
        return self

    def _image_size(self, choice: Choice) -> int:
        return choice.image_size or self.image_size or catalog.find(choice.name).image_size

    def experiments(self) -> tuple[Protocol, ...]:
        """Return the protocols, in the order of the registry."""
        named = (getattr(self.protocols, name) for name in PROTOCOLS)
        return tuple(protocol for protocol in named if protocol is not None)

    def line(self, *path: str | int) -> str:
        """Return ``file:line`` of a value, for messages about it."""
        return self._where.of(path)


@dataclass(frozen=True)
class Model:
    """A model of a sweep with every setting resolved.

    Attributes:
        label: what tables call it: the sweep's ``label``, else the catalog's name.
        weights: ``none``, ``pretrained`` or a file.
    """

    label: str
    entry: Entry
    settings: Mapping[str, Setting]
    image_size: int
    epochs: int
    patience: int
    balance: str
    weights: str
    resources: Resources


def resolve(sweep: Sweep) -> tuple[Model, ...]:
    """Return the sweep's models: the catalog's values, then the sweep's, then the model's own."""
    return tuple(_resolve(sweep, choice) for choice in sweep.models)


def _resolve(sweep: Sweep, choice: Choice) -> Model:
    entry = catalog.find(choice.name)
    resources = sweep.resources.model_dump() | (choice.resources or {})
    return Model(
        label=choice.label or entry.name,
        entry=entry,
        settings={**entry.settings, **choice.overrides},
        image_size=sweep._image_size(choice),
        epochs=(choice.epochs or sweep.epochs or entry.epochs) if entry.epochs else 0,
        patience=(choice.patience or sweep.patience or entry.patience) if entry.patience else 0,
        # A detector is taught one class: there is nothing to balance, and the key must not depend on it.
        balance="none" if entry.family == "detector" else choice.balance or sweep.balance,
        weights=choice.weights or sweep.weights,
        resources=Resources.model_validate(resources),
    )


def contenders(sweep: Sweep) -> tuple[str, str] | None:
    """Return the labels of the two that the verdict is about, or None where a family is missing.

    By default the first classifier and the first detector of the file.
    """
    if sweep.contenders:
        return sweep.contenders[0], sweep.contenders[1]
    first = {family: [m.label for m in resolve(sweep) if m.entry.family == family] for family in _VERDICT}
    if not all(first.values()):
        return None
    return first["classifier"][0], first["detector"][0]


def read(file: Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read a sweep, ``overrides`` (``key.path=value``, the value in YAML) laid over it.

    Raises:
        MissingInputError: there is no such file.
        SweepError: all that is wrong with it, each with its line.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise MissingInputError(f"cannot read the sweep {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SweepError(f"{file}:1: not UTF-8 text: {error.reason}") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SweepError(f"{file}:{line}: not YAML: {error.problem}") from error
    if not isinstance(document, dict):
        raise SweepError(f"{file}:1: a sweep is a mapping with name, data, models, weights and protocols")
    where = Where(str(file), dict(_lines(node, (), str(file))), frozenset(_override(document, overrides)))
    return parse(document, where)


def parse(document: Mapping[str, Any], where: Where) -> Sweep:
    """Check a document and return the sweep.

    Raises:
        SweepError: all that is wrong with it, each with its place.
    """
    try:
        sweep = Sweep.model_validate(document)
        for position, choice in enumerate(sweep.models):
            _check_resources(choice, sweep, where, position)
    except ValidationError as error:
        raise SweepError("\n".join(_say(problem, where) for problem in error.errors())) from None
    sweep._where = where
    return sweep


def _check_resources(choice: Choice, sweep: Sweep, where: Where, position: int) -> None:
    try:
        Resources.model_validate(choice.resources or {})
    except ValidationError as error:
        path = ("models", position, "resources")
        raise SweepError("\n".join(_say(problem, where, path) for problem in error.errors())) from None


def _say(problem: Any, where: Where, above: Path_ = ()) -> str:
    """Put one of pydantic's findings into ``place: key: message``."""
    context = problem.get("ctx") or {}
    path = (*above, *_plain(problem["loc"]), *context.get("path", ()))
    got = "" if problem["type"] in ("refused", "missing") else f", got {problem['input']!r}"
    message = "is required" if problem["type"] == "missing" else problem["msg"]
    name = ".".join(map(str, path)) or "sweep"
    return f"{where.of(path)}: {name}: {message[0].lower()}{message[1:]}{got}"


def _plain(path: Path_) -> Path_:
    """Drop the names that pydantic puts into a path for the members of a union."""
    return tuple(step for step in path if not (isinstance(step, str) and re.search(r"[\[(]", step)))


def _lines(node: yaml.Node | None, path: Path_, file: str) -> Iterator[tuple[Path_, int]]:
    """Yield (path, line) of every value; for a mapping's value the line of its key.

    Raises:
        SweepError: a key stands twice.
    """
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise SweepError(f"{file}:{line}: {key.value!r} stands twice")
            seen.add(key.value)
            yield (*path, key.value), line
            yield from _lines(value, (*path, key.value), file)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*path, position), value.start_mark.line + 1
            yield from _lines(value, (*path, position), file)


def _override(document: dict[str, Any], overrides: Sequence[str]) -> Iterator[Path_]:
    """Lay ``key.path=value`` over the document in place; yield the paths that were set."""
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SweepError(f"--set {text}: expected key.path=value, for example seeds=[0,1]")
        *above, last = name.split(".")
        place: Any = document
        for key in above:
            place = place.setdefault(key, {}) if isinstance(place, dict) else None
            if place is None:
                document[above[0]] = place = {}
        if not isinstance(place, dict):
            raise SweepError(f"--set {text}: {'.'.join(above)} is no mapping in this sweep")
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SweepError(f"--set {text}: the value is not YAML") from error
        yield (*above, last)


def _distinct(values: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    """Refuse a value that stands twice."""
    for position, value in enumerate(values):
        if value in values[:position]:
            refuse(f"{what} {value!r} stands twice", position)
    return values


def _like(value: Any, default: Setting, key: str) -> Setting:
    """Return ``value`` in the type of the catalog's ``default``, or refuse it."""
    if (
        isinstance(default, tuple)
        and isinstance(value, list)
        and all(isinstance(item, str) for item in value)
    ):
        return tuple(value)
    if isinstance(default, bool) == isinstance(value, bool):
        if isinstance(default, float) and isinstance(value, int | float):
            return float(value)
        if isinstance(value, type(default)) and not isinstance(default, tuple):
            return value
    kind = "list of names" if isinstance(default, tuple) else type(default).__name__
    refuse(f"expected a {kind} as in the catalog ({default!r}), got {value!r}", key)
    raise AssertionError
