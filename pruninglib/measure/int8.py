"""The rival beside pruning: weights in one byte each, and what a file of them takes."""

import copy

import torch
from torch import nn

from ..base.layout import as_held, outputs_first
from ..prune.weights import weights_of


def int8(model: nn.Module) -> nn.Module:
    """A copy whose prunable weights have 255 levels, as int8 would hold them; nothing is trained.

    Of each output channel the largest |w| is level 127, and w becomes the nearest level (symmetric,
    per channel: Krishnamoorthi, arXiv:1806.08342, 2018). Simulated: the weights keep their type and
    the arithmetic its own, so time is not that of int8.
    """
    model = copy.deepcopy(model)
    weights = weights_of(model)
    values = {name: weight.detach() for name, weight in weights.items()}
    for name, held in as_held(model, weights, values).items():
        rows = outputs_first(held).float()
        step = (rows.flatten(1).abs().amax(dim=1) / 127).clamp(min=1e-12)  # also of a row of zeros
        zero = torch.zeros(len(rows), dtype=torch.int32, device=rows.device)
        rows = torch.fake_quantize_per_channel_affine(rows, step, zero, 0, -127, 127)
        weights[name].data.copy_(outputs_first(rows, held))
    return model


def stored_bytes(model: nn.Module, width: int = 4) -> int:
    """Bytes of a file of the model with prunable weights of `width` bytes, all else of four.

    If that is less, zeros are left out, and a bit says for each weight whether it is there. Of one
    byte, each output channel has a step besides, of four.
    """
    weights = [*weights_of(model).values()]
    total, left = (sum(int(f(w)) for w in weights) for f in (torch.numel, torch.count_nonzero))
    rest = sum(value.numel() for value in model.state_dict().values()) - total
    steps = sum(map(len, weights)) if width == 1 else 0
    return min(width * total, width * left + -(-total // 8)) + 4 * (rest + steps)
