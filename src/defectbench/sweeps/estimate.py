"""How many hours a sweep's fits will take, from cells that were measured in the store.

A fit's seconds go with the pictures that it learns from, times its epochs; scoring with the pictures scored,
one by one. Both go with a picture's area where only another size was measured. Early stopping and batches of
scores make it less, imports and data make it more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from defectbench.errors import DataError
from defectbench.records.cell import Cell, Fit
from defectbench.records.result import find_result
from defectbench.stores.base import Store
from defectbench.stores.layout import CELLS, RESULT, second_part, spec_key
from defectbench.sweeps.plan import Plan

SAMPLES = 400
"""Cells that are read at most: a store may hold ten thousand."""

_CPU = "cpu"


@dataclass(frozen=True, slots=True)
class ModelHours:
    """What one model's cells will take.

    Attributes:
        cells: how many.
        hours: in all, one after the other; None where nothing comparable was measured.
        device: where the measured cells ran; empty without any.
        image_size: that they were measured at; 0 without any.
        basis: in words, what the figure rests on.
    """

    label: str
    cells: int
    hours: float | None
    device: str
    image_size: int
    basis: str


@dataclass(frozen=True, slots=True)
class CellRates:
    """One finished cell's rates.

    Attributes:
        fit: seconds a picture and epoch; ``score``: seconds a picture.
    """

    cell: Cell
    device: str
    fit: float
    score: float


def estimate_hours(plan: Plan, keys: Sequence[str], store: Store) -> tuple[ModelHours, ...]:
    """Return the hours of the cells ``keys``, model by model, in the sweep's order."""
    found = finished_rates(store, list(plan.cells))
    scored = _images(plan)
    groups: dict[str, list[Cell]] = defaultdict(list)
    for key in keys:
        groups[plan.labels[key]].append(plan.cells[key])
    return tuple(_hours(label, cells, found, scored) for label, cells in groups.items())


def finished_rates(store: Store, first: Sequence[str]) -> tuple[CellRates, ...]:
    """Return the rates of finished cells: those of ``first``, then others, :data:`SAMPLES` at most."""
    there = [second_part(name) for name in store.keys(CELLS) if name.endswith(f"/{RESULT}")]
    ours = set(there) & set(first)
    own = [key for key in first if key in ours]
    rest = [key for key in there if key not in ours]
    chosen = (own + rest[:: max(1, len(rest) // SAMPLES)])[:SAMPLES]
    found = store.each(lambda key: _measured(store, key), chosen)
    return tuple(one for one in found if one is not None)


def _measured(store: Store, key: str) -> CellRates | None:
    try:
        result, spec = find_result(store, key), store.find(spec_key(key))
        if result is None or spec is None:
            return None
        cell = Cell.from_json(spec.data)
        score = result.cost["inference_seconds_per_image"]
        return CellRates(cell, result.device, result.cost["fit_seconds"] / _pictures_shown(cell.fit), score)
    except (DataError, KeyError):
        return None  # damaged, or of a version that measured less: no basis for an estimate


def _pictures_shown(fit: Fit) -> int:
    """Return how many pictures a fit goes through."""
    defects = sum(label for _, label in fit.train)
    return (len(fit.train) + (3 * defects if fit.rotate_defects else 0)) * max(1, fit.epochs)


def _images(plan: Plan) -> Mapping[str, frozenset[str]]:
    """Return category -> what its fits score unless they learnt it: labelled images and calibration goods."""
    found: dict[str, set[str]] = defaultdict(set)
    for placed in plan.splits:
        split = placed.split
        found[placed.category].update(split.test, split.tune, split.defects, split.calibration)
    return {category: frozenset(names) for category, names in found.items()}


def _hours(
    label: str, cells: Sequence[Cell], found: Sequence[CellRates], scored: Mapping[str, frozenset[str]]
) -> ModelHours:
    fit = cells[0].fit
    basis = _comparable(fit, found)
    if not basis:
        return ModelHours(
            label, len(cells), None, "", 0, f"unknown: no finished cell of {label} in the store"
        )
    size, device = basis[0].cell.fit.image_size, basis[0].device
    area = (fit.image_size / size) ** 2
    fitting = median(one.fit for one in basis) * sum(_pictures_shown(cell.fit) for cell in cells)
    scores = sum(len(scored[cell.category] - {name for name, _ in cell.fit.train}) for cell in cells)
    seconds = area * (fitting + median(one.score for one in basis) * scores)
    says = f"{len(basis)} cell{'s' * (len(basis) != 1)} measured at {size} px on {device}"
    if area != 1:
        says += f", scaled by area to {fit.image_size} px"
    return ModelHours(label, len(cells), seconds / 3600, device, size, says)


def _comparable(fit: Fit, found: Sequence[CellRates]) -> list[CellRates]:
    """Return the cells to go by: of the same model and settings, a GPU's before a CPU's, the nearest size."""
    alike = [one for one in found if (one.cell.fit.model, one.cell.fit.settings) == (fit.model, fit.settings)]
    if not alike:
        return []

    def rank(one: CellRates) -> tuple[bool, float]:
        ratio = one.cell.fit.image_size / fit.image_size
        return one.device == _CPU, max(ratio, 1 / ratio)

    best = min(map(rank, alike))
    first = next(one for one in alike if rank(one) == best)
    return [one for one in alike if rank(one) == best and one.device == first.device]
