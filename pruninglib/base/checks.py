"""What can't be used is refused in one sentence: the thing, its value, what would be right."""

import math
import warnings
from collections.abc import Iterable, Mapping
from numbers import Real

import torch
from torch import Tensor, nn

from .exact import least_and_most

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_sparsity(sparsity: float, name: str = "sparsity") -> None:
    """Raise ValueError unless sparsity is a number in [0, 1]."""
    if not isinstance(sparsity, Real):
        raise ValueError(
            f"{name} is {sparsity!r}, a {kind(sparsity)}, but must be a number in [0, 1]"
        )
    if not 0 <= sparsity <= 1:  # NaN fails this too
        raise ValueError(f"{name} is {sparsity}, but must lie in [0, 1]")


def check_scores(scores: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the scores of each parameter can be ranked."""
    if not isinstance(scores, Mapping):
        raise ValueError(f"scores is a {kind(scores)}, but must be a dict of tensors by name")
    for name, score in scores.items():
        _check_values(f"the scores of {name}", score)
        if score.dtype not in FLOATS:
            raise ValueError(
                f"the scores of {name} are {score.dtype}: they must be floating point of 16 bits or more"
            )
        if score.dim() == 0 or score.numel() == 0:
            raise ValueError(f"the scores of {name} have shape {tuple(score.shape)}: none to rank")
        if not all(map(math.isfinite, least_and_most(score))):
            raise ValueError(
                f"the scores of {name} hold NaN or infinity: every score must be finite"
            )


def check_masks(masks: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless every mask is a bool tensor."""
    if not isinstance(masks, Mapping):
        raise ValueError(f"masks is a {kind(masks)}, but must be a dict of tensors by name")
    for name, mask in masks.items():
        _check_values(f"the mask of {name}", mask)
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} is {mask.dtype}, but must be bool (True = keep)")


def _check_values(what: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        raise ValueError(f"{what} must be a torch tensor, not a {kind(tensor)}")
    if tensor.is_meta:
        raise ValueError(f"{what} must have values, but the meta device has none: load the model")
    if tensor.layout is not torch.strided:
        raise ValueError(f"{what} must be dense, not {tensor.layout}: call to_dense()")


def warn_of_others(model: nn.Module, known: set[int]) -> None:
    """Warn if most weights of a model lie in matrices that are not among those known, by their ids."""
    matrices = {n: p for n, p in model.named_parameters() if p.dim() > 1}
    others = {n: p.numel() for n, p in matrices.items() if id(p) not in known}
    if 2 * sum(others.values()) > sum(p.numel() for p in matrices.values()):
        warnings.warn(
            f"most weights of {type(model).__name__} are not prunable by default: "
            f"{some(sorted(others, key=others.get, reverse=True))} belong to other kinds of layers. "
            "Name their type in types, or such weights in names",
            stacklevel=4,
        )


def kind(thing) -> str:
    """The type of a thing, with its module unless that is Python's own or torch."""
    module = type(thing).__module__.split(".")[0]
    return type(thing).__name__ if module == "builtins" else f"{module}.{type(thing).__name__}"


def some(names: Iterable[str], most: int = 3) -> str:
    """The first of the names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
