"""The duplicate search: which copies it finds, which different parts it takes for copies, and what it costs.

    python benchmarks/duplicates.py --quick    # some minutes
    python benchmarks/duplicates.py            # more pictures, and 512 px too
    python benchmarks/duplicates.py cost 1000 512

Each line is printed as soon as it is measured. The parts, photographs and seeds are not those of the tests.
For the recall, copies of a few pictures are added to different pictures of one kind: drawn parts with noise,
and pieces of a photograph under fresh noise. Each false pair is of two exposures of different parts: alike
under a fixed camera or held in the hand.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter, rotate, shift
from skimage import data

from defectbench.data.duplicates import near_duplicates
from defectbench.data.frames import frame

Picture = NDArray[np.uint8]
Clean = NDArray[np.float64]
SEED = 2026
TEXTURES: Mapping[str, tuple[Callable[[], NDArray[np.uint8]], int]] = {
    "moon": (data.moon, 128),
    "tissue": (data.immunohistochemistry, 128),
    "stars": (data.hubble_deep_field, 192),
    "retina": (data.retina, 256),
}
"""Photographs, and the side of the pieces they are cut into; pieces do not overlap."""


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
    "shifted 1": lambda p: np.roll(p, (1, -1), (0, 1)),
    "shifted 2": lambda p: np.roll(p, 2, 1),
    "shifted 5, 9": lambda p: np.roll(p, (5, -9), (0, 1)),
    "shifted 16": lambda p: np.roll(p, (16, 16), (0, 1)),
    "cut 1 %": lambda p: cut(p, 0.01),
    "cut 5 %": lambda p: cut(p, 0.05),
    "cut 15 %": lambda p: cut(p, 0.15),
    "cut 25 %": lambda p: cut(p, 0.25),
    "cut 25 % on one side": lambda p: p[p.shape[0] // 4 :],
    "cut 5 %, enlarged": lambda p: cut_and_enlarged(p, 0.05),
    "cut 25 %, enlarged": lambda p: cut_and_enlarged(p, 0.25),
    "rotated 1": lambda p: turned(p, -1),
    "rotated 2": lambda p: turned(p, 2),
    "rotated 3": lambda p: turned(p, -3),
    "rotated 2, bilinear": lambda p: turned(p, 2, Image.Resampling.BILINEAR),
    "mirrored": lambda p: p[:, ::-1],
    "turned 90": lambda p: np.rot90(p),
    "turned 180": lambda p: p[::-1, ::-1],
    "mirrored, turned 270": lambda p: np.rot90(p[::-1], 3),
    "JPEG 90": lambda p: jpeg(p, 90),
    "JPEG 80": lambda p: jpeg(p, 80),
    "JPEG 60": lambda p: jpeg(p, 60),
    "half size": lambda p: resized(p, 0.5),
    "80 % of its size": lambda p: resized(p, 0.8),
    "130 % of its size": lambda p: resized(p, 1.3),
    "squashed": lambda p: resized(p, 1.0, 0.85),
    "gain 0.8": lambda p: lit(p, gain=0.8),
    "gain 1.25": lambda p: lit(p, gain=1.25),
    "gamma 1.3": lambda p: lit(p, gamma=1.3),
    "darker": lambda p: lit(p, offset=-0.08),
    "shifted, gain 1.1, JPEG 90": lambda p: jpeg(lit(np.roll(p, (3, 2), (0, 1)), gain=1.1), 90),
    "rotated 1, JPEG 90": lambda p: jpeg(turned(p, 1), 90),
    "cut, 80 %, lit, JPEG 85": lambda p: jpeg(lit(resized(cut(p, 0.1), 0.8), gain=0.9), 85),
}


def noisy(clean: Clean, rng: np.random.Generator, sigma: float) -> Picture:
    """Return a fresh exposure: a light of its own, and noise of ``sigma`` grey levels."""
    light = rng.uniform(0.95, 1.05)
    noise = rng.normal(0, sigma, (*clean.shape, 3))
    return np.clip(np.rint(clean[:, :, None] * light + noise), 0, 255).astype(np.uint8)


def washer(size: int) -> Clean:
    """Return a drawn part: a ring with three holes on a plain ground."""
    rows, columns = np.mgrid[:size, :size] / size - 0.5
    found = 70 + 75.0 * ((np.hypot(rows, columns) < 0.42) & (np.hypot(rows, columns) > 0.14))
    for angle in (0.3, 2.4, 4.5):
        found -= 55.0 * (np.hypot(rows - 0.28 * np.sin(angle), columns - 0.28 * np.cos(angle)) < 0.05)
    return np.asarray(gaussian_filter(found, size / 256))


def pieces(name: str, number: int, size: int, rng: np.random.Generator) -> list[Clean]:
    """Return squares of a photograph that do not overlap, resized, in any order."""
    read, side = TEXTURES[name]
    whole = Image.fromarray(read()).convert("F")
    rows, columns = whole.height // side, whole.width // side
    found = []
    for place in rng.permutation(rows * columns)[:number]:
        row, column = (int(index) * side for index in divmod(place, columns))
        square = whole.crop((column, row, column + side, row + side))
        found.append(np.asarray(square.resize((size, size), Image.Resampling.BICUBIC), np.float64))
    return found


def drawn_parts(number: int, size: int, sigma: float = 3.0) -> list[Picture]:
    """Return washers with soft shades of their own."""
    rng = np.random.default_rng(SEED)
    shades = [gaussian_filter(rng.normal(0, 1, (size, size)), size / 10) * size * 1.5 for _ in range(number)]
    return [noisy(washer(size) + shade, rng, sigma) for shade in shades]


def textured_parts(name: str, number: int, size: int) -> list[Picture]:
    rng = np.random.default_rng((SEED, *name.encode()))
    return [noisy(clean, rng, 2.0) for clean in pieces(name, number, size, rng)]


def exposures(clean: Clean, number: int, move: float | str, sigma: float, quality: int) -> list[Picture]:
    """Return exposures of one part: moved by up to some pixels, or held in the hand; as JPEG or not (0)."""
    rng = np.random.default_rng(SEED + 1)
    found = []
    for _ in range(number):
        seen = clean
        if isinstance(move, str):
            seen = rotate(seen, rng.uniform(-8, 8), reshape=False, order=3, mode="reflect")
            seen = shift(seen, rng.uniform(-9, 9, 2), order=3, mode="reflect")
        elif move:
            seen = shift(seen, rng.uniform(-move, move, 2), order=3, mode="nearest")
        taken = noisy(seen, rng, sigma)
        found.append(jpeg(taken, quality) if quality else taken)
    return found


def found_pairs(pictures: list[Picture]) -> set[tuple[int, int]]:
    kept = [frame(picture) for picture in pictures]
    return {(pair.first, pair.second) for pair in near_duplicates(kept, pictures.__getitem__)}


def recall(number: int, copied: int, size: int) -> Iterator[str]:
    """Yield a table: for each copy and kind, how many of the copied pictures are found, and false pairs."""
    kinds = {"drawn": drawn_parts(number, size), "aligned": exposures(washer(size), number, 1.0, 3.0, 0)}
    kinds |= {name: textured_parts(name, number, size) for name in TEXTURES}
    yield f"| copy, {size} px | " + " | ".join(kinds) + " | false |"
    yield "|---|" + "---|" * (len(kinds) + 1)
    for copy, make in COPIES.items():
        cells, false = [], 0
        for pictures in kinds.values():
            copies = [np.ascontiguousarray(make(picture)) for picture in pictures[:copied]]
            found = found_pairs([*pictures, *copies])
            wanted = {(index, len(pictures) + index) for index in range(copied)}
            cells.append(f"{len(found & wanted)} of {copied}")
            false += len(found - wanted)
        yield f"| {copy} | " + " | ".join(cells) + f" | {false} |"


def sharp_print(name: str) -> Clean:
    """Return a photograph whole, at 256 px, as sharp as it can be."""
    whole = Image.fromarray(getattr(data, name)()).convert("F")
    return np.asarray(whole.resize((256, 256), Image.Resampling.BOX), np.float64)


def few_exposures() -> Iterator[str]:
    """Yield a table: of how few exposures of one sharp print, without a copy, pairs are taken for copies."""
    yield "| exposures, moved by up to | " + " | ".join(str(number) for number in (2, 3, 4, 5, 8, 13)) + " |"
    yield "|---|" + "---|" * 6
    for name in ("grass", "gravel", "brick"):
        for move in (0.0, 0.7, 1.5):
            cells = [
                str(len(found_pairs(exposures(sharp_print(name), number, move, 3.0, 0))))
                for number in (2, 3, 4, 5, 8, 13)
            ]
            yield f"| {name}, {move:g} px | " + " | ".join(cells) + " |"


def one_print(number: int, counts: tuple[int, ...]) -> Iterator[str]:
    """Yield a table of copies found, and false pairs, where all parts bear one sharp print."""
    sets = {move: exposures(sharp_print("grass"), number, move, 3.0, 0) for move in (0.0, 0.5, 1.0)}
    heads = [f"moved by {move:g} px, {copied} copied" for copied in counts for move in sets]
    yield f"| copy, {number} of grass | " + " | ".join(heads) + " |"
    yield "|---|" + "---|" * len(heads)
    for copy, make in COPIES.items():
        cells = []
        for copied in counts:
            for pictures in sets.values():
                copies = [np.ascontiguousarray(make(picture)) for picture in pictures[:copied]]
                found = found_pairs([*pictures, *copies])
                wanted = {(index, number + index) for index in range(copied)}
                cells.append(f"{len(found & wanted)}, {len(found - wanted)} false")
        yield f"| {copy} | " + " | ".join(cells) + " |"


def false_pairs(number: int, sizes: tuple[int, ...]) -> Iterator[str]:
    yield f"| {number} different parts | pairs taken for copies |"
    yield "|---|---|"
    rng = np.random.default_rng(SEED + 2)
    moves: tuple[tuple[str, float | str, float, int], ...] = (
        ("fixed camera", 0.0, 3.0, 0),
        ("fixed camera, moved by up to 0.5 px", 0.5, 3.0, 0),
        ("fixed camera, moved by up to 0.7 px", 0.7, 3.0, 0),
        ("fixed camera, moved by up to 2 px", 2.0, 3.0, 0),
        ("fixed camera, little noise, moved by up to 1 px", 1.0, 1.0, 0),
        ("fixed camera, JPEG 90, moved by up to 1 px", 1.0, 3.0, 90),
        ("in the hand", "hand", 3.0, 0),
    )
    for size in sizes:
        kinds = {"drawn": washer(size)} | {name: pieces(name, 1, size, rng)[0] for name in TEXTURES}
        for kind, clean in kinds.items():
            for label, move, sigma, quality in moves:
                found = len(found_pairs(exposures(clean, number, move, sigma, quality)))
                yield f"| {kind}, {size} px, {label} | {found} |"


def cost(number: int, size: int) -> str:
    """Return what ``number`` pictures cost, without making or decoding them."""
    texture = data.gravel()

    def picture(index: int) -> Picture:
        own = np.random.default_rng((4, index))
        row, column = own.integers(0, 512 - 160, 2)
        square = Image.fromarray(texture[row : row + 160, column : column + 160].astype(np.float32))
        soft = gaussian_filter(own.normal(0, 1, (16, 16)), 1) * 40
        shade = Image.fromarray(soft.astype(np.float32)).resize((size, size))
        return noisy(np.asarray(square.resize((size, size)), np.float64) + np.asarray(shade), own, 2.0)

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cost", nargs="*", help="cost NUMBER SIZE: only what so many pictures cost")
    parser.add_argument("--quick", action="store_true", help="fewer pictures, 256 px alone")
    arguments = parser.parse_args()
    if arguments.cost:
        print(cost(int(arguments.cost[1]), int(arguments.cost[2])))
        return
    number, copied, sizes = (12, 3, (256,)) if arguments.quick else (16, 6, (256, 512))
    for size in sizes:
        for line in recall(number, copied, size):
            print(line, flush=True)
    print()
    for line in chain(one_print(40, (5, 1)), [""], few_exposures()):
        print(line, flush=True)
    print()
    for line in false_pairs(20 if arguments.quick else 40, sizes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
