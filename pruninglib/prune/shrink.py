"""Channels and attention heads really removed: a smaller dense model instead of masks.

groups = coupled(model, example)
kept = select(pool(magnitude(model), groups), 0.5, budget=uniform)
small = shrink(model, spread(kept, groups), example)
"""

import warnings

import torch
from torch import Tensor, nn

from ..base.coupling import Coupling, Couplings, couplings
from ..base.state import copied
from ..base.trial import some_kept, without, wrong
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
    weights = _weights(model)
    groups = couplings(model, list(weights), example)
    reasons = {n: "it has a single unit" for n, group in groups.items() if group.units == 1}
    tried = {name: group for name, group in groups.items() if name not in reasons}
    reasons |= wrong(model, tried, some_kept(tried), example)
    for name, why in reasons.items():
        groups.left_out |= {made: why for made in groups.pop(name).makes if made in weights}
    return groups


def pool(scores: Scores, groups: dict[str, Coupling], pooling: str = "mean") -> Scores:
    """{group: (units,)}: one score from all scored weights that make a unit, in all its layers.

    pooling: as for a grain, "mean", "sum" or "l2". Groups without scores are left out. `select`
    takes the result like any scores. Raises ValueError if nothing is left to select from.
    """
    check_pooling(pooling)
    if pooled := _pool(scores, groups, pooling):
        return pooled
    reasons = [f"{n}: {why}" for n, why in getattr(groups, "left_out", {}).items()]
    raise ValueError(
        "there are no units to score: "
        + (f"none of {', '.join(groups)} has scores" if groups else "; ".join(reasons[:5]))
    )


def _pool(scores: Scores, groups: dict[str, Coupling], pooling: str) -> Scores:
    pooled = {}
    for group, coupling in groups.items():
        sums, counts = torch.zeros(2, coupling.units, dtype=torch.float64)
        for part in coupling.parts:
            if part.role != "makes" or part.name not in scores:
                continue
            _check_shape(f"the scores of {part.name}", scores[part.name], part.shape)
            slices = (
                scores[part.name].detach().cpu().movedim(part.axis, 0).reshape(len(part.units), -1)
            )
            if pooling == "l2":
                of_each = torch.linalg.vector_norm(slices, dim=1, dtype=torch.float64).square()
            else:
                of_each = slices.sum(1, dtype=torch.float64)
            inside = part.units >= 0
            sums.index_add_(0, part.units[inside], of_each[inside])
            counts += slices.shape[1] * part.units[inside].bincount(minlength=coupling.units)
        if counts.any():
            pooled[group] = {"mean": sums / counts, "sum": sums, "l2": sums.sqrt()}[pooling]
    return pooled


def spread(kept: Masks, groups: dict[str, Coupling]) -> Masks:
    """Masks from bool (units,) for each group. False is exactly what `shrink` removes.

    That is all that makes a unit and all that reads it: a zeroed filter alone still speaks through
    its bias and BatchNorm shift.
    """
    masks: Masks = {}
    for group, keep in kept.items():
        _check_shape(f"what is kept of {group}", keep, (groups[group].units,))
        keep = torch.cat([keep, keep.new_ones(1)])  # unit -1 finds this last entry: kept
        for part in groups[group].parts:
            if part.role != "holds":
                mask = part.full(keep[part.units])
                masks[part.name] = masks[part.name] & mask if part.name in masks else mask.clone()
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
    paired(model, masks)  # checked before anything is run
    weights = _weights(model)
    groups = couplings(model, list(weights), example)
    full = {n: masks.get(n, torch.ones(w.shape, dtype=torch.bool)) for n, w in weights.items()}
    kept = {name: share > 0 for name, share in _pool(full, groups, "mean").items()}
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
    computed = [
        f"{path}.weight".lstrip(".")
        for path, module in model.named_modules()
        if isinstance(module, PRUNABLE_TYPES) and "weight" not in module._parameters
    ]
    return weights_of(model, prunable(model, exclude=computed))


def _check_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f"{what} have shape {tuple(tensor.shape)}, but must be {tuple(shape)}: other model?"
        )
