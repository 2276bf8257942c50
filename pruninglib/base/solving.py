"""New values for the weights of a Linear layer that stay, so that its outputs change least.

`weight` is (out, in), `moments` Σ x xᵀ over the layer's inputs x, (in, in), both float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def damped(moments: Tensor, damping: float) -> Tensor:
    """`damping` times the mean of the diagonal added to it; one where all inputs are zero."""
    mean = moments.diagonal().mean()
    return moments + torch.eye(len(moments)).to(moments) * (damping * mean if mean > 0 else 1)


def by_columns(
    weight: Tensor, moments: Tensor, choose: Callable[[Tensor, slice], Tensor], step: int
) -> tuple[Tensor, Tensor]:
    """The repaired weight and its mask: each column makes good what those left of it have lost.

    choose(scores, columns): what is kept, bool, from the damage that each weight of `step` columns
    would do.
    """
    weight, columns = weight.clone(), weight.shape[1]
    # Row j of U, U upper and UᵀU the inverse: what column j means for those right of it, those
    # left of it being fixed.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, columns, step):
        part = slice(start, min(start + step, columns))
        scores = (weight[:, part] / upper.diagonal()[part]) ** 2  # OBS: the damage of each
        mask[:, part] = choose(scores, part)
        errors = torch.zeros_like(scores)
        for i, j in enumerate(range(part.start, part.stop)):
            errors[:, i] = weight[:, j] * ~mask[:, j] / upper[j, j]
            weight[:, j : part.stop] -= errors[:, i].outer(upper[j, j : part.stop])
            weight[:, j].masked_fill_(~mask[:, j], 0)
        weight[:, part.stop :] -= errors @ upper[part, part.stop :]  # the rest at once: faster
    return weight, mask


def by_rows(weight: Tensor, moments: Tensor, mask: Tensor) -> Tensor:
    """Least squares for each row on the columns that its mask keeps; zero elsewhere."""
    solved = torch.zeros_like(weight)
    for i, (kept, target) in enumerate(zip(mask, weight @ moments, strict=True)):
        factor = torch.linalg.cholesky(moments[kept][:, kept])
        solved[i, kept] = torch.cholesky_solve(target[kept, None], factor).squeeze(1)
    return solved
