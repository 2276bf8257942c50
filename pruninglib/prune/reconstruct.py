"""One-shot pruning that repairs: the weights that stay make up for those that go.

Everything else in this layer decides which weights to zero; this also changes the others. Layers are
taken in the order in which they run, each with the inputs that the pruned ones before it give. The
batches go through the model twice, whatever its depth, and each keeps what lies between two layers.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from ..base.exact import absolute, keep_highest
from ..base.gradients import Loss, plain_linear
from ..base.layerwise import layer_by_layer
from ..base.solving import by_columns, by_rows, damped
from ..base.state import untouched
from .grains import Grain, element
from .masks import apply, paired
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
    made good by the columns to its right.

    grain: `element`, where the masks of `block` columns are chosen together, `n_of_m` or
        `in_rows`. damping: added to the diagonal of the inputs' second moments, as a fraction
        of its mean. names: default, the weights of plain Linear layers. The loss runs the model.
    Returns the masks; the weights that were pruned are zero. A layer that no input reaches is
    pruned by magnitude, with a warning. Needs memory and time for a square float64 matrix as wide
    as the layer. Raises ValueError, with the model as it was, for other grains, and where the
    grain does not fit a layer.
    """
    if not (grain is element or grain.pruned):
        raise ValueError(f"the grain is {grain.name}, but must be element, n_of_m or in_rows")
    names = plain_linear(model, prunable(model, types=(nn.Linear,))) if names is None else names
    weights = weights_of(model, names)
    masks = {n: select({n: absolute(w)}, sparsity, grain=grain)[n] for n, w in weights.items()}

    def solve(name: str, moments: Tensor) -> Tensor:
        weight = weights[name].double()
        weight, masks[name] = repair(weight, moments, sparsity, grain, damping, block)
        return weight

    _put(model, layer_by_layer(model, weights, loss, batches, solve))
    apply(model, masks)
    return masks


def least_squares(
    model: nn.Module, loss: Loss, batches: Iterable, masks: Masks, *, damping: float = 1e-4
) -> None:
    """Mask a model in place and give what is left of Linear layers the values that keep outputs best.

    For each row w of a weight and the inputs K that its mask keeps, v minimises ‖X_K v - X w‖² +
    λ‖v - w_K‖², X being the layer's inputs on `batches`, λ `damping` times the mean of X's squared
    column norms. One system for each row: for wide layers dear, where `reconstruct` factorises one
    matrix for all (compared by Frantar & Alistarh, "Optimal brain compression", NeurIPS 2022).

    masks: from any criterion; those of other layers are only applied, before anything else. Raises
    ValueError, with the model as it was, if masks do not fit, or none is of a plain Linear layer.
    """
    paired(model, masks)  # fits?
    weights = weights_of(model, plain_linear(model, masks))
    others = {name: mask for name, mask in masks.items() if name not in weights}

    def solve(name: str, moments: Tensor) -> Tensor:
        mask = masks[name].to(moments.device)
        return by_rows(weights[name].double(), damped(moments, damping), mask)

    with untouched(model):
        if others:
            apply(model, others)
        solved = layer_by_layer(model, weights, loss, batches, solve)
    _put(model, solved)
    apply(model, masks)


def _put(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, weight in weights_of(model, list(values)).items():
        weight.detach().copy_(values[name])


def repair(
    weight: Tensor, moments: Tensor, sparsity: float, grain: Grain, damping: float, block: int
) -> tuple[Tensor, Tensor]:
    """The repaired weight (out, in), float64, and its mask, from Σ x xᵀ of its inputs (in, in)."""
    rows = len(weight)

    def choose(scores: Tensor, part: slice) -> Tensor:
        if grain.pruned:
            return select({"": scores}, sparsity, grain=grain)[""]
        # whole numbers that add up to round(sparsity · weights)
        count = round(sparsity * rows * part.stop) - round(sparsity * rows * part.start)
        return keep_highest([scores.flatten()], count)[0].view_as(scores)

    step = grain.split(weight).shape[1] if grain.pruned else block
    return by_columns(weight, damped(moments, damping), choose, step)
