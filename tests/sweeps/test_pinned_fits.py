"""Fits as JSON, pinned: a changed key would run everything anew, and what changed must be seen.

Only a raised ``fit_version`` may change one: then ``python tests/fit_cases.py`` writes the file anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from defectbench.catalog import Family, find
from defectbench.protocols.choose import PROTOCOLS
from fit_cases import CASES, GOLDEN, document, fits, to_text

PINNED: dict[str, dict[str, Any]] = json.loads(GOLDEN.read_text())


def changes(pinned: dict[str, Any], found: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Field -> (pinned, found), where they differ."""
    names = {**pinned, **found}
    return {
        name: (pinned.get(name), found.get(name)) for name in names if pinned.get(name) != found.get(name)
    }


@pytest.mark.parametrize("case", CASES)
def test_fits_of_a_case_are_the_pinned_ones(case: str, tmp_path: Path) -> None:
    found = {name: {"key": fit.key(), **document(fit)} for name, fit in fits(case, tmp_path).items()}
    pinned = {name: fit for name, fit in PINNED.items() if name.startswith(f"{case}: ")}
    assert list(found) == list(pinned)
    different = {name: changes(pinned[name], found[name]) for name in found}
    assert {name: fields for name, fields in different.items() if fields} == {}


@pytest.mark.parametrize("name", PINNED)
def test_key_is_the_hash_of_the_pinned_text(name: str) -> None:
    fit = {field: value for field, value in PINNED[name].items() if field != "key"}
    text = json.dumps(fit, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest()[:20] == PINNED[name]["key"]


def test_every_protocol_and_family_is_pinned() -> None:
    named = {name for case in CASES.values() for name in case.keys["protocols"]}
    # Those of version 0.1.0: stores hold their fits. A new protocol has none to keep yet.
    assert named == {"detection", "unseen", "scarcity", "contamination"} <= set(PROTOCOLS)
    assert {find(fit["model"]).family for fit in PINNED.values()} == set(get_args(Family))


def test_golden_file_has_a_line_for_each_field() -> None:
    assert to_text(PINNED) == GOLDEN.read_text()


def test_another_packages_model_has_a_key_of_its_own(tmp_path: Path) -> None:
    fit = next(iter(fits(next(iter(CASES)), tmp_path).values()))
    assert "package" not in document(fit)
    keys = {replace(fit, package=package).key() for package in ("mine==1.0", "mine==1.1", "other==1.0")}
    assert len(keys | {fit.key()}) == 4
    assert document(replace(fit, package="mine==1.0"))["package"] == "mine==1.0"
