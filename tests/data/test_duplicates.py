from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import rotate, shift

from defectbench.data import keypoints, parallel
from defectbench.data.duplicates import DETAIL, Pair, duplicate_groups, near_duplicates
from defectbench.data.frames import frame
from defectbench.data.synthetic.defects import add_defect
from defectbench.data.synthetic.scenes import SCENES, photograph, poses, unit_grid
from defectbench.data.synthetic.synth import draw

Picture = NDArray[np.uint8]


def jpeg(picture: Picture, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def resized(picture: Picture, width: int, height: int) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def rotated(picture: Picture, angle: float) -> Picture:
    return np.asarray(Image.fromarray(picture).rotate(angle, Image.Resampling.BICUBIC))


def pairs_of(pictures: Sequence[Picture]) -> list[Pair]:
    frames = [frame(np.ascontiguousarray(picture)) for picture in pictures]
    return near_duplicates(frames, lambda index: np.ascontiguousarray(pictures[index]))


def places(pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    return [(pair.first, pair.second) for pair in pairs]


def cut(picture: Picture) -> Picture:
    return picture[20:230, 12:235]


def lit(picture: Picture, gain: float = 1.0, gamma: float = 1.0, offset: float = 0.0) -> Picture:
    return (np.clip(picture / 255 * gain + offset, 0, 1) ** gamma * 255).astype(np.uint8)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "JPEG": lambda picture: jpeg(picture, 75),
    "smaller": lambda picture: resized(picture, 128, 128),
    "squashed": lambda picture: resized(picture, 256, 200),
    "cut": cut,
    "cut and resized": lambda picture: resized(cut(picture), 256, 256),
    "gain": lambda picture: lit(picture, gain=1.2),
    "gamma": lambda picture: lit(picture, gamma=0.75),
    "brighter": lambda picture: lit(picture, offset=0.1),
    "moved": lambda picture: np.roll(picture, (7, -16), (0, 1)),
    "moved by a pixel": lambda picture: np.roll(picture, 1, 1),
    "cut on one side": lambda picture: picture[:, :192],
    "rotated": lambda picture: rotated(picture, 2.5),
    "rotated the other way": lambda picture: rotated(picture, -1),
    "mirrored": lambda picture: picture[:, ::-1],
    "turned": lambda picture: np.rot90(picture),
    "upside down": lambda picture: picture[::-1, ::-1],
    "mirrored and rotated": lambda picture: rotated(np.ascontiguousarray(picture[::-1]), 1.5),
    "all of it": lambda picture: jpeg(lit(resized(cut(picture), 200, 200), gain=1.1), 80),
}


@pytest.fixture(scope="module")
def photographs() -> dict[str, list[Picture]]:
    found = {}
    for name, scene in SCENES.items():
        taken = poses(scene, "train", 10, np.random.default_rng(1))
        found[name] = [draw(scene, pose, "good", 256, (5, n))[0] for n, pose in enumerate(taken)]
    return found


@pytest.mark.parametrize("copy", sorted(COPIES))
@pytest.mark.parametrize("name", sorted(SCENES))
def test_duplicates_finds_a_copy_of_a_photograph(
    photographs: dict[str, list[Picture]], name: str, copy: Any
) -> None:
    pairs = pairs_of([*photographs[name], COPIES[copy](photographs[name][3])])
    assert places(pairs) == [(3, 10)]
    assert DETAIL <= pairs[0].score <= 1.001


def test_duplicates_finds_a_copy_with_a_defect_painted_in(photographs: dict[str, list[Picture]]) -> None:
    picture = photographs["gravel"][3]
    changed, mask = add_defect(
        "stain", picture.astype(float), np.ones((256, 256)), 2.0, np.random.default_rng(0)
    )
    assert mask.any()
    assert places(pairs_of([*photographs["gravel"], changed.astype(np.uint8)])) == [(3, 10)]


@pytest.mark.parametrize("name", sorted(SCENES))
def test_duplicates_tells_pictures_of_one_texture_apart(
    photographs: dict[str, list[Picture]], name: str
) -> None:
    assert pairs_of(photographs[name]) == []


def test_duplicates_finds_each_of_many_copies(photographs: dict[str, list[Picture]]) -> None:
    names = ("moved", "mirrored", "rotated", "JPEG", "gain", "turned")
    copies = [COPIES[name](photographs["brick"][3]) for name in names]
    found = duplicate_groups(16, pairs_of([*photographs["brick"], *copies]))
    assert found == ((3, 10, 11, 12, 13, 14, 15),)


def aligned(kind: str, jitter: Any, number: int = 12, size: int = 256) -> list[Picture]:
    """Return exposures of one part under one camera: they share all but noise, light and a small shift."""
    rng = np.random.default_rng(3)
    rows, columns = unit_grid(size)
    radius = np.hypot(rows - 0.5, columns - 0.5)
    part = 90 + 80 * (radius < 0.4) - 50 * (abs(radius - 0.25) < 0.03)
    if kind == "grass":
        part = photograph("grass.png").reshape(size, 512 // size, size, 512 // size).mean((1, 3))
    elif kind == "printed":
        part = np.kron(photograph("brick.png")[::2, ::2], np.ones((size // 256, size // 256)))
    pictures = []
    for _ in range(number):
        moved = shift(part, rng.uniform(-jitter, jitter, 2), order=3, mode="nearest")
        light = rng.uniform(0.95, 1.05)
        pictures.append(moved[:, :, None] * light + rng.normal(0, 3, (size, size, 3)))
    return [np.clip(np.rint(picture), 0, 255).astype(np.uint8) for picture in pictures]


@pytest.mark.parametrize("jitter", [0.0, 0.7, 3.0])
@pytest.mark.parametrize("kind", ["turned", "printed", "grass"])
def test_duplicates_tells_aligned_parts_apart_by_their_noise(kind: str, jitter: Any) -> None:
    pictures = aligned(kind, jitter)
    assert pairs_of(pictures) == []
    pictures += [lit(pictures[4], gain=1.1), pictures[7][:, ::-1]]
    assert set(places(pairs_of(pictures))) == {(4, 12), (7, 13)}


@pytest.mark.parametrize("name", ["moved", "rotated the other way", "smaller"])
def test_duplicates_finds_a_copy_of_a_sharp_print_that_all_parts_bear(name: str) -> None:
    pictures = aligned("grass", 0.0, number=40)
    copy = np.ascontiguousarray(COPIES[name](pictures[4]))
    assert places(pairs_of([*pictures, copy])) == [(4, 40)]


def test_duplicates_tells_parts_apart_that_were_taken_after_the_camera_was_pushed() -> None:
    pictures = aligned("grass", 0.0, number=36)
    pushed = [np.ascontiguousarray(np.roll(picture, (5, -9), (0, 1))) for picture in pictures[30:]]
    assert pairs_of([*pictures[:30], *pushed]) == []


@pytest.mark.parametrize("number", [3, 4, 5])
@pytest.mark.parametrize("kind", ["printed", "grass"])
def test_duplicates_tells_a_few_parts_with_one_print_apart(kind: str, number: int) -> None:
    pictures = aligned(kind, 0.7, number)
    assert pairs_of(pictures) == []
    assert places(pairs_of([*pictures, lit(pictures[1], gain=0.8)])) == [(1, number)]


def held(number: int = 12, size: int = 256) -> list[Picture]:
    """Return pictures of one printed part held in the hand: turned, moved, with noise of their own."""
    rng = np.random.default_rng(5)
    printed = photograph("brick.png")[:size, :size]
    found = []
    for _ in range(number):
        seen = shift(
            rotate(printed, rng.uniform(-8, 8), reshape=False, mode="reflect"), rng.uniform(-9, 9, 2)
        )
        found.append(np.clip(seen[:, :, None] + rng.normal(0, 3, (size, size, 3)), 0, 255).astype(np.uint8))
    return found


def test_duplicates_tells_parts_held_in_the_hand_apart() -> None:
    pictures = held()
    assert pairs_of(pictures) == []
    assert places(pairs_of([*pictures, rotated(pictures[2], 2)])) == [(2, 12)]


def test_duplicates_of_few_flat_or_tiny_pictures() -> None:
    flat = [np.full((64, 64, 3), level, np.uint8) for level in (90, 91, 92)]
    rng = np.random.default_rng(0)
    tiny = [rng.integers(0, 255, (size, 9, 3), np.uint8) for size in (1, 2, 9, 40)]
    assert pairs_of([]) == []
    assert pairs_of(flat[:1]) == []
    assert pairs_of(flat) == []
    assert pairs_of([*tiny, *flat]) == []


@pytest.mark.filterwarnings("error")
def test_a_keypoint_stands_out_from_a_flat_neighbourhood_beside_a_strong_one() -> None:
    # The filter's running sum ends below zero there, and a root of that is no number.
    rng = np.random.default_rng(0)
    response = rng.normal(0, 1e-7, (6, 128, 128)).astype(np.float32)
    response[:, :, :40] = rng.normal(0, 30, (6, 128, 40))
    around = keypoints._around(response)
    assert np.isfinite(around).all()
    assert (around > 0).all()


def test_duplicates_in_pictures_of_any_shape(photographs: dict[str, list[Picture]]) -> None:
    strip = np.hstack([photographs["gravel"][index] for index in (0, 1, 2, 4)])
    pictures = [*photographs["gravel"][5:], strip, strip[:, ::-1]]
    assert places(pairs_of(pictures)) == [(5, 6)]


def test_duplicates_do_not_depend_on_the_number_of_threads(
    photographs: dict[str, list[Picture]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [*photographs["coin"], COPIES["rotated"](photographs["coin"][1])]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = pairs_of(pictures)
    monkeypatch.setattr(parallel, "thread_count", lambda: 4)
    assert pairs_of(pictures) == alone != []


def test_duplicates_tells_its_progress(photographs: dict[str, list[Picture]]) -> None:
    told = []
    frames = [frame(picture) for picture in photographs["coin"]]
    near_duplicates(frames, photographs["coin"].__getitem__, lambda *step: told.append(step))
    assert ("looking for copies", 10, 10) in told
    assert told[-1][1] == told[-1][2]


def test_duplicate_groups_are_connected() -> None:
    pairs = [Pair(4, 2, 0.9), Pair(0, 4, 0.8), Pair(5, 6, 0.7)]
    assert duplicate_groups(8, pairs) == ((0, 2, 4), (5, 6))
    assert duplicate_groups(3, []) == ()
