"""The duplicate search: which copies it finds, which different parts it takes for copies, and what it costs.

    python benchmarks/duplicates.py            # all tables, some minutes
    python benchmarks/duplicates.py cost 10000 512

Copies are added one at a time to 24 pictures of a kind. Smooth parts are discs with noise; textures are
scikit-image's photographs. Each different part is a fresh exposure: of one drawn or printed part under a
fixed camera or held in the hand, of other pieces of a texture, of other parts.
"""

from __future__ import annotations

import io
import resource
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, rotate, shift

from defectbench.data.duplicates import frame, near_duplicates
from defectbench.data.synthetic.scenes import SCENES, photograph, poses
from defectbench.data.synthetic.synth import draw

Picture = NDArray[np.uint8]
COPIED = (3, 8, 15)


def jpeg(picture: Picture, quality: int) -> Picture:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(picture: Picture, share: float, share_high: float | None = None) -> Picture:
    height, width = picture.shape[:2]
    size = (round(width * share), round(height * (share_high or share)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def turned(picture: Picture, angle: float, kind: Image.Resampling = Image.Resampling.BICUBIC) -> Picture:
    return np.asarray(Image.fromarray(picture).rotate(angle, kind))


def cut(picture: Picture, share: float) -> Picture:
    """Return the picture without ``share`` of each side, half of it at both ends."""
    rows, columns = (max(1, round(side * share / 2)) for side in picture.shape[:2])
    return picture[rows:-rows, columns:-columns]


def cut_and_enlarged(picture: Picture, share: float) -> Picture:
    inner = cut(picture, share)
    height, width = picture.shape[:2]
    return np.asarray(Image.fromarray(inner).resize((width, height), Image.Resampling.BICUBIC))


def lit(picture: Picture, gain: float = 1.0, gamma: float = 1.0, offset: float = 0.0) -> Picture:
    return (np.clip(picture / 255 * gain + offset, 0, 1) ** gamma * 255).astype(np.uint8)


COPIES: dict[str, Callable[[Picture], Picture]] = {
    "shifted 1": lambda p: np.roll(p, (1, 1), (0, 1)),
    "shifted 7, 3": lambda p: np.roll(p, (7, -3), (0, 1)),
    "shifted 16": lambda p: np.roll(p, (-16, 16), (0, 1)),
    "cut 1 %": lambda p: cut(p, 0.01),
    "cut 10 %": lambda p: cut(p, 0.1),
    "cut 25 %": lambda p: cut(p, 0.25),
    "cut 25 % on one side": lambda p: p[:, : p.shape[1] * 3 // 4],
    "cut 10 %, enlarged": lambda p: cut_and_enlarged(p, 0.1),
    "cut 25 %, enlarged": lambda p: cut_and_enlarged(p, 0.25),
    "rotated 1": lambda p: turned(p, 1),
    "rotated 2, bilinear": lambda p: turned(p, -2, Image.Resampling.BILINEAR),
    "rotated 3": lambda p: turned(p, 3),
    "rotated 1, nearest": lambda p: turned(p, 1, Image.Resampling.NEAREST),
    "mirrored": lambda p: p[:, ::-1],
    "turned 90": lambda p: np.rot90(p),
    "turned 180": lambda p: p[::-1, ::-1],
    "mirrored, rotated 1.5": lambda p: turned(np.ascontiguousarray(p[::-1]), 1.5),
    "JPEG 95": lambda p: jpeg(p, 95),
    "JPEG 85": lambda p: jpeg(p, 85),
    "JPEG 75": lambda p: jpeg(p, 75),
    "JPEG 60": lambda p: jpeg(p, 60),
    "gain 1.2": lambda p: lit(p, gain=1.2),
    "gamma 0.75": lambda p: lit(p, gamma=0.75),
    "brighter": lambda p: lit(p, offset=0.1),
    "half size": lambda p: resized(p, 0.5),
    "squashed": lambda p: resized(p, 1.0, 0.8),
    "cut, small, lit, JPEG 80": lambda p: jpeg(lit(resized(cut(p, 0.15), 0.8), gain=1.1), 80),
}


def noisy(clean: NDArray[np.float64], rng: np.random.Generator, sigma: float) -> Picture:
    """Return a fresh exposure: a light of its own, and noise of ``sigma`` grey levels."""
    light = rng.uniform(0.95, 1.05)
    noise = rng.normal(0, sigma, (*clean.shape, 3))
    return np.clip(np.rint(clean[:, :, None] * light + noise), 0, 255).astype(np.uint8)


def disc(size: int) -> NDArray[np.float64]:
    rows, columns = np.mgrid[:size, :size] / size
    radius = np.hypot(rows - 0.5, columns - 0.5)
    rings = 90 + 80.0 * (radius < 0.4) - 50.0 * (np.abs(radius - 0.25) < 0.03)
    return np.asarray(gaussian_filter(rings, 1.0), np.float64)


def printed(size: int) -> NDArray[np.float64]:
    whole = photograph("brick.png")[:512, :512]
    return np.asarray(Image.fromarray(whole.astype(np.float32)).resize((size, size)), np.float64)


def smooth_parts(number: int, size: int = 256, sigma: float = 3.0) -> list[Picture]:
    """Return discs with soft shades of their own."""
    rng = np.random.default_rng(1)
    shade = [gaussian_filter(rng.normal(0, 1, (size, size)), size / 10) * size / 2 for _ in range(number)]
    return [noisy(disc(size) + item * 3, rng, sigma) for item in shade]


def scenes(name: str, number: int, size: int = 256) -> list[Picture]:
    scene = SCENES[name]
    taken = poses(scene, "train", number, np.random.default_rng(1))
    return [draw(scene, pose, "good", size, (5, n))[0] for n, pose in enumerate(taken)]


def exposures(clean: NDArray[np.float64], number: int, move: str, sigma: float = 3.0) -> list[Picture]:
    """Return exposures of one part: fixed, moved by up to 0.7 or 3 pixels, or held in the hand."""
    rng = np.random.default_rng(2)
    found = []
    for _ in range(number):
        seen = clean
        if move == "hand":
            seen = rotate(seen, rng.uniform(-8, 8), reshape=False, order=3, mode="reflect")
            seen = shift(seen, rng.uniform(-9, 9, 2), order=3, mode="reflect")
        elif move != "fixed":
            seen = shift(seen, rng.uniform(-float(move), float(move), 2), order=3, mode="nearest")
        found.append(noisy(seen, rng, sigma))
    return found


def pairs_of(pictures: list[Picture]) -> set[tuple[int, int]]:
    kept = [frame(picture) for picture in pictures]
    return {(pair.first, pair.second) for pair in near_duplicates(kept, lambda index: pictures[index])}


def recall(kinds: dict[str, list[Picture]]) -> Iterator[str]:
    yield "| copy | " + " | ".join(kinds) + " |"
    yield "|---|" + "---|" * len(kinds)
    frames = {name: [frame(picture) for picture in pictures] for name, pictures in kinds.items()}
    for copy, make in COPIES.items():
        cells = []
        for name, pictures in kinds.items():
            found = 0
            for index in COPIED:
                every = [*pictures, np.ascontiguousarray(make(pictures[index]))]
                kept = [*frames[name], frame(every[-1])]
                pairs = near_duplicates(kept, every.__getitem__)
                found += (index, len(pictures)) in {(pair.first, pair.second) for pair in pairs}
            cells.append(f"{found} of {len(COPIED)}")
        yield f"| {copy} | " + " | ".join(cells) + " |"


def false_pairs(number: int = 40) -> Iterator[str]:
    yield f"| {number} different parts | pairs taken for copies |"
    yield "|---|---|"
    for size in (256, 512):
        for kind, clean in (("drawn", disc(size)), ("printed", printed(size))):
            for move in ("fixed", "0.7", "3", "hand"):
                found = len(pairs_of(exposures(clean, number, move)))
                yield f"| {kind}, {size} px, {move} | {found} |"
    for name in SCENES:
        yield f"| {name}, pieces of one photograph | {len(pairs_of(scenes(name, number)))} |"


def cost(number: int, size: int) -> str:
    """Return what ``number`` pictures cost, without making or decoding them."""
    rng = np.random.default_rng(4)
    texture = photograph("gravel.png")

    def picture(index: int) -> Picture:
        own = np.random.default_rng((4, index))
        row, column = own.integers(0, 512 - 160, 2)
        piece = Image.fromarray(texture[row : row + 160, column : column + 160].astype(np.float32))
        soft = gaussian_filter(own.normal(0, 1, (16, 16)), 1) * 40
        shade = Image.fromarray(soft.astype(np.float32)).resize((size, size))
        return noisy(np.asarray(piece.resize((size, size)), np.float64) + np.asarray(shade), own, 2.0)

    del rng
    spent, frames = 0.0, []
    for index in range(number):
        made = picture(index)
        start = time.process_time()
        frames.append(frame(made))
        spent += time.process_time() - start
    start = time.process_time()
    pairs = near_duplicates(frames, picture)
    search = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"{number} pictures of {size} px: {spent:.1f} CPU s to keep what is compared, {search:.1f} CPU s to "
        f"compare, {len(pairs)} pairs, {peak:.2f} GiB at the peak"
    )


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["cost"]:
        print(cost(int(arguments[1]), int(arguments[2])))
        return
    kinds = {"smooth": smooth_parts(24)} | {name: scenes(name, 24) for name in SCENES}
    for line in (*recall(kinds), "", *false_pairs()):
        print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
