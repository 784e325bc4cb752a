"""Flip bits of every file of a store and ask ``store verify``.

``python benchmarks/flips.py STORE [N] [SEED]``. Works on a copy. Prints a line for each kind of file:
how many bits were flipped, and how many of the flips were noticed. Ends with 1 where one was not, logs
left out.
"""

from __future__ import annotations

import collections
import random
import shutil
import sys
import tempfile
from pathlib import Path

from defectbench.stores.directory import DirectoryStore
from defectbench.upkeep import findings_about


def main(source: str, number: int = 200, seed: int = 0) -> int:
    """Return 1 where a flip went unseen, else 0."""
    chosen, counted, unseen = random.Random(seed), collections.Counter[str](), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, Path(folder) / "store")
        store = DirectoryStore(Path(folder) / "store")
        for key in [key for key in store.keys("") if not key.startswith("mlflow")]:
            kind = "*.tar" if key.endswith(".tar") else key.rpartition("/")[2]
            kind = "tracking/*.json" if key.startswith("tracking/") else kind
            data = store.get(key).data
            for _ in range(number):
                place, bit = chosen.randrange(len(data)), chosen.randrange(8)
                changed = bytearray(data)
                changed[place] ^= 1 << bit
                (store.path / key).write_bytes(changed)
                counted[kind] += 1
                if not any(True for _ in findings_about(store, key)):
                    unseen[kind] += 1
            (store.path / key).write_bytes(data)
    print(f"seed {seed}, {number} flips a file")
    for kind in sorted(counted):
        print(f"{kind:24} {counted[kind]:7} flips {counted[kind] - unseen[kind]:7} noticed")
    return int(any(of for kind, of in unseen.items() if kind != "log.txt"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
