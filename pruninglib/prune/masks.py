"""Masks as plain data: put on a model, kept through training, saved and loaded.

A mask is a bool tensor of its parameter's shape, True where the weight is kept; masks are a
dict from parameter name to mask. No module is swapped and no buffer added: the model stays
what it was, and its `state_dict` shows the zeros.
"""

import contextlib
import os

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..base.checks import check_masks
from ..base.files import read_tensors, write_tensors
from ..base.state import trainer
from .select import Masks
from .weights import weights_of

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


def apply(model: nn.Module, masks: Masks) -> None:
    """Set the pruned weights to zero, in place.

    Raises ValueError, before anything is changed, if the masks don't fit the model.
    """
    with torch.no_grad():
        for weight, mask in paired(model, masks):
            weight.masked_fill_(~mask.to(weight.device), 0)  # a product would keep NaN and -0.0


@contextlib.contextmanager
def keep(model: nn.Module, masks: Masks, optimizer: torch.optim.Optimizer):
    """Inside the block, pruned weights are zero after every step, whatever the optimizer.

    Gradients are masked as soon as they are there, so that clipping sees only what counts.
    That alone would not do: momentum, Adam's averages and weight decay go on moving a weight
    whose gradient is zero. So the weights are masked again after each step of `optimizer`, and of
    any other that trains them, and after `optimizer.train()` and `.eval()`, with which
    schedule-free optimizers put other weights in their place.

    Raises ValueError, before anything is changed, if the masks don't fit the model, or if the
    optimizer trains none of the masked weights.
    """
    pairs = paired(model, masks)
    optimizer = trainer(optimizer, [weight for weight, _ in pairs])
    pairs = [(weight, _bits(mask, weight)) for weight, mask in pairs]

    def mask_weights(*_):
        for weight, bits in pairs:
            _clear(weight.detach(), bits)

    def mask_gradient(bits):
        return lambda weight: _clear(weight.grad, bits)

    def then_masked(switch):
        def switched(*args, **kwargs):
            switch(*args, **kwargs)
            mask_weights()

        return switched

    apply(model, masks)
    hooks = [register_optimizer_step_post_hook(mask_weights)]
    hooks += [
        weight.register_post_accumulate_grad_hook(mask_gradient(bits))
        for weight, bits in pairs
        if weight.requires_grad
    ]
    switches = [name for name in ("train", "eval") if hasattr(optimizer, name)]
    for name in switches:
        setattr(optimizer, name, then_masked(getattr(optimizer, name)))
    try:
        yield model
    finally:
        for hook in hooks:
            hook.remove()
        for name in switches:
            delattr(optimizer, name)  # the method of its class again
        apply(model, masks)


def _bits(mask: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """All bits of a number of the weight's type where the mask is True, none elsewhere."""
    return -mask.to(weight.device, _INTEGERS[weight.element_size()])


def _clear(tensor: torch.Tensor, bits: torch.Tensor) -> None:
    """Zero what has no bits: ten times as fast as masked_fill_, and unlike a product NaN too."""
    with torch.no_grad():
        if tensor.layout is torch.strided:
            tensor.view(bits.dtype).bitwise_and_(bits)
        else:  # a sparse gradient
            tensor.mul_(bits != 0)


def masks_of(model: nn.Module, names: list[str] | None = None) -> Masks:
    """The masks that a pruned model shows: True where a prunable weight is not zero."""
    return {name: weight.detach() != 0 for name, weight in weights_of(model, names).items()}


def save_masks(masks: Masks, path: str | os.PathLike) -> None:
    """Write masks to a safetensors file. An earlier file is replaced only by a whole one."""
    check_masks(masks)
    write_tensors(masks, path)


def load_masks(path: str | os.PathLike) -> Masks:
    """Read masks that `save_masks` wrote. Raises ValueError if the file holds anything else."""
    masks, _ = read_tensors(path)
    for name, mask in masks.items():
        if mask.dtype != torch.bool:
            raise ValueError(f"{name} in {path} is {mask.dtype}, but a mask is bool: wrong file?")
    return masks


def paired(model: nn.Module, masks: Masks) -> list[tuple[nn.Parameter, torch.Tensor]]:
    """Each masked parameter with its mask. Raises ValueError if the masks don't fit the model."""
    check_masks(masks)
    if not masks:
        raise ValueError("masks is empty: there is nothing to prune")
    weights = weights_of(model, list(masks))
    for name, mask in masks.items():
        if mask.shape != weights[name].shape:
            raise ValueError(
                f"the mask of {name} has shape {tuple(mask.shape)}, but the parameter has {tuple(weights[name].shape)}: these masks belong to another model"
            )
    return [(weights[name], mask) for name, mask in masks.items()]
