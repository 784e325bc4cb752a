"""A table that names what no disk can have is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from defectbench.data.layouts.registry import read_layout
from defectbench.errors import DataError


@pytest.mark.parametrize("name", ["a" * 5000, "a\x00b", "x/" * 3000 + "a"])
def test_a_name_that_no_disk_can_have_is_no_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(f"path,label\n{name}.png,good\n")
    with pytest.raises(DataError, match=r"no such file|labels"):
        read_layout(tmp_path)
