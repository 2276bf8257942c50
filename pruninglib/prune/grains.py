"""At what *grain*? A grain says which weights live and die together.

A grain turns a tensor of element scores into one score per unit, and a decision per unit back
into a mask of the tensor's shape. To add one, make a `Grain` here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Grain:
    """`pool`: scores of shape (d0, ...) -> scores of the units, shape (units,).
    `spread`: kept units, bool of shape (units,), and a shape -> bool mask of that shape."""

    name: str
    pool: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor, torch.Size], Tensor]


def _mean_of_rows(scores: Tensor) -> Tensor:
    # The mean, not the sum: a long row must not look important because it is long. Half
    # precision would round the mean, and with it the ranking.
    return scores.reshape(len(scores), -1).double().mean(dim=1)


def _whole_rows(kept: Tensor, shape: torch.Size) -> Tensor:
    return kept.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()


element = Grain("element", lambda scores: scores.flatten(), lambda kept, shape: kept.view(shape))

# One unit = one slice along dimension 0: all weights into one output neuron (Linear), one
# embedding vector (Embedding). Its score is the mean of its elements' scores.
row = Grain("row", _mean_of_rows, _whole_rows)

# The same slice under its name for convolutions: one filter, which makes one output channel.
# (ConvTranspose stores input channels first, so there it is an input channel.)
channel = Grain("channel", _mean_of_rows, _whole_rows)
