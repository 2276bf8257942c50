"""Which parameters of a model can be pruned, and how many of them are zero.

Everything else in this layer speaks of weights by the names that this module gives.
"""

import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd  # the one common base of Conv1d ... ConvTranspose3d
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils.parametrize import is_parametrized

from ..base.checks import some, warn_of_others

PRUNABLE_TYPES = (nn.Linear, nn.Bilinear, _ConvNd, nn.Embedding, nn.EmbeddingBag)


class Sparsity(NamedTuple):
    """Fraction of zeros in [0, 1]: over the prunable weights, and over all parameters."""

    prunable: float
    all: float


def prunable(
    model: nn.Module,
    types: tuple[type, ...] = PRUNABLE_TYPES,
    exclude: str | type | Iterable[str | type] = (),
) -> list[str]:
    """Names of the weights that pruning may zero, in the model's own order.

    These are the `weight` of every module of the given types. Biases and normalisation
    parameters stay out: they are few, and each acts on a whole unit. A weight shared by
    several modules (tied) appears once, under its first name. The joint input projection of
    `nn.MultiheadAttention` is no `weight` of such a module, so it stays out too.

    Weights computed from other tensors (a parametrization, torch's masks) are left out too. A
    warning names them unless excluded, and most matrices if of other kinds (GPT-2's `Conv1D`).

    exclude: types of modules, and names with wildcards, such as "head.*" or "*.embed.weight".

    Raises ValueError if there is none, one has no values yet, or an exclusion matches nothing.
    """
    exclude = {exclude} if isinstance(exclude, str | type) else {*exclude}
    names, computed, excluded, unused = {}, [], set(), exclude.copy()  # by the weight's id
    for prefix, module in model.named_modules():
        if not isinstance(module, types):
            continue
        # a parametrized weight is computed when it is read, which may change what it is made from
        there = module.parametrizations if is_parametrized(module, "weight") else module
        weight = getattr(there, "weight", None)
        if weight is None:
            continue
        name = f"{prefix}.weight" if prefix else "weight"
        if matches := {
            e
            for e in exclude
            if (fnmatchcase(name, e) if isinstance(e, str) else isinstance(module, e))
        }:
            unused -= matches
            excluded |= {id(weight), *map(id, module.parameters())}
            continue
        if not isinstance(weight, nn.Parameter):
            computed.append(name)
        elif isinstance(weight, UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: run one batch through the model first")
        elif weight.is_meta:
            raise ValueError(f"{name} is on the meta device and has no values: load it first")
        else:
            names.setdefault(id(weight), name)
    if unused:
        missed = ", ".join(e if isinstance(e, str) else e.__name__ for e in unused)
        raise ValueError(f"{missed} excludes nothing from {type(model).__name__}: mistyped?")
    names = [name for weight, name in names.items() if weight not in excluded]
    made = f"{some(computed)}, computed from other tensors: make it a plain parameter first"
    if not names:
        wanted = ", ".join(kind.__name__.lstrip("_") for kind in types)
        which = "modules is" if not excluded else "modules, but what is left out, is"
        why = made if computed else f"none of its {which} a {wanted}"
        raise ValueError(f"{type(model).__name__} has nothing to prune: {why}")
    if computed:
        warnings.warn(f"left out is {made}, or exclude it", stacklevel=2)
    elif types is PRUNABLE_TYPES:
        warn_of_others(model, {*(id(w) for w in weights_of(model, names).values()), *excluded})
    return names


def weights_of(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, nn.Parameter]:
    """The parameters called `names` (default: all prunable ones), by name."""
    if isinstance(names, str):
        raise ValueError(f"names is {names!r}, but must be a list of names")
    names = prunable(model) if names is None else list(names)
    if not names:
        raise ValueError("names is empty: name at least one parameter, or leave names out")
    # Tied weights keep every one of their names here, so that each of them can be asked for; and a
    # compiled model has those of the plain one.
    named = model.named_parameters(remove_duplicate=False)
    parameters = {_plain(name): parameter for name, parameter in named}
    for name in names:
        if _plain(name) not in parameters:
            near = ", ".join(get_close_matches(str(name), parameters, cutoff=0))
            raise ValueError(
                f"{name!r} is no parameter of {type(model).__name__}; the nearest are {near}"
            )
    return {name: parameters[_plain(name)] for name in names}


def _plain(name: str) -> str:
    return name.replace("_orig_mod.", "")


def sparsity(model: nn.Module, exclude: str | type | Iterable[str | type] = ()) -> Sparsity:
    """How much of the model is zero: of its prunable weights, but those excluded, and of everything."""

    def zeros(tensors: list[torch.Tensor]) -> float:
        # Python integers: no overflow, whatever the dtype of the weights
        return sum(int((t == 0).sum()) for t in tensors) / sum(t.numel() for t in tensors)

    return Sparsity(
        zeros(list(weights_of(model, prunable(model, exclude=exclude)).values())),
        zeros(list(model.parameters())),
    )
