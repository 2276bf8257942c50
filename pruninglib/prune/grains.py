"""At what *grain*? A grain says which weights live and die together.

A grain lays a tensor of scores out as units and a decision per unit back over the tensor. To
add one, make a `Grain` here.
"""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..base.layout import outputs_first


def _norm(units: Tensor) -> Tensor:
    if (units < 0).any():
        raise ValueError("l2 pooling squares the scores, but some are negative: take mean or sum")
    return units.square().sum(dim=1).sqrt()


# One score for a unit. The mean does not prefer long units, which the sum does; L2 is the norm
# of the unit, for scores that can't be negative.
POOLINGS = {
    "mean": lambda units: units.mean(dim=1),
    "sum": lambda units: units.sum(dim=1),
    "l2": _norm,
}


@dataclasses.dataclass(frozen=True)
class Grain:
    """`split`: scores of shape (d0, ...) -> (units, weights of a unit); (units,) for elements.
    `merge`: a bool per unit, and the shape -> a mask of that shape.
    `pooling`: how the scores of a unit's weights become one: "mean", "sum" or "l2" (of none below 0).
    `pruned`: for grains that rank the members of each unit against each other, and not the
        units: (members, sparsity) -> how many members of every unit to prune. They are given the
        scores of transposed convolutions, as criteria of this library make them, outputs first."""

    name: str
    split: Callable[[Tensor], Tensor]
    merge: Callable[[Tensor, torch.Size], Tensor]
    pooling: str = "mean"
    pruned: Callable[[int, float], int] | None = None

    def pool(self, scores: Tensor) -> Tensor:
        """What is ranked: one score per unit, or per member of each unit."""
        units = self.split(outputs_first(scores) if self.pruned else scores)
        if units.dim() == 1 or self.pruned:
            return units
        return POOLINGS[self.pooling](units.double())  # half precision would change the ranking

    def mask(self, kept: Tensor, scores: Tensor) -> Tensor:
        """The mask that decisions about what `pool` made of the scores come to."""
        if not self.pruned:
            return self.merge(kept, scores.shape)
        merged = self.merge(kept, outputs_first(scores).shape)
        return outputs_first(merged, like=scores).contiguous()

    def pooled(self, pooling: str) -> "Grain":
        """The same grain with another pooling."""
        check_pooling(pooling)
        return dataclasses.replace(self, pooling=pooling)


def check_pooling(pooling: str) -> None:
    """Raise ValueError unless `pooling` is the name of one."""
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is {pooling!r}, but must be one of {', '.join(POOLINGS)}")


def _rows(scores: Tensor) -> Tensor:
    return scores.reshape(len(scores), -1)


def _whole_rows(kept: Tensor, shape: torch.Size) -> Tensor:
    return kept.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone()


element = Grain("element", lambda scores: scores.flatten(), lambda kept, shape: kept.view(shape))

# One unit = one slice along dimension 0: all weights into one output neuron (Linear), one
# embedding vector (Embedding).
row = Grain("row", _rows, _whole_rows)

# The same slice under its name for convolutions: one filter, which makes one output channel.
# (ConvTranspose holds input channels first, so there it is an input channel.)
channel = Grain("channel", _rows, _whole_rows)

# Single weights, ranked only against those into the same output neuron, as Wanda does: round
# (sparsity · columns) go from every row, so what is pruned in all can differ from the sparsity.
in_rows = Grain("in_rows", _rows, element.merge, pruned=lambda size, share: round(share * size))


def block(rows: int, columns: int) -> Grain:
    """Blocks of the matrix (dimension 0) × (all others, flattened), each a unit.

    Raises ValueError on selection if blocks do not tile a layer.
    """
    if min(rows, columns) < 1:
        raise ValueError(f"a block of {rows}×{columns} is empty: both must be at least 1")

    def split(scores: Tensor) -> Tensor:
        matrix = _rows(scores)
        if matrix.shape[0] % rows or matrix.shape[1] % columns:
            height, width = matrix.shape
            raise ValueError(f"blocks of {rows}×{columns} do not tile a matrix of {height}×{width}")
        tiles = matrix.unflatten(0, (-1, rows)).unflatten(2, (-1, columns))
        return tiles.transpose(1, 2).reshape(-1, rows * columns)

    def merge(kept: Tensor, shape: torch.Size) -> Tensor:
        tiles = kept.view(shape[0] // rows, 1, -1, 1)
        return tiles.expand(-1, rows, -1, columns).reshape(shape)

    return Grain(f"block {rows}×{columns}", split, merge)


def n_of_m(n: int, m: int) -> Grain:
    """n weights kept in every group of m neighbours along the input.

    2 of 4 is what sparse tensor cores take (Mishra et al., arXiv 2104.08378, 2021). It goes with
    one sparsity only, 1 - n/m. In a convolution the m neighbours are input channels at the same
    place of the filter, whichever dimension they lie in. Raises ValueError on selection if m does
    not divide their number.
    """
    if not 0 < n < m:
        raise ValueError(f"n is {n} and m is {m}, but 0 < n < m must hold")

    def split(scores: Tensor) -> Tensor:
        if scores.dim() < 2 or scores.shape[1] % m:
            raise ValueError(
                f"m = {m} does not divide the input dimension of {tuple(scores.shape)}"
            )
        return scores.movedim(1, -1).reshape(-1, m)

    def merge(kept: Tensor, shape: torch.Size) -> Tensor:
        return kept.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()

    def pruned(size: int, sparsity: float) -> int:
        if not math.isclose(sparsity, 1 - n / m):
            raise ValueError(f"{n} of {m} prunes exactly {1 - n / m}, but sparsity is {sparsity}")
        return m - n

    return Grain(f"{n}:{m}", split, merge, pruned=pruned)
