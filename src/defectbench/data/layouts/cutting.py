"""Goods of one set, where no folder says which are tested: a share of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from defectbench.data.layouts.base import Source
from defectbench.data.manifest import Part

TEST_SHARE, LEAST_SHARE, MOST_SHARE = 0.2, 0.05, 0.9
"""Share of the goods of one set that goes to the test part: those in so much of the hashes' range; and what a
user may say instead."""

FEW = 4
"""Test goods below which more are taken from a small set, up to its share: what four folds need."""


MIXED_SHARE = 0.5
"""Share of the groups of both labels that is tested, where most goods lie in such groups."""


def cut_goods(sources: Sequence[Source], share: float | None) -> list[Source]:
    """Send the goods whose SHA-256 lies in the lowest ``share`` of its range to the test part.

    A good's own contents decide, so another good, name or order moves none, and equal files stay together.
    So does a group: the hash of its lowest hash decides for all, so that large groups are not tested more
    often than small ones. Goods that share a group with a defect are tested with it, beyond that share, as
    long as half of the goods or more are in no such group. Where most are (groups that are lots or modules),
    those groups are cut too: of one that trains, the defects are learnt alone and never tested. Only small
    sets need more: :func:`_test_hashes`.

    Args:
        share: None for a fifth; for a half where groups of both labels are cut.
    """
    mixed = _of_both_labels(sources)
    goods = [source for source in sources if source.label == "good"]
    beside = {source.file for source in goods if source.group in mixed}
    parts: dict[Path, Part] = dict.fromkeys((s.file for s in sources if s.label == "bad"), "test")
    if 2 * len(beside) > len(goods):
        whole = [source for source in sources if source.label != "uncertain" and source.group in mixed]
        parts.update(_parts(whole, MIXED_SHARE if share is None else share, mixed=True))
    else:
        parts.update(dict.fromkeys(beside, "test"))
    alone = [source for source in goods if source.file not in beside]
    parts.update(_parts(alone, TEST_SHARE if share is None else share))
    return [_in_part(source, parts[source.file]) if source.file in parts else source for source in sources]


def _of_both_labels(sources: Iterable[Source]) -> set[str]:
    """Return the groups that hold goods and defects."""
    labels: dict[str, set[str]] = {}
    for source in sources:
        if source.group is not None:
            labels.setdefault(source.group, set()).add(source.label)
    return {group for group, found in labels.items() if {"good", "bad"} <= found}


def _parts(sources: Iterable[Source], share: float, *, mixed: bool = False) -> dict[Path, Part]:
    """Return picture file -> part, by the lowest hash of its group, or its own.

    Args:
        mixed: all are in groups of both labels.
    """
    hashes = {source.file: (source.group, _hash(source.file)) for source in sources}
    first: dict[str, bytes] = {}
    for group, own in hashes.values():
        if group is not None:
            first[group] = min(first.get(group, own), own)
    deciding = {
        file: own if group is None else hashlib.sha256(first[group]).digest()
        for file, (group, own) in hashes.items()
    }
    tested = _test_hashes(deciding.values(), share, grouped=bool(first), mixed=mixed)
    return {file: "test" if digest in tested else "train" for file, digest in deciding.items()}


def _hash(file: Path) -> bytes:
    """Return the SHA-256 of a file; of its path if it cannot be read, which the check reports."""
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return hashlib.sha256(str(file).encode(errors="surrogateescape")).digest()


def _in_part(source: Source, part: Part) -> Source:
    return replace(source, part=part, path=f"{part}/{source.path.split('/', 1)[1]}")


def _test_hashes(
    digests: Iterable[bytes], share: float, *, grouped: bool, mixed: bool = False
) -> frozenset[bytes]:
    """Return the hashes that go to the test part: those below a ``share`` of the range.

    Where chance sends fewer than four there, the next lowest join them, up to the share of the set (rounded,
    at least one); where it sends more than half, or than the share where that is more, the highest of them
    train. A single good trains. As long as either is so, adding a good may move another.

    Args:
        grouped: some stand for groups, which are few and never cut: four of them are tested where there are
            eight.
        mixed: all stand for groups of both labels: four are tested where there are six, three where five.
    """
    ranked = sorted(set(digests))
    chance = sum(int.from_bytes(digest) < share * 256 ** len(digest) for digest in ranked)
    # Two groups of both labels are to train: one learns, one calibrates.
    half = max(len(ranked) // 2, len(ranked) - 2) if mixed else len(ranked) // 2
    least = min(FEW, half if grouped else max(1, round(share * len(ranked))))
    most = max(len(ranked) // 2, min(round(share * len(ranked)), len(ranked) - 1), least if mixed else 0)
    return frozenset(ranked[: min(max(chance, least), most)])
