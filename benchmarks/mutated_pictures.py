"""Mutated picture files, alone and in folders: no traceback, no hang, bounded memory, the file named.

``python benchmarks/mutated_pictures.py --number 20000 --seed 1`` makes so many files by cutting, flipping,
splicing and editing headers of whole ones, reads each in every way that the package reads pictures, and puts
each into a data set that ``data check`` looks at. It prints its counts as JSON and ends with 1 where any
file gave a traceback, a message without its name or of several lines, or took longer than allowed.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import resource
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from defectbench.data.check import check
from defectbench.data.layouts import read_layout
from defectbench.errors import DataError
from defectbench.util.image_io import (
    FULL,
    Intensity,
    depth,
    read_mask,
    read_picture,
    read_resized,
    read_values,
    read_with_traits,
)

SECONDS = 10.0
"""Of processor time that a file may take, read in all ways."""

MEMORY = 2 << 30
"""Bytes that the process may take."""

FOLDER = 40
"""Mutated files of one data set."""

MODES = ("L", "RGB", "P", "1", "RGBA", "LA", "I;16", "CMYK", "F", "I")
KINDS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "ICO")


def whole_files(rng: np.random.Generator) -> list[tuple[str, bytes]]:
    """Return (kind, bytes) of small pictures in every mode that each format has, and some that we refuse."""
    found = []
    for mode in MODES:
        for kind in KINDS:
            for options in _options(kind):
                buffer = io.BytesIO()
                try:
                    _picture(mode, rng).save(buffer, kind, **options)
                except (OSError, ValueError, KeyError, TypeError):
                    continue
                found.append((kind, buffer.getvalue()))
    return found


def _options(kind: str) -> list[dict[str, object]]:
    exif = Image.Exif()
    exif[0x0112] = 6
    more: dict[str, list[dict[str, object]]] = {
        "PNG": [{"exif": exif}],
        "JPEG": [{"progressive": True}, {"exif": exif}],
        "TIFF": [{"compression": name} for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")],
        "WEBP": [{"lossless": True}],
    }
    return [{}, *more.get(kind, [])]


def _picture(mode: str, rng: np.random.Generator) -> Image.Image:
    height, width = (int(side) for side in rng.integers(24, 64, 2))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 4096, (height, width), np.uint16))
    colours = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    return colours.convert("L").convert(mode) if mode in ("F", "I", "1") else colours.convert(mode)


# --- mutations: bytes of one file, another file, dice -> bytes


def cut(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return the beginning of the file."""
    return data[: dice.randrange(len(data))]


def flip(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return the file with up to 20 bytes changed."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 20)):
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def splice(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return the beginning of one file and the end of another."""
    return data[: dice.randrange(len(data))] + other[dice.randrange(len(other)) :]


def repeat(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return the file with a part of it twice."""
    start = dice.randrange(len(data))
    return data[:start] + data[max(0, start - dice.randrange(1, 2000)) :]


def header(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return the file with a number near its beginning set to an extreme, a PNG's checksums made right."""
    changed = bytearray(data)
    place, size = dice.randrange(min(len(data), 200)), dice.choice((1, 2, 4))
    value = dice.choice((0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, dice.getrandbits(32)))
    order = dice.choice(("little", "big"))
    changed[place : place + size] = (value & (1 << 8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]
    return _resealed(bytes(changed))


def grown(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Return a PNG whose header tells of another size, its checksum made right; of other files a flip."""
    if not data.startswith(b"\x89PNG"):
        return flip(data, other, dice)
    sides = [dice.choice((1, 63, 500, 5000, 30_000, 100_000, 2**31 - 1)) for _ in range(2)]
    return _resealed(data[:16] + struct.pack(">II", *sides) + data[24:])


def _resealed(data: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks made right, anything else as it is."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    place, parts = 8, [data[:8]]
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4])
        body = data[place + 4 : place + 8 + length]
        parts.append(data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts)


MUTATIONS: tuple[Callable[[bytes, bytes, random.Random], bytes], ...] = (
    cut,
    flip,
    splice,
    repeat,
    header,
    grown,
)


def mutants(number: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (what was done, bytes)."""
    dice, files = random.Random(seed), whole_files(np.random.default_rng(seed))
    for _ in range(number):
        kind, data = dice.choice(files)
        mutation = dice.choice(MUTATIONS)
        yield f"{kind} {mutation.__name__}", mutation(data, dice.choice(files)[1], dice)


# --- what is done with them

WINDOW = Intensity(0, 4095, clips=True)
READERS: tuple[Callable[[Path], object], ...] = (
    read_picture,
    lambda path: read_resized(path, 64),
    lambda path: read_picture(path, intensity=WINDOW),
    read_mask,
    read_values,
    depth,
    lambda path: read_with_traits(path, FULL),
)


def look(path: Path) -> tuple[str, list[str]]:
    """Read a file in every way; return ``read`` or ``refused``, and what went wrong."""
    outcome, faults = "read", []
    for reader in READERS:
        try:
            reader(path)
        except DataError as error:
            outcome = "refused"
            faults += [line for line in error.problems if path.name not in line or "\n" in line]
        except Exception:
            faults.append(traceback.format_exc())
    return outcome, faults


def check_folder(folder: Path) -> tuple[set[str], list[str]]:
    """Run ``data check`` on a data set; return the names of the files that it names, and what went wrong."""
    try:
        report = check(read_layout(folder))
    except DataError as error:
        return set(), [line for line in error.problems if str(folder) not in line]
    except Exception:
        return set(), [traceback.format_exc()]
    told = " ".join(report.problems)
    return {path.name for path in folder.rglob("*.*") if path.name in told}, []


def main() -> int:
    """Run, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    warnings.simplefilter("error")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="mutated-") as folder:
        found = measure(options.number, options.seed, Path(folder))
    print(json.dumps(found, indent=1))
    over = found["slowest_cpu_seconds"] > SECONDS or found["memory_bytes"] > MEMORY
    return 1 if found["faults"] or over or found["unnamed"] else 0


def measure(number: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return the counts, the slowest file, the largest memory, and the faults."""
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    slowest, unnamed, batch = 0.0, 0, []
    for index, (what, data) in enumerate(mutants(number, seed)):
        path = folder / "set" / ("bad" if index % 3 == 0 else "good") / f"{index:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        started = time.process_time()
        outcome, wrong = look(path)
        slowest = max(slowest, time.process_time() - started)
        outcomes[outcome] += 1
        faults += [f"{index} {what}: {text}" for text in wrong]
        batch.append((path, outcome))
        if len(batch) == FOLDER or index == number - 1:
            named, wrong = check_folder(folder / "set")
            faults += wrong
            unnamed += sum(path.name not in named for path, _ in batch if _refused_as_picture(path))
            for path, _ in batch:
                path.unlink()
            batch = []
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "number": number,
        "seed": seed,
        **outcomes,
        "slowest_cpu_seconds": round(slowest, 2),
        "memory_bytes": memory,
        "unnamed": unnamed,
        "faults": faults[:20],
    }


def _refused_as_picture(path: Path) -> bool:
    try:
        read_picture(path)
    except DataError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
