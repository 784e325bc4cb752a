from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from defectbench.report.curve_axes import draw, frame


def test_a_path_meets_the_ticks() -> None:
    square = frame("recall", "precision")
    ends = np.array([0.0, 0.5, 1.0])
    points = [tuple(map(float, point.split())) for point in square.path(ends, ends)[2:].split(" L ")]
    ticks = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"', square.drawn)
    across, up = ticks[:3], ticks[3:]
    for place, (x, y) in enumerate(points):
        assert x == pytest.approx(float(across[place][0]), abs=0.01)
        assert y == pytest.approx(float(up[place][1]), abs=0.01)


def test_a_figure_is_svg_with_its_text_and_cells() -> None:
    line = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    drawing = draw("roc", "A <curve>.", ("false alarms", "recall"), [line], line, "detector", ["b", "a", "b"])
    root = ElementTree.fromstring(drawing.file())
    assert root.findtext("{*}title") == root.get("aria-label") == "A <curve>."
    assert root.findtext("{*}desc") == "Cells: b a"
    assert len(root.findall("{*}path")) == 2
