"""From a sweep to its distinct fits: every model's view of every split, hashed, each fit once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from defectbench.data.archive import list_categories, load_manifest
from defectbench.data.manifest import Manifest
from defectbench.data.orientation import comes_in_any_orientation
from defectbench.data.resolution import plan_notes
from defectbench.errors import ConfigurationError, DataError, MissingWeightsError, SweepError, nearest
from defectbench.protocols.base import Split
from defectbench.protocols.choose import describe
from defectbench.records.cell import Cell, Fit
from defectbench.records.lease import is_held
from defectbench.records.sweep_record import (
    CategorySplit,
    Narrowing,
    Reading,
    Record,
    SweepModel,
    narrow_cells,
)
from defectbench.stores.base import Store
from defectbench.stores.layout import spec_key, sweep_key
from defectbench.sweeps.config import ModelConfig, Sweep, contenders, resolve_models
from defectbench.util.files import disk_errors
from defectbench.weights import store as weights
from defectbench.weights.weight_files import check_file

_WRITERS = 8
"""Specs that are written at once: thousands, one after the other, take minutes on S3."""


@dataclass(frozen=True)
class Plan:
    """A sweep's cells and how the protocols read them.

    Attributes:
        cells: key -> cell, by category, then model, in the order of running.
        rotated: categories whose parts come in any orientation: training rotates and mirrors both classes.
        missing: model label -> why its weights cannot be had. Its cells can be shown but not run.
        notes: what the protocols were asked for and cannot do on a category, and what becomes of small
            defects and of long pictures, in words.
    """

    sweep: Sweep
    models: tuple[ModelConfig, ...]
    cells: Mapping[str, Cell]
    labels: Mapping[str, str]
    splits: tuple[CategorySplit, ...]
    readings: tuple[Reading, ...]
    digests: Mapping[str, str]
    missing: Mapping[str, str]
    notes: tuple[str, ...] = ()
    rotated: tuple[str, ...] = ()

    @property
    def saved(self) -> int:
        """How many fits sharing saves: table entries less distinct fits."""
        return len(self.readings) - len(self.cells)

    def record(self) -> Record:
        """Return what ``sweeps/<name>.json`` says."""
        return Record(
            name=self.sweep.name,
            dataset=self.sweep.data.dataset,
            document=self.sweep.model_dump(mode="json"),
            models=tuple(_model(model) for model in self.models),
            contenders=contenders(self.sweep),
            digests=self.digests,
            cells={key: cell.category for key, cell in self.cells.items()},
            splits=self.splits,
            readings=self.readings,
            notes=self.notes,
        )

    def narrowed(self, narrowing: Narrowing) -> dict[str, Cell]:
        """Return the cells that are meant.

        Raises:
            UsageError: a name or key that the sweep does not have.
        """
        categories_of = {key: cell.category for key, cell in self.cells.items()}
        allowed = ({model.label for model in self.models}, set(self.digests))
        kept = narrow_cells(narrowing, categories_of, self.labels, allowed)
        return {key: self.cells[key] for key in kept}

    def need_weights(self, keys: Sequence[str]) -> None:
        """Refuse to go on where weights of these cells are missing, or a file of them is something else.

        Raises:
            MissingWeightsError: names every model concerned.
            DataError: names the file, and what it is.
        """
        labels = dict.fromkeys(self.labels[key] for key in keys)
        missing = [self.missing[label] for label in labels if label in self.missing]
        if missing:
            raise MissingWeightsError("\n".join(missing))
        for path in {
            model.weights for model in self.models if model.label in labels and _kind(model) == "file"
        }:
            with disk_errors(path):
                check_file(Path(path))


def make_plan(sweep: Sweep, store: Store) -> Plan:
    """Expand a sweep over the data in the store.

    Raises:
        MissingInputError: the data set is not in the store.
        SweepError: a category that the data set does not have, with its line.
        DataError: no protocol can split any category. What fails for some is a note, and the rest goes on.
    """
    models = resolve_models(sweep)
    resolved, missing = _weights(models, store)
    cells: dict[str, Cell] = {}
    labels: dict[str, str] = {}
    splits: list[CategorySplit] = []
    readings: list[Reading] = []
    digests: dict[str, str] = {}
    notes: list[str] = []
    rotated: list[str] = []
    findings: list[str] = []
    for manifest in _manifests(sweep, store):
        digests[manifest.category] = manifest.digest
        if comes_in_any_orientation(manifest, sweep.data.any_orientation):
            rotated.append(manifest.category)
        findings += plan_notes(manifest, _inputs(models), store)
        own = _splits(sweep, manifest, notes)
        for model in models:
            for place, split in enumerate(own, start=len(splits)):
                if model.entry.family in split.families:
                    for seed in sweep.seeds:
                        cell = _cell(sweep, manifest, model, split, seed, resolved[model.label])
                        # The first reader names the cell: equal fits are one cell, whichever split asks.
                        cells.setdefault(cell.key, cell)
                        labels.setdefault(cell.key, model.label)
                        readings.append(Reading(model.label, seed, place, cell.key))
        splits += [CategorySplit(manifest.category, split) for split in own]
    if not splits:
        raise DataError(notes)
    notes += findings
    return Plan(
        sweep=sweep,
        models=models,
        cells=cells,
        labels=labels,
        splits=tuple(splits),
        readings=tuple(readings),
        digests=digests,
        missing=missing,
        notes=tuple(notes),
        rotated=tuple(rotated),
    )


def _inputs(models: Sequence[ModelConfig]) -> dict[int, list[str]]:
    """Return the models' labels by the side of their input."""
    sides: dict[int, list[str]] = {}
    for model in models:
        sides.setdefault(model.image_size, []).append(model.label)
    return sides


def _splits(sweep: Sweep, manifest: Manifest, notes: list[str]) -> list[Split]:
    """Return a category's splits in all protocols; what cannot be had goes into ``notes``."""
    found: list[Split] = []
    for protocol in sweep.experiments():
        try:
            made = protocol.splits(manifest, sweep.split_seed, sweep.folds)
        except DataError as error:
            notes += error.problems
            continue
        found += made.splits
        notes += [f"{manifest.category}: {protocol.name}: {note}" for note in made.notes]
    return found


def check_record(plan: Plan, store: Store) -> None:
    """Refuse a plan whose sweep has the name of another: its record is what status and report go by.

    A sweep may grow: every cell of the record in the store must still be there.

    Raises:
        ConfigurationError: it is another sweep.
    """
    there = store.find(sweep_key(plan.sweep.name))
    if there is None:
        return
    try:
        record = Record.from_json(there.data)
    except DataError:
        return  # nobody can read it, so nothing is lost
    gone = [key for key in record.cells if key not in plan.cells]
    if gone:
        raise ConfigurationError(
            f"{store.url} has another sweep called {record.name!r}: {len(gone)} of its {len(record.cells)} "
            f"cells are not in this one ({_difference(record, plan)}). Nothing was written. Give this one "
            "another name (--set name=NAME), or let it take the other's place: `run` or `submit` with "
            "--replace; results stay either way"
        )


def _difference(record: Record, plan: Plan) -> str:
    """Say in what a plan lacks cells of a record."""
    mine = plan.record()
    said = [
        f"{what} {', '.join(sorted(lacking))} of the other"
        for what, lacking in (
            ("without model", {each.label for each in record.models} - {each.label for each in mine.models}),
            ("without category", record.digests.keys() - mine.digests.keys()),
            ("without seed", {str(r.seed) for r in record.readings} - {str(r.seed) for r in mine.readings}),
        )
        if lacking
    ]
    data = [
        name for name in mine.digests if record.digests.get(name, mine.digests[name]) != mine.digests[name]
    ]
    if data:
        said.append(f"other pictures or labels in {', '.join(data)}")
    return "; ".join(said) or "other settings, protocols or versions"


def write_plan(plan: Plan, store: Store, keys: Sequence[str], replace: bool = False) -> None:
    """Write the sweep's record and the specs of the cells that will run, each only where it is not there.

    The spec of a cell that a worker holds stays as it is: what runs keeps its deadline.

    Args:
        replace: take the place of another sweep of this name.

    Raises:
        ConfigurationError: there is such a sweep; nothing was written.
    """
    if not replace:
        check_record(plan, store)

    def spec(key: str) -> None:
        wanted = plan.cells[key].to_json()
        here = store.find(spec_key(key))
        if here is None or (here.data != wanted and not is_held(store, key)):
            store.put(spec_key(key), wanted)

    with ThreadPoolExecutor(_WRITERS) as pool:
        # A list, so that the first error is raised.
        list(pool.map(spec, keys))
    files = {model.label: Path(model.weights) for model in plan.models if _kind(model) == "file"}
    digests = {plan.labels[key]: plan.cells[key].fit.weights for key in keys}
    for label in files.keys() & digests.keys():
        weights.push_file(store, digests[label], files[label])
    for needed in {tuple(sorted(found.items())) for found in digests.values()}:
        weights.push_packaged(store, dict(needed))
    store.put(sweep_key(plan.sweep.name), plan.record().to_json())


def _manifests(sweep: Sweep, store: Store) -> Iterator[Manifest]:
    """Yield the sweep's categories' manifests in the sweep's order."""
    there = list_categories(store, sweep.data.dataset)
    _check_categories(sweep, "categories", there)
    _check_categories(sweep, "any_orientation", there)
    for name in sweep.data.categories or there:
        yield load_manifest(store, sweep.data.dataset, name)


def _check_categories(sweep: Sweep, key: str, there: Sequence[str]) -> None:
    """Raise SweepError where a list below ``data`` names a category that the data set does not have."""
    for position, name in enumerate(getattr(sweep.data, key) or ()):
        if name not in there:
            place = sweep.line("data", key, position)
            raise SweepError(
                f"{place}: {sweep.data.dataset} has no category {name!r}; {nearest(name, there)}"
            )


def _weights(models: Sequence[ModelConfig], store: Store) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Resolve every model's weights: label -> digests, and label -> what is missing."""
    resolved: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for model in models:
        try:
            resolved[model.label] = weights.resolve(model.entry, model.settings, model.weights, store)
        except MissingWeightsError as error:
            missing[model.label] = str(error)
            # A placeholder, so that the plan can be shown; `need_weights` keeps such a cell from running.
            resolved[model.label] = dict.fromkeys(weights.needed(model.entry, model.settings), "missing")
    return resolved, missing


def _cell(
    sweep: Sweep, manifest: Manifest, model: ModelConfig, split: Split, seed: int, digests: Mapping[str, str]
) -> Cell:
    """Return the cell of one model, split and seed; its key decides whether it is a fit of its own."""
    entry = model.entry
    fit = Fit(
        data_digest=manifest.digest,
        train=split.train(entry.family),
        tune=split.tuning(entry.family),
        calibration=split.calibration,
        model=entry.name,
        settings=model.settings,
        weights=digests,
        fit_version=entry.fit_version,
        image_size=model.image_size,
        epochs=model.epochs,
        patience=model.patience,
        seed=seed,
        threads=sweep.threads,
        balance=model.balance,
        rotate_and_flip=entry.family == "classifier"
        and comes_in_any_orientation(manifest, sweep.data.any_orientation),
        rotate_defects=split.rotate_defects and entry.family != "detector",
        package=entry.requirement,
    )
    return Cell(
        fit=fit,
        family=entry.family,
        dataset=manifest.dataset,
        category=manifest.category,
        weights_kind=_kind(model),
        # Most protocols' tables ask for no overlays, and maps are most of a cell's bytes.
        keep_heat_maps=describe(split.protocol).heat_maps,
        deadline=model.resources.deadline_seconds,
        sweep=sweep.name,
    )


def _kind(model: ModelConfig) -> str:
    """Say for people what weights a model has."""
    if not model.entry.weights:
        return "not needed"
    return model.weights if model.weights in ("none", "pretrained") else "file"


def _model(model: ModelConfig) -> SweepModel:
    """Return a model as the record keeps it, with every setting that is not the catalog's."""
    changed: dict[str, object] = {
        name: value for name, value in model.settings.items() if model.entry.settings[name] != value
    }
    for name in ("epochs", "patience"):
        if getattr(model, name) != getattr(model.entry, name):
            changed[name] = getattr(model, name)
    if model.entry.family != "detector" and model.balance != "weights":
        changed["balance"] = model.balance
    return SweepModel(
        model.label,
        model.entry.name,
        model.entry.family,
        _kind(model),
        model.image_size,
        changed,
        model.entry.requirement,
    )
