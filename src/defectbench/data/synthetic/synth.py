"""A data set to try everything with: real photographs, rendered defects, exact masks, MVTec AD's layout.

Measured difficulty: see :func:`synth`.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from defectbench.data.manifest import GOOD, Part
from defectbench.data.names import check_name
from defectbench.data.progress import ProgressCallback, no_progress
from defectbench.data.synthetic.defects import DEFECTS, add_defect
from defectbench.data.synthetic.scenes import SCENES, Pose, Scene, expose, focus, poses, render
from defectbench.errors import UsageError, nearest
from defectbench.util.files import disk_errors, folder_written_whole

SMALLEST, LARGEST = 32, 1024


@dataclass(frozen=True, slots=True)
class _Shot:
    """One picture to be made: ``defect`` is ``good`` or what is rendered, ``seeds`` feed its generator."""

    path: str
    scene: Scene
    pose: Pose
    defect: str
    seeds: tuple[int, ...]


def synth(
    directory: Path,
    *,
    categories: Mapping[str, str] | Sequence[str] = tuple(SCENES),
    size: int = 256,
    train_good: int = 60,
    test_good: int = 20,
    defects_per_type: int = 8,
    seed: int = 0,
    types: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    progress: ProgressCallback = no_progress,
) -> None:
    """Write a data set in MVTec AD's layout to ``directory``, whole or not at all.

    The same arguments give the same files, bit for bit. Training and test pictures show disjoint regions
    of the photographs, under one model of exposure.

    Args:
        directory: must not be there yet, or be empty.
        categories: names of scenes, or category name -> scene
            (:data:`~defectbench.data.synthetic.scenes.AS_MVTEC`).
        size: side in pixels, 32 to 1024.
        train_good, test_good, defects_per_type: pictures of each category; each type gets the last number.
        seed: 0 or more.
        types: category -> its defect types -> what is rendered for them, of the five of
            :data:`~defectbench.data.synthetic.defects.DEFECTS`
            (:data:`~defectbench.data.synthetic.scenes.MVTEC_TYPES`). A
            category that is not among them has all five under their own names.

    Raises:
        UsageError: an argument is out of range, a scene unknown, or the directory not empty.
        TryAgainError: the disk is full or read-only.
    """
    named = dict(categories) if isinstance(categories, Mapping) else {name: name for name in categories}
    _check_arguments(named, size, {"train_good": train_good, "test_good": test_good, "seed": seed + 1})
    _check_arguments(named, size, {"defects_per_type": defects_per_type})
    shots = [
        shot
        for category, scene in sorted(named.items())
        for shot in _plan(
            category,
            SCENES[scene],
            types.get(category, {kind: kind for kind in DEFECTS}),
            (train_good, test_good, defects_per_type),
            seed,
        )
    ]
    with disk_errors(directory):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise UsageError(f"{directory}: is there and not empty; name a new directory")
        with folder_written_whole(directory) as draft:
            for done, shot in enumerate(shots):
                progress("drawing", done, len(shots))
                _take(shot, draft, size)
    progress("drawing", len(shots), len(shots))


def _check_arguments(named: Mapping[str, str], size: int, numbers: Mapping[str, int]) -> None:
    if not named:
        raise UsageError(f"no category named; allowed: {', '.join(SCENES)}")
    for category, scene in named.items():
        check_name(category, "category")
        if scene not in SCENES:
            raise UsageError(f"unknown scene {scene!r}; {nearest(scene, SCENES)}")
    if not SMALLEST <= size <= LARGEST:
        raise UsageError(f"size {size}: allowed are {SMALLEST} to {LARGEST} pixels")
    for name, value in numbers.items():
        if value < 1:
            raise UsageError(f"{name} {value - (name == 'seed')}: must be at least {int(name != 'seed')}")


def _plan(
    category: str, scene: Scene, types: Mapping[str, str], numbers: tuple[int, int, int], seed: int
) -> list[_Shot]:
    """Return the category's pictures. No pose of the test part serves both a good and a defective one."""
    train_good, test_good, defects_per_type = numbers
    wanted: dict[Part, list[tuple[str, int]]] = {
        "train": [(GOOD, train_good)],
        "test": [(GOOD, test_good), *((kind, defects_per_type) for kind in types)],
    }
    shots = []
    for number, (part, kinds) in enumerate(wanted.items()):
        key = (seed, zlib.crc32(category.encode()), number)
        total = sum(count for _, count in kinds)
        drawn = poses(scene, part, total, np.random.default_rng(key))
        # Which pose becomes what is a matter of chance, so that good and bad ones show the same region.
        order = iter(np.random.default_rng((*key, 1)).permutation(total))
        for kind, count in kinds:
            for index in range(count):
                path = f"{category}/{part}/{kind}/{index:03d}.png"
                place = int(next(order))
                rendered = types.get(kind, GOOD)
                shots.append(_Shot(path, scene, drawn[place], rendered, (*key, 2, place)))
    return shots


def draw(
    scene: Scene, pose: Pose, defect: str, size: int, seeds: Sequence[int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return one picture, (size, size, 3), and its mask, (size, size), all False for ``good``.

    Pixels outside the mask are those of the good picture of the same pose and seeds, bit for bit.
    """
    for_scene, for_defect, for_sensor = (np.random.default_rng((*seeds, stage)) for stage in range(3))
    plane, allowed = render(scene, pose, size, for_scene)
    plane = focus(plane, size, for_scene)
    colours = np.repeat(plane[:, :, None], 3, axis=2)
    mask = np.zeros((size, size), np.bool_)
    if defect != GOOD:
        colours, mask = add_defect(defect, colours, allowed, _strength(scene, defect), for_defect)
    return expose(scene, colours, for_sensor), mask


def _strength(scene: Scene, defect: str) -> float:
    return scene.blots if defect in ("stain", "foreign_body") else scene.marks


def _take(shot: _Shot, root: Path, size: int) -> None:
    picture, mask = draw(shot.scene, shot.pose, shot.defect, size, shot.seeds)
    path = root / shot.path
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    if shot.defect != GOOD:
        truth = root / shot.path.replace("/test/", "/ground_truth/", 1).replace(".png", "_mask.png")
        truth.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(truth)
