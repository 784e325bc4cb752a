import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import shift

from defectbench.data.duplicates import THRESHOLD, frame, near_duplicates
from defectbench.data.synthetic.defects import add_defect
from defectbench.data.synthetic.scenes import SCENES, photograph, poses, unit_grid
from defectbench.data.synthetic.synth import draw


def jpeg(picture, quality):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(picture, width, height):
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def cut(picture):
    return picture[20:230, 12:235]


def lit(picture, gain=1.0, gamma=1.0, offset=0.0):
    return (np.clip(picture / 255 * gain + offset, 0, 1) ** gamma * 255).astype(np.uint8)


COPIES = {
    "JPEG": lambda picture: jpeg(picture, 75),
    "smaller": lambda picture: resized(picture, 128, 128),
    "squashed": lambda picture: resized(picture, 256, 200),
    "cut": cut,
    "cut and resized": lambda picture: resized(cut(picture), 256, 256),
    "gain": lambda picture: lit(picture, gain=1.2),
    "gamma": lambda picture: lit(picture, gamma=0.75),
    "brighter": lambda picture: lit(picture, offset=0.1),
    "all of it": lambda picture: jpeg(lit(resized(cut(picture), 200, 200), gain=1.1), 80),
}


@pytest.fixture(scope="module")
def photographs():
    found = {}
    for name, scene in SCENES.items():
        taken = poses(scene, "train", 10, np.random.default_rng(1))
        found[name] = [draw(scene, pose, "good", 256, (5, n))[0] for n, pose in enumerate(taken)]
    return found


@pytest.mark.parametrize("copy", sorted(COPIES))
@pytest.mark.parametrize("name", sorted(SCENES))
def test_duplicates_finds_a_copy_of_a_photograph(photographs, name, copy):
    pictures = [*photographs[name], COPIES[copy](photographs[name][3])]
    pairs = near_duplicates([frame(picture) for picture in pictures], ["train"] * 10 + ["test"])
    assert [(pair.first, pair.second) for pair in pairs] == [(3, 10)]
    assert pairs[0].score >= THRESHOLD


def test_duplicates_finds_a_copy_with_a_defect_painted_in(photographs):
    picture = photographs["gravel"][3]
    changed, mask = add_defect(
        "stain", picture.astype(float), np.ones((256, 256)), 2.0, np.random.default_rng(0)
    )
    assert mask.any()
    frames = [frame(item) for item in [*photographs["gravel"], changed.astype(np.uint8)]]
    pairs = near_duplicates(frames, ["good"] * 10 + ["bad"])
    assert [(pair.first, pair.second) for pair in pairs] == [(3, 10)]


@pytest.mark.parametrize("name", sorted(SCENES))
def test_duplicates_tells_pictures_of_one_texture_apart(photographs, name):
    frames = [frame(picture) for picture in photographs[name]]
    assert near_duplicates(frames, ["test"] * 10, within=("test",)) == []


def aligned(kind, jitter, number=12, size=256):
    """Return exposures of one part under one camera: they share all but noise, light and a small shift."""
    rng = np.random.default_rng(3)
    rows, columns = unit_grid(size)
    radius = np.hypot(rows - 0.5, columns - 0.5)
    part = 90 + 80 * (radius < 0.4) - 50 * (abs(radius - 0.25) < 0.03)
    if kind == "printed":
        part = np.kron(photograph("brick.png")[::2, ::2], np.ones((size // 256, size // 256)))
    pictures = []
    for _ in range(number):
        moved = shift(part, rng.uniform(-jitter, jitter, 2), order=3, mode="nearest")
        light = rng.uniform(0.95, 1.05)
        pictures.append(moved[:, :, None] * light + rng.normal(0, 3, (size, size, 3)))
    return [np.clip(np.rint(picture), 0, 255).astype(np.uint8) for picture in pictures]


@pytest.mark.parametrize("jitter", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("kind", ["turned", "printed"])
def test_duplicates_tells_aligned_parts_apart_by_their_noise(kind, jitter):
    pictures = aligned(kind, jitter)
    assert near_duplicates([frame(picture) for picture in pictures], ["test"] * 12, within=("test",)) == []
    pictures.append(lit(pictures[4], gain=1.1))
    pairs = near_duplicates([frame(picture) for picture in pictures], ["test"] * 13, within=("test",))
    assert [(pair.first, pair.second) for pair in pairs] == [(4, 12)]


def test_duplicates_of_few_or_flat_pictures():
    flat = [frame(np.full((64, 64, 3), level, np.uint8)) for level in (90, 91, 92)]
    assert near_duplicates([], []) == []
    assert near_duplicates(flat[:1], ["train"]) == []
    assert near_duplicates(flat, ["train", "test", "test"]) == []


@pytest.mark.parametrize("copy", ["JPEG", "cut"])
def test_duplicates_within_a_group_are_looked_for_where_asked(photographs, copy):
    pictures = photographs["brick"] + [COPIES[copy](photographs["brick"][place]) for place in (0, 7)]
    frames = [frame(picture) for picture in pictures]
    groups = ["train"] * 5 + ["test"] * 5 + ["train", "test"]
    assert near_duplicates(frames, groups) == []
    found = near_duplicates(frames, groups, within=("test",))
    assert [(pair.first, pair.second) for pair in found] == [(7, 11)]
