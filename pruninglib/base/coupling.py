"""Which layers share channels, read from the autograd graph through Torch-Pruning.

DepGraph: Fang et al., CVPR 2023. What can be removed at once is a *unit*: a channel in all layers
that share it, one channel in every group of a grouped convolution, an attention head.

The graph guesses what it can't see, such as what a reshape does. `trial.py` tries what it says.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch_pruning.dependency import index_mapping, shape_infer

from .running import as_written, changed, outputs_of, tensors_in
from .state import copied, same_random

MAKERS = (nn.Linear, _ConvNd, nn.Embedding)
LAYERS = (*MAKERS, _BatchNorm, _InstanceNorm, nn.PReLU)
PASSING = (tp.ops._ElementWiseOp, tp.ops._ConcatOp, tp.ops._ReshapeOp, tp.ops._ExpandOp)
# Names that attention modules give to the number of their heads, or else to the size of one.
HEADS = ("heads", "num_heads", "n_head", "n_heads", "num_attention_heads", "num_key_value_heads")
HEAD_SIZES = ("head_dim", "attention_head_size", "dim_head", "d_kv", "key_value_proj_dim")
STATISTICS = {"running_mean", "running_var"}
SIZES = {"num_features", "num_parameters"}  # numbers of channels
STEPS = 1_000_000  # looks at the graph until it is given up: seconds; a ResNet-50 needs thousands


class Part(NamedTuple):
    """A tensor of the model, and which unit each slice of it along `axis` belongs to.

    role: it "makes" units (weights, biases, norms), "reads" them, or, as a buffer or as the number
        of them, "holds" them.
    units: int64 (size along the axis,), from 0, or -1 for none.
    """

    name: str
    role: str
    axis: int
    shape: torch.Size
    units: Tensor

    def full(self, of_each: Tensor) -> Tensor:
        """A value for each slice as a tensor of the whole shape."""
        view = [-1 if axis == self.axis else 1 for axis in range(len(self.shape))]
        return of_each.view(view).expand(self.shape)


class Coupling(NamedTuple):
    """Layers whose units live and die together.

    makes, reads: by parameter, a tensor of its shape with each weight's unit, from 0, or -1 for
        none; `makes` has the weights, biases and norms that make the channels, `reads` the
        weights that read them.
    counts: the module and the attributes that hold the number of units, if they are heads.
    """

    parts: list[Part]
    counts: tuple[str, list[str]]

    @property
    def makes(self) -> dict[str, Tensor]:
        return {p.name: p.full(p.units) for p in self.parts if p.role == "makes"}

    @property
    def reads(self) -> dict[str, Tensor]:
        return {p.name: p.full(p.units) for p in self.parts if p.role == "reads"}

    @property
    def units(self) -> int:
        return 1 + max(int(p.units.max()) for p in self.parts)

    def pooled(self, scores: dict[str, Tensor], pooling: str) -> Tensor | None:
        """float64 (units,): the mean, sum or l2 norm of all scores of what makes a unit.

        None if nothing of it has scores. Needs no memory but for one number a slice.
        """
        sums, counts = torch.zeros(2, self.units, dtype=torch.float64)
        for part in self.parts:
            if part.role == "makes" and part.name in scores:
                check_shape(f"the scores of {part.name}", scores[part.name], part.shape)
                slices = scores[part.name].detach().cpu().movedim(part.axis, 0)
                slices, inside = slices.reshape(len(part.units), -1), part.units >= 0
                if pooling == "l2":
                    if (slices[inside] < 0).any():
                        raise ValueError(
                            f"l2 pooling squares the scores, but some of {part.name} are negative"
                        )
                    of_each = torch.linalg.vector_norm(slices, dim=1, dtype=torch.float64).square()
                else:
                    of_each = slices.sum(1, dtype=torch.float64)
                sums.index_add_(0, part.units[inside], of_each[inside])
                counts += slices.shape[1] * part.units[inside].bincount(minlength=self.units)
        if counts.any():
            return {"mean": sums / counts, "sum": sums, "l2": sums.sqrt()}[pooling]
        return None

    def masks(self, keep: Tensor) -> dict[str, Tensor]:
        """By parameter the mask of what makes and reads the units that are kept: bool (units,)."""
        keep = torch.cat([keep, keep.new_ones(1)])  # unit -1 finds this last entry: kept
        parts = [part for part in self.parts if part.role != "holds"]
        found: dict[str, Tensor] = {}
        for part in parts:
            found[part.name] = found.get(part.name, True) & part.full(keep[part.units])
        return found


class Couplings(dict[str, Coupling]):
    """Couplings by name. `left_out`: by the name of a weight, why its units can't be removed."""

    def __init__(self, found: dict[str, Coupling], left_out: dict[str, str]):
        super().__init__(found)
        self.left_out = left_out


class _IntricateError(Exception):
    """A graph takes too long to follow."""


class _LeftOutError(Exception):
    """Why the units of a group can't be removed."""


class _Followed(NamedTuple):
    """A layer or an operation that a group reaches: its channels, and the root's that they are."""

    node: tp.dependency.Node
    out: bool
    places: Tensor
    roots: Tensor


class _Graph(tp.DependencyGraph):
    """Torch-Pruning's graph, where what can't be followed ends a group and not the whole."""

    def __init__(self, model: nn.Module, example):
        super().__init__()
        self.model, self.verbose, self.steps = model, False, 0
        self.names = self._module2name = {module: name for name, module in model.named_modules()}
        for module in model.modules():  # frozen BatchNorms, which hold buffers alone
            if {*module._buffers} >= STATISTICS and not isinstance(module, LAYERS):
                self.register_customized_layer(type(module), _Frozen())
        self._param_to_name, self.unwrapped_parameters = self._detect_unwrapped_parameters(None)
        self.traced = False
        try:
            self.module2node = self._trace(model, example, self._forward, None)
            self._build_dependency(self.module2node)
        except Exception as error:
            if not self.traced:  # what the model's own code raises
                raise
            raise ValueError(
                f"Torch-Pruning can't follow {type(model).__name__} ({type(error).__name__}: {error})"
            ) from error
        self.lost = {}  # by node, the error that it led to
        nodes = [*self.module2node.values()]
        for update in (shape_infer.init_shape_information, index_mapping.update_index_mapping):
            for node in nodes:
                self.module2node = {node.module: node}
                try:
                    if node.type == tp.ops.OPTYPE.RESHAPE:
                        self._2d_4d = _flattens(node.grad_fn)
                    if node.type != tp.ops.OPTYPE.EXPAND:
                        update(self)
                except (TypeError, ValueError, ArithmeticError, LookupError) as error:
                    self.lost[node] = f"{type(error).__name__}: {error}"
        self.module2node = {node.module: node for node in nodes}
        for node in nodes:
            if node in self.lost or not self.passes(node):
                node.dependencies.clear()  # a group with it is left out

    def _forward(self, model, example):
        """What the graph is read from: the outputs, and those of layers, for not all lead there.

        The model is a copy that is thrown away, and the hooks with it.
        """
        made: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, MAKERS):
                module.register_forward_hook(lambda _, __, output: made.append(output))
        outputs = _differentiable(model, example)
        self.traced = True
        return outputs + [t for t in tensors_in(made) if t.grad_fn]

    def get_out_channels(self, node):
        self.count()
        return super().get_out_channels(node)

    def count(self) -> None:
        self.steps += 1
        if self.steps > STEPS:
            raise _IntricateError

    def passes(self, node) -> bool:
        """Whether what acts on channels one by one, and so keeps them apart."""
        module = node.module
        if isinstance(module, tp.ops._ExpandOp):  # heads that share keys are expanded so
            return len(getattr(node.grad_fn, "_saved_self_sym_sizes", ())) < 5
        return isinstance(module, LAYERS + PASSING) or type(module) in self.CUSTOMIZED_PRUNERS

    def follow(self, root, count: int) -> list[_Followed]:
        """All that the channels made by a layer reach, the layer first."""
        handler = self.get_pruner_of_module(root.module).prune_out_channels
        known: dict[tuple, Tensor] = {}
        ahead = [(root, handler, torch.arange(count), torch.arange(count))]
        while ahead:
            self.count()
            node, handler, places, roots = ahead.pop()
            seen = known.get((node, handler), torch.empty(0, dtype=torch.int64))
            pairs = (places * count + roots).unique()
            new = pairs[~torch.isin(pairs, seen)]
            if not len(new):
                continue
            known[node, handler] = torch.cat([seen, new])
            found = new // count, new % count
            for dependency in node.dependencies:
                if dependency.is_triggered_by(handler):
                    places, roots = found
                    for mapping in filter(None, dependency.index_mapping):
                        places, roots = _mapped(mapping, places, roots)
                    if len(places):
                        ahead.append((dependency.target, dependency.handler, places, roots))
        return [
            _Followed(node, self.is_out_channel_pruning_fn(handler), pairs // count, pairs % count)
            for (node, handler), pairs in known.items()
        ]


class _Frozen(tp.pruner.function.BasePruningFunc):
    """What Torch-Pruning must know of a BatchNorm that holds buffers alone."""

    def prune_out_channels(self, layer, idxs):
        raise NotImplementedError

    prune_in_channels = prune_out_channels

    def get_out_channels(self, layer):
        return len(layer.running_mean)

    get_in_channels = get_out_channels


def _differentiable(model: nn.Module, example) -> list[Tensor]:
    """The outputs that gradients come from, each from an operation that belongs to no layer."""
    outputs = outputs_of(model, example)
    floating = [t * 1 for t in tensors_in(outputs) if t.is_floating_point()]
    if not floating:
        kinds = " and ".join(sorted({type(output).__name__ for output in outputs}))
        raise ValueError(
            f"{type(model).__name__} gives a {kinds} in which no floating-point tensor was found: wrap "
            "it in a module that gives the tensors that matter, alone or in tuples, dicts, dataclasses"
        )
    if not (followed := [t for t in floating if t.grad_fn]):
        raise ValueError(
            f"no gradient leads from the outputs of {type(model).__name__} to its weights: which layers "
            "share channels can't be seen where forward runs under no_grad or detaches"
        )
    return followed


def _flattens(grad_fn) -> bool:
    """Whether a reshape goes from or to a matrix, as flattening feature maps does."""
    sizes = getattr(grad_fn, "_saved_self_sym_sizes", ())
    made = [m.shape for m in getattr(grad_fn, "_input_metadata", ())]
    return 2 in map(len, [sizes, *made])


def _mapped(mapping, places: Tensor, roots: Tensor) -> tuple[Tensor, Tensor]:
    """The channels behind a reshape or concatenation; Torch-Pruning's lists would take minutes."""
    if isinstance(mapping, index_mapping._FlattenIndexMapping):
        stride = mapping._stride
        if mapping.reverse:
            return places // stride, roots
        places = places[:, None] * stride + torch.arange(stride)
        return places.flatten(), roots.repeat_interleave(stride)
    if not isinstance(mapping, index_mapping._ConcatIndexMapping):
        return places, roots  # into what splits channels, where all ends
    low, high = mapping.offset
    if not mapping.reverse:
        return places + low, roots
    inside = (places >= low) & (places < high)
    return places[inside] - low, roots[inside]


def check_shape(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor has a shape."""
    if tensor.shape != torch.Size(shape):
        raise ValueError(
            f"{what} have shape {tuple(tensor.shape)}, but must be {tuple(shape)}: other model?"
        )


def computed(model: nn.Module, types: tuple[type, ...]) -> list[str]:
    """The weights of such layers that are made from other tensors: parametrizations, torch's masks."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, types)]
    return [f"{n}.weight".lstrip(".") for n, m in layers if "weight" not in m._parameters]


def couplings(model: nn.Module, weights: list[str], example) -> Couplings:
    """The couplings whose units can be removed, as far as the graph shows, each by the first of the
    `weights` in it.

    example: as for `running.call`. Looks at a copy: the model is left as found. Raises ValueError
    for models that can't be copied, whose outputs hold no tensors, or that are too intricate.
    """
    ids = [id(p) for _, p in model.named_parameters(remove_duplicate=False)]
    twice = {n for n, p in model.named_parameters(remove_duplicate=False) if ids.count(id(p)) > 1}
    with same_random(), torch.inference_mode(False), torch.enable_grad():
        model = copied(model)
        for p in model.parameters():  # else frozen layers would be missing from the graph
            p.requires_grad_(p.is_floating_point() or p.is_complex())
        # copies of the example, for a model may write into it
        example = changed(lambda t: t.clone(), example)
        try:
            with as_written(model):
                graph = _Graph(model, example)
            found = _couplings(graph, weights, twice)
            for node in graph.module2node.values():  # nodes know each other: free what they hold
                vars(node).clear()
            return found
        except _IntricateError as error:
            raise ValueError(
                f"gave up following {type(model).__name__} after {STEPS:,} steps: its layers are joined "
                "in too many ways"
            ) from error


def _couplings(graph: _Graph, weights: list[str], tied: set[str]) -> Couplings:
    found, left_out, followed = {}, {}, set()
    for node in [*graph.module2node.values()]:
        if not isinstance(node.module, MAKERS) or node.module in followed:
            continue
        count = graph.get_out_channels(node)
        group = graph.follow(node, count)
        followed |= {item.node.module for item in group if item.out}
        made = [i.node.module for i in group if i.out and isinstance(i.node.module, MAKERS)]
        made = [graph.names[module] for module in made]
        made = [f"{name}.weight" if name else "weight" for name in made]
        try:
            entry = _entry(group, count, graph, tied)
            found[next(n for n in weights if n in made and n not in found)] = entry
        except _LeftOutError as reason:
            left_out |= dict.fromkeys(made, str(reason))
        except StopIteration:  # none of them may be pruned
            continue
    kinds = dict(graph.model.named_modules())
    for name in weights:
        module = kinds[name.rpartition(".")[0]]
        if not isinstance(module, MAKERS):
            left_out[name] = f"{type(module).__name__} is no layer that can lose channels"
        elif module not in followed:
            left_out[name] = "its module is not called on the example, or nothing follows from it"
    return Couplings(
        {name: found[name] for name in weights if name in found},
        left_out,
    )


def _entry(group: list[_Followed], count: int, graph: _Graph, tied: set[str]) -> Coupling:
    """One group as a coupling. Raises _LeftOutError if its units can't be removed."""
    operations, layers, joined, counts = "", [], [], ("", [])
    for node, out, places, roots in group:
        module = node.module
        if isinstance(module, PASSING) and graph.passes(node) and node not in graph.lost:
            if getattr(module, "offsets", ()) is None:
                raise _LeftOutError("its channels are joined with others that can't be told apart")
            operations += str(module)
            continue
        _check_followed(node, graph)
        name = graph.names[module]
        own = {key: p for key, p in module.named_parameters(name, recurse=False)}
        if shared := [key for key in own if key in tied]:
            raise _LeftOutError(f"{shared[0]} is tied: it has several names")
        if computed := {"weight", "bias"} & vars(module).keys() or getattr(
            module, "parametrizations", ()
        ):
            raise _LeftOutError(f"{next(iter(computed))} of {name} is computed from other tensors")
        size = (graph.get_out_channels if out else graph.get_in_channels)(node)
        if size is None:  # a PReLU with one slope for all channels
            continue
        if int(places.max()) >= size:
            raise _LeftOutError(f"{name} has {size} channels, and not what reaches it")
        if isinstance(module, _ConvNd) and module.groups > 1:
            depthwise = module.in_channels == module.groups == module.out_channels
            aligned = places.equal(roots) and len(places) == size
            if module.transposed or not (depthwise or aligned):
                raise _LeftOutError(f"{name} takes channels in groups that are no groups here")
            if not depthwise:  # each of its groups must lose the same places
                joined.append((places % (size // module.groups), roots))
        joined.append((places, roots))
        layers.append((name, module, out, size, places, roots))

    if "Norm" in operations.replace("BatchNorm", ""):  # called as a function
        raise _LeftOutError("a norm acts on its channels, where removing is not zeroing")
    if "oftmax" in operations or "ScaledDotProduct" in operations:
        counts, size = _heads(graph, layers[0][0], count)
        joined.append((torch.arange(count) // size, torch.arange(count)))
    units = _classes(count, joined)
    parts = []
    for name, module, out, size, places, roots in layers:
        of_each = torch.full((size,), -1)
        of_each[places] = units[roots]
        parts += _parts(name, module, out, of_each)
    return Coupling(parts, counts)


def _check_followed(node, graph: _Graph) -> None:
    module, name = node.module, graph.names.get(node.module, "")
    reasons = {
        nn.Parameter: "a parameter that belongs to no such layer meets its channels",
        tp.ops._OutputOp: "its channels are outputs of the model",
        (tp.ops._SplitOp, tp.ops._UnbindOp, tp.ops._SliceOp): "its channels are split",
        tp.ops._ExpandOp: "its channels are repeated",
        nn.Module: f"{name} ({type(module).__name__}) acts on its channels",
    }
    if node in graph.lost:
        raise _LeftOutError(
            f"how its channels are reshaped or joined can't be followed ({graph.lost[node]})"
        )
    if not graph.passes(node):
        raise _LeftOutError(next(why for kind, why in reasons.items() if isinstance(module, kind)))


def _heads(graph: _Graph, name: str, count: int) -> tuple[tuple[str, list[str]], int]:
    """Where the nearest module around a layer holds the number of its heads; the size of a head."""
    around = [n for n, _ in graph.model.named_modules() if name.startswith(n and f"{n}.")]
    for outer in reversed(around):
        held = vars(graph.model.get_submodule(outer))
        numbers = {key: held[key] for key in HEADS if type(held.get(key)) is int}
        sizes = [held[key] for key in HEAD_SIZES if type(held.get(key)) is int]
        if not numbers and sizes and count % sizes[0] == 0:
            return ("", []), sizes[0]
        if numbers:
            if len({*numbers.values()}) > 1:
                raise _LeftOutError("attention heads share keys")
            number = next(iter(numbers.values()))
            if number and count % number == 0:
                return (outer, [*numbers]), count // number
            break
    raise _LeftOutError(
        f"how many heads attend is not told: no module around has {' or '.join(HEADS[:2])}"
    )


def _classes(count: int, joined: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The unit of each of the root's channels: those that meet in one place anywhere are one."""
    units = torch.arange(count)
    while True:
        before = units
        for places, roots in joined:
            least = torch.full((int(places.max()) + 1,), count)
            least = least.scatter_reduce(0, places, units[roots], "amin")
            units = units.scatter_reduce(0, roots, least[places], "amin")
        if units.equal(before):
            return units.unique(return_inverse=True)[1]


def _parts(name: str, module: nn.Module, out: bool, units: Tensor) -> Iterator[Part]:
    """The tensors of a layer that its channels, those made or else those read, lie in."""
    # transposed convolutions and Embedding hold in dimension 1 what they make
    turned = getattr(module, "transposed", isinstance(module, nn.Embedding))
    for key, p in module.named_parameters(name, recurse=False):
        if p.dim() > 1 or out:  # a bias reads nothing
            axis = int(p.dim() > 1 and out == turned)
            yield Part(key, "makes" if out else "reads", axis, p.shape, units[: p.shape[axis]])
    for key, b in module.named_buffers(name, recurse=False):
        if b.shape == units.shape:
            yield Part(key, "holds", 0, b.shape, units)
    for key in SIZES & vars(module).keys():
        yield Part(f"{name}.{key}", "holds", 0, units.shape, units)
