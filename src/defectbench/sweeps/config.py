"""A sweep file: read, checked with lines, and every model's settings resolved."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from defectbench import catalog
from defectbench.catalog import Entry, Setting
from defectbench.errors import ConfigurationError, MissingInputError, SweepError, UsageError, nearest
from defectbench.metrics.comparison import ENDPOINTS
from defectbench.protocols.base import Protocol
from defectbench.protocols.choose import CLASHES, PROTOCOLS, REMARKS
from defectbench.protocols.detection import Detection
from defectbench.protocols.folds import FOLDS
from defectbench.util.strict_yaml import Number, StrictModel, Whole, distinct, refuse

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
_AMOUNT = r"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]*[1-9][0-9]*)(Ki|Mi|Gi|Ti|k|M|G|T)?$"
_TIME = r"^0*[1-9][0-9]*(s|m|h|d)$"
_PATTERNS = {
    _NAME: "expected 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first",
    _AMOUNT: "expected an amount above 0, such as 512Mi or 8Gi",
    _TIME: "expected a time above 0, such as 90s, 30m, 6h or 2d",
}
"""What the patterns mean, for people."""

Name = Annotated[str, Field(pattern=_NAME)]
Path_ = tuple[str | int, ...]
"""Where a value stands in the file: keys and list positions from the top."""

_NO_VALUES: Mapping[str, Any] = MappingProxyType({})
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class SourceLines:
    """Lines of a YAML file's values.

    Attributes:
        lines: None where a sweep is no text.
        option: by what the values at ``overridden`` were set.
    """

    file: str
    lines: Mapping[Path_, int] | None
    overridden: frozenset[Path_] = frozenset()
    option: str = "--set"

    def of(self, path: Sequence[str | int]) -> str:
        """Return ``file:line`` of the value at ``path``, or of the nearest one around it."""
        place = tuple(path)
        # What was laid over a value hides the lines of all that the file had there.
        for depth in range(1, len(place) + 1):
            if place[:depth] in self.overridden:
                return f"{self.option} {'.'.join(map(str, place[:depth]))}"
        if self.lines is None:
            return self.file
        while place and place not in self.lines:
            place = place[:-1]
        return f"{self.file}:{self.lines.get(place, 1)}"


class Data(StrictModel):
    """Which images.

    Attributes:
        categories: None means all of the data set.
        any_orientation: categories whose parts come in any; None: as the data set declares.
    """

    dataset: Name
    categories: Annotated[tuple[Name, ...], Field(min_length=1)] | None = None
    any_orientation: tuple[Name, ...] | None = None

    @field_validator("categories", "any_orientation")
    @classmethod
    def _once(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return distinct(value, "category") if value else value


class Resources(StrictModel):
    """What a cell may use; quantities as Kubernetes writes them."""

    gpu: Whole = Field(default=0, ge=0, le=16)
    cpu: Number = Field(default=2, gt=0, le=1024)
    memory: str = Field(default="8Gi", pattern=_AMOUNT)
    shm: str | None = Field(default=None, pattern=_AMOUNT)
    deadline: str | None = Field(default=None, pattern=_TIME)

    @property
    def deadline_seconds(self) -> float | None:
        """The deadline in seconds, or None for no limit."""
        return None if self.deadline is None else float(self.deadline[:-1]) * _SECONDS[self.deadline[-1]]


class Prices(StrictModel):
    """What one mistake costs, in any one currency."""

    false_alarm: Number = Field(ge=0)
    missed_defect: Number = Field(ge=0)


def _keyword_or_file(value: str) -> str:
    """Refuse a misspelt keyword; a file that is merely not there is looked for when weights are resolved."""
    words = ("none", "pretrained")
    path = Path(value)
    bare = path.name == value and not path.suffix
    if value in words or not bare or path.is_file():
        return value
    if not value or difflib.get_close_matches(value.lower(), words, n=1):
        refuse(f"{value!r} is neither a keyword nor a file here; {nearest(value.lower(), words)}, or a file")
    return value


WeightsOrFile = Annotated[str, AfterValidator(_keyword_or_file)]


class ModelChoice(StrictModel):
    """One model of the sweep. Keys that are no field are overrides of the model's own settings."""

    name: str
    label: Name | None = None
    image_size: Whole | None = Field(default=None, ge=16, le=4096)
    weights: WeightsOrFile | None = None
    epochs: Whole | None = Field(default=None, ge=1)
    patience: Whole | None = Field(default=None, ge=1)
    balance: Literal["weights", "oversample", "none"] | None = None
    resources: dict[str, Any] | None = None
    overrides: dict[str, Setting] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _know_every_key(cls, value: Any) -> Any:
        """Accept a bare name, or ``timm: NAME``; move the model's own settings into ``overrides``."""
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        value, key = _named(value)
        try:
            entry = catalog.find(str(value.get("name")))
        except (UsageError, ConfigurationError) as error:
            refuse(str(error), key)
        if catalog.TIMM in entry.name and "architecture" in value:
            refuse(
                f"the network is {entry.settings['architecture']}: leave `architecture` out", "architecture"
            )
        own = {key: setting for key, setting in value.items() if key in entry.settings}
        plain = {key: setting for key, setting in value.items() if key not in entry.settings}
        fields = [name for name in cls.model_fields if name != "overrides"]
        for key in plain:
            if key not in fields:
                refuse(f"unknown key {key!r}; {nearest(str(key), [*fields, *entry.settings])}", str(key))
        for key, setting in own.items():
            own[key] = _allowed(setting, entry, str(key))
        return {**plain, "overrides": own}


_VERDICT = ("classifier", "detector")
_OPTIONAL: Mapping[str, Any] = {name: (kind | None, None) for name, kind in PROTOCOLS.items()}
Protocols = cast(type[StrictModel], create_model("Protocols", __base__=StrictModel, **_OPTIONAL))


class Sweep(StrictModel):
    """A sweep as its file says it; see docs/sweeps.md for the keys."""

    name: Name
    data: Data
    models: tuple[ModelChoice, ...] = Field(min_length=1)
    weights: WeightsOrFile
    protocols: Protocols  # type: ignore[valid-type]
    image_size: Whole | None = Field(default=None, ge=16, le=4096)
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=2**31)], ...] = Field(default=(0,), min_length=1)
    threads: Whole = Field(default=2, ge=1, le=256)
    epochs: Whole | None = Field(default=None, ge=1)
    patience: Whole | None = Field(default=None, ge=1)
    balance: Literal["weights", "oversample", "none"] = "weights"
    split_seed: Whole = Field(default=0, ge=0)
    contenders: Annotated[tuple[str, ...], Field(min_length=2, max_length=2)] | None = None
    endpoint: str = "image_auroc"
    margin: Number = Field(default=0.01, gt=0, lt=1)
    false_alarm_rate: Number = Field(default=0.05, gt=0, lt=1)
    defect_rate: Number | None = Field(default=None, gt=0, lt=1)
    prices: Prices | None = None
    cellsPerJob: Whole | None = Field(default=None, ge=1)  # noqa: N815 - the design's spelling, a chart's word
    resources: Resources = Resources()

    _where: SourceLines = PrivateAttr()

    @field_validator("protocols", mode="before")
    @classmethod
    def _defaults(cls, value: Any) -> Any:
        """Read ``detection:`` with nothing behind it as its defaults; refuse an empty list of protocols."""
        if isinstance(value, Mapping):
            if not value:
                refuse(f"no protocol given; allowed: {', '.join(sorted(PROTOCOLS))}")
            for name in map(str, value):
                if name in CLASHES:
                    refuse(f"protocol {CLASHES[name]}", name)
                if name not in PROTOCOLS:
                    refuse(f"unknown key {name!r}; {nearest(name, PROTOCOLS)}{REMARKS}", name)
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return distinct(value, "seed")

    @field_validator("endpoint")
    @classmethod
    def _known_endpoint(cls, value: str) -> str:
        if value not in ENDPOINTS:
            refuse(f"unknown endpoint {value!r}; {nearest(value, ENDPOINTS)}")
        return value

    @model_validator(mode="after")
    def _models_agree(self) -> Sweep:
        """Check labels and image sizes."""
        labels = self._labels()
        for position, label in enumerate(labels):
            if label in labels[:position]:
                refuse(f"{label!r} stands twice; give one of them a `label` of its own", "models", position)
        for position, choice in enumerate(self.models):
            size, entry = self._image_size(choice), catalog.find(choice.name)
            if not entry.takes(size):
                refuse(f"{entry.name} does not take {size} px: it takes {entry.sizes}", "models", position)
        return self

    @model_validator(mode="after")
    def _contenders_agree(self) -> Sweep:
        """Check that the verdict is between a classifier and a detector of this sweep."""
        labels = self._labels()
        for position, name in enumerate(self.contenders or ()):
            if name not in labels:
                place = ("contenders", position)
                refuse(f"contender {name!r} is no model of this sweep; {nearest(name, labels)}", *place)
        families = [
            catalog.find(self.models[labels.index(name)].name).family for name in self.contenders or ()
        ]
        if families and sorted(families) != sorted(_VERDICT):
            refuse(
                f"the verdict is between a classifier and a detector, got a {' and a '.join(families)}",
                "contenders",
            )
        return self

    @model_validator(mode="after")
    def _prices_have_a_rate(self) -> Sweep:
        if self.prices is not None and self.defect_rate is None:
            refuse(
                "prices count at your line's share of defects: give `defect_rate` too, such as 0.02", "prices"
            )
        return self

    def _labels(self) -> list[str]:
        return [choice.label or catalog.find(choice.name).label for choice in self.models]

    def _image_size(self, choice: ModelChoice) -> int:
        return choice.image_size or self.image_size or catalog.find(choice.name).image_size

    def experiments(self) -> tuple[Protocol, ...]:
        """Return the protocols, in the order of the registry."""
        named = (getattr(self.protocols, name) for name in PROTOCOLS)
        return tuple(protocol for protocol in named if protocol is not None)

    @property
    def folds(self) -> int:
        """How many folds all protocols cut: detection's, where it is cross-fitted in this sweep."""
        own: Detection | None = getattr(self.protocols, Detection.name)
        return own.folds if own is not None and own.scheme != "holdout" else FOLDS

    def line(self, *path: str | int) -> str:
        """Return ``file:line`` of a value, for messages about it."""
        return self._where.of(path)


@dataclass(frozen=True)
class ModelConfig:
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


def resolve_models(sweep: Sweep) -> tuple[ModelConfig, ...]:
    """Return the sweep's models: the catalog's values, then the sweep's, then the model's own."""
    return tuple(_resolve(sweep, choice) for choice in sweep.models)


def _resolve(sweep: Sweep, choice: ModelChoice) -> ModelConfig:
    entry = catalog.find(choice.name)
    resources = sweep.resources.model_dump() | (choice.resources or {})
    return ModelConfig(
        label=choice.label or entry.label,
        entry=entry,
        settings={**entry.settings, **choice.overrides},
        image_size=sweep._image_size(choice),
        epochs=(choice.epochs or sweep.epochs or entry.epochs) if entry.epochs else 0,
        patience=_patience(sweep, choice, entry),
        # A detector is taught one class: there is nothing to balance, and the key must not depend on it.
        balance="none" if entry.family == "detector" else choice.balance or sweep.balance,
        weights=choice.weights or sweep.weights,
        resources=Resources.model_validate(resources),
    )


def _patience(sweep: Sweep, choice: ModelChoice, entry: Entry) -> int:
    """Return the epochs to wait; a model that goes on to its end waits only where its own entry says so."""
    if not entry.epochs:
        return 0
    return choice.patience or (sweep.patience or entry.patience if entry.patience else 0)


def contenders(sweep: Sweep) -> tuple[str, str] | None:
    """Return the labels of the (classifier, detector) of the verdict, or None where a family is missing.

    By default the first of each in the file.
    """
    named = [m for m in resolve_models(sweep) if m.label in (sweep.contenders or (m.label,))]
    first = {family: [m.label for m in named if m.entry.family == family] for family in _VERDICT}
    if not all(first.values()):
        return None
    return first["classifier"][0], first["detector"][0]


def read_sweep(file: Path, overrides: Sequence[str] = (), values: Mapping[str, Any] = _NO_VALUES) -> Sweep:
    """Read a sweep's file, as :func:`parse_text` reads a text.

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
    return parse_text(text, str(file), overrides, values)


def parse_text(
    text: str, file: str, overrides: Sequence[str] = (), values: Mapping[str, Any] = _NO_VALUES
) -> Sweep:
    """Read a sweep from YAML.

    Args:
        file: what messages call it.
        overrides: ``key.path=value``, the value in YAML, laid over it.
        values: key path -> value, laid over it likewise; only one of the two may be given.

    Raises:
        SweepError: all that is wrong with it, each with its line.
    """
    node, document = _load(text, file)
    if not isinstance(document, dict):
        raise SweepError(f"{file}:1: a sweep is a mapping with name, data, models, weights and protocols")
    laid = (*lay_over(document, overrides), *lay_values(document, values))
    option = "override" if values else "--set"
    return parse_sweep(document, SourceLines(file, dict(_lines(node, (), file)), frozenset(laid), option))


def _load(text: str, file: str) -> tuple[yaml.Node | None, Any]:
    """Return a YAML text's nodes, for the lines, and its values."""
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SweepError(f"{file}:{line}: not YAML: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SweepError(
            f"{file}:{line}: not YAML: the character {_character(error)!r} may not stand in it"
        ) from error
    except RecursionError:
        raise SweepError(f"{file}:1: not a sweep: nested too deeply") from None
    except (ValueError, AttributeError) as error:  # what PyYAML's dates and numbers lead it to
        raise SweepError(f"{file}:1: not YAML: {error}") from error


def _character(error: yaml.reader.ReaderError) -> str:
    """Return the character that YAML does not allow; PyYAML gives its number."""
    found: Any = error.character
    return chr(found) if isinstance(found, int) else str(found)


def parse_sweep(document: Mapping[str, Any], where: SourceLines) -> Sweep:
    """Check a document and return the sweep.

    Raises:
        SweepError: all that is wrong with it, each with its place.
    """
    try:
        sweep = Sweep.model_validate(document)
        for position, choice in enumerate(sweep.models):
            _check_resources(choice, sweep, where, position)
    except ValidationError as error:
        raise _refusal(error, where) from None
    sweep._where = where
    return sweep


def _check_resources(choice: ModelChoice, sweep: Sweep, where: SourceLines, position: int) -> None:
    try:
        Resources.model_validate(choice.resources or {})
    except ValidationError as error:
        path = ("models", position, "resources")
        raise _refusal(error, where, path) from None


def _refusal(error: ValidationError, where: SourceLines, above: Path_ = ()) -> SweepError:
    """Return all of pydantic's findings as one error."""
    problems = error.errors()
    # pydantic leaves a wrong item out and then finds its list too short: that is no second problem.
    wrong = {problem["loc"][:-1] for problem in problems}
    told = [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in wrong]
    return SweepError("\n".join(_say(problem, where, above) for problem in told))


def _say(problem: Any, where: SourceLines, above: Path_ = ()) -> str:
    """Put one of pydantic's findings into ``place: key: message``."""
    context = problem.get("ctx") or {}
    path = (*above, *_plain(problem["loc"]), *context.get("path", ()))
    got = "" if problem["type"] in ("refused", "missing") else f", got {problem['input']!r}"
    message = _plainly(problem["type"], context) or problem["msg"]
    name = ".".join(map(str, path)) or "sweep"
    return f"{where.of(path)}: {name}: {message[0].lower()}{message[1:]}{got}"


_PLAINLY = {
    "missing": "is required",
    "int": "expected a whole number",
    "float": "expected a number",
    "finite_number": "expected a finite number",
    "string": "expected a text",
    "tuple": "expected a list",
    "dict": "expected a mapping",
    "model": "expected a mapping",
}

_RANGES = {
    "greater_than_equal": "expected {ge:g} or more",
    "greater_than": "expected more than {gt:g}",
    "less_than_equal": "expected {le:g} or less",
    "less_than": "expected less than {lt:g}",
    "literal_error": "expected {expected}",
}


def _plainly(kind: str, context: Mapping[str, Any]) -> str | None:
    """Say in plain words what pydantic's error ``kind`` means; None where its own are plain."""
    if kind in ("too_short", "too_long"):
        least, most = context.get("min_length"), context.get("max_length")
        return (
            f"expected a list of at least {least}"
            if kind == "too_short"
            else f"expected a list of {most} at most"
        )
    if kind in _RANGES:
        return _RANGES[kind].format(**context)
    if context.get("class_name") == ModelChoice.__name__:
        return "expected a model's name, or a mapping with `name` or `timm`"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"])
    return _PLAINLY.get(kind) or _PLAINLY.get(kind.split("_")[0])


def _plain(path: Path_) -> Path_:
    """Drop the names that pydantic puts into a path for the members of a union."""
    return tuple(step for step in path if not (isinstance(step, str) and re.search(r"[\[(]", step)))


def _lines(
    node: yaml.Node | None, path: Path_, file: str, around: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[Path_, int]]:
    """Yield (path, line) of every value; for a mapping's value the line of its key.

    Raises:
        SweepError: a key stands twice, or an alias stands inside what it names.
    """
    if node is not None and any(node is outer for outer in around):
        raise SweepError(f"{file}:{node.start_mark.line + 1}: holds itself, by an alias")
    inside = around if node is None else (*around, node)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise SweepError(f"{file}:{line}: {key.value!r} stands twice")
            seen.add(key.value)
            yield (*path, key.value), line
            yield from _lines(value, (*path, key.value), file, inside)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*path, position), value.start_mark.line + 1
            yield from _lines(value, (*path, position), file, inside)


def lay_over(document: dict[str, Any], overrides: Sequence[str], option: str = "--set") -> Iterator[Path_]:
    """Lay ``key.path=value`` over the document in place; yield the paths that were set.

    The value is YAML; ``\\.`` is a dot inside a key.

    Raises:
        SweepError: an override that is none, or whose path is not in the document.
    """
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise SweepError(f"{option} {text}: expected key.path=value, for example seeds=[0,1]")
        try:
            new = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
            raise SweepError(f"{option} {text}: the value is not YAML") from error
        yield _put(document, _key_path(name), new, f"{option} {text}")


def lay_values(document: dict[str, Any], values: Mapping[str, Any]) -> Iterator[Path_]:
    """Lay values over the document in place, key path -> value; yield the paths, as :func:`lay_over` does."""
    for name, value in values.items():
        yield _put(document, _key_path(name), deepcopy(value), f"override {name}")


def _key_path(name: str) -> list[str]:
    """Return the keys of a dotted path; ``\\.`` is a dot inside a key."""
    return [part.replace("\\.", ".") for part in re.split(r"(?<!\\)\.", name)]


def _put(document: dict[str, Any], names: Sequence[str], new: Any, told: str) -> Path_:
    """Set the value at ``names`` in the document, with the mappings on the way; return its path."""
    place: Any = document
    path: list[str | int] = []
    for depth, name in enumerate(names):
        step = _step(place, name, ".".join(map(str, path)), told)
        path.append(step)
        if depth == len(names) - 1:
            place[step] = new
        else:
            inner = place.get(step) if isinstance(place, dict) else place[step]
            if inner is None:
                inner = {}
            elif isinstance(inner, str) and path[:-1] == ["models"]:
                inner = {"name": inner}  # a model by its bare name
            place[step] = inner
            place = inner
    return tuple(path)


def _step(place: Any, name: str, above: str, told: str) -> str | int:
    """Return the key or list position that ``name`` means in ``place``, or refuse it."""
    if isinstance(place, dict):
        return name
    if not isinstance(place, list):
        raise SweepError(f"{told}: {above} is no mapping in this sweep")
    if not re.fullmatch(r"[0-9]{1,6}", name) or int(name) >= len(place):
        allowed = f"0 to {len(place) - 1}" if place else "none, it is empty"
        raise SweepError(f"{told}: {above} is a list of {len(place)}; allowed positions: {allowed}")
    return int(name)


def _named(value: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """Return a model's keys with ``timm: NAME`` as the catalog's name, and the key that names it."""
    if "timm" not in value:
        return value, "name"
    if "name" in value:
        refuse("give `timm: NETWORK` or `name: MODEL`, not both", "timm")
    network = value["timm"]
    if not isinstance(network, str) or not network:
        refuse("expected timm's name of a network, such as resnet34.a1_in1k, got " + repr(network), "timm")
    plain = {key: setting for key, setting in value.items() if key != "timm"}
    return {"name": f"{catalog.TIMM}{network}", **plain}, "timm"


def _allowed(value: Any, entry: Entry, key: str) -> Setting:
    """Return a model's own setting as the catalog keeps it, or refuse what its rule does not allow."""
    rule, default = entry.rule(key), entry.settings[key]
    if not rule.reads(value):
        refuse(f"expected {rule} (the catalog's is {_shown(default)}), got {_shown(value)}", key)
    if isinstance(default, float):
        return float(value)
    setting: Setting = tuple(value) if isinstance(value, list) else value
    return setting


def _shown(value: Any) -> str:
    return repr(list(value) if isinstance(value, tuple) else value)
