"""Channels and attention heads really removed: a smaller dense model instead of masks.

groups = coupled(model, example)
kept = select(pool(magnitude(model), groups), 0.5, budget=uniform)
small = shrink(model, spread(kept, groups), example)
"""

import warnings

import torch
from torch import nn

from ..base.checks import check_masks
from ..base.coupling import Coupling, Couplings, check_shape, computed, couplings
from ..base.state import copied
from ..base.trial import without, without_wrong, wrong
from .criteria import Scores
from .grains import check_pooling
from .masks import apply, paired
from .select import Masks
from .weights import PRUNABLE_TYPES, prunable, weights_of


def coupled(model: nn.Module, example) -> Couplings:
    """The layers whose units can be removed together, by the name of the first of their weights.

    A unit is a channel in all layers that share it (residual sums, concatenations, depthwise
    convolutions, what flattening joins), one channel in every group of a grouped convolution, or
    an attention head of a module that has their number as `heads`, `num_heads` or a like name. Each
    entry has `makes` and `reads`: by parameter, a tensor of its shape with each weight's unit, from
    0, or -1. `coupled(...).left_out` tells by layer why the units of all others must stay.

    Each entry has been tried: without some of its units, a copy gives on the example what it gives
    with them silenced. example: what the model is called with, a tensor, a tuple for
    `model(*example)` or a mapping for `model(**example)`. The model is left as found.

    Left out: channels of the model's outputs; channels that LayerNorm, GroupNorm or softmax act on,
    where removing is not zeroing; split channels; tied and computed weights; layers that are no
    Linear, convolution, Embedding, BatchNorm, InstanceNorm or PReLU, so `nn.MultiheadAttention` too;
    single units, for a layer must keep one. Raises ValueError if the outputs hold no tensors.
    """
    return without_wrong(couplings(model, list(_weights(model)), example), model, example)


def pool(scores: Scores, groups: dict[str, Coupling], pooling: str = "mean") -> Scores:
    """{group: (units,)}: one score from all scored weights that make a unit, in all its layers.

    pooling: as for a grain, "mean", "sum" or "l2". Groups without scores are left out. `select`
    takes the result like any scores. Raises ValueError, with what was left out, if it is empty.
    """
    check_pooling(pooling)
    pooled = {name: group.pooled(scores, pooling) for name, group in groups.items()}
    if pooled := {name: score for name, score in pooled.items() if score is not None}:
        return pooled
    why = [f"{n}: {why}" for n, why in getattr(groups, "left_out", {}).items()][:5]
    why = f"none of {', '.join(groups)} has scores" if groups else "; ".join(why)
    raise ValueError(f"there are no units to score: {why}")


def spread(kept: Masks, groups: dict[str, Coupling]) -> Masks:
    """Masks from bool (units,) for each group. False is exactly what `shrink` removes.

    That is all that makes a unit and all that reads it: a zeroed filter alone still speaks through
    its bias and BatchNorm shift.
    """
    masks: Masks = {}
    check_masks(kept)
    for group, keep in kept.items():
        check_shape(f"what is kept of {group}", keep, (groups[group].units,))
        for name, mask in groups[group].masks(keep).items():
            masks[name] = mask & masks.get(name, True)
    return masks


def shrink(model: nn.Module, masks: Masks, example) -> nn.Module:
    """A new model with the masks applied, and without the units that they mask altogether.

    A unit goes if every prunable weight that makes it is masked, and takes its biases and norms
    along; what only some of its layers lose stays as zeros. With masks from `spread`, the outputs
    are the masked model's up to rounding. The given model is left as found: an optimizer made for
    it does not train the new one.

    example: as for `coupled`. Units that can't do without, as it shows, stay as zeros, with a
    warning. Raises ValueError if a layer would lose its last unit.
    """
    paired(model, masks)  # raises before anything is run
    weights = _weights(model)
    groups = couplings(model, list(weights), example)
    full = {n: masks.get(n, torch.ones(w.shape, dtype=torch.bool)) for n, w in weights.items()}
    kept = {name: group.pooled(full, "mean") > 0 for name, group in groups.items()}
    for name in kept:
        if not kept[name].any():
            raise ValueError(f"all units of {name} are masked, but a layer must keep at least one")
    kept = {name: keep for name, keep in kept.items() if not keep.all()}
    for name, why in wrong(model, groups, kept, example).items():
        warnings.warn(f"masked units of {name} stay as zeros, not removed: {why}", stacklevel=2)
        del kept[name]
    small = copied(model)
    apply(small, masks)
    without(small, groups, kept)
    return small


def _weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The prunable weights, without those that are computed from other tensors."""
    return weights_of(model, prunable(model, exclude=computed(model, PRUNABLE_TYPES)))
