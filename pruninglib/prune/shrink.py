"""Channels really removed: a smaller dense model instead of masks.

What goes at once is a *unit*: a channel in all layers that share it, one channel in every group of
a grouped convolution, an attention head. Torch-Pruning reads from the autograd graph which layers
share channels (DepGraph: Fang et al., CVPR 2023); scores, budgets and masks stay this library's:

    groups = channels(model, example)
    kept = select(pool(magnitude(model), groups), 0.5, budget=uniform)
    small = shrink(model, spread(kept, groups), example)
"""

import copy
import itertools
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

import safetensors.torch
import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from ..base.state import untouched
from .criteria import Scores
from .masks import apply
from .select import Masks
from .weights import weights_of

Parts = dict[str, dict[str, Tensor]]  # "makes" and "reads" -> parameter -> unit of each weight

HEADS = ("heads", "num_heads")
MAKERS = (nn.Linear, _ConvNd, nn.Embedding)
PASSING = (tp.ops._ElementWiseOp, tp.ops._ConcatOp, tp.ops._ReshapeOp, tp.ops._ExpandOp)


def channels(model: nn.Module, example) -> dict[str, Parts]:
    """Which weights share channels, for each group of layers whose channels can be removed.

    {group: {"makes": {name: units}, "reads": {name: units}}}: the parameters that make the channels
    (weights, biases, norms) and the weights that read them. `units` has the parameter's shape and
    holds each weight's unit, from 0, or -1 for none. A group is called after its first weight.

    example: inputs, a tensor or a tuple for `model(*example)`. The model is left as found.

    Left out: channels of the model's outputs; channels that LayerNorm, GroupNorm or softmax act on,
    where removing is not zeroing; split channels; tied weights; layers that are no Linear,
    convolution, Embedding or BatchNorm, so `nn.MultiheadAttention` too; attention whose module has
    no attribute `heads` or `num_heads`; groups of one unit, for a layer must keep one.
    """
    groups = {name: parts for name, (parts, _) in _trace(model, example).items()}
    return {name: parts for name, parts in groups.items() if _count(parts) > 1}


def pool(scores: Scores, groups: dict[str, Parts]) -> Scores:
    """{group: (units,)}: the mean over all scored weights that make a unit, in all its layers.

    Groups without scores are left out. `select` takes the result like any scores.
    """
    pooled = {}
    for group, parts in groups.items():
        if names := [name for name in parts["makes"] if name in scores]:
            for name in names:
                _check_shape(f"the scores of {name}", scores[name], parts["makes"][name].shape)
            values = torch.cat([scores[name].detach().cpu().double().flatten() for name in names])
            cells = torch.cat([parts["makes"][name].flatten() for name in names]) + 1
            means = torch.bincount(cells, values) / torch.bincount(cells)
            pooled[group] = means[1:]  # cell 0 is for weights of no unit
    return pooled


def spread(kept: Masks, groups: dict[str, Parts]) -> Masks:
    """Masks from bool (units,) for each group. False is exactly what `shrink` removes.

    That is all that makes a unit and all that reads it: a zeroed filter alone still speaks through
    its bias and BatchNorm shift.
    """
    masks: Masks = {}
    for group, keep in kept.items():
        _check_shape(f"what is kept of {group}", keep, (_count(groups[group]),))
        keep = torch.cat([keep, keep.new_ones(1)])  # unit -1 finds this last entry: kept
        for part in groups[group].values():
            for name, units in part.items():
                masks[name] = masks.get(name, True) & keep[units]
    return masks


def shrink(model: nn.Module, masks: Masks, example) -> nn.Module:
    """A new model with the masks applied, and without the units that they mask altogether.

    A unit goes if every prunable weight that makes it is masked, and takes its biases and norms
    along; what only some of its layers lose stays as zeros. With masks from `spread`, the outputs
    are the masked model's up to rounding. The given model is left as found: an optimizer made for
    it does not train the new one.

    example: as for `channels`. Raises ValueError if a layer would lose its last unit, or if the
    outputs on the example are not those with the units silenced.
    """
    weights, small = weights_of(model), copy.deepcopy(model)
    apply(small, masks)
    traced, silent = _trace(small, example), copy.deepcopy(small)
    groups = {name: parts for name, (parts, _) in traced.items()}
    full = {n: masks.get(n, torch.ones(w.shape, dtype=torch.bool)) for n, w in weights.items()}
    kept = {name: share > 0 for name, share in pool(full, groups).items()}
    apply(silent, masks | spread(kept, groups))
    for name, (_, remove) in traced.items():
        if not kept[name].any():
            raise ValueError(f"all units of {name} are masked, but a layer must keep at least one")
        remove(kept[name])
    for new, old in zip(small.parameters(), model.parameters(), strict=True):
        new.requires_grad_(old.requires_grad)
    try:
        with untouched(small), torch.no_grad():
            for one, other in zip(_run(silent, example), _run(small, example), strict=True):
                worst, scale = float((one - other).abs().max()), float(one.abs().max())
                if worst > torch.finfo(one.dtype).eps ** 0.5 * scale:
                    raise RuntimeError(f"outputs up to {scale:.3g} differ by {worst:.3g}")
    except Exception as error:  # whatever the model's code raises
        raise ValueError(
            f"{type(model).__name__} can't do without these units: its code does with channels "
            f"what the graph does not show, such as a fixed size or a mean over them ({error})"
        ) from error
    return small


def _trace(model: nn.Module, example) -> dict[str, tuple]:
    """For each group its parts, and a function that removes all but the kept units in place."""
    weights = weights_of(model)  # refuses lazy, meta and computed weights
    ids = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    tied = {i for i in ids if ids.count(i) > 1}
    graph, traced = tp.DependencyGraph(), {}
    try:
        with untouched(model), torch.enable_grad():
            model.requires_grad_(True)  # else frozen layers would be missing from the graph
            graph.build_dependency(model, example, forward_fn=_run, verbose=False)
        for node in graph.module2node.values():
            if not isinstance(node.module, (*MAKERS, _BatchNorm, *PASSING)):
                node.dependencies.clear()  # a group with it is left out; to follow it may not end
        found = [*graph.get_all_groups(root_module_types=MAKERS)]
    except (ZeroDivisionError, IndexError) as error:
        raise ValueError(
            f"Torch-Pruning can't follow how {type(model).__name__} reshapes or splits ({error})"
        ) from error
    for group in found:
        if entry := _entry(group, graph, tied):
            traced[next(n for n in weights if n in entry[0]["makes"] and n not in traced)] = entry
    return {name: traced[name] for name in weights if name in traced}


def _entry(group: tp.dependency.Group, graph: tp.DependencyGraph, tied: set[int]) -> tuple | None:
    """`_trace`'s entry for one of Torch-Pruning's groups; None if its units can't be removed."""
    root, count = group[0].dep, len(group[0].idxs)
    layers, operations, period, heads = [], "", count, None
    for item in group.items:
        module, out = item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)
        if isinstance(module, PASSING) and getattr(module, "offsets", ()) is not None:
            operations += str(module)  # a concatenation without offsets joins no channels
            continue
        if not isinstance(module, (*MAKERS, _BatchNorm)) or tied & {
            id(p) for p in module.parameters()
        }:
            return None
        size = (graph.get_out_channels if out else graph.get_in_channels)(module)
        if None in item.root_idxs or max(item.idxs) >= size:
            return None
        if isinstance(module, _ConvNd) and module.groups > 1:
            depthwise = module.in_channels == module.groups == module.out_channels
            aligned = item.idxs == item.root_idxs == [*range(size)]
            if module.transposed or not (depthwise or aligned):
                return None
            if not depthwise:  # each of its groups must lose the same places
                period = math.gcd(period, size // module.groups)
        layers.append((item, module, out, size))

    if "Norm" in operations:  # called as a function
        return None
    units = torch.arange(count) % period
    if "oftmax" in operations or "ScaledDotProduct" in operations:
        name = graph._module2name[root.target.module]
        around = [m for n, m in graph.model.named_modules() if name.startswith(n and f"{n}.")]
        counts = [(m, a) for m in around for a in HEADS if type(vars(m).get(a)) is int]
        if not counts or count % getattr(*counts[-1]):
            return None
        heads = counts[-1]  # of the nearest module
        units = torch.arange(count) // (count // getattr(*heads))

    parts: Parts = {"makes": {}, "reads": {}}
    for item, module, out, size in layers:
        places = torch.full((size,), -1)
        places[item.idxs] = units[item.root_idxs]
        # transposed convolutions and Embedding hold in dimension 1 what they make
        turned = getattr(module, "transposed", isinstance(module, nn.Embedding))
        for name, p in module.named_parameters(graph._module2name[module], recurse=False):
            if p.dim() > 1 or out:  # a bias reads nothing
                axis = int(p.dim() > 1 and out == turned)
                shape = [-1 if d == axis else 1 for d in range(p.dim())]
                of_each = places[: p.shape[axis]].view(shape).expand(p.shape)
                parts["makes" if out else "reads"][name] = of_each

    def remove(keep: Tensor) -> None:
        if not keep.all():
            gone = (~keep[units]).nonzero().flatten().tolist()
            graph.get_pruning_group(root.target.module, root.handler, gone).prune()
            if heads:
                setattr(*heads, int(keep.sum()))

    return parts, remove


def _run(model: nn.Module, example) -> list[Tensor]:
    """The outputs in evaluation mode, each from an operation that belongs to no layer."""
    outputs = model.eval()(*example) if isinstance(example, tuple) else model.eval()(example)
    return [t * 1 for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]


def _count(parts: Parts) -> int:
    return 1 + max(int(units.max()) for units in parts["makes"].values())


def _check_shape(what: str, tensor: Tensor, shape: Iterable[int]) -> None:
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f"{what} have shape {tuple(tensor.shape)}, but must be {tuple(shape)}: other model?"
        )


def recalibrate(model: nn.Module, batches: Iterable) -> None:
    """BatchNorm's running statistics anew, in place: their plain average over the batches.

    The old ones do not fit what a norm sees after pruning ("EagleEye": Li et al., ECCV 2020).
    batches: inputs, or tuples that begin with them. Nothing else is changed. Raises ValueError if
    there are no batches, or no BatchNorm that keeps statistics.
    """
    twin = copy.deepcopy(model).eval()  # so that dropout draws nothing
    pairs = zip(model.modules(), twin.modules(), strict=True)
    norms = [(m, t) for m, t in pairs if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise ValueError(f"{type(model).__name__} has no BatchNorm with running statistics")
    for _, norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # all batches count alike
    with torch.no_grad():
        for batch in batches:
            twin(batch if isinstance(batch, Tensor) else batch[0])
    if not any(norm.num_batches_tracked for _, norm in norms):
        raise ValueError("batches is empty: there is nothing to take statistics of")
    for old, new in norms:
        old.load_state_dict(new.state_dict())


def save_shrunk(model: nn.Module, path: str | os.PathLike) -> None:
    """Write a model's tensors, and the sizes that its modules hold, to a safetensors file."""
    part = Path(f"{path}.part")
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    # copies, for the format refuses tensors that share memory
    whole = torch.contiguous_format
    tensors = {n: t.detach().cpu().clone(memory_format=whole) for n, t in tensors.items()}
    try:
        safetensors.torch.save_file(tensors, part, {"sizes": json.dumps(_sizes(model))})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_shrunk(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Give a freshly built, full-size model the tensors and sizes that `save_shrunk` wrote.

    Returns the model, with the file's dtypes. Raises ValueError, before anything is changed, if
    the file is damaged or holds another architecture.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            sizes = json.loads((file.metadata() or {}).get("sizes", "{}"))
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): save it again") from None
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    ours, theirs = [*_sizes(model), *sorted(own)], [*sizes, *sorted(tensors)]
    for our, their in itertools.zip_longest(ours, theirs, fillvalue="nothing"):
        if our != their:
            raise ValueError(f"{path} holds another model: {their} where this one has {our}")
    for name, tensor in tensors.items():
        own[name].data = tensor.to(own[name].device)  # the same parameter, so that ties stay
    for module, attributes in zip(model.modules(), sizes.values(), strict=True):
        for key, size in attributes.items():
            setattr(module, key, tuple(size) if isinstance(size, list) else size)
    return model


def _sizes(model: nn.Module) -> dict[str, dict[str, int | tuple[int, ...]]]:
    """The public integers, and tuples of them, that each module holds."""
    return {
        f"{name} ({type(module).__name__})": {
            key: value
            for key, value in vars(module).items()
            if key[0] != "_" and {*map(type, value if type(value) is tuple else [value])} == {int}
        }
        for name, module in model.named_modules()
    }
