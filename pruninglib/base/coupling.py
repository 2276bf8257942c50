"""Which layers share channels, read from the autograd graph through Torch-Pruning.

DepGraph: Fang et al., CVPR 2023. What can be removed at once is a *unit*: a channel in all layers
that share it, one channel in every group of a grouped convolution, an attention head.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from .running import call, tensors_in
from .state import untouched

HEADS = ("heads", "num_heads")
MAKERS = (nn.Linear, _ConvNd, nn.Embedding)
LAYERS = (*MAKERS, _BatchNorm)
PASSING = (tp.ops._ElementWiseOp, tp.ops._ConcatOp, tp.ops._ReshapeOp, tp.ops._ExpandOp)


class Coupling(NamedTuple):
    """Layers whose units live and die together.

    makes, reads: by parameter, a tensor of its shape with each weight's unit, from 0, or -1 for
        none; `makes` has the weights, biases and norms that make the channels, `reads` the
        weights that read them.
    remove(kept): takes away, in place, all units but those kept, bool (units,).
    """

    makes: dict[str, Tensor]
    reads: dict[str, Tensor]
    remove: Callable[[Tensor], None]

    @property
    def units(self) -> int:
        return 1 + max(int(units.max()) for units in self.makes.values())


def couplings(model: nn.Module, weights: list[str], example) -> dict[str, Coupling]:
    """The couplings whose units can be removed, each by the first of the `weights` in it.

    example: inputs, a tensor or a tuple for `model(*example)`. The model is left as found.
    Raises ValueError for models that Torch-Pruning can't follow.
    """
    ids = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    tied = {i for i in ids if ids.count(i) > 1}
    graph, traced = tp.DependencyGraph(), {}
    try:
        with untouched(model), torch.inference_mode(False), torch.enable_grad():
            model.requires_grad_(True)  # else frozen layers would be missing from the graph
            graph.build_dependency(model, example, forward_fn=outputs_of, verbose=False)
        for node in graph.module2node.values():
            if not isinstance(node.module, LAYERS + PASSING):
                node.dependencies.clear()  # a group with it is left out; to follow it may not end
        found = [*graph.get_all_groups(root_module_types=MAKERS)]
    except (ZeroDivisionError, IndexError) as error:
        raise ValueError(
            f"Torch-Pruning can't follow how {type(model).__name__} reshapes or splits ({error})"
        ) from error
    for group in found:
        if entry := _entry(group, graph, tied):
            traced[next(n for n in weights if n in entry.makes and n not in traced)] = entry
    return {name: traced[name] for name in weights if name in traced}


def _entry(
    group: tp.dependency.Group, graph: tp.DependencyGraph, tied: set[int]
) -> Coupling | None:
    """One of Torch-Pruning's groups as a coupling; None if its units can't be removed."""
    root, count = group[0].dep, len(group[0].idxs)
    layers, operations, period, heads = [], "", count, None
    for item in group.items:
        module, out = item.dep.target.module, graph.is_out_channel_pruning_fn(item.dep.handler)
        if isinstance(module, PASSING) and getattr(module, "offsets", ()) is not None:
            operations += str(module)  # a concatenation without offsets joins no channels
            continue
        if not isinstance(module, LAYERS) or tied & {id(p) for p in module.parameters()}:
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

    makes: dict[str, Tensor] = {}
    reads: dict[str, Tensor] = {}
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
                (makes if out else reads)[name] = of_each

    def remove(keep: Tensor) -> None:
        if not keep.all():
            gone = (~keep[units]).nonzero().flatten().tolist()
            graph.get_pruning_group(root.target.module, root.handler, gone).prune()
            if heads:
                setattr(*heads, int(keep.sum()))

    return Coupling(makes, reads, remove)


def outputs_of(model: nn.Module, example) -> list[Tensor]:
    """The outputs in evaluation mode, each from an operation that belongs to no layer."""
    outputs = tensors_in(call(model.eval(), example))
    return [t * 1 for t in outputs if t.is_floating_point()]


def check_outputs(small: nn.Module, silent: nn.Module, example) -> None:
    """Raise ValueError unless a model without units gives what one with silent units gives."""
    try:
        with untouched(small), torch.no_grad():
            pairs = zip(outputs_of(silent, example), outputs_of(small, example), strict=True)
            for one, other in pairs:
                worst, scale = float((one - other).abs().max()), float(one.abs().max())
                if worst > torch.finfo(one.dtype).eps ** 0.5 * scale:
                    raise RuntimeError(f"outputs up to {scale:.3g} differ by {worst:.3g}")
    except Exception as error:  # whatever the model's code raises
        raise ValueError(
            f"{type(small).__name__} can't do without these units: its code does with channels "
            f"what the graph does not show, such as a fixed size or a mean over them ({error})"
        ) from error
