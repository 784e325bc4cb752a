"""Near-duplicates: pictures of the same exposure, saved again, resized, cropped or re-lit.

Whole pictures are compared first, all pairs that are asked for; then cuts of one another are looked for, by
their correlation at a coarse scale, registered and compared the same way. What is compared is the finest
detail that survives shrinking to 128 pixels, in 64 blocks; a pair's score is the median of the blocks'
correlations, so that neither a defect painted into a copy nor the outline of a part decides it.

Aligned parts that merely look alike share their structure, but not their noise. Therefore the mean picture of
the category (and its slopes, because parts are never aligned exactly) is taken out of every block, and a pair
must agree far better than its pictures agree with the rest of their category.

Measured with the threshold of 0.75. Copies of photographs of brick, grass, gravel and coins at 192 and 256
px (JPEG 75 and better, half size, squashed, gain 1.2, gamma 0.75, brighter, cut by 5 to 25 % with and
without resizing, cut and JPEG 75) score 0.77 or more; other pictures of the same photographs 0.1 at most as
wholes. Aligned parts that share everything but the noise (16 exposures of a drawn part at 128 to 512 px,
noise of 2 grey levels, shifted by 0 to 6 px) score 0.68 at most once the common structure is taken out, and
a printed one 0.75 at most; none was reported. Copies of them score 0.98 re-lit and 0.84 as JPEG 90 from 256
px on. Not told from another exposure: JPEG 60 of smooth surfaces, JPEG 75 or a resized copy of a smooth
part of 128 px, whose noise is wiped out, and anything turned or mirrored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Frame = NDArray[np.float32]

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in a frame."""

SIDE = 192
"""Side of the frames that are kept of each picture."""

_GRID, _BLOCK, _COARSE = 128, 16, 64
_MARGIN = 16
_WHOLE: Box = (0.0, 0.0, float(SIDE), float(SIDE))
_FEW = 5
"""Pictures below which a category has no mean worth taking out."""

THRESHOLD = 0.75
"""Least median correlation of a duplicate."""

_LEAD = 0.35
"""By how much, in Fisher's z, a duplicate's score must exceed its pictures' usual score."""

_FLAT = 0.25
"""Grey levels of detail below which a block says nothing."""

_SCALES = tuple(float(scale) for scale in np.arange(0.70, 0.99, 0.03))
_CANDIDATES, _PEERS = 3, 8
_PEAK = 0.3


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures by their places in the list, and how well their detail agrees (0 to 1)."""

    first: int
    second: int
    score: float


def frame(picture: NDArray[np.uint8]) -> Frame:
    """Return what is kept of a picture: (192, 192) float32 of its lightness, squashed to a square."""
    grey = Image.fromarray(picture).convert("L").convert("F")
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=None), np.float32)


def near_duplicates(
    frames: Sequence[Frame], groups: Sequence[object], within: Collection[object] = ()
) -> list[Pair]:
    """Return the pairs that show the same exposure, best first.

    Args:
        frames: of one category's pictures.
        groups: of each picture; pictures of one group are not compared with each other.
        within: the groups whose own pictures are compared all the same.
    """
    compared = _compared(groups, within)
    if not compared.any():
        return []
    wholes = np.stack([_shrunk(item, _GRID) for item in frames])
    basis = _structure(wholes)
    blocks = np.stack([_blocks(_detail(whole), basis) for whole in wholes])
    scores = _scores(blocks)
    found = [*_whole_pairs(frames, scores, compared), *_cuts(frames, compared)]
    best = {(pair.first, pair.second): pair for pair in sorted(found, key=lambda pair: pair.score)}
    return sorted(best.values(), key=lambda pair: (-pair.score, pair.first, pair.second))


def _compared(groups: Sequence[object], within: Collection[object]) -> NDArray[np.bool_]:
    """Return which pairs are looked at, (n, n), symmetric, nothing with itself."""
    order = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    codes = np.array([order[group] for group in groups], np.int64)
    inside = np.array([group in within for group in groups], np.bool_)
    wanted = (codes[:, None] != codes[None, :]) | (inside[:, None] & inside[None, :])
    np.fill_diagonal(wanted, False)
    return np.asarray(wanted, np.bool_)


def _shrunk(item: Frame, side: int, box: Box | None = None) -> Frame:
    """Return the frame, or a box of it that may reach 16 pixels beyond, as (side, side)."""
    if box is not None:
        item = np.pad(item, _MARGIN, mode="reflect")
        box = (box[0] + _MARGIN, box[1] + _MARGIN, box[2] + _MARGIN, box[3] + _MARGIN)
    image = Image.fromarray(item)
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box), np.float32)


def _detail(whole: Frame) -> Frame:
    """Return the finest detail, in grey levels."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(whole - gaussian_filter(whole, 1.5), np.float32)


def _cut(image: Frame) -> Frame:
    """Return the image's blocks, (64, 256)."""
    number = image.shape[0] // _BLOCK
    split = image.reshape(number, _BLOCK, number, _BLOCK).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(number * number, _BLOCK * _BLOCK))


def _structure(wholes: NDArray[np.float32]) -> NDArray[np.float32] | None:
    """Return for each block an orthonormal basis, (64, 256, 6), of the mean detail and its slopes."""
    if len(wholes) < _FEW:
        return None
    mean = _detail(np.median(wholes, axis=0).astype(np.float32))
    down, right = np.gradient(mean)
    parts = [mean, down, right, np.gradient(down)[0], np.gradient(down)[1], np.gradient(right)[1]]
    stacked = np.stack([_cut(np.asarray(part, np.float32)) for part in parts], axis=-1)
    return np.asarray(np.linalg.qr(stacked.astype(np.float64))[0], np.float32)


def _blocks(detail: Frame, basis: NDArray[np.float32] | None) -> Frame:
    """Return (64, 256) blocks of mean 0 and length 1; all 0 where there is nothing but flatness."""
    blocks = _cut(detail)
    flat = blocks.std(axis=1) < _FLAT
    if basis is not None:
        blocks = blocks - np.einsum("bpk,bk->bp", basis, np.einsum("bpk,bp->bk", basis, blocks))
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    length = np.linalg.norm(blocks, axis=1, keepdims=True)
    blocks = blocks / np.maximum(length, 1e-6)
    blocks[flat] = 0
    return np.asarray(blocks, np.float32)


def _scores(blocks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the median correlation of every pair, (n, n); 0 where too few blocks say anything."""
    by_block = np.ascontiguousarray(blocks.swapaxes(0, 1))  # (64, n, 256)
    told = np.abs(by_block).sum(axis=2) > 0  # (64, n)
    rows = []
    for index in range(blocks.shape[0]):
        products = np.einsum("bnp,bp->bn", by_block, by_block[:, index])
        rows.append(_median(products, told & told[:, index : index + 1]))
    return np.stack(rows)


def _median(products: NDArray[np.float32], told: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median over the blocks that say something, (n,), 0 where those are under a quarter."""
    ordered = np.sort(np.where(told, products, np.inf), axis=0)
    number = told.sum(axis=0)
    low, high = np.maximum(number - 1, 0) // 2, np.minimum(number // 2, len(products) - 1)
    columns = np.arange(products.shape[1])
    middle = (ordered[low, columns] + ordered[high, columns]) / 2
    return np.asarray(np.where(number >= len(products) / 4, middle, 0.0), np.float64)


def _fisher(score: NDArray[np.float64] | float) -> NDArray[np.float64]:
    return np.asarray(np.arctanh(np.clip(score, -0.999, 0.999)))


def _whole_pairs(
    frames: Sequence[Frame], scores: NDArray[np.float64], compared: NDArray[np.bool_]
) -> Iterator[Pair]:
    """Yield the compared pairs that agree as wholes, and beyond what others share with them."""
    for first, second in _standing_out(scores, compared):
        target = _detail(_shrunk(frames[first], _GRID))
        beyond = _agreement_beyond(target, frames, first, second, _WHOLE)
        if beyond >= THRESHOLD:
            yield Pair(first, second, min(beyond, float(scores[first, second])))


def _standing_out(scores: NDArray[np.float64], compared: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the compared pairs above the threshold that lead what is usual for both.

    Each picture is there with its three best partners at most.
    """
    others = scores.copy()
    np.fill_diagonal(others, np.nan)
    usual = np.nanmedian(others, axis=1) if len(scores) > 3 else np.zeros(len(scores))
    lead = _fisher(scores) - _fisher(np.maximum(usual[:, None], usual[None, :]))
    found = (scores >= THRESHOLD) & (lead >= _LEAD) & compared
    ranked = np.where(found, scores, -np.inf)
    pairs = set()
    for index, row in enumerate(ranked):
        for other in np.argsort(-row, kind="stable")[:_CANDIDATES]:
            if found[index, other]:
                pairs.add((min(index, int(other)), max(index, int(other))))
    return sorted(pairs)


# --- cuts of one another


def _cuts(frames: Sequence[Frame], compared: NDArray[np.bool_]) -> list[Pair]:
    """Return compared pairs where one picture is a cut of the other."""
    found = []
    for inner, candidates in _candidates(frames, compared).items():
        target = _detail(_shrunk(frames[inner], _GRID))
        for outer, start in candidates:
            box = _registered(target, frames[outer], start)
            if _is_cut(box) and _agreement(target, frames[outer], box) >= THRESHOLD:
                score = _agreement_beyond(target, frames, inner, outer, box)
                if score >= THRESHOLD:
                    found.append(Pair(min(inner, outer), max(inner, outer), score))
    return found


def _is_cut(box: Box) -> bool:
    """Whether the box is a part of the frame; that of a shifted part is as large and reaches out."""
    inside = min(box[0], box[1], SIDE - box[2], SIDE - box[3]) > -0.01 * SIDE
    return inside and min(box[2] - box[0], box[3] - box[1]) < 0.975 * SIDE


def _candidates(frames: Sequence[Frame], compared: NDArray[np.bool_]) -> dict[int, list[tuple[int, Box]]]:
    """Return for each picture the few others that it may be a cut of, and where in them."""
    from scipy import fft

    coarse = np.stack([_normal(_detail(_shrunk(item, _COARSE))) for item in frames])
    spectra = fft.rfft2(coarse)
    found: dict[int, list[tuple[int, Box]]] = {}
    for inner, item in enumerate(frames):
        outer = np.flatnonzero(compared[inner])
        best: list[tuple[float, int, Box]] = []
        for scale in _SCALES:
            side = round(scale * _COARSE)
            template = np.zeros((_COARSE, _COARSE), np.float32)
            template[:side, :side] = _normal(_detail(_shrunk(item, side)))
            match = fft.irfft2(spectra[outer] * np.conj(fft.rfft2(template)), s=(_COARSE, _COARSE))
            room = _COARSE - side + 1
            match = match[:, :room, :room].reshape(len(outer), -1) * (_COARSE / side)
            place = match.argmax(axis=1)
            for one in np.argsort(-match.max(axis=1), kind="stable")[:_CANDIDATES]:
                peak, (row, column) = float(match[one, place[one]]), divmod(int(place[one]), room)
                unit = SIDE / _COARSE
                box = (column * unit, row * unit, (column + side) * unit, (row + side) * unit)
                best.append((peak, int(outer[one]), box))
        best = sorted((entry for entry in best if entry[0] >= _PEAK), reverse=True)[:_CANDIDATES]
        found[inner] = [(outer_index, box) for _, outer_index, box in best]
    return found


def _normal(detail: Frame) -> Frame:
    """Return the detail with its contrast evened out, mean 0 and length 1."""
    from scipy.ndimage import gaussian_filter

    even = detail / np.sqrt(gaussian_filter(detail * detail, 3.0) + _FLAT**2)
    even = even - even.mean()
    return np.asarray(even / max(float(np.linalg.norm(even)), 1e-6), np.float32)


def _agreement(target: Frame, outer: Frame, box: Box, basis: NDArray[np.float32] | None = None) -> float:
    one, two = _blocks(target, basis), _blocks(_detail(_shrunk(outer, _GRID, box)), basis)
    told = (np.abs(one).sum(axis=1) > 0) & (np.abs(two).sum(axis=1) > 0)
    return float(_median((one * two).sum(axis=1)[:, None], told[:, None])[0])


def _agreement_beyond(target: Frame, frames: Sequence[Frame], inner: int, outer: int, box: Box) -> float:
    """Return how well the target agrees with its place in ``outer`` beyond what others share with it.

    Eight other pictures are registered alike, and their common structure is taken out.
    """
    peers = [index for index in range(len(frames)) if index not in (inner, outer)]
    peers = peers[:: max(1, len(peers) // _PEERS)][:_PEERS]
    boxes = [(peer, _registered(target, frames[peer], box)) for peer in peers]
    windows = [_shrunk(frames[peer], _GRID, place) for peer, place in boxes]
    basis = _structure(np.stack(windows)) if windows else None
    score = _agreement(target, frames[outer], box, basis)
    if score < THRESHOLD or not boxes:
        return score
    usual = float(np.median([_agreement(target, frames[peer], place, basis) for peer, place in boxes]))
    return score if float(_fisher(score) - _fisher(usual)) >= _LEAD else 0.0


def _registered(target: Frame, outer: Frame, box: Box) -> Box:
    """Return the box with shift and scale fitted to how its blocks are displaced; four rounds."""
    for reach in (3, 2, 1, 1):
        window = _detail(_shrunk(outer, _GRID, box))
        shifts, weights = _displacements(target, window, reach)
        box = _moved(box, shifts, weights)
    return box


def _displacements(target: Frame, window: Frame, reach: int) -> tuple[Frame, Frame]:
    """Return each block's best shift, (64, 2) rows and columns, and its squared correlation, (64,)."""
    number = _GRID // _BLOCK
    split = _blocks(target, None).reshape(number, number, _BLOCK, _BLOCK)
    even = np.asarray(split.swapaxes(1, 2).reshape(_GRID, _GRID), np.float32)
    padded = np.pad(window, reach, mode="reflect")
    steps = range(2 * reach + 1)
    found = np.empty((len(steps), len(steps), number**2), np.float32)
    for row in steps:
        for column in steps:
            moved = padded[row : row + _GRID, column : column + _GRID]
            length = np.sqrt(_sums(moved * moved)) + 1e-3
            found[row, column] = _sums(even * moved) / length
    return _peaks(found, reach)


def _sums(image: Frame) -> Frame:
    """Return the sum over each block, (64,)."""
    number = _GRID // _BLOCK
    return np.asarray(image.reshape(number, _BLOCK, number, _BLOCK).sum(axis=(1, 3)).ravel(), np.float32)


def _peaks(found: NDArray[np.float32], reach: int) -> tuple[Frame, Frame]:
    """Return the place of each block's maximum, refined by a parabola through its neighbours."""
    width, blocks = found.shape[0], found.shape[2]
    row, column = np.divmod(found.reshape(-1, blocks).argmax(axis=0), width)
    index = np.arange(blocks)
    peak = found[row, column, index]
    shifts = np.empty((blocks, 2), np.float32)
    for axis, place in enumerate((row, column)):
        before, after = np.clip(place - 1, 0, width - 1), np.clip(place + 1, 0, width - 1)
        low = found[before, column, index] if axis == 0 else found[row, before, index]
        high = found[after, column, index] if axis == 0 else found[row, after, index]
        bend = 2 * peak - low - high
        inside = (place > 0) & (place < width - 1) & (bend > 1e-6)
        shifts[:, axis] = place - reach + np.where(inside, (high - low) / np.maximum(2 * bend, 1e-6), 0)
    return shifts, np.clip(peak, 0, None) ** 2


def _moved(box: Box, shifts: Frame, weights: Frame) -> Box:
    """Return the box after a weighted straight-line fit of shift against place, on each axis alone."""
    number = _GRID // _BLOCK
    centres = (np.arange(number) + 0.5) * _BLOCK
    rows, columns = np.repeat(centres, number), np.tile(centres, number)
    top, bottom = _line(rows, shifts[:, 0], weights)
    left, right = _line(columns, shifts[:, 1], weights)
    wide, high = (box[2] - box[0]) / _GRID, (box[3] - box[1]) / _GRID
    moved = (box[0] + left * wide, box[1] + top * high, box[2] + right * wide, box[3] + bottom * high)
    low, high = -float(_MARGIN), float(SIDE + _MARGIN)
    left, top = (float(np.clip(side, low, SIDE - 32)) for side in moved[:2])
    right, bottom = float(np.clip(moved[2], left + 32, high)), float(np.clip(moved[3], top + 32, high))
    return left, top, right, bottom


def _line(places: Frame, shifts: Frame, weights: Frame) -> tuple[float, float]:
    """Return the fitted shift at 0 and at the far end; outliers are left out once."""
    keep = weights >= np.median(weights)
    for _ in range(2):
        used = np.where(keep, weights, 0) + 1e-9
        design = np.stack([np.ones_like(places), places], axis=1)
        normal = design.T @ (design * used[:, None]) + np.diag([1e-9, 1e-6])
        start, slope = np.linalg.solve(normal, design.T @ (used * shifts))
        keep = np.abs(shifts - start - slope * places) < 1.0
        if keep.sum() < 6:
            break
    return float(start), float(start + slope * _GRID)
