"""Scores, a grain, a budget and a sparsity -> masks: the one exact selector.

Exact means: round(sparsity · units) units are pruned, no more and no fewer, whatever the ties.
Among equal scores the earlier position goes first, in the order of the sorted names and then
of the tensor's elements, so that the order of a dict never matters.
"""

import math

from torch import Tensor

from ..base.checks import check_masks, check_scores, check_sparsity
from ..base.exact import keep_highest, keep_highest_inside
from .budgets import Budget, global_budget
from .criteria import Scores
from .grains import Grain, element

Masks = dict[str, Tensor]


def select(
    scores: Scores,
    sparsity: float,
    *,
    grain: Grain = element,
    budget: Budget = global_budget,
    within: Masks | None = None,
) -> Masks:
    """Masks that prune the units with the lowest scores. True means kept.

    scores: name -> tensor, higher = keep. Taken as they are: a score of -5 goes before a 1. Those
        of transposed convolutions, from criteria here or computed from them, know their inputs.
    sparsity: fraction of units to prune, in [0, 1], always of the original units, so that
        0.5 after 0.5 is still 0.5.
    grain: what a unit is. `pruninglib.sparsity` says what fraction of the *weights* it came to.
    budget: how many units each layer gives up. Grains that rank inside groups leave no choice.
    within: earlier masks; what they pruned stays pruned and counts towards `sparsity`.

    Returns a bool tensor per name, of the scores' shape and device.
    Raises ValueError for a sparsity outside [0, 1] or already exceeded by `within`, for scores
    that are empty, no dense tensors or hold NaN or infinity, for masks that are not bool, and for
    shapes that the grain does not fit.
    """
    check_sparsity(sparsity)
    check_scores(scores)
    if not scores:
        raise ValueError("scores is empty: score at least one parameter")
    check_masks(within or {})
    pooled = {name: _units(name, score, grain, within) for name, score in scores.items()}
    if grain.pruned:
        if budget is not global_budget:
            raise ValueError(
                f"the grain {grain.name} prunes every group alike: leave the budget out"
            )
        kept = {
            n: keep_highest_inside(u, grain.pruned(u.shape[1], sparsity)) for n, u in pooled.items()
        }
    else:
        kept = _ranked(scores, pooled, sparsity, budget)
    masks = {name: grain.mask(kept[name], score) for name, score in scores.items()}
    if within is not None:  # a unit that stays may have lost single weights before
        masks = {name: mask & within[name].to(mask.device) for name, mask in masks.items()}
    return masks


def _units(name: str, score: Tensor, grain: Grain, within: Masks | None) -> Tensor:
    """The scores that are ranked; minus infinity for what is pruned already.

    A unit of several weights is, once all its weights are.
    """
    try:
        units = grain.pool(score)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if within is None:
        return units
    if name not in within:
        raise ValueError(f"within has no mask for {name}: it needs one for every scored parameter")
    if within[name].shape != score.shape:
        raise ValueError(
            f"the mask of {name} in within has shape {tuple(within[name].shape)}, but its scores have {tuple(score.shape)}"
        )
    return units.masked_fill(grain.pool(within[name].to(score)) == 0, -math.inf)


def _ranked(scores: Scores, pooled: Scores, sparsity: float, budget: Budget) -> Masks:
    """Kept units per name: in each of the budget's groups the lowest go."""
    shapes = {name: score.shape for name, score in scores.items()}
    pruned = round(sparsity * sum(len(units) for units in pooled.values()))
    kept = {}
    for names, count in budget(pooled, shapes, pruned):
        names = sorted(names)
        kept |= zip(names, keep_highest([pooled[name] for name in names], count), strict=True)
    return kept
