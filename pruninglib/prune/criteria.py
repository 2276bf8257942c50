"""*What* is worth keeping? A criterion gives every weight a score; higher means keep.

A criterion is a function of a model that returns a dict from parameter name to a tensor of
that parameter's shape. To add one, write such a function here; nothing else has to know it.
`as_held` lets the scores of a transposed convolution say which dimension its inputs lie along.

    w    a weight                        g    the gradient of the loss with respect to w
    E    the mean over the samples       g_i  the gradient of sample i's loss alone

`loss(model, batch)` returns the mean loss over the batch, a scalar. `batches` is an iterable
of batches: tensors, or tuples, lists or mappings of tensors and whatever else the loss needs, with
samples along dimension 0. `samples(batch)` gives their number where the tensors don't agree on it.
Gradients are taken in the mode (train or eval) in which the model is handed over. The model,
its buffers and gradients and the random state are left as they were.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from ..base.exact import absolute
from ..base.gradients import (
    Loss,
    absolute_flow,
    each_input,
    mean_gradients,
    over_samples,
    plain_linear,
    wide,
)
from ..base.layout import as_held
from ..base.running import Samples
from ..base.state import trainer
from .weights import prunable, weights_of

Scores = dict[str, Tensor]
Names = list[str] | None  # None: all prunable weights
Size = Samples | None  # None: the length of a batch's tensors


def magnitude(model: nn.Module, names: Names = None) -> Scores:
    """|w|: what is small is pruned first (Han et al., NeurIPS 2015)."""
    weights = weights_of(model, names)
    return as_held(model, weights, {name: absolute(weight) for name, weight in weights.items()})


def random(model: nn.Module, names: Names = None, seed: int = 0) -> Scores:
    """Uniform noise in [0, 1): the control that every criterion must beat.

    Each weight's noise depends on `seed` and the order of names, never on the global
    random state, which is left alone.
    """
    # mixed, for `torch.manual_seed(seed)` may have drawn the weights: the same numbers, then
    generator = torch.Generator().manual_seed(seed ^ 0x9E3779B9)
    weights = weights_of(model, names)
    noise = {n: torch.rand(w.shape, generator=generator).to(w.device) for n, w in weights.items()}
    return as_held(model, weights, noise)


def gradient(
    model: nn.Module, loss: Loss, batches: Iterable, names: Names = None, samples: Size = None
) -> Scores:
    """|E[g]|: how fast the loss changes with a weight.

    The score by which RigL grows weights that are zero (Evci et al., ICML 2020). With a grain
    of several weights and L2 pooling it is the norm of the unit's gradient.
    """
    found = mean_gradients(model, weights_of(model, names), loss, batches, samples=samples)
    return {name: g.abs() for name, g in found.items()}


def taylor(
    model: nn.Module,
    loss: Loss,
    batches: Iterable,
    names: Names = None,
    reading: str = "mean",
    samples: Size = None,
) -> Scores:
    """First-order change of the loss when a weight is removed: zeroing w changes it by -g·w.

    Three readings are in use, and they rank differently (`reading`):

    - "mean": |E[g·w]|, the change of the mean loss; near zero everywhere once training has
      converged, because samples cancel (Mozer & Smolensky, NeurIPS 1988);
    - "abs": E|g_i·w|, samples no longer cancel (Molchanov et al., ICLR 2017, per activation);
    - "square": E[(g_i·w)²] (Molchanov et al., CVPR 2019).
    """
    readings = {"mean": None, "abs": torch.abs, "square": torch.square}
    if reading not in readings:
        raise ValueError(f"reading is {reading!r}, but must be one of {', '.join(readings)}")
    weights, each = weights_of(model, names), readings[reading]
    if each is None:  # the mean over samples needs no more than the mean over batches
        gradients = mean_gradients(model, weights, loss, batches, samples=samples)
    else:
        gradients = over_samples(model, weights, loss, batches, each, samples)
    return _times_weights(model, gradients, power=2 if reading == "square" else 1)


def snip(
    model: nn.Module, loss: Loss, batches: Iterable, names: Names = None, samples: Size = None
) -> Scores:
    """|∂L/∂m| at m = 1 for a mask m on every weight, as a share of the sum over all of them.

    The derivative is g·w, so this is `taylor`'s first reading, meant for an untrained network
    (Lee et al., ICLR 2019). Absolute values are taken after summing over the batches. Scores
    lie in [0, 1] and add up to 1; dividing by the sum never changes the ranking.
    """
    scores = taylor(model, loss, batches, names, samples=samples)
    total = sum(float(score.double().sum()) for score in scores.values())
    if total == 0:
        raise ValueError("every gradient is zero: the loss does not depend on these weights")
    return {name: score / total for name, score in scores.items()}


def grasp(
    model: nn.Module, loss: Loss, batches: Iterable, names: Names = None, samples: Size = None
) -> Scores:
    """2·w·(H·E[g]): by how much ‖E[g]‖² falls, to first order, when w is removed.

    H is the Hessian of the mean loss. What carries the gradient is kept, so that an untrained
    network can still learn after pruning (Wang et al., ICLR 2020, who write -w·(H·g) and remove
    the highest). Scores have both signs. Goes through the batches twice. The authors divide the logits
    by 200 before both gradients, which changes the ranking: for that, pass a loss that does.
    """
    weights, batches = weights_of(model, names), list(batches)
    flow = mean_gradients(model, weights, loss, batches, samples=samples)

    def gradient_flow(gradients: dict[str, Tensor]) -> Tensor:
        return 2 * sum((g * flow[n].to(g.dtype)).sum() for n, g in gradients.items())

    # H·E[g] is the gradient of the product of g, which varies, with E[g], which does not
    try:
        products = mean_gradients(model, weights, loss, batches, of=gradient_flow, samples=samples)
    except RuntimeError as error:
        if not re.search("not implemented|not supported|differentiate twice", str(error)):
            raise
        bags = [n for n, m in model.named_modules() if isinstance(m, nn.EmbeddingBag)]
        raise ValueError(
            f"a layer has no second derivative ({', '.join(bags) or error}): take another criterion"
        ) from error
    return {n: p * weights[n].detach().to(p.dtype) for n, p in products.items()}


def synflow(model: nn.Module, example, names: Names = None) -> Scores:
    """|w·∂R/∂w| for R, the summed output of the network of absolute weights on an input of ones.

    Needs no data. The scores of every layer without biases sum to R, so no layer can end empty
    before the others, if pruning goes in many steps: 100 in the paper (Tanaka et al., NeurIPS
    2020). For untrained networks, in evaluation mode; all parameters and buffers are taken as
    absolute values, in float64, for R grows with depth.

    example: what the model is called with; integers (tokens) are used as they are. Of several outputs
    all are summed. Scores are float64.
    """
    return absolute_flow(model, weights_of(model, names), example)


def fisher(
    model: nn.Module, loss: Loss, batches: Iterable, names: Names = None, samples: Size = None
) -> Scores:
    """½·E[g_i²]·w²: the loss that removing w costs, to second order, at a minimum.

    Optimal Brain Damage (LeCun et al., NeurIPS 1989) with the diagonal of the Hessian replaced
    by that of the empirical Fisher information: the mean over *samples* of the squared gradient
    of each. Squaring a batch's mean gradient is another thing, smaller by orders of magnitude.
    In units of the loss.
    """
    weights = weights_of(model, names)
    information = over_samples(model, weights, loss, batches, torch.square, samples)
    return {n: score / 2 for n, score in _times_weights(model, information, power=2).items()}


def wanda(model: nn.Module, loss: Loss, batches: Iterable, names: Names = None) -> Scores:
    """|w_ij|·‖x_j‖₂, x_j being what Linear layers get as input j over all batches and positions.

    Meant to be compared within an output row: `select(..., grain=pruninglib.in_rows)` (Sun et
    al., "A simple and effective pruning approach for large language models", ICLR 2024). Default
    names: the weights of plain Linear layers, and of nothing else. The loss runs the model; its value is not used.
    """
    names = plain_linear(model, prunable(model, types=(nn.Linear,))) if names is None else names
    weights, squares = weights_of(model, names), {}

    def add(name: str, x: Tensor) -> None:
        squares[name] = squares.get(name, 0.0) + x.square().sum(dim=0)  # (positions, in) -> (in,)

    each_input(model, weights, loss, batches, add)
    norms = {
        n: squares[n].sqrt() if n in squares else torch.ones_like(w) for n, w in weights.items()
    }
    return _times_weights(model, norms)


@contextlib.contextmanager
def movement(
    model: nn.Module, optimizer: torch.optim.Optimizer, names: Names = None
) -> Iterator[Scores]:
    """-Σ g·w over the steps of `optimizer` inside the block: weights that move away from zero.

        with movement(model, optimizer) as scores:
            ...  # fine-tune

    A closure counts each time that the optimizer calls it. The scores grow in place and are whole
    when the block ends (Sanh et al., NeurIPS 2020, where weights are pruned meanwhile; for that,
    select from the scores so far). They have both signs. Raises ValueError if the optimizer trains
    none of the weights.
    """
    weights = weights_of(model, names)
    optimizer = trainer(optimizer, weights.values())
    scores = {n: torch.zeros_like(w, dtype=wide(w)).detach() for n, w in weights.items()}
    scores = as_held(model, weights, scores)

    def add() -> None:
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, weight in weights.items():
            if id(weight) in trained and weight.grad is not None:  # others may hold an old one
                scores[name] -= weight.grad.to(scores[name].dtype) * weight.detach()

    def before(_, args: tuple, kwargs: dict):
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            return add()

        def counted():  # inside it the gradients become ready
            value = closure()
            add()
            return value

        return (args[0], counted, *args[2:]), {k: v for k, v in kwargs.items() if k != "closure"}

    hook = optimizer.register_step_pre_hook(before)
    try:
        yield scores
    finally:
        hook.remove()


def _times_weights(model: nn.Module, factors: dict[str, Tensor], power: int = 1) -> Scores:
    """|factor·w^power|, in the factors' dtype."""
    weights = weights_of(model, list(factors))
    return {n: (f * weights[n].detach().to(f.dtype) ** power).abs() for n, f in factors.items()}
