"""Results that are made and not yet in the store: kept on this machine until they are.

Between the end of a fit and the last write of its result the store may go away, or the process be stopped or
killed. The next attempt on this machine publishes what lies here instead of fitting again.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from defectbench.errors import DefectbenchError
from defectbench.records.result import Result, differing_versions
from defectbench.stores.layout import RESULT
from defectbench.util.files import disk_errors, folder_written_whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unpublished:
    """What a finished attempt has to write.

    Attributes:
        contents: name of a file -> its bytes.
        result: its ``files`` below the fence of the attempt that made them; the one that publishes them
            writes them below its own.
    """

    contents: Mapping[str, bytes]
    result: Result


def keep(cache: Path, work: Unpublished) -> None:
    """Write it below ``cache``. Where that fails it is only logged: the store may well take it."""
    try:
        folder = _folder(cache, work.result.cell)
        with disk_errors(cache), folder_written_whole(folder) as draft:
            for name, data in work.contents.items():
                (draft / name).write_bytes(data)
            (draft / RESULT).write_bytes(work.result.to_json())
    except DefectbenchError as error:
        _log.warning("cell %s: its result is not kept on this machine: %s", work.result.cell, error)


def find(cache: Path, key: str) -> Unpublished | None:
    """Return what an earlier attempt kept; None where there is nothing that this one may publish."""
    folder = _folder(cache, key)
    try:
        result = Result.from_json((folder / RESULT).read_bytes())
        names = {place.rpartition("/")[2]: digest for place, digest in result.files.items()}
        contents = {name: (folder / name).read_bytes() for name in names}
    except (OSError, DefectbenchError):
        return None
    whole = all(hashlib.sha256(data).hexdigest() == names[name] for name, data in contents.items())
    if not whole or result.cell != key or differing_versions(result.versions):
        return None
    _log.info("cell %s: an earlier attempt had finished it; its result is published", key)
    return Unpublished(contents, result)


def remove(cache: Path, key: str) -> None:
    """Remove it: it is in the store."""
    shutil.rmtree(_folder(cache, key), ignore_errors=True)


def _folder(cache: Path, key: str) -> Path:
    """Return where a cell's result waits."""
    return cache / "unpublished" / key
