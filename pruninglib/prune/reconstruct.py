"""One-shot pruning that repairs: the weights that stay make up for those that go.

Everything else in this layer decides which weights to zero; this also changes the others.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..base.exact import keep_highest
from ..base.gradients import Loss, each_input, plain_linear, second_moments
from .grains import Grain, element
from .select import Masks, select
from .weights import prunable, weights_of


def reconstruct(
    model: nn.Module,
    loss: Loss,
    batches: Iterable,
    sparsity: float,
    *,
    grain: Grain = element,
    names: list[str] | None = None,
    damping: float = 0.01,
    block: int = 128,
) -> Masks:
    """Prune Linear layers in place, each to `sparsity`, keeping its outputs on `batches`.

    SparseGPT (Frantar & Alistarh, ICML 2023), built on Optimal Brain Surgeon (Hassibi & Stork,
    NeurIPS 1992). Column after column, what pruning a weight does to the layer's output is
    made good by the columns to its right. Layers are taken in the order in which they run,
    each with the inputs that the pruned ones before it give.

    grain: `element`, where the masks of `block` columns are chosen together, `n_of_m` or
        `in_rows`. damping: added to the diagonal of the inputs' second moments, as a fraction
        of its mean. names: default, the weights of plain Linear layers. The loss runs the model.
    Returns the masks; the weights that were pruned are zero. Needs memory and time for a square
    float64 matrix as wide as the layer. Raises ValueError, with the model as it was, for other
    grains, and where the grain does not fit a layer.
    """
    if not (grain is element or grain.pruned):
        raise ValueError(f"the grain is {grain.name}, but must be element, n_of_m or in_rows")
    batches = list(batches)
    names = plain_linear(model, prunable(model, types=(nn.Linear,))) if names is None else names
    weights = weights_of(model, names)
    select({n: w.detach().abs() for n, w in weights.items()}, sparsity, grain=grain)  # fits?

    order: list[str] = []
    each_input(model, weights, loss, batches[:1], lambda name, _: order.append(name))
    found, masks = {name: w.detach().clone() for name, w in weights.items()}, {}
    try:
        for name in dict.fromkeys(order):
            moments = second_moments(model, {name: weights[name]}, loss, batches)
            repaired, masks[name] = repair(
                found[name].double(), moments, sparsity, grain, damping, block
            )
            weights[name].detach().copy_(repaired)
    except BaseException as error:
        for name, weight in weights.items():
            weight.detach().copy_(found[name])
        if isinstance(error, torch.linalg.LinAlgError):
            raise ValueError(f"the inputs of {name} have no inverse: raise damping") from None
        raise
    return {name: masks[name] for name in names}


def repair(
    weight: Tensor, moments: Tensor, sparsity: float, grain: Grain, damping: float, block: int
) -> tuple[Tensor, Tensor]:
    """The repaired weight (out, in), float64, and its mask, from Σ x xᵀ of its inputs (in, in)."""
    rows, columns = weight.shape
    weight = weight.clone()
    mean = moments.diagonal().mean()
    moments = moments + torch.eye(columns).to(moments) * (damping * mean if mean > 0 else 1)
    # Row j of U, U upper and UᵀU the inverse: what column j means for those right of it, those
    # left of it being fixed.
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    upper = torch.linalg.cholesky(inverse, upper=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    step = grain.split(weight).shape[1] if grain.pruned else block
    for start in range(0, columns, step):
        part = slice(start, min(start + step, columns))
        scores = (weight[:, part] / upper.diagonal()[part]) ** 2  # OBS: the damage of each
        if grain.pruned:
            mask[:, part] = select({"": scores}, sparsity, grain=grain)[""]
        else:  # whole numbers that add up to round(sparsity · weights)
            count = round(sparsity * rows * part.stop) - round(sparsity * rows * start)
            mask[:, part] = keep_highest([scores.flatten()], count)[0].view_as(scores)
        errors = torch.zeros_like(scores)
        for i, j in enumerate(range(part.start, part.stop)):
            errors[:, i] = weight[:, j] * ~mask[:, j] / upper[j, j]
            weight[:, j : part.stop] -= errors[:, i].outer(upper[j, j : part.stop])
            weight[:, j].masked_fill_(~mask[:, j], 0)
        weight[:, part.stop :] -= errors @ upper[part, part.stop :]  # the rest at once: faster
    return weight, mask
