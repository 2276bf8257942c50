"""The rival beside pruning: weights in one byte each, or less, and what a file of them takes."""

import copy
import math

import torch
from torch import nn

from ..base.layout import as_held, outputs_first
from ..prune.weights import weights_of


def int8(model: nn.Module) -> nn.Module:
    """A copy whose prunable weights have 255 levels, as int8 would hold them; nothing is trained."""
    return quantised(model, 8)


def quantised(model: nn.Module, bits: int) -> nn.Module:
    """A copy whose prunable weights have 2 ** `bits` - 1 levels, as integers of so many bits hold them.

    Of each output channel the largest |w| is the highest level, 127 for 8 bits, and w becomes the
    nearest level (symmetric, per channel: Krishnamoorthi, arXiv:1806.08342, 2018). Nothing is trained.
    Simulated: the weights keep their type and the arithmetic its own, so time is not that of integers.

    bits: 2 to 8. Raises ValueError for others.
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits!r}, but must be a whole number from 2 to 8")
    highest, model = 2 ** (int(bits) - 1) - 1, copy.deepcopy(model)
    weights = weights_of(model)
    values = {name: weight.detach() for name, weight in weights.items()}
    for name, held in as_held(model, weights, values).items():
        rows = outputs_first(held).float()
        step = rows.flatten(1).abs().amax(dim=1) / highest
        step = step.clamp(min=1e-12)  # also of a row of zeros
        zero = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
        rows = torch.fake_quantize_per_channel_affine(rows, step, zero, 0, -highest, highest)
        weights[name].data.copy_(outputs_first(rows, held))
    return model


def stored_bytes(model: nn.Module, width: float = 4) -> int:
    """Bytes of a file of the model with prunable weights of `width` bytes, all else of four.

    If that is less, zeros are left out, and a bit says for each weight whether it is there. Of one
    byte or less (0.5: four bits), each output channel has a step besides, of four.
    """
    weights = [*weights_of(model).values()]
    total, left = (sum(int(f(w)) for w in weights) for f in (torch.numel, torch.count_nonzero))
    rest = sum(value.numel() for value in model.state_dict().values()) - total
    steps = sum(map(len, weights)) if width <= 1 else 0
    held = min(width * total, width * left + -(-total // 8))
    return math.ceil(held) + 4 * (rest + steps)
