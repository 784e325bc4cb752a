"""Results that could not be written yet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attempts import finish, prepared
from defectbench.errors import ExitCode, StoreAwayError
from defectbench.execution import fit_and_score, unpublished
from defectbench.execution.unpublished import Unpublished
from defectbench.execution.worker import Worker
from defectbench.records.result import find_verified_result, read_file
from defectbench.stores.base import Store
from defectbench.stores.directory import DirectoryStore
from defectbench.util.shutdown import Stop


class AwayAtTheEnd(DirectoryStore):
    """Goes away when a result's first file is written."""

    away = True

    def put(self, key: str, data: bytes, *, expected: str | None = None) -> str:
        if self.away and key.endswith("predictions.parquet"):
            raise StoreAwayError("the store is out of reach")
        return super().put(key, data, expected=expected)


@pytest.fixture
def store(tmp_path: Path) -> AwayAtTheEnd:
    return AwayAtTheEnd(tmp_path / "store")


def run(store: Store, keys: list[str], cache: Path) -> ExitCode:
    return Worker(store, cache, "cpu", None, Stop(), lambda event: None).run(keys)


def test_a_finished_fit_is_published_by_the_next_attempt(
    store: AwayAtTheEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, other, *_ = prepared(store, "filterbank-knn", protocols={"detection": {}}, seeds=[0, 1])
    cache = tmp_path / "cache"
    # 74: the store's own fault, which no failure policy counts; and no cell after it is tried in vain.
    assert run(store, [key, other], cache) is ExitCode.STORE_AWAY
    assert not list(store.keys(f"cells/{key}/failure"))
    assert not list(store.keys(f"cells/{other}/lease"))
    store.away = False

    def never(*arguments: object) -> None:
        raise AssertionError("it was fitted before")

    with monkeypatch.context() as patch:
        patch.setattr(fit_and_score, "fit_and_score", never)
        assert run(store, [key], cache) is ExitCode.DONE
    result = find_verified_result(store, key)
    assert result is not None
    assert {place.partition("/")[0] for place in result.files} == {"2"}
    assert not (cache / "unpublished" / key).exists()
    again = DirectoryStore(tmp_path / "again")
    prepared(again, "filterbank-knn", protocols={"detection": {}}, seeds=[0, 1])
    fresh = finish(again, key, tmp_path / "other")
    assert read_file(again, fresh, "predictions.parquet") == read_file(store, result, "predictions.parquet")


@pytest.fixture
def kept(store: AwayAtTheEnd, tmp_path: Path) -> tuple[Path, str]:
    """A cache with a result that waits, and its cell."""
    key, *_ = prepared(store, "filterbank-knn", protocols={"detection": {}})
    assert run(store, [key], tmp_path / "cache") is ExitCode.STORE_AWAY
    assert unpublished.find(tmp_path / "cache", key) is not None
    return tmp_path / "cache", key


def test_what_is_damaged_or_of_another_cell_is_not_published(kept: tuple[Path, str]) -> None:
    cache, key = kept
    folder = cache / "unpublished" / key
    (cache / "unpublished" / "0123").symlink_to(folder)
    assert unpublished.find(cache, "0123") is None
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    for path, data in whole.items():
        for damaged in (b"", data[:-2], data[:9] + b"?" + data[10:], None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            assert unpublished.find(cache, key) is None, (path.name, damaged)
            path.write_bytes(data)
    assert unpublished.find(cache, key) is not None


def test_what_other_versions_made_is_fitted_anew(kept: tuple[Path, str]) -> None:
    cache, key = kept
    work = unpublished.find(cache, key)
    assert work is not None
    older = replace(work.result, versions={**work.result.versions, "numpy": "1.0"})
    unpublished.keep(cache, Unpublished(work.contents, older))
    assert unpublished.find(cache, key) is None


def test_a_full_disk_only_warns(kept: tuple[Path, str], caplog: pytest.LogCaptureFixture) -> None:
    cache, key = kept
    work = unpublished.find(cache, key)
    assert work is not None
    unpublished.keep(cache / "unpublished" / key / "result.json", work)
    assert "is not kept on this machine" in caplog.text
