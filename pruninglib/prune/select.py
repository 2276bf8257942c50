"""Scores, a grain, a budget and a sparsity -> masks: the one exact selector.

Exact means: round(sparsity · units) units are pruned, no more and no fewer, whatever the ties.
Among equal scores the earlier position goes first, in the order of the sorted names and then
of the tensor's elements, so that the order of a dict never matters.
"""

import functools
import math

import torch
from torch import Tensor

from .budgets import Budget, global_budget
from .criteria import Scores
from .grains import Grain, element

Masks = dict[str, Tensor]

SMALL = 100_000  # below this many scores a sort is as fast as anything cleverer
SAMPLE = 50_000  # scores looked at to guess where the threshold lies


def select(
    scores: Scores,
    sparsity: float,
    *,
    grain: Grain = element,
    budget: Budget = global_budget,
    within: Masks | None = None,
) -> Masks:
    """Masks that prune the units with the lowest scores. True means kept.

    scores: name -> tensor, higher = keep. Taken as they are: a score of -5 goes before a 1.
    sparsity: fraction of units to prune, in [0, 1], always of the original units, so that
        0.5 after 0.5 is still 0.5.
    grain: what a unit is. With units of several weights, the fraction of *weights* pruned can
        differ from `sparsity`; `pruninglib.sparsity` says what it came to.
    budget: how many units each layer gives up.
    within: earlier masks; what they pruned stays pruned and counts towards `sparsity`.

    Returns a bool tensor per name, of the scores' shape and device.
    Raises ValueError for a sparsity outside [0, 1], for scores that are empty or hold NaN or
    infinity, and for a sparsity that `within` already exceeds.
    """
    check_sparsity(sparsity)
    if not scores:
        raise ValueError("scores is empty: score at least one parameter")
    for name, score in scores.items():
        if not score.is_floating_point():
            raise ValueError(f"the scores of {name} are {score.dtype}: they must be floating point")
        if score.numel() == 0:
            raise ValueError(f"the scores of {name} have shape {tuple(score.shape)}: none to rank")
        if not torch.isfinite(score).all():
            raise ValueError(
                f"the scores of {name} hold NaN or infinity: every score must be finite"
            )
    pooled = {name: grain.pool(score) for name, score in scores.items()}
    gone = {name: _units_pruned(name, score, grain, within) for name, score in scores.items()}
    units = {name: len(pooled[name]) for name in scores}
    shapes = {name: score.shape for name, score in scores.items()}
    pruned = round(sparsity * sum(units.values()))

    masks = {}
    for group, count in budget(shapes, units, pruned):
        group = sorted(group)
        kept = keep_highest([pooled[n] for n in group], count, [gone[n] for n in group])
        for name, keep in zip(group, kept, strict=True):
            masks[name] = grain.spread(keep, shapes[name])
            if within is not None:  # a unit that stays may have lost single weights before
                masks[name] &= within[name]
    return {name: masks[name] for name in scores}


def check_sparsity(sparsity: float) -> None:
    """Raise ValueError unless sparsity is a number in [0, 1]."""
    if not 0 <= sparsity <= 1:  # NaN fails this too
        raise ValueError(f"sparsity is {sparsity}, but must lie in [0, 1]")


def _units_pruned(name: str, score: Tensor, grain: Grain, within: Masks | None) -> Tensor | None:
    """Bool per unit: pruned before. A unit of several weights is, once all its weights are."""
    if within is None:
        return None
    if name not in within:
        raise ValueError(f"within has no mask for {name}: it needs one for every scored parameter")
    if within[name].shape != score.shape:
        raise ValueError(
            f"the mask of {name} in within has shape {tuple(within[name].shape)}, "
            f"but its scores have {tuple(score.shape)}"
        )
    return grain.pool(within[name].to(score.dtype)) == 0


def keep_highest(
    scores: list[Tensor], count: int, pruned: list[Tensor | None] | None = None
) -> list[Tensor]:
    """For flat score tensors ranked together: bool masks, False for the `count` lowest.

    `pruned` marks, per tensor, what is gone already: it goes first, whatever its score.
    """
    # One dtype for all, or a threshold from one tensor would be rounded against another.
    dtype = functools.reduce(torch.promote_types, [s.dtype for s in scores])
    scores = [s.to(dtype) for s in scores]
    if pruned and pruned[0] is not None:
        before = sum(int(p.sum()) for p in pruned)
        if before > count:
            raise ValueError(
                f"{before} units are pruned already but only {count} are to be: "
                "masks only shrink, so raise the sparsity"
            )
        scores = [s.masked_fill(p, -math.inf) for s, p in zip(scores, pruned, strict=True)]
    if count == 0:
        return [torch.ones_like(s, dtype=torch.bool) for s in scores]

    threshold = _kth_smallest(scores, count)
    masks = [s >= threshold for s in scores]
    # Of the scores equal to the threshold, only as many go as are still missing.
    missing = count - sum(m.numel() - int(m.sum()) for m in masks)
    for score, mask in zip(scores, masks, strict=True):
        if missing == 0:
            break
        ties = (score == threshold).nonzero().squeeze(1)[:missing]
        mask[ties] = False
        missing -= len(ties)
    return masks


def _kth_smallest(scores: list[Tensor], k: int) -> Tensor:
    """The k-th smallest value (from 1) over all tensors, without sorting them.

    A sample brackets the rank; what lies inside the bracket is collected and searched.
    """
    total = sum(s.numel() for s in scores)
    if total > SMALL:
        stride = total // SAMPLE
        sample = torch.cat([s[::stride] for s in scores]).sort().values
        share, size = k / total, len(sample)
        spread = 4 * math.sqrt(size * share * (1 - share)) + 1  # four standard deviations
        low = sample[max(0, math.floor(share * size - spread))]
        high = sample[min(size - 1, math.ceil(share * size + spread))]
        below = sum(int((s < low).sum()) for s in scores)
        inside = torch.cat([s[(s >= low) & (s <= high)] for s in scores])
        if below < k <= below + len(inside):
            return _kth(inside, k - below)
    return _kth(torch.cat(scores), k)  # few scores, or a bracket that missed


def _kth(values: Tensor, k: int) -> Tensor:
    # kthvalue knows no half precision on the CPU; float32 holds every half value exactly
    wide = values if values.dtype == torch.float64 else values.float()
    return wide.kthvalue(k).values.to(values.dtype)
