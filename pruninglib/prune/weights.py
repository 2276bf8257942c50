"""Which parameters of a model can be pruned, and how many of them are zero.

Everything else in this layer speaks of weights by the names that this module gives.
"""

import contextlib
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd  # the one common base of Conv1d ... ConvTranspose3d
from torch.nn.parameter import UninitializedParameter

PRUNABLE_TYPES = (nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag)


class Sparsity(NamedTuple):
    """Fraction of zeros in [0, 1]: over the prunable weights, and over all parameters."""

    prunable: float
    all: float


def prunable(model: nn.Module, types: tuple[type, ...] = PRUNABLE_TYPES) -> list[str]:
    """Names of the weights that pruning may zero, in the model's own order.

    These are the `weight` of every module of the given types. Biases and normalisation
    parameters stay out: they are few, and each acts on a whole unit. A weight shared by
    several modules (tied) appears once, under its first name. The joint input projection of
    `nn.MultiheadAttention` is no `weight` of such a module, so it stays out too.

    Raises ValueError if there is none, if one is computed from others (a parametrization), or
    if one has no values yet (a lazy layer that has seen no data, a model on the meta device).
    """
    names, seen = [], set()
    for prefix, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(module, types) or weight is None or id(weight) in seen:
            continue
        name = f"{prefix}.weight" if prefix else "weight"
        if not isinstance(weight, nn.Parameter):
            raise ValueError(
                f"{name} is computed from other tensors (a parametrization, or a mask of "
                "torch.nn.utils.prune): make it a plain parameter first"
            )
        if isinstance(weight, UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: run one batch through the model first")
        if weight.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values: load it first")
        seen.add(id(weight))
        names.append(name)
    if not names:
        wanted = ", ".join(kind.__name__.lstrip("_") for kind in types)
        raise ValueError(
            f"{type(model).__name__} has nothing to prune: none of its modules is a {wanted}"
        )
    return names


def weights_of(model: nn.Module, names: list[str] | None = None) -> dict[str, nn.Parameter]:
    """The parameters called `names` (default: all prunable ones), by name."""
    if names is None:
        names = prunable(model)
    elif not names:
        raise ValueError("names is empty: name at least one parameter, or leave names out")
    # tied weights keep every one of their names here, so that each of them can be asked for
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        if name not in parameters:
            raise ValueError(
                f"{name!r} is no parameter of {type(model).__name__}; it has {', '.join(parameters)}"
            )
    return {name: parameters[name] for name in names}


def sparsity(model: nn.Module) -> Sparsity:
    """How much of the model is zero, counted over its prunable weights and over everything."""

    def zeros(tensors: list[torch.Tensor]) -> float:
        # Python integers: no overflow, whatever the dtype of the weights
        return sum(int((t == 0).sum()) for t in tensors) / sum(t.numel() for t in tensors)

    return Sparsity(zeros(list(weights_of(model).values())), zeros(list(model.parameters())))


@contextlib.contextmanager
def untouched(model: nn.Module):
    """Leave the block with the model and the random state as they were on entering it.

    Restores parameters and buffers (values), train / eval mode of every module,
    `requires_grad`, and the random generators of the CPU and of the current GPU. Gradients
    are left alone: what runs inside uses `torch.autograd.grad`, which never writes `.grad`.
    """
    tensors = [*model.parameters(), *model.buffers()]
    # a module may put another tensor in a buffer's place instead of writing into it
    places = [(m._buffers, n, b) for m in model.modules() for n, b in m._buffers.items()]
    values = [t.detach().clone() for t in tensors]
    needed = [(p, p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=gpus):
        try:
            yield model
        finally:
            for buffers, name, buffer in places:
                buffers[name] = buffer
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value)
            for parameter, flag in needed:
                parameter.requires_grad_(flag)
            for module, mode in modes:
                module.training = mode
