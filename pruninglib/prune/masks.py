"""Masks as plain data: put on a model, kept through training, saved and loaded.

A mask is a bool tensor of its parameter's shape, True where the weight is kept; masks are a
dict from parameter name to mask. No module is swapped and no buffer added: the model stays
what it was, and its `state_dict` shows the zeros.
"""

import contextlib
import os

import torch
from torch import nn

from ..base.files import read_tensors, write_tensors
from ..base.state import check_trained
from .select import Masks
from .weights import weights_of


def apply(model: nn.Module, masks: Masks) -> None:
    """Set the pruned weights to zero, in place.

    Raises ValueError, before anything is changed, if the masks don't fit the model.
    """
    with torch.no_grad():
        for weight, mask in _pairs(model, masks):
            weight.masked_fill_(~mask.to(weight.device), 0)  # a product would keep NaN and -0.0


@contextlib.contextmanager
def keep(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer):
    """Inside the block, pruned weights are zero after every step, whatever the optimizer.

    Gradients are masked as soon as they are there, so that clipping sees only what counts.
    That alone would not do: momentum, Adam's averages and weight decay go on moving a weight
    whose gradient is zero. So the weights are masked again after each step of `optimizer`.

    Raises ValueError, before anything is changed, if the masks don't fit the model, or if the
    optimizer trains none of the masked weights.
    """
    pairs = _pairs(model, masks)
    check_trained(optimizer, [weight for weight, _ in pairs])
    # Cast once: a product with a float mask takes a tenth of the time of masked_fill_.
    pairs = [(weight, mask.to(weight)) for weight, mask in pairs]

    def mask_weights(*_):
        with torch.no_grad():
            for weight, mask in pairs:
                weight.mul_(mask)

    def mask_gradient(mask):
        def hook(weight):
            weight.grad.mul_(mask)

        return hook

    apply(model, masks)
    hooks = [optimizer.register_step_post_hook(mask_weights)]
    hooks += [
        weight.register_post_accumulate_grad_hook(mask_gradient(mask))
        for weight, mask in pairs
        if weight.requires_grad
    ]
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        apply(model, masks)  # also turns the -0.0 that a product leaves into 0.0


def masks_of(model: nn.Module, names: list[str] | None = None) -> Masks:
    """The masks that a pruned model shows: True where a prunable weight is not zero."""
    return {name: weight.detach() != 0 for name, weight in weights_of(model, names).items()}


def save_masks(masks: Masks, path: str | os.PathLike) -> None:
    """Write masks to a safetensors file. An earlier file is replaced only by a whole one."""
    _check_bool(masks)
    write_tensors(masks, path)


def load_masks(path: str | os.PathLike) -> Masks:
    """Read masks that `save_masks` wrote. Raises ValueError if the file holds anything else."""
    masks, _ = read_tensors(path)
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"{name} in {path} is {mask.dtype}, but a mask is bool: wrong file?")
    return masks


def _pairs(model: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, torch.Tensor]]:
    if not masks:
        raise ValueError("masks is empty: there is nothing to prune")
    weights = weights_of(model, list(masks))
    _check_bool(masks)
    for name, mask in masks.items():
        if mask.shape != weights[name].shape:
            raise ValueError(
                f"the mask of {name} has shape {tuple(mask.shape)}, but the parameter has {tuple(weights[name].shape)}: these masks belong to another model"
            )
    return [(weights[name], mask) for name, mask in masks.items()]


def _check_bool(masks: Masks) -> None:
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"the mask of {name} is {mask.dtype}, but must be bool (True = keep)")
