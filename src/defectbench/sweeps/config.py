"""A sweep file: read, checked with lines, and every model's settings resolved."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
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
from defectbench.sweeps.locations import SourceLines, lines_of
from defectbench.sweeps.messages import AMOUNT, NAME, TIME, refusal
from defectbench.sweeps.overrides import lay_over, lay_values
from defectbench.util import bounded_yaml
from defectbench.util.strict_yaml import Number, StrictModel, Whole, distinct, refuse

Name = Annotated[str, Field(pattern=NAME)]
_NO_VALUES: Mapping[str, Any] = MappingProxyType({})
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


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
        """Refuse a category given twice."""
        return distinct(value, "category") if value else value


class Resources(StrictModel):
    """What a cell may use; quantities as Kubernetes writes them."""

    gpu: Whole = Field(default=0, ge=0, le=16)
    cpu: Number = Field(default=2, gt=0, le=1024)
    memory: str = Field(default="8Gi", pattern=AMOUNT)
    shm: str | None = Field(default=None, pattern=AMOUNT)
    deadline: str | None = Field(default=None, pattern=TIME)

    @property
    def deadline_seconds(self) -> float | None:
        """The deadline in seconds, or None for no limit."""
        return None if self.deadline is None else float(self.deadline[:-1]) * _SECONDS[self.deadline[-1]]


class Prices(StrictModel):
    """What one mistake costs, in any one currency."""

    false_alarm: Number = Field(ge=0)
    missed_defect: Number = Field(ge=0)


class Requirement(StrictModel):
    """What a line asks of an inspection: the report says whether it is met."""

    recall: Number = Field(gt=0, le=1)
    false_alarm_rate: Number = Field(gt=0, lt=1)


def _keyword_or_file(value: str) -> str:
    """Refuse a misspelt keyword; a file that is merely not there is looked for when weights are resolved."""
    words = ("none", "pretrained")
    path = Path(value)
    bare = path.name == value and not path.suffix
    if value in words or not bare or len(value) > 255 or path.is_file():
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
    """A sweep as its file has it; see docs/sweeps.md for the keys."""

    name: Name
    data: Data
    models: tuple[ModelChoice, ...] = Field(min_length=1)
    weights: WeightsOrFile
    protocols: Protocols  # type: ignore[valid-type]
    image_size: Whole | None = Field(default=None, ge=16, le=4096)
    seeds: tuple[Annotated[Whole, Field(ge=0, lt=2**31)], ...] = Field(default=(0, 1, 2), min_length=1)
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
    requirement: Requirement | None = None
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
        """Refuse a seed given twice: its cells would be the same."""
        return distinct(value, "seed")

    @field_validator("endpoint")
    @classmethod
    def _known_endpoint(cls, value: str) -> str:
        """Refuse an endpoint that does not exist."""
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
        """Refuse prices without the defect rate that they are weighed by."""
        if self.prices is not None and self.defect_rate is None:
            refuse(
                "prices count at your line's share of defects: give `defect_rate` too, such as 0.02", "prices"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _threshold_is_of_the_requirement(cls, value: Any) -> Any:
        """Set the threshold for the false alarms that are required, where the sweep states no other rate."""
        wanted = value.get("requirement") if isinstance(value, Mapping) else None
        if isinstance(wanted, Mapping) and "false_alarm_rate" in wanted:
            return {"false_alarm_rate": wanted["false_alarm_rate"], **value}
        return value

    @model_validator(mode="after")
    def _one_false_alarm_rate(self) -> Sweep:
        """Refuse a threshold for another rate than the required one."""
        wanted = None if self.requirement is None else self.requirement.false_alarm_rate
        if wanted is not None and self.false_alarm_rate != wanted:
            refuse(
                f"it asks for {wanted:g} false alarms, `false_alarm_rate` is {self.false_alarm_rate:g}: "
                "leave the latter out, or give one number twice",
                "requirement",
            )
        return self

    def _labels(self) -> list[str]:
        """Return what tables will call the models."""
        return [choice.label or catalog.find(choice.name).label for choice in self.models]

    def _image_size(self, choice: ModelChoice) -> int:
        """Return the side of a model's pictures: its own, else the sweep's, else the catalog's."""
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
    """Return one model's settings: its own, else the sweep's, else the catalog's."""
    entry = catalog.find(choice.name)
    resources = sweep.resources.model_dump() | (choice.resources or {})
    return ModelConfig(
        label=choice.label or entry.label,
        entry=entry,
        settings={**entry.settings, **choice.overrides},
        image_size=sweep._image_size(choice),
        epochs=(choice.epochs or sweep.epochs or entry.epochs) if entry.epochs else 0,
        patience=_patience(sweep, choice, entry),
        # A detector trains on one class: there is nothing to balance, and the key must not depend on it.
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
        text = bounded_yaml.read_bounded(file)
    except OSError as error:
        raise MissingInputError(f"cannot read the sweep {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SweepError(f"{file}:1: no sweep: {error}") from error
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
    return parse_sweep(document, SourceLines(file, dict(lines_of(node, (), file)), frozenset(laid), option))


def _load(text: str, file: str) -> tuple[yaml.Node | None, Any]:
    """Return a YAML text's nodes, for the lines, and its values."""
    try:
        node = bounded_yaml.compose(text)
        return node, bounded_yaml.construct(node)
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
    except (
        yaml.YAMLError,
        ValueError,
        AttributeError,
    ) as error:  # what PyYAML's dates lead to
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
        raise refusal(error, where) from None
    sweep._where = where
    return sweep


def _check_resources(choice: ModelChoice, sweep: Sweep, where: SourceLines, position: int) -> None:
    """Check a model's own resources, which its free form hides from pydantic."""
    try:
        Resources.model_validate(choice.resources or {})
    except ValidationError as error:
        path = ("models", position, "resources")
        raise refusal(error, where, path) from None


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
    """Return a value as messages show it; tuples look as in YAML."""
    return repr(list(value) if isinstance(value, tuple) else value)
