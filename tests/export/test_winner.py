"""Which fit of a winner is exported."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.errors import DataError, MissingInputError, UsageError
from defectbench.export.winner import find_sweep, find_winner
from defectbench.records.result import find_result
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from fakes import made_up_sweep

LEARNER, DETECTOR = "filterbank-logreg", "filterbank-knn"


def swept(store: Store, name: str = "madeup") -> Store:
    made_up_sweep(
        store,
        name=name,
        models=[LEARNER, DETECTOR],
        seeds=(0, 1, 2),
        goods=60,
        defects=60,
        skill={
            f"{LEARNER}/grass": 0.5,
            f"{DETECTOR}/grass": 4.0,
            f"{LEARNER}/brick": 4.0,
            f"{DETECTOR}/brick": 0.5,
        },
        false_alarm_rate=0.1,
    )
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return swept(DirectoryStore(tmp_path_factory.mktemp("winner")))


@pytest.mark.parametrize(("category", "label"), [("grass", DETECTOR), ("brick", LEARNER)])
def test_the_middle_fit_of_the_winner_is_taken(store: Store, category: str, label: str) -> None:
    winner = find_winner(store, "madeup", category)
    assert (winner.label, winner.sweep, winner.false_alarm_rate) == (label, "madeup", 0.1)
    chosen = find_result(store, winner.cell)
    assert chosen is not None
    assert (chosen.model, chosen.category) == (label, category)
    keys = {key.split("/")[1] for key in store.keys("cells/")}
    results = [result for key in keys if (result := find_result(store, key)) is not None]
    of_it = sorted(
        each.metrics["image_auroc"] for each in results if (each.model, each.category) == (label, category)
    )
    assert len(of_it) >= 3
    assert chosen.metrics["image_auroc"] == of_it[(len(of_it) - 1) // 2]
    text = " ".join(winner.remarks)
    assert "The report's image_auroc, over" in text
    assert "promised were 16.7%" in text, "five calibration goods promise no less"


def test_without_a_winner_both_middle_fits_are_named(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    made_up_sweep(store, models=[LEARNER, DETECTOR], seeds=(0, 1, 2), skill={LEARNER: 1.0, DETECTOR: 1.0})
    with pytest.raises(DataError, match=f"undecided .* {LEARNER} [0-9a-f]{{20}}, or {DETECTOR} [0-9a-f]"):
        find_winner(store, "madeup", "grass")


def test_a_category_belongs_to_a_sweep(store: Store, tmp_path: Path) -> None:
    assert find_sweep(store, "grass") == "madeup"
    with pytest.raises(MissingInputError, match="did you mean 'grass'"):
        find_sweep(store, "gras")
    with pytest.raises(UsageError, match="did you mean 'grass'"):
        find_winner(store, "madeup", "gras")
    several = swept(swept(DirectoryStore(tmp_path)), name="other")
    with pytest.raises(UsageError, match="madeup, other: say which with --sweep"):
        find_sweep(several, "grass")
    with pytest.raises(MissingInputError, match="it has no sweep"):
        find_sweep(DirectoryStore(tmp_path / "empty"), "grass")
