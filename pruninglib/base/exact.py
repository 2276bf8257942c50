"""Exact counts: the k lowest of many scores, without a sort; whole numbers with a given sum.

On the CPU numpy compares, in small parts: what torch compares it shares among threads, and on a busy
machine one waits for the other, many times longer than the work takes.
"""

import functools
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

SMALL = 100_000  # up to this many scores, all of them are searched
SAMPLE = 50_000  # scores looked at to guess where the threshold lies
PART = 32_768  # scores at a time: they stay in the cache, and torch converts no more on one thread
SHARE = 1 / 8  # collected at most, for their places take as much memory as all the scores
SORTED = 2**20  # up to this many scores, all of them are sorted for their shares
BINS = 2**15  # of numbers that are not negative, by the first bits of a float32: 128 in an octave
FEW = 16  # members up to which all pairs in a group are compared


def keep_highest(scores: list[Tensor], count: int) -> list[Tensor]:
    """For flat score tensors ranked together: bool masks, False for the `count` lowest.

    Of equal scores the earlier goes first, in the order of the list and then of the elements.
    A score of minus infinity marks what is pruned already.
    """
    scores = [s.detach() for s in scores]
    if count == 0:
        check_gone(sum(int((s == -math.inf).count_nonzero()) for s in scores), count)
        return [torch.ones_like(s, dtype=torch.bool) for s in scores]
    masks, dtype = None, _wide(scores)
    if sum(map(len, scores)) > SMALL and all(s.device.type == "cpu" for s in scores):
        low, high = _bracket(scores, dtype, count)
        masks = (
            _ranked_between(scores, dtype, count, low, high)
            if low < high
            else _above(scores, dtype, count, low)
        )
    if masks is None:  # few scores, or the sample misled, or there are many ties
        masks = _above(scores, dtype, count, _kth(scores, dtype, count))
    return masks


def keep_highest_inside(groups: Tensor, count: int) -> Tensor:
    """Kept members, bool of the groups' shape (groups, members): the `count` lowest of each group go.

    Of equal scores the earlier goes first; minus infinity marks what is pruned already.
    """
    if groups.device.type != "cpu":
        check_gone(int((groups == -math.inf).sum(dim=1).max()), count)
        lowest = groups.argsort(dim=1, stable=True)[:, :count]
        return torch.ones_like(groups, dtype=torch.bool).scatter_(1, lowest, False)
    members, dtype = groups.shape[1], _wide([groups])
    kept = torch.empty(groups.shape, dtype=torch.bool)
    keep, gone = _keep_of_few if members <= FEW else _keep_of_many, 0
    for rows, out in zip(*(t.split(max(1, PART // members)) for t in (groups, kept)), strict=True):
        part = rows.detach().to(dtype).numpy()
        if part.min() == -math.inf:
            gone = max(gone, int((part == -math.inf).sum(axis=1).max()))
        out.numpy()[:] = keep(part, count)
    check_gone(gone, count)
    return kept


def count_lowest_shares(layers: list[Tensor], count: int) -> list[int]:
    """How many of each layer's scores go when the `count` with the lowest *shares* do.

    A share is a score's square over the sum of the squares of all scores in its layer that are no
    smaller (of equal ones, those after it). Scores, flat, are not negative, but for minus infinity,
    which marks what is pruned already.
    """
    layers = [layer.detach().cpu() for layer in layers]
    gone, squares_above = [0] * len(layers), [0.0] * len(layers)
    if sum(map(len, layers)) > SORTED:
        layers, gone, squares_above = _near_the_threshold(layers, count)
    shares = []
    for layer, above in zip(layers, squares_above, strict=True):
        ascending = torch.from_numpy(np.sort(layer.double().numpy()))
        pruned = ascending == -math.inf
        squares = ascending.masked_fill(pruned, 0).square()
        share = squares / (squares.flip(0).cumsum(0).flip(0) + above)
        shares.append(share.nan_to_num(0).masked_fill(pruned, -math.inf))  # 0 / 0: only zeros
    kept = keep_highest(shares, count - sum(gone))
    return [n + int((~k).count_nonzero()) for n, k in zip(gone, kept, strict=True)]


def has_negative(scores: Tensor) -> bool:
    """Whether any score is below zero; minus infinity, which marks what is pruned, is not meant."""
    parts = _parts(scores.detach().cpu().flatten(), _wide([scores]))
    return any(((part < 0) & (part > -math.inf)).any() for part, _, _ in parts)


def check_gone(gone: int, count: int) -> None:
    """Raise ValueError if more is pruned already than is to be."""
    if gone > count:
        raise ValueError(
            f"{gone} units are pruned already but only {count} are to be: masks only shrink, so "
            "raise the sparsity"
        )


def absolute(tensor: Tensor) -> Tensor:
    """|t|, on one thread where numpy knows the dtype."""
    tensor = tensor.detach()
    known = tensor.dtype in (torch.float32, torch.float64) and tensor.layout is torch.strided
    if tensor.device.type != "cpu" or not known or tensor.dim() == 0:
        return tensor.abs()
    # numpy would ask for huge pages, and to find them may take longer than all the rest
    result = torch.empty_like(tensor)
    np.abs(tensor.numpy(), out=result.numpy())
    return result


def least_and_most(tensor: Tensor) -> tuple[float, float]:
    """The least and the highest value, both NaN if there is one."""
    tensor = tensor.detach()
    if tensor.device.type != "cpu":
        return tuple(map(float, torch.aminmax(tensor)))
    ends = [(p.min(), p.max()) for p, _, _ in _parts(tensor.flatten(), _wide([tensor]))]
    return float(np.min(ends)), float(np.max(ends))


def _wide(scores: list[Tensor]) -> torch.dtype:
    """One dtype for all, or a threshold from one tensor would be rounded against another.

    numpy is slow with half precision or does not know it; float32 holds all its values exactly.
    """
    return functools.reduce(torch.promote_types, [s.dtype for s in scores], torch.float32)


def _parts(
    score: Tensor, dtype: torch.dtype, size: int | None = None
) -> Iterator[tuple[np.ndarray, int, np.ndarray]]:
    """A few scores of a flat tensor at a time, where they begin, and bools to work with."""
    size = size or PART
    whole, room = score.numpy() if score.dtype == dtype else None, np.empty(size, dtype=bool)
    for start in range(0, len(score), size):
        place = slice(start, min(start + size, len(score)))
        part = score[place].to(dtype).numpy() if whole is None else whole[place]
        yield part, start, room[: len(part)]


def _bracket(scores: list[Tensor], dtype: torch.dtype, count: int) -> tuple[float, float]:
    """Two values between which, as a sample says, the `count`-th lowest score lies."""
    total = sum(map(len, scores))
    sample = np.sort(torch.cat([s[:: total // SAMPLE].to(dtype) for s in scores]).numpy())
    share, size = count / total, len(sample)
    spread = 4 * math.sqrt(size * share * (1 - share)) + 1  # four standard deviations
    low = sample[max(0, math.floor(share * size - spread))]
    high = sample[min(size - 1, math.ceil(share * size + spread))]
    return float(low), float(high)


def _ranked_between(
    scores: list[Tensor], dtype: torch.dtype, count: int, low: float, high: float
) -> list[Tensor] | None:
    """The masks in one pass: what lies above is kept, what lies below goes, and what lies between is
    collected and ranked. None if that is much, or the threshold is not there."""
    total, kept, collected = sum(map(len, scores)), 0, 0
    masks = [torch.empty(len(s), dtype=torch.bool) for s in scores]
    places, values = [[np.arange(0)] for _ in scores], []
    for score, mask, found in zip(scores, masks, places, strict=True):
        for part, start, room in _parts(score, dtype):
            above = np.greater(part, high, out=mask.numpy()[start : start + len(part)])
            kept += np.count_nonzero(above)
            between = np.not_equal(np.greater_equal(part, low, out=room), above, out=room)
            inside = np.flatnonzero(between)
            values.append(part[inside])
            found.append(inside + start)
            collected += len(inside)
            if collected > SHARE * total:
                return None
    rank = count - (total - kept - collected)
    if not 0 < rank <= collected:
        return None
    values = np.concatenate(values)
    threshold = np.partition(values, rank - 1)[rank - 1]
    if threshold == -math.inf:
        check_gone(np.count_nonzero(values == threshold), count)
    stays = values > threshold
    ties = np.flatnonzero(values == threshold)
    spare = collected - rank - np.count_nonzero(stays)  # so many of the ties stay, the last ones
    stays[ties[len(ties) - spare :]] = True
    for mask, found in zip(masks, places, strict=True):
        found = np.concatenate(found)
        mask.numpy()[found], stays = stays[: len(found)], stays[len(found) :]
    return masks


def _above(
    scores: list[Tensor], dtype: torch.dtype, count: int, threshold: float
) -> list[Tensor] | None:
    """The masks from the threshold, None if the `count`-th lowest score is another one."""
    masks, kept = [torch.empty_like(s, dtype=torch.bool) for s in scores], 0
    for score, mask in zip(scores, masks, strict=True):
        if score.device.type != "cpu":
            kept += int(torch.gt(score.to(dtype), threshold, out=mask).count_nonzero())
            continue
        for part, start, _ in _parts(score, dtype):
            above = np.greater(part, threshold, out=mask.numpy()[start : start + len(part)])
            kept += np.count_nonzero(above)
    spare = sum(map(len, scores)) - kept - count  # so many of the ties stay, the last ones
    if threshold == -math.inf:
        check_gone(spare + count, count)
    for score, mask in zip(reversed(scores), reversed(masks), strict=True):
        if spare <= 0:
            break
        ties = (score.to(dtype) == threshold).nonzero().squeeze(1)[-spare:]
        mask[ties] = True
        spare -= len(ties)
    return masks if spare == 0 else None


def _kth(scores: list[Tensor], dtype: torch.dtype, k: int) -> float:
    values = torch.cat([s.to(dtype) for s in scores])
    # on a GPU kthvalue works on one of many processors
    return float(values.sort().values[k - 1] if values.is_cuda else values.kthvalue(k).values)


def _near_the_threshold(
    layers: list[Tensor], count: int
) -> tuple[list[Tensor], list[int], list[float]]:
    """Of each layer the scores whose shares may lie at the threshold, how many surely go, and the sum
    of the squares of those that surely stay. A histogram bounds the shares."""
    edges = np.arange(BINS + 1, dtype=np.int64).astype(np.int32) << 16
    edges = np.nan_to_num(edges.view(np.float32), nan=np.inf).astype(float) ** 2
    dtype, found, lost = _wide(layers), [], []
    for layer in layers:
        number, squares, alive = np.zeros(BINS, dtype=int), np.zeros(BINS), 0
        for part, bins in _binned(layer, dtype):
            number += np.bincount(bins, minlength=BINS)
            squares += np.bincount(bins, np.square(part, dtype=float), minlength=BINS)
            alive += len(part)
        lost.append(len(layer) - alive)
        tail = np.append(squares[::-1].cumsum()[::-1], 0)  # in this bin and all above
        with np.errstate(invalid="ignore", divide="ignore"):
            low = np.nan_to_num(edges[:-1] / tail[:-1], nan=0) * (1 - 1e-6)
            high = np.nan_to_num(edges[1:] / (tail[1:] + edges[1:]), nan=1) * (1 + 1e-6)
        found.append((number, low, high, tail))
    check_gone(sum(lost), count)
    if sum(lost) == sum(map(len, layers)):
        return [layer[:0] for layer in layers], lost, [0.0] * len(layers)
    # No fewer than `count` shares are at most `most`, and fewer are below `least`.
    number, low, high = (np.concatenate([f[i][f[0] > 0] for f in found]) for i in range(3))
    least, most = (
        bound[order[np.searchsorted(number[order].cumsum(), count - sum(lost))]]
        for bound, order in ((b, b.argsort()) for b in (low, high))
    )
    near, gone, above = [], [], []
    for layer, before, (number, low, high, tail) in zip(layers, lost, found, strict=True):
        first, end = np.searchsorted(high, least), np.searchsorted(low, most, side="right")
        parts = [p[(b >= first) & (b < end)] for p, b in _binned(layer, dtype)]
        near.append(torch.from_numpy(np.concatenate(parts)))
        gone.append(before + int(number[:first].sum()))
        above.append(float(tail[max(first, end)]))
    return near, gone, above


def _binned(layer: Tensor, dtype: torch.dtype) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A few scores at a time with the bin of each; what is pruned already is left out."""
    for part, _, _ in _parts(layer, dtype, 8 * PART):
        if part.min() == -math.inf:
            part = part[part > -math.inf]
        with np.errstate(over="ignore"):
            yield part, np.abs(part.astype(np.float32, copy=False)).view(np.int32) >> 16


def _keep_of_few(groups: np.ndarray, count: int) -> np.ndarray:
    """By how many members of its group go before each: all pairs at a distance at a time."""
    columns = np.ascontiguousarray(groups.T)
    before = np.zeros(columns.shape, dtype=np.uint8)
    for distance in range(1, len(columns)):
        first = columns[:-distance] <= columns[distance:]
        before[distance:] += first
        before[:-distance] += ~first
    return (before >= count).T


def _keep_of_many(groups: np.ndarray, count: int) -> np.ndarray:
    if count == 0:
        return np.ones(groups.shape, dtype=bool)
    threshold = np.partition(groups, count - 1, axis=1)[:, count - 1 : count]
    kept = groups > threshold
    spare = groups.shape[1] - count - np.count_nonzero(kept, axis=1)  # so many of the ties stay
    rows = np.flatnonzero(spare)
    ties = (groups[rows] == threshold[rows])[:, ::-1]
    kept[rows] |= (ties & (ties.cumsum(axis=1) <= spare[rows, None]))[:, ::-1]  # the last ones
    return kept


def apportion(
    share: Callable[[float], dict[str, int]], nothing: float, everything: float, total: int
) -> dict[str, int]:
    """share(t) at the t where its numbers add up to `total`.

    From t = `nothing` to t = `everything` no number falls. Where several rise at the same t, the
    first of them by name take what is left.
    """
    low, high = nothing, everything
    for _ in range(100):  # bisection, further than floats can tell apart
        middle = (low + high) / 2
        if sum(share(middle).values()) <= total:
            low = middle
        else:
            high = middle
    counts, following = share(low), share(high)
    for name in sorted(counts):
        counts[name] += min(following[name] - counts[name], total - sum(counts.values()))
    return counts


def nearest(x: float) -> int:
    """The nearest whole number, halves up."""
    return math.floor(x + 0.5)
