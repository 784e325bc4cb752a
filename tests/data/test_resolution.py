"""Long pictures and narrow defects are told before anything is fitted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectbench.__main__ import run
from defectbench.data.resolution import DefectWidths, check_notes, width_share
from defectbench.errors import DataError


def mask(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Boxes are top, left, height, width."""
    found = np.zeros((height, width), np.bool_)
    for top, left, high, wide in boxes:
        found[top : top + high, left : left + wide] = True
    return found


@pytest.mark.parametrize(
    ("found", "share"),
    [
        (mask(100, 100, (10, 10, 4, 8)), 0.04),
        (mask(100, 200, (10, 10, 4, 4)), 0.02),
        (mask(400, 100, (10, 10, 40, 40)), 0.1),
        (mask(100, 100, (0, 0, 1, 1), (50, 50, 6, 6)), 0.06),
        (mask(100, 100), None),
        (mask(1, 1, (0, 0, 1, 1)), 1.0),
        (np.eye(50, dtype=np.bool_), 1.0),
        (mask(5000, 5000, (0, 0, 10, 4000), (4990, 4990, 10, 10)), 0.002),
    ],
)
def test_width_is_the_shorter_side_of_the_largest_part(found: np.ndarray, share: float | None) -> None:
    assert width_share(found) == (share if share is None else pytest.approx(share, rel=0.2))


def test_widths_say_how_many_are_narrow_and_from_where_none_is() -> None:
    widths = DefectWidths((0.004, 0.0085, 0.1))
    assert [widths.narrow(side) for side in (224, 256, 512)] == [2, 1, 0]
    assert widths.narrow(500) == 0
    assert widths.enough == 500
    assert widths.warning(500) == ""
    assert widths.warning(200).startswith(
        "2 of 3 defects are narrower than 2 px in an input of 200 px (the narr"
    )
    assert DefectWidths.from_json(widths.to_json()) == widths
    for text in (
        b"",
        b"[]",
        b'{"schema": 1}',
        b'{"schema": 2, "shares": []}',
        b'{"schema": 1, "shares": ["a"]}',
    ):
        with pytest.raises(DataError, match=r"widths\.json is damaged"):
            DefectWidths.from_json(text)


def test_notes_are_given_for_long_pictures_alone() -> None:
    assert [*check_notes("a", [(400, 101)], [0.1])] == []
    (note,) = check_notes("a", [(400, 100), (100, 500), (9, 9)], [])
    assert note.startswith("a: 2 of 3 pictures have sides of 4 to 1 or more, such as 100 x 500")


SWEEP = """\
name: narrow
data: {dataset: line}
models: [filterbank-knn, {name: filterbank-knn, label: large, image_size: 512}]
weights: none
seeds: [0]
image_size: 128
protocols: {detection: {folds: 3}}
"""


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """Pictures of 100 x 400 with defects of 8 x 8 or 2 x 2."""
    rng = np.random.default_rng(0)
    for index in range(16):
        kind = "good" if index < 10 else "bad"
        picture = rng.integers(0, 256, (400, 100), np.uint8)
        for folder in (kind, "masks"):
            (tmp_path / "line" / "belt" / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"line/belt/{kind}/{index}.png")
        if kind == "bad":
            side = 8 if index % 2 else 2
            Image.fromarray(mask(400, 100, (100, 20, side, side))).save(
                tmp_path / f"line/belt/masks/{index}.png"
            )
    return tmp_path / "line"


def test_check_and_plan_tell_of_them(line: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(tmp_path / "store")]
    assert run(["data", "import", str(line), *where]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "such as 100 x 400: squashed to a square, one side shrinks 4.0 times as much as the other" in said
    assert "3 at 224 px, 3 at 256 px, 0 at 512 px; from 400 px on none is" in said
    (tmp_path / "narrow.yaml").write_text(SWEEP)
    assert run(["plan", str(tmp_path / "narrow.yaml"), *where]) == 0
    out, err = capsys.readouterr()
    said = " ".join((out + err).split())
    assert "belt: filterbank-knn: 3 of 6 defects are narrower than 2 px in an input of 128 px" in said
    assert "large:" not in said
