"""Exact counts: the k lowest of many scores, without a sort; whole numbers with a given sum."""

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

SMALL = 100_000  # up to this many scores, all of them are searched
SAMPLE = 50_000  # scores looked at to guess where the threshold lies


def keep_highest(scores: list[Tensor], count: int) -> list[Tensor]:
    """For flat score tensors ranked together: bool masks, False for the `count` lowest.

    Of equal scores the earlier goes first, in the order of the list and then of the elements.
    A score of minus infinity marks what is pruned already.
    """
    # One dtype for all, or a threshold from one tensor would be rounded against another.
    dtype = functools.reduce(torch.promote_types, [s.dtype for s in scores])
    scores = [s.to(dtype) for s in scores]
    if count == 0:
        check_gone(sum(int((s == -math.inf).count_nonzero()) for s in scores), count)
        return [torch.ones_like(s, dtype=torch.bool) for s in scores]
    threshold, reached = _kth_smallest(scores, count)
    if threshold == -math.inf:
        check_gone(reached, count)
    masks = [s > threshold for s in scores]
    spare = reached - count  # so many of the scores equal to the threshold stay, the last ones
    for score, mask in zip(reversed(scores), reversed(masks), strict=True):
        if spare == 0:
            break
        ties = (score == threshold).nonzero().squeeze(1)[-spare:]
        mask[ties] = True
        spare -= len(ties)
    return masks


def check_gone(gone: int, count: int) -> None:
    """Raise ValueError if more is pruned already than is to be."""
    if gone > count:
        raise ValueError(
            f"{gone} units are pruned already but only {count} are to be: masks only shrink, so "
            "raise the sparsity"
        )


def _kth_smallest(scores: list[Tensor], k: int) -> tuple[Tensor, int]:
    """The k-th smallest value (from 1) over all tensors, and how many values are no larger.

    A sample brackets the rank; what lies inside the bracket is collected, and so on.
    """
    below = 0
    while (total := sum(s.numel() for s in scores)) > SMALL:
        sample = torch.cat([s[:: total // SAMPLE] for s in scores]).sort().values
        share, size = k / total, len(sample)
        spread = 4 * math.sqrt(size * share * (1 - share)) + 1  # four standard deviations
        low = sample[max(0, math.floor(share * size - spread))]
        high = sample[min(size - 1, math.ceil(share * size + spread))]
        lower, inside = 0, []
        for score in scores:
            under = score < low
            lower += int(under.count_nonzero())
            inside.append(score[under == (score > high)])  # equal where neither is true
        inside = torch.cat(inside)
        if not lower < k <= lower + len(inside) or len(inside) > total / 2:
            break  # the sample misled, or there are many ties
        below, k, scores = below + lower, k - lower, [inside]
    return _kth(torch.cat(scores), k, below)


def _kth(values: Tensor, k: int, below: int) -> tuple[Tensor, int]:
    # kthvalue knows no half precision on the CPU; float32 holds every half value exactly
    wide = values if values.dtype == torch.float64 else values.float()
    threshold = wide.kthvalue(k).values
    return threshold.to(values.dtype), below + int((wide <= threshold).count_nonzero())


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
