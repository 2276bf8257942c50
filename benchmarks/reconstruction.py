"""Pruning that repairs, against itself at half the depth."""

import functools

import torch
from torch import nn

import pruninglib as pl

from .measuring import extra_memory, side_by_side

WIDTH = 256


class Block(nn.Module):
    """A transformer's feed-forward block."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(self.up(self.norm(x)).relu())


def total(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    return model(batch).sum()


def prepared(depth: int) -> functools.partial:
    torch.manual_seed(0)
    batches = [torch.randn(4, 256, WIDTH) for _ in range(8)]
    model = nn.Sequential(*(Block() for _ in range(depth)))
    return functools.partial(pl.reconstruct, model, total, batches, 0.5)


def depth_of_reconstruction() -> list[dict]:
    """Reconstruction of 32 blocks of two layers."""
    runs = {depth: prepared(depth) for depth in (16, 32)}
    seconds = side_by_side(3, whole=runs[32], half=runs[16])
    memory = {depth: extra_memory(functools.partial(prepared, depth)) for depth in (16, 32)}
    return [
        {
            "work": "reconstruction of 32 blocks: seconds for a block",
            "peer is": "itself at 16",
            "ours": seconds["whole"] / 32,
            "peer": seconds["half"] / 16,
            "to reach": 1.2,
        },
        {
            "work": "its extra memory, bytes",
            "peer is": "itself at 16",
            "ours": memory[32],
            "peer": memory[16],
            "to reach": 1.25,
            "note": "what grows are copies of the weights, to go back to; of inputs each batch keeps "
            "those of one layer",
        },
    ]
