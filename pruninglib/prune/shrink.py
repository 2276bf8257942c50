"""Channels and attention heads really removed: a smaller dense model instead of masks.

groups = coupled(model, example)
kept = select(pool(magnitude(model), groups), 0.5, budget=uniform)
small = shrink(model, spread(kept, groups), example)
"""

import copy

import torch
from torch import Tensor, nn

from ..base.checks import check_masks
from ..base.coupling import Coupling, check_outputs, couplings
from .criteria import Scores
from .grains import check_pooling
from .masks import apply
from .select import Masks
from .weights import weights_of


def coupled(model: nn.Module, example) -> dict[str, Coupling]:
    """The layers whose units can be removed together, by the name of the first of their weights.

    A unit is a channel in all layers that share it (residual sums, concatenations, depthwise
    convolutions, what flattening joins), one channel in every group of a grouped convolution, or
    an attention head of a module that has their number as `heads` or `num_heads`. Each entry has
    `makes` and `reads`: by parameter, a tensor of its shape with each weight's unit, from 0, or -1.

    example: inputs, a tensor or a tuple for `model(*example)`. The model is left as found.

    Left out: channels of the model's outputs; channels that LayerNorm, GroupNorm or softmax act on,
    where removing is not zeroing; split channels; tied weights; layers that are no Linear,
    convolution, Embedding or BatchNorm, so `nn.MultiheadAttention` too; single units, for a layer
    must keep one.
    """
    names = list(weights_of(model))  # refuses lazy, meta and computed weights
    return {n: c for n, c in couplings(model, names, example).items() if c.units > 1}


def pool(scores: Scores, groups: dict[str, Coupling], pooling: str = "mean") -> Scores:
    """{group: (units,)}: one score from all scored weights that make a unit, in all its layers.

    pooling: as for a grain, "mean", "sum" or "l2". Groups without scores are left out. `select`
    takes the result like any scores.
    """
    check_pooling(pooling)
    pooled = {}
    for group, coupling in groups.items():
        names = [name for name in coupling.makes if name in scores]
        for name in names:
            _check_shape(f"the scores of {name}", scores[name], coupling.makes[name].shape)
        if names:
            values = torch.cat([scores[name].detach().cpu().double().flatten() for name in names])
            units = torch.cat([coupling.makes[name].flatten() for name in names])
            values, units = values[units >= 0], units[units >= 0]
            if pooling == "l2" and (values < 0).any():
                raise ValueError(f"l2 pooling squares the scores, but some of {group} are negative")
            sums = torch.bincount(units, values.square() if pooling == "l2" else values)
            ways = {"mean": sums / torch.bincount(units), "sum": sums, "l2": sums.sqrt()}
            pooled[group] = ways[pooling]
    return pooled


def spread(kept: Masks, groups: dict[str, Coupling]) -> Masks:
    """Masks from bool (units,) for each group. False is exactly what `shrink` removes.

    That is all that makes a unit and all that reads it: a zeroed filter alone still speaks through
    its bias and BatchNorm shift.
    """
    masks: Masks = {}
    check_masks(kept)
    for group, keep in kept.items():
        _check_shape(f"what is kept of {group}", keep, (groups[group].units,))
        keep = torch.cat([keep, keep.new_ones(1)])  # unit -1 finds this last entry: kept
        for name, units in [*groups[group].makes.items(), *groups[group].reads.items()]:
            masks[name] = masks.get(name, True) & keep[units]
    return masks


def shrink(model: nn.Module, masks: Masks, example) -> nn.Module:
    """A new model with the masks applied, and without the units that they mask altogether.

    A unit goes if every prunable weight that makes it is masked, and takes its biases and norms
    along; what only some of its layers lose stays as zeros. With masks from `spread`, the outputs
    are the masked model's up to rounding. The given model is left as found: an optimizer made for
    it does not train the new one.

    example: as for `coupled`. Raises ValueError if a layer would lose its last unit, or if the
    outputs on the example are not those with the units silenced.
    """
    weights, small = weights_of(model), copy.deepcopy(model)
    apply(small, masks)
    groups, silent = couplings(small, list(weights), example), copy.deepcopy(small)
    full = {n: masks.get(n, torch.ones(w.shape, dtype=torch.bool)) for n, w in weights.items()}
    kept = {name: share > 0 for name, share in pool(full, groups).items()}
    apply(silent, masks | spread(kept, groups))
    for name, coupling in groups.items():
        if not kept[name].any():
            raise ValueError(f"all units of {name} are masked, but a layer must keep at least one")
        coupling.remove(kept[name])
    for new, old in zip(small.parameters(), model.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    check_outputs(small, silent, example)
    return small


def _check_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f"{what} have shape {tuple(tensor.shape)}, but must be {tuple(shape)}: other model?"
        )
