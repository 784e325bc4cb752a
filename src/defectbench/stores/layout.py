"""Every key of the store, in one place; docs/results.md shows the same tree, and a test holds them equal.

::

    datasets/<name>/<category>/manifest.json, <digest>.tar, <digest>.shortcut.json, <digest>.widths.json
    datasets/<name>/importing-<digest>.json
    weights/<name>/<sha256>
    cells/<key>/spec.json, lease.json, checkpoint.json, failure.json, result.json
    cells/<key>/<attempt>/...
    sweeps/<name>.json
    sweeps/<name>/views.parquet
    tracking/<sweep>/<run>.json
"""

from __future__ import annotations

from collections.abc import Iterator

DATASETS, WEIGHTS, CELLS, SWEEPS, TRACKING = "datasets/", "weights/", "cells/", "sweeps/", "tracking/"

MANIFEST, SPEC, LEASE = "manifest.json", "spec.json", "lease.json"
CHECKPOINT, FAILURE, RESULT = "checkpoint.json", "failure.json", "result.json"
LOG = "log.txt"
_IMPORTING = "importing-"


def dataset_key(dataset: str, *parts: str) -> str:
    """Return the key of a data set's file; without parts what all its keys begin with.

    >>> dataset_key("parts"), dataset_key("parts", "bolt", MANIFEST)
    ('datasets/parts/', 'datasets/parts/bolt/manifest.json')
    """
    return f"{DATASETS}{dataset}/{'/'.join(parts)}"


def manifest_key(dataset: str, category: str) -> str:
    """Return the key of a category's manifest."""
    return dataset_key(dataset, category, MANIFEST)


def archive_key(dataset: str, category: str, digest: str) -> str:
    """Return the key of the tar that holds a category's files; ``digest`` is the manifest's."""
    return dataset_key(dataset, category, f"{digest}.tar")


def shortcut_key(dataset: str, category: str, digest: str) -> str:
    """Return the key of the shortcut check of a category's goods; it lies beside their archive."""
    return dataset_key(dataset, category, f"{digest}.shortcut.json")


def widths_key(dataset: str, category: str, digest: str) -> str:
    """Return the key of how narrow a category's defects are; it lies beside the archive it comes from."""
    return dataset_key(dataset, category, f"{digest}.widths.json")


def importing_key(dataset: str, digest: str = "") -> str:
    """Return the key of what names the categories of an import that has not ended.

    Args:
        digest: of the categories' names; without it what all keys of that kind begin with.
    """
    return dataset_key(dataset, f"{_IMPORTING}{digest}.json" if digest else _IMPORTING)


def is_importing_key(key: str) -> bool:
    """Return whether a key is one of :func:`importing_key`."""
    parts = key.split("/")
    return len(parts) == 3 and parts[2].startswith(_IMPORTING)


def weights_key(name: str, digest: str = "") -> str:
    """Return the key of a weights file; without a digest what the keys of that name begin with."""
    return f"{WEIGHTS}{name}/{digest}"


def cell_key(key: str, *parts: str) -> str:
    """Return the key of a cell's file; without parts what all its keys begin with.

    >>> cell_key("ab12", "3", LOG), cell_key("ab12")
    ('cells/ab12/3/log.txt', 'cells/ab12/')
    """
    return f"{CELLS}{key}/{'/'.join(parts)}"


def spec_key(key: str) -> str:
    """Return the key of a cell's spec."""
    return cell_key(key, SPEC)


def lease_key(key: str) -> str:
    """Return the key of a cell's lease."""
    return cell_key(key, LEASE)


def result_key(key: str) -> str:
    """Return the key of a cell's result."""
    return cell_key(key, RESULT)


def failure_key(key: str) -> str:
    """Return the key of a cell's permanent failure."""
    return cell_key(key, FAILURE)


def sweep_key(name: str) -> str:
    """Return the key of a sweep's record."""
    return f"{SWEEPS}{name}.json"


def views_key(name: str) -> str:
    """Return the key of the table that says how protocols read a sweep's cells."""
    return f"{SWEEPS}{name}/views.parquet"


def tracking_key(sweep: str, run: str = "") -> str:
    """Return the key of a run's reference; without a run what those of a sweep begin with."""
    return f"{TRACKING}{sweep}/{run}.json" if run else f"{TRACKING}{sweep}/"


def second_part(key: str) -> str:
    """Return what a key is about: the data set, the weights, the cell or the sweep.

    >>> second_part("cells/ab12/result.json"), second_part("sweeps/study.json")
    ('ab12', 'study')
    """
    return key.split("/")[1].removesuffix(".json")


def attempts_of(key: str, names: Iterator[str]) -> Iterator[tuple[int, str]]:
    """Yield the attempt and the path below it of each of a cell's files that an attempt wrote.

    Args:
        key: of the cell.
        names: keys of the store that begin with :func:`cell_key`.
    """
    for name in names:
        attempt, _, rest = name.removeprefix(cell_key(key)).partition("/")
        if attempt.isdecimal() and rest:
            yield int(attempt), rest
