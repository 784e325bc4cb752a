"""Goods of one set, where no folder says which are tested: a share of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from defectbench.data.layouts.base import Source
from defectbench.data.manifest import GOOD, Part

TEST_SHARE, LEAST_SHARE, MOST_SHARE = 0.2, 0.05, 0.9
"""Share of the goods of one set that goes to the test part: those in so much of the hashes' range; and what a
user may say instead."""

FEW = 4
"""Test goods below which more are taken from a small set, up to its share: what four folds need."""


def cut_goods(sources: Sequence[Source], share: float) -> list[Source]:
    """Send the goods whose SHA-256 lies in the lowest ``share`` of its range to the test part.

    A good's own contents decide, so another good, name or order moves none, and equal files stay together.
    So does a group: the hash of its lowest hash decides for all, so that large groups are not tested more
    often than small ones. Goods that share a group with a defect are tested with it, beyond that share. Only
    small sets need more: :func:`_test_hashes`.
    """
    defective = {source.group for source in sources if source.label == "bad"} - {None}
    beside = {source.file for source in sources if source.label == "good" and source.group in defective}
    goods = [source for source in sources if source.label == "good" and source.file not in beside]
    hashes = {source.file: _hash(source.file) for source in goods}
    first: dict[str, bytes] = {}
    for source in goods:
        if source.group is not None:
            own = hashes[source.file]
            first[source.group] = min(first.get(source.group, own), own)
    deciding = {
        source.file: hashes[source.file]
        if source.group is None
        else hashlib.sha256(first[source.group]).digest()
        for source in goods
    }
    tested = _test_hashes(deciding.values(), share, grouped=bool(first))
    parts: dict[Path, Part] = {file: "test" if deciding[file] in tested else "train" for file in deciding}
    parts.update(dict.fromkeys(beside, "test"))
    return [_in_part(source, parts[source.file]) if source.file in parts else source for source in sources]


def _hash(file: Path) -> bytes:
    """Return the SHA-256 of a file; of its path if it cannot be read, which the check reports."""
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return hashlib.sha256(str(file).encode(errors="surrogateescape")).digest()


def _in_part(source: Source, part: Part) -> Source:
    return replace(source, part=part, path=f"{part}/{GOOD}/{source.path.split('/', 2)[2]}")


def _test_hashes(digests: Iterable[bytes], share: float, *, grouped: bool) -> frozenset[bytes]:
    """Return the hashes that go to the test part: those below a ``share`` of the range.

    Where chance sends fewer than four there, the next lowest join them, up to the share of the set (rounded,
    at least one); where it sends more than half, or than the share where that is more, the highest of them
    train. A single good trains. As long as either is so, adding a good may move another.

    Args:
        grouped: some stand for groups, which are few and never cut: four of them are tested where there are
            eight.
    """
    ranked = sorted(set(digests))
    chance = sum(int.from_bytes(digest) < share * 256 ** len(digest) for digest in ranked)
    least = min(FEW, len(ranked) // 2 if grouped else max(1, round(share * len(ranked))))
    most = max(len(ranked) // 2, min(round(share * len(ranked)), len(ranked) - 1))
    return frozenset(ranked[: min(max(chance, least), most)])
