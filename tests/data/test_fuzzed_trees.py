"""Random trees of folders, files, links and junk: our own errors alone, and every file accounted for."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectbench.data.check import check
from defectbench.data.layouts import LAYOUTS, read_layout
from defectbench.errors import DataError
from trees import files_below, part

NAMES = """
good OK ok_front bad NG bad/dent bad/dent/day1 NG/AK/S0001 OK/S0001 masks labels ground_truth/dent
ground_truth/dent/000 train/good train/ok train test/good test/dent test/ko test validation/good
test_public/bad test_public/ground_truth/bad test_private split_csv kos01 Data/Images/Normal
Data/Images/Anomaly Data/Masks/Anomaly @eaDir .git/annex/objects __MACOSX größe -x
"""
FOLDERS = (*NAMES.split(), "gro\u0308ße", "udc\udcff", "a b", "x\ny", "")
STEMS = (
    "000",
    "001",
    "000_mask",
    "001_GT",
    "mask_000",
    "000_label",
    "e\u0301",
    "é",
    ".hidden",
    "x\udcfe",
    "1cls",
)
SUFFIXES = (
    ".png",
    ".PNG",
    ".jpg",
    ".bmp",
    ".tif",
    ".json",
    ".csv",
    ".parquet",
    ".txt",
    ".dvc",
    ".icloud",
    "",
)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def encoded(array: np.ndarray, kind: str) -> bytes:
    import io

    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="module")
def contents() -> list[bytes]:
    labelme = {"imagePath": "000.png", "shapes": [{"points": [[1, 1], [9, 1], [9, 9]]}]}
    coco = {
        "images": [{"id": 1, "file_name": "000.png", "width": 48, "height": 48}],
        "annotations": [{"image_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}],
    }
    texts = [
        json.dumps(labelme),
        json.dumps(coco),
        "path,label\n000.png,good\n001.png,1\n",
        "{",
        "[]",
        "\0,\n",
    ]
    texts += [
        "object,split,label,image,mask\na,train,normal,good/000.png,\n",
        '{"shapes": [1], "imagePath": 1}',
    ]
    texts += ['{"images": [{"file_name": 3}], "annotations": []}', "path;label\n../x.png;bad\n;;;\n"]
    pictures = [
        encoded(part(seed, seed > 3)[0], kind) for seed in range(8) for kind in ("PNG", "JPEG", "BMP")
    ]
    masks = [encoded(part(seed, True)[1], "PNG") for seed in range(3)]
    return pictures + masks + [text.encode() for text in texts] + [b"", LFS, b"/annex/objects/k\n", b"GIF89a"]


def grow(root: Path, rng: random.Random, contents: list[bytes]) -> None:
    """Fill a folder at random: categories or none, folders, files, links of every kind."""
    bases = rng.choice([["."], ["plate"], ["a", "b"], ["a", "A"], ["x/y"]])
    places = [root / rng.choice(bases) / rng.choice(FOLDERS) for _ in range(rng.randint(1, 10))]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    for _ in range(rng.randint(0, 40)):
        path = rng.choice(places) / (rng.choice(STEMS) + rng.choice(SUFFIXES[: rng.choice((2, 5, 12))]))
        if not path.is_symlink() and not path.exists():
            path.write_bytes(rng.choice(contents))
    for number in range(rng.randint(0, 5)):
        link = rng.choice(places) / f"link{number}{rng.choice(('', '.png'))}"
        targets: list[str | Path] = [
            ".",
            "..",
            "/nowhere",
            link.name,
            root,
            root.parent / "far",
            root.parent / "far/000.png",
        ]
        if not link.is_symlink():
            link.symlink_to(rng.choice([*targets, *places, rng.choice(places) / "000.png"]))


@pytest.mark.parametrize("seed", range(120))
def test_random_trees_are_read_or_refused_and_every_file_is_accounted_for(
    tmp_path: Path, seed: int, contents: list[bytes]
) -> None:
    rng = random.Random(seed)
    (tmp_path / "far").mkdir()
    (tmp_path / "far/000.png").write_bytes(contents[0])
    root = tmp_path / "set"
    root.mkdir()
    grow(root, rng, contents)
    for layout in (None, rng.choice(LAYOUTS).name):
        for follow in (False, True):
            try:
                reading = read_layout(root, layout, follow_links=follow)
            except DataError:
                continue
            if not follow:
                assert reading.account.total == files_below(root)
            used = [source.file for source in reading.sources]
            assert len({path.resolve() for path in used}) == len(used)
            if layout is None and not follow and seed % 6 == 0:
                check(reading)
