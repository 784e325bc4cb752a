"""The answer of each category: recall and false alarms at the calibrated threshold, and their words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from defectbench.__main__ import run
from defectbench.metrics.variance import share_of_groups
from defectbench.stores.choose import open_store
from defectbench.tables.answers import CategoryAnswer, OperatingPoint, Share, answers
from defectbench.tables.collect import collect
from defectbench.tables.plain_words import sentences
from defectbench.tables.tables import Tables
from fakes import made_up_sweep


def point(label: str, family: str, recall: Share, alarms: Share, promised: float = 0.05) -> OperatingPoint:
    types = {"crack": recall}
    return OperatingPoint(label, family, promised, recall, alarms, types, ())  # type: ignore[arg-type]


GOOD, BAD = Share(0.97, 0.94, 0.99, 200, 200), Share(0.2, 0.1, 0.3, 200, 200)
FEW, MANY = Share(0.01, 0.0, 0.02, 200, 200), Share(0.4, 0.3, 0.5, 200, 200)


def answer(verdict: str, classifier: OperatingPoint, detector: OperatingPoint) -> CategoryAnswer:
    return CategoryAnswer("plate", verdict, (classifier, detector), (0, 0, 0), 3)  # type: ignore[arg-type]


def test_shares_of_one_fit_and_no_group_are_those_of_independent_images() -> None:
    calls = np.zeros((1, 60), bool)
    assert share_of_groups(calls, np.arange(60)) == pytest.approx((0, 0, 0.0596), abs=1e-4)  # the exact one
    calls[0, :12] = True
    value, low, high = share_of_groups(calls, np.arange(60))
    assert (value, low < 0.2 < high) == (0.2, True)
    assert (low, high) == pytest.approx((0.115, 0.315), abs=0.01)  # Jeffreys, 12 of 60


def test_shares_cover_what_is_planted_with_groups_and_lucky_fits() -> None:
    rng, held = np.random.default_rng(0), 0
    units = np.arange(60) // 3
    for _ in range(400):
        part = rng.normal(size=20)[units] * 0.8**0.5 + rng.normal(size=60) * 0.2**0.5
        noise = rng.normal(size=(3, 60)) * 0.2**0.5
        luck = 0.2 * rng.normal(size=(3, 1))
        calls = part * 0.8**0.5 + noise + luck < 0.8416 * 1.04**0.5  # four in five
        _, low, high = share_of_groups(calls, units)
        held += low <= 0.8 <= high
    assert 0.91 <= held / 400 <= 0.985


def test_frames_of_one_part_are_no_independent_evidence() -> None:
    calls = np.repeat(np.random.default_rng(1).random((1, 20)) < 0.8, 3, axis=1)
    _, low, high = share_of_groups(calls, np.arange(60) // 3)
    _, blind_low, blind_high = share_of_groups(calls, np.arange(60))
    assert high - low > 1.4 * (blind_high - blind_low)


@pytest.mark.parametrize(
    ("recall", "alarms", "wanted", "met"),
    [
        (GOOD, FEW, (0.9, 0.05), "meets it"),
        (GOOD, FEW, (0.96, 0.05), "cannot be said from these pictures"),
        (GOOD, FEW, (0.9, 0.01), "cannot be said from these pictures"),
        (BAD, FEW, (0.9, 0.05), "does not meet it"),
        (GOOD, MANY, (0.9, 0.05), "does not meet it"),
    ],
)
def test_a_requirement_is_met_surely_or_not_surely_or_neither(
    recall: Share, alarms: Share, wanted: tuple[float, float], met: str
) -> None:
    assert point("net", "classifier", recall, alarms).met(*wanted) == met


def test_the_words_begin_with_what_to_take() -> None:
    net, bank = point("net", "classifier", BAD, FEW), point("bank", "detector", GOOD, FEW)
    said = list(sentences(answer("detector", net, bank), 0.02, None))
    assert said[0] == "A detector is needed: take bank."
    assert "finds 97 of 100 (94 to 99; 200 tested) bad parts" in said[1]
    assert "The classifier net finds 20 of 100" in said[2]
    assert said[3] == ("Of 1,000 parts, 20 of them bad, bank lets 0.6 bad ones pass and stops 10 good ones.")
    wanted = {"recall": 0.9, "false_alarm_rate": 0.05}
    first = next(sentences(answer("detector", net, bank), None, wanted))
    assert first.startswith("Required: find 90 of 100 bad parts at no more than 5 false alarms in 100")
    assert first.endswith("The classifier net does not meet it; The detector bank meets it.")


def test_the_weakest_type_is_named_or_that_there_is_none() -> None:
    net = point("net", "classifier", BAD, FEW)
    few, all_found = Share(1.0, 0.7, 1.0, 6, 6), Share(1.0, 0.95, 1.0, 60, 60)
    bank = replace(point("bank", "detector", GOOD, FEW), types={"crack": all_found, "dirt": few})
    said = list(sentences(answer("detector", net, bank), None, None))
    assert said[2] == "It misses none of any type; least sure is dirt: 100 of 100 (70 to 100; 6 tested)."
    weak = replace(bank, types={"crack": all_found, "cut": Share(0.5, 0.2, 0.8, 8, 8)})
    said = list(sentences(answer("detector", net, weak), None, None))
    assert said[2] == "Weakest on cut: it finds 50 of 100 (20 to 80; 8 tested)."


def test_a_threshold_that_does_not_hold_is_said() -> None:
    net, bank = point("net", "classifier", GOOD, FEW), point("bank", "detector", GOOD, MANY)
    said = list(sentences(answer("detector", net, bank), None, None))
    assert said[0] == "A detector is needed: take bank, but not yet with its threshold."
    assert said[2].startswith("It cannot be used with that threshold: 30 false alarms in 100 or more")


def test_what_to_do_next_depends_on_what_is_not_known() -> None:
    net, bank = point("net", "classifier", BAD, FEW), point("bank", "detector", BAD, FEW)
    assert list(sentences(answer("undecided", net, bank), None, None))[-1].startswith("Neither is usable yet")
    same = answer("equivalent", replace(net, recall=GOOD), replace(bank, recall=GOOD))
    assert list(sentences(same, None, None))[-1] == "Stop comparing: take the one that is easier to run."
    rare = Share(0.5, 0.2, 0.8, 8, 8)
    unsure = replace(bank, recall=GOOD, types={"dirt": rare, "crack": GOOD})
    assert list(sentences(answer("detector", net, unsure), None, None))[-1] == (
        "Next: about 89 more pictures of dirt would tell the recall on it within 10 points."
    )


def test_of_few_groups_other_groups_are_asked_for() -> None:
    net = point("net", "classifier", GOOD, FEW)
    bank = replace(point("bank", "detector", GOOD, FEW), types={"crack": Share(0.9, 0.6, 0.99, 170, 8)})
    last = list(sentences(answer("detector", net, bank), None, None))[-1]
    assert last == (
        "Next: more pictures like these tell little: these come from 8 groups. Take parts of other groups "
        "(modules, lots, days)."
    )


def test_answers_are_those_of_the_tables_and_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path))
    made_up_sweep(store, categories=("grass",), goods=30, defects=30, seeds=(0, 1, 2))
    tables = Tables(collect(store, "madeup"))
    [found] = answers(tables)
    lines = {line.label: line for line in tables.thresholds if line.rule == "calibrated"}
    for one in found.points:
        assert one.recall.value == pytest.approx(lines[one.label].recall)
        assert one.false_alarms.value == pytest.approx(lines[one.label].observed)
        assert one.recall.low <= one.recall.value <= one.recall.high
        assert sum(share.images for share in one.types.values()) == 30
    assert found.gap[1] <= found.gap[0] <= found.gap[2]
    assert run(["verdict", "madeup", "--store", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "grass"
    assert all(f"  {line}" in printed for line in sentences(found, None, None))
    assert run(["verdict", "madeup", "--store", str(tmp_path), "--format", "json"]) == 0
    [document] = json.loads(capsys.readouterr().out)
    assert (document["category"], document["seeds"]) == ("grass", 3)
    assert document["says"] == list(sentences(found, None, None))
