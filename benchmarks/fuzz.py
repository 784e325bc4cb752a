"""Mutated inputs of every kind, read as the commands read them.

``python benchmarks/fuzz.py STORE [N] [SEED]``. N inputs in all, in one process, made from the files of a
finished store, a picture beside it, and a few texts. An input passes when it is read or refused by an
error of ours. Prints a line for each kind: inputs, refused, the slowest; then the memory at its peak.
Ends with 1 where anything else was raised, and shows it.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from defectbench.data.layouts.registry import read_layout
from defectbench.data.manifest import Manifest
from defectbench.data.unpacked import read_archive
from defectbench.errors import DefectbenchError, ExitCode
from defectbench.execution.checkpoints import Pointer
from defectbench.execution.fitting import FitState
from defectbench.records.cell import Cell
from defectbench.records.lease import LeaseRecord
from defectbench.records.predictions import HistoryPoint, Predictions, history_from_parquet
from defectbench.records.result import Failure, Result
from defectbench.records.sweep_record import Record
from defectbench.runners.chart.values import read_values
from defectbench.stores.base import check_key
from defectbench.sweeps.config import parse_text
from defectbench.util.documents import read_document
from defectbench.util.image_io import read_picture
from defectbench.util.overlays import HeatMaps

TOKENS = [b"null", b"NaN", b"1e999", b"-1", b"9" * 5000, b"[" * 3000, b"{}", b'""', b"\x00", b"\xff\xfe"]
TOKENS += [b"&a ", b"*a", b"!!int ", b"!!python/name:os.system ", b"? [a]\n", b"../", b"=1+1", b"true", b": "]
TOKENS += [b"\xed\xa0\x80", b"\n"]
SWEEP = b"""name: t
data: {dataset: d1, categories: [a]}
models: [filterbank-logreg, {name: patchcore, coreset: 0.05}]
weights: none
seeds: [0, 1]
protocols: {detection: {scheme: crossfit, folds: 3}}
"""
VALUES = b"""image: {repository: a/b, tag: "1"}
extraEnv: [{name: A, value: b}]
extraArgs: [--device, cuda]
store: {endpoint: http://s3:9000}
"""


def mutated(data: bytes, chosen: random.Random) -> bytes:
    """Return the bytes with one to six changes."""
    found = bytearray(data)
    for _ in range(chosen.randint(1, 6)):
        place, kind = chosen.randrange(len(found) + 1), chosen.randrange(6)
        end = min(len(found), place + chosen.randrange(1, 64))
        if kind == 0 and place < len(found):
            found[place] ^= 1 << chosen.randrange(8)
        elif kind == 1:
            found[place:place] = chosen.choice(TOKENS)
        elif kind == 2:
            found[place:end] = b""
        elif kind == 3:
            found[place:place] = found[place:end]
        elif kind == 4:
            found[place:end] = chosen.choice(TOKENS)
        elif chosen.random() < 0.2:
            del found[place:]
    return bytes(found)


def _in_file(read: Callable[[Path], object], name: str, folder: Path) -> Callable[[bytes], object]:
    def call(data: bytes) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return call


def _unsealed(data: bytes) -> bytes:
    """Return a document as version 0.1.0 wrote it: a seal would have every change refused alike."""
    return json.dumps({"schema": 1, **read_document(data, "it")}).encode()


def _override(data: bytes) -> object:
    return parse_text(SWEEP.decode(), "s.yaml", [data.decode("utf-8", "replace")])


def _pointer() -> bytes:
    state = FitState(done=1, total=2, history=(HistoryPoint(1, "loss", 0.5),))
    return Pointer("k", 1, "1/checkpoints/ab", "0" * 64, 3, {"python": "3"}, "", state).to_json()


def targets(store: Path, folder: Path) -> Mapping[str, tuple[bytes, Callable[[bytes], object]]]:
    """Return kind -> a sound input and what reads it."""
    cell = next(path.parent for path in sorted(store.glob("cells/*/result.json")))
    attempt = next(path.parent for path in sorted(cell.glob("*/predictions.parquet")))
    tar = next(store.glob("datasets/*/*/*.tar"))
    manifest = next(store.glob("datasets/*/*/manifest.json")).read_bytes()
    failure = Failure(ExitCode.DATA, "m", "t", 1).to_json()
    lease = LeaseRecord("a", "b", 1, {"phase": "fit"}).to_json()
    table = folder / "table"
    table.mkdir()
    picture = next(path for path in sorted(store.parent.rglob("*.png")))

    def check_manifest(path: Path) -> object:
        return read_archive(path, f"datasets/d/c/{tar.name}")

    return {
        "result.json": ((cell / "result.json").read_bytes(), Result.from_json),
        "result.json, no seal": (_unsealed((cell / "result.json").read_bytes()), Result.from_json),
        "spec.json, no seal": (_unsealed((cell / "spec.json").read_bytes()), Cell.from_json),
        "record, no seal": (_unsealed(next(store.glob("sweeps/*.json")).read_bytes()), Record.from_json),
        "manifest, no seal": (_unsealed(manifest), Manifest.from_json),
        "lease.json": (lease, LeaseRecord.from_json),
        "lease.json, no seal": (_unsealed(lease), LeaseRecord.from_json),
        "failure.json, no seal": (_unsealed(failure), Failure.from_json),
        "checkpoint.json": (_unsealed(_pointer()), Pointer.from_json),
        "predictions.parquet": ((attempt / "predictions.parquet").read_bytes(), Predictions.from_parquet),
        "history.parquet": ((attempt / "history.parquet").read_bytes(), history_from_parquet),
        "heatmaps.npz": ((attempt / "heatmaps.npz").read_bytes(), HeatMaps.read),
        "sweep": (SWEEP, lambda data: parse_text(data.decode("utf-8", "replace"), "s.yaml")),
        "--set": (
            b"seeds=[0,1]",
            lambda data: parse_text(SWEEP.decode(), "s", [data.decode("utf-8", "replace")]),
        ),
        "values": (VALUES, _in_file(lambda path: read_values([path]), "values.yaml", folder)),
        "name": (b"cells/ab12/result.json", lambda data: check_key(data.decode("utf-8", "surrogateescape"))),
        "picture": (picture.read_bytes(), _in_file(read_picture, "picture.png", folder)),
        "archive": (tar.read_bytes(), _in_file(check_manifest, tar.name, folder)),
        "table.csv": (
            b"path,label,split\na.png,good,train\nb.png,bad,test\n",
            _in_file(lambda path: read_layout(path.parent), "table/labels.csv", folder),
        ),
    }


SLOW = {"archive": 20, "picture": 4, "table.csv": 4}
"""Kind -> of how many rounds it takes part in one."""


def main(store: str, number: int = 100_000, seed: int = 0) -> int:
    """Return 1 where anything but an error of ours was raised, else 0."""
    chosen, bad = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as name:
        kinds = targets(Path(store), Path(name))
        counted = dict.fromkeys(kinds, 0)
        refused, slowest = dict(counted), dict.fromkeys(kinds, 0.0)
        turn = 0
        while sum(counted.values()) < number:
            turn += 1
            for kind, (sound, read) in kinds.items():
                if turn % SLOW.get(kind, 1):
                    continue
                data, began = mutated(sound, chosen), time.perf_counter()
                counted[kind] += 1
                try:
                    read(data)
                except DefectbenchError:
                    refused[kind] += 1
                except Exception:
                    bad += 1
                    if bad <= 10:
                        print(kind, data[:200], traceback.format_exc(limit=-4))
                slowest[kind] = max(slowest[kind], time.perf_counter() - began)
    for kind in kinds:
        print(f"{kind:24} {counted[kind]:7} inputs {refused[kind]:7} refused, slowest {slowest[kind]:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    total = sum(counted.values())
    print(f"seed {seed}: {total} inputs, {bad} raised something else, peak memory {peak:.0f} MiB")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
